"""Time per instance at 100 and at 4,000 studies: of the look-up of its patient alone, and of all that `anonymize` does with it."""

import argparse
import contextlib
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from dicomrx.jobs import Job
from dicomrx.settings import Settings
from dicomrx.spool import durable
from dicomrx.spool.intake import Intake
from dicomrx.spool.layout import Spool
from dicomrx.stages.anonymize import build
from dicomrx.vault import Placeholders, State, identify
from making.folders import in_memory
from telling.machine import facts
from telling.page import Page, add_arguments, parse
from tests import factories

INTRODUCTION = """\
Made by `bench/identities.py`. Two sites, with few and with many studies of as many patients, take turns, instance by instance, so that
whatever else the machine does meets both; medians of rounds of 50 instances, in microseconds, in memory (tmpfs), not durable."""
FEW, MANY, INSTANCES = 100, 4000, 50
NOTHING = Placeholders()


class Site:
    """A spool and its state, with so many studies of as many patients."""

    def __init__(self, root: Path, studies: int, stack: contextlib.ExitStack) -> None:
        self.spool = stack.enter_context(Spool.open(root / "spool", root / "zips", make=True))
        self.stage = stack.enter_context(build(self.spool, Settings(state_dir=root / "state")))
        self.state = stack.enter_context(State.open(root / "state", create=True))
        self.intake = Intake(self.spool)
        self.file = root / "one.dcm"
        self.studies = studies
        for study in range(studies):
            self.filing(study, 0)

    def filing(self, study: int, number: int) -> float:
        """One instance from `incoming/` to `studies/`."""
        factories.write(self.file, factories.dataset(study, 1, number, patient_id=f"A{study:05d}", name=f"N{study}^A"))
        reception = self.intake.begin(self.intake.new_association(), 1)
        reception.write(self.file.read_bytes())
        reception.keep()
        reception.drop()
        (arrived,) = self.spool.incoming.iterdir()
        start = time.perf_counter()
        self.stage.process(Job(arrived.parent, arrived.name))
        return time.perf_counter() - start

    def lookup(self, study: int, _number: int) -> float:
        """The patient of one instance, who is known."""
        facts = {"patient_id": f"A{study:05d}", "issuer": "", "name": f"N{study}^A", "birth_date": "19470923"}
        start = time.perf_counter()
        self.state.patient(identify(**facts, study_uid=factories.uid(1, study), placeholders=NOTHING))
        return time.perf_counter() - start


def compare(kind: str, few: Site, many: Site, rounds: int) -> tuple[float, float, float]:
    """Microseconds at the one and at the other, and how much more."""
    found = []
    for turn in range(rounds):
        times = {few: [], many: []}
        for number in range(turn * INSTANCES + 1, (turn + 1) * INSTANCES + 1):
            for site in (few, many) if number % 2 else (many, few):
                times[site].append(getattr(site, kind)(number * 37 % site.studies, number))
        found.append([statistics.median(times[site]) * 1e6 for site in (few, many)])
    at_few, at_many = (statistics.median(column) for column in zip(*found, strict=True))
    return at_few, at_many, statistics.median(after / before for before, after in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, repeats=9)
    chosen = parse(parser)
    many_studies = FEW * 2 if chosen.quick else MANY
    durable.set_durable(enabled=False)
    page = Page("identities", "Patients looked up", INTRODUCTION, facts(rounds=chosen.repeats))
    with in_memory() as folder, contextlib.ExitStack() as stack:
        few, many = (Site(folder / str(studies), studies, stack) for studies in (FEW, many_studies))
        found = {kind: compare(kind, few, many, chosen.repeats) for kind in ("lookup", "filing")}
    rows = [(kind, f"{at_few:.0f}", f"{at_many:.0f}", f"{ratio:.3f}") for kind, (at_few, at_many, ratio) in found.items()]
    columns = ("", f"us at {FEW:,} studies", f"us at {many_studies:,}", "times")
    page.table("An instance", columns, rows)
    page.write(chosen.out, **found)


if __name__ == "__main__":
    main()
