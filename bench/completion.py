"""How long completion takes: a look at open studies where nothing changed, and the marker of a large study.

Prints one line of JSON; times are seconds, the best of several runs. Growth is time over size, compared with that of the smallest size:
1 is linear.
"""

import json
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

SERIES = 4
RUNS = 7
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
    durable.set_time(folder / ARRIVED, spool.now() - int(age_s * 1e9))


def scan(count):
    """Best time of a look at `count` open studies, each past the shortest of its waits and not past its own."""
    with spool_with_receiver() as spool:
        for number in range(count):
            fill(spool, f"2.25.{1000 + number}", SERIES, age_s=5000.0)
        stage = Watch(spool, RULES)
        for job in stage.scan():
            stage.process(job)
        return best(lambda: list(stage.scan()), expect=[])


def mark(instances):
    """Best time from the scan to the marker of a study of so many instances."""
    with spool_with_receiver() as spool:
        fill(spool, "2.25.1000", instances, age_s=20_000.0)
        marker = spool.studies / "2.25.1000" / ".complete"

        def once():
            stage = Watch(spool, RULES)
            for job in stage.scan():
                stage.process(job)
            return marker.exists()

        return best(once, expect=True, after=marker.unlink)


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


def best(do, *, expect, after=lambda: None):
    """The shortest of several runs."""
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        found = do()
        times.append(time.perf_counter() - began)
        assert found == expect
        after()
    return min(times)


def growth(times):
    """How much more each size takes for its size than the smallest one."""
    (first_size, first_s), *others = times.items()
    return {size: round(seconds / size / (first_s / first_size), 2) for size, seconds in others}


def main():
    """Measure and print."""
    scans = {count: scan(count) for count in STUDIES}
    marks = {count: mark(count) for count in INSTANCES}
    print(
        json.dumps(
            {
                "bench": "completion",
                "scan_s": {count: round(seconds, 4) for count, seconds in scans.items()},
                "scan_growth": growth(scans),
                "mark_s": {count: round(seconds, 4) for count, seconds in marks.items()},
                "mark_growth": growth(marks),
                "goals": {"scan 1000 studies < 0.1 s": scans[1000] < 0.1, "mark 10000 instances < 1 s": marks[10_000] < 1},
            }
        )
    )


main()
