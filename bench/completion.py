"""How long completion takes: a look at open studies where nothing changed, and the marker of a large study."""

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

from dicomrx.spool import durable
from dicomrx.spool.completion import Rules
from dicomrx.spool.evidence import Sighting
from dicomrx.spool.intake import Intake
from dicomrx.spool.layout import ARRIVED, Spool
from dicomrx.spool.ledger import Fate
from dicomrx.spool.names import Arrival
from dicomrx.stages.watch import Watch
from telling.machine import facts
from telling.page import Bars, Gate, Page, add_arguments, parse

INTRODUCTION = """\
Made by `bench/completion.py`. A look at open studies, each past the shortest of its waits and not past its own, and the marker of one
study, gaps in its series; nothing is synced. Seconds are the best of several; *growth* is time over size against that of the first row."""
SERIES = 4
STUDIES = (250, 1000, 4000)
INSTANCES = (2500, 10_000, 40_000)
RULES = Rules(3600.0, {"CT1": 7200.0}, {"MR": 600.0}, evidence_wait_s=14_400.0)


def fill(spool, study, instances, *, age_s=0.0):
    """A study as anonymize leaves it, its newest arrival so long ago; a gap in each series, so that evidence matters."""
    folder = spool.studies / study
    (run,) = spool.receiver_runs()
    lines = []
    for number in range(instances):
        series = f"2.25.{number % SERIES}"
        instance = f"2.25.{10**30 + number}"
        (folder / series).mkdir(parents=True, exist_ok=True)
        (folder / series / f"{instance}.dcm").touch()
        told = (str(2 * number), "CT", "CT1")
        lines.append(f"\n{Sighting.of(Arrival(0, 0, run, 1 + number // 1000, number), Fate.FILED, (series, instance), told)}")
    (spool.run_dir / "evidence" / study).write_text("".join(lines))
    (folder / ARRIVED).touch()
    arrived = spool.now() - int(age_s * 1e9)
    os.utime(folder / ARRIVED, ns=(arrived, arrived))


def scan(count, repeats):
    """Best time of a look at `count` open studies, each past the shortest of its waits and not past its own."""
    with spool_with_receiver() as spool:
        for number in range(count):
            fill(spool, f"2.25.{1000 + number}", SERIES, age_s=5000.0)
        stage = Watch(spool, RULES)
        for job in stage.scan():
            stage.process(job)
        return best(lambda: list(stage.scan()), repeats, expect=[])


def mark(instances, repeats):
    """Best time from the scan to the marker of a study of so many instances."""
    with spool_with_receiver() as spool:
        fill(spool, "2.25.1000", instances, age_s=20_000.0)
        marker = spool.studies / "2.25.1000" / ".complete"

        def once():
            stage = Watch(spool, RULES)
            for job in stage.scan():
                stage.process(job)
            return marker.exists()

        return best(once, repeats, expect=True, after=marker.unlink)


class spool_with_receiver:  # noqa: N801
    """A spool whose receiver began long ago and has served a few thousand associations."""

    def __enter__(self):
        self.root = Path(tempfile.mkdtemp())
        self.spool = Spool.open(self.root / "storage", self.root / "zips", make=True)
        self.intake = Intake(self.spool)
        (began,) = self.spool.receiving.iterdir()
        began.rename(began.with_name(f"{self.spool.now() - 10**14:020d}.{began.name[-8:]}"))
        for number in range(1, 3000):
            self.intake.note_association(number, calling="CT1", called="DICOMRCV", peer="127.0.0.1", ended="released", instances=1)
        return self.spool

    def __exit__(self, *_):
        self.spool.close()
        shutil.rmtree(self.root)


def best(do, repeats, *, expect, after=lambda: None):
    """The shortest of several runs."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        found = do()
        times.append(time.perf_counter() - began)
        assert found == expect
        after()
    return min(times)


def tell(page, title, times):
    first_size, first_s = next(iter(times.items()))
    rows = [(f"{size:,}", f"{seconds:.4f}", f"{seconds / size / (first_s / first_size):.2f}") for size, seconds in times.items()]
    page.table(title, ("", "s", "growth"), rows, Bars("s", {f"{size:,}": seconds for size, seconds in times.items()}))


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, repeats=7)
    chosen = parse(parser)
    durable.set_durable(enabled=False)
    studies, instances = ([count // (50 if chosen.quick else 1) for count in counts] for counts in (STUDIES, INSTANCES))
    page = Page("completion", "Completion", INTRODUCTION, facts(**{"best of": chosen.repeats}))
    scans = {count: scan(count, chosen.repeats) for count in studies}
    marks = {count: mark(count, chosen.repeats) for count in instances}
    tell(page, "A look at open studies", scans)
    tell(page, "The marker of a study of so many instances", marks)
    page.gate(Gate(f"a look at {studies[1]:,} open studies", "s", scans[studies[1]], 0.1, 0.1, at_most=True))
    page.gate(Gate(f"the marker for {instances[1]:,} instances", "s", marks[instances[1]], 1, 1, at_most=True))
    page.judge()
    page.write(chosen.out, scan_s=scans, mark_s=marks)


if __name__ == "__main__":
    main()
