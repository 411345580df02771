"""Any history of receiving, filing, marking, freezing, sending, late arrivals, quarantine and deaths: nothing lost, doubled or cut."""

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dicomrx.spool import durable, incoming, outbox, quarantine
from dicomrx.spool.intake import Intake, Reception
from dicomrx.spool.layout import MANIFEST, RECEIPT, read_json
from dicomrx.spool.names import Arrival
from dicomrx.spool.outbox import Outgoing, frozen_studies
from dicomrx.spool.studies import Study, is_marked, open_studies
from dicomrx.stages.watch import Watch
from tests.spool_rig import NS, SERIES, advance, die, file_one, open_spool

QUIET_S = 60
STUDIES = ("2.25.100", "2.25.200")
INSTANCES = tuple(f"2.25.{number}" for number in range(1, 5))
Content = tuple[str, str]


class Killed(BaseException):
    """The process dies here."""


@contextlib.contextmanager
def dying_at(step: int) -> Iterator[None]:
    """Kill the process at its `step`th change of a directory; 0 lets it live."""
    real = durable.sync_directory
    left = [step]

    def sync_directory(path: Path) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        real(path)

    durable.sync_directory = sync_directory
    try:
        yield
    finally:
        durable.sync_directory = real


steps = st.one_of(st.just(0), st.integers(1, 12))


class Pipeline(RuleBasedStateMachine):
    """The real spool, driven by hand; what was acknowledged and what the API took is remembered beside it."""

    def __init__(self) -> None:
        super().__init__()
        logging.disable()
        durable.set_durable(enabled=False)
        self.root = Path(tempfile.mkdtemp())
        self.receiver = open_spool(self.root)
        self.worker = open_spool(self.root)
        self.intake: Intake | None = Intake(self.receiver)
        self.must_block = False
        self.receptions: list[tuple[Reception, Content]] = []
        self.acknowledged: dict[Arrival, Content] = {}
        self.newest: dict[str, int] = {}
        self.taken: dict[str, list[Content]] = {}
        self.number = 0

    def teardown(self) -> None:
        try:
            self.finish()
        finally:
            self.receiver.close()
            self.worker.close()
            durable.set_durable(enabled=True)
            logging.disable(logging.NOTSET)
            shutil.rmtree(self.root)

    # The receiver

    @rule(study=st.sampled_from(STUDIES), instance=st.sampled_from(INSTANCES))
    def begin(self, study: str, instance: str) -> None:
        if self.intake is not None and self.intake.space_left():
            self.number += 1
            reception = self.intake.begin(1, self.number)
            reception.write(f"{study} {instance}".encode())
            self.receptions.append((reception, (study, instance)))

    @precondition(lambda self: self.receptions)
    @rule(which=st.integers(0, 9), keep=st.booleans())
    def end(self, which: int, keep: bool) -> None:
        reception, content = self.receptions.pop(which % len(self.receptions))
        if keep:
            self.acknowledged[reception.keep()] = content
        else:
            reception.drop()

    @rule(room=st.booleans())
    def room(self, room: bool) -> None:
        if self.intake is not None:
            self.intake._min_free = 0 if room else 1 << 62
            self.intake.tend()
            self.must_block = not room

    @rule()
    def receiver_dies(self) -> None:
        if self.intake is not None:
            die(self.receiver, self.intake)
            for run in {reception._run for reception, _ in self.receptions} - {self.intake._run}:
                run.close(keep=True)
            for reception, _ in self.receptions:
                os.close(reception._fd)
            self.receptions.clear()
            self.intake = None
            self.must_block = True

    @precondition(lambda self: not self.receptions)
    @rule()
    def receiver_stops(self) -> None:
        if self.intake is not None:
            self.intake.stop(cut=False)
            self.intake = None

    @precondition(lambda self: self.intake is None)
    @rule()
    def receiver_starts(self) -> None:
        self.receiver.close()
        self.receiver = open_spool(self.root)
        self.intake = Intake(self.receiver)
        self.must_block = False

    # Time

    @rule(seconds=st.sampled_from([1, 30, 59, 61, 3600]))
    def time_passes(self, seconds: int) -> None:
        advance(seconds, self.receiver, self.worker)

    # The workers

    def work(self, step: int, job: Callable[[], object]) -> None:
        try:
            with dying_at(step):
                job()
        except Killed:
            die(self.worker)
            self.worker = open_spool(self.root)
            self.worker.sweep()

    def file(self, arrival: Arrival) -> None:
        study, instance = (self.worker.incoming / arrival.name).read_text().split()
        file_one(self.worker, arrival, study, instance, f"output of {study} {instance}".encode())

    @rule(which=st.integers(0, 9), step=steps)
    def anonymize(self, which: int, step: int) -> None:
        waiting = incoming.arrivals(self.worker)
        if waiting:
            self.work(step, lambda: self.file(waiting[which % len(waiting)]))

    @rule(which=st.integers(0, 9), step=steps)
    def reject(self, which: int, step: int) -> None:
        waiting = incoming.arrivals(self.worker)
        if waiting:
            path = self.worker.incoming / waiting[which % len(waiting)].name
            self.work(step, lambda: quarantine.put_aside(self.worker, path, "anonymize", "bug"))

    @rule(step=steps)
    def dead_letter(self, step: int) -> None:
        for frozen in frozen_studies(self.worker)[:1]:
            path = self.worker.outbox / frozen.name
            self.work(step, partial(quarantine.put_aside, self.worker, path, "upload", "http-400"))

    @rule(step=steps)
    def requeue(self, step: int) -> None:
        for number, item in enumerate(list(quarantine.items(self.worker))):
            self.work(step, lambda: quarantine.requeue(self.worker, item, number))  # noqa: B023  done at once
            if item.path.exists():
                break
            for arrival in incoming.arrivals(self.worker):
                if arrival.association == 0 and arrival not in self.acknowledged:
                    study, instance = (self.worker.incoming / arrival.name).read_text().split()
                    self.acknowledged[arrival] = (study, instance)

    @rule(step=steps)
    def watch(self, step: int) -> None:
        before = {study for study in STUDIES if is_marked(self.worker, study)}
        bound = self.bound()
        stage = Watch(self.worker, QUIET_S)
        for job in stage.scan():
            self.work(step, lambda: stage.process(job))  # noqa: B023  done at once
            if step:
                break
        for study in STUDIES:
            if study not in before and is_marked(self.worker, study):
                assert not self.must_block, "marked while the receiver was dead or closed"
                assert self.newest_end(study) + QUIET_S * NS <= bound, "marked before its watermark"

    def bound(self) -> int:
        """The watermark as the model knows it; a later `now` than the stage's own, which only makes it see less."""
        waiting = [arrival.begin for arrival in self.acknowledged if (self.worker.incoming / arrival.name).exists()]
        return min([self.worker.now() + NS, *waiting, *(reception._begin for reception, _ in self.receptions)])

    def newest_end(self, study: str) -> int:
        """The end of the newest arrival whose content is in the folder now."""
        folder = self.worker.studies / study / SERIES
        inside = {path.stem for path in folder.iterdir()}
        gone = (arrival for arrival in self.acknowledged if not (self.worker.incoming / arrival.name).exists())
        first: dict[str, int] = {}
        for arrival in sorted(gone):
            where, instance = self.acknowledged[arrival]
            if where == study and instance in inside:
                first.setdefault(instance, arrival.end)
        return max(first.values(), default=0)

    @rule(step=steps, cleanup=st.booleans())
    def upload(self, step: int, cleanup: bool) -> None:
        self.work(step, lambda: self.send_all(cleanup=cleanup))

    def send_all(self, *, cleanup: bool) -> None:
        for study in open_studies(self.worker):
            if is_marked(self.worker, study):
                with Study.locked(self.worker, study) as held:
                    held.freeze()
        for frozen in frozen_studies(self.worker):
            with Outgoing.claimed(self.worker, frozen) as outgoing:
                assert outgoing is not None
                if outgoing.document(RECEIPT) is None:
                    self.send(outgoing)
                sent = outgoing.settle()
                if cleanup:
                    outbox.clean(self.worker, sent)

    def send(self, outgoing: Outgoing) -> None:
        rows = []
        for series, instance in outgoing.instances():
            data = (outgoing.folder / series / f"{instance}.dcm").read_bytes()
            rows.append({"series": series, "instance": instance, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()})
        outgoing.write(MANIFEST, {"instances": rows})
        outgoing.note_attempt({"attempt": 1, "began": "now"})
        key = hashlib.sha256(outgoing.manifest_bytes()).hexdigest() + outgoing.frozen.name
        content = [(outgoing.frozen.study, instance) for _, instance in outgoing.instances()]
        assert content, "an empty study was sent"
        assert self.taken.setdefault(key, content) == content, "one key, two contents"
        outgoing.write(RECEIPT, {"status": 201})

    # Promises

    def places(self) -> Counter[Content]:
        """Where every content is, but in `receiving/`."""
        found: Counter[Content] = Counter()
        spool = self.worker
        for path in [*spool.incoming.iterdir(), *spool.quarantine.rglob("*.dcm")]:
            study, instance = path.read_text().split()
            found[study, instance] += 1
        for parent in (spool.studies, spool.outbox, spool.sent, spool.failed):
            for folder in parent.iterdir():
                study = ".".join(folder.name.split(".")[:3])
                there = {path.stem for path in folder.rglob("*.dcm")}
                if (folder / RECEIPT).exists():
                    there |= {row["instance"] for row in (read_json(folder / MANIFEST) or {})["instances"]}
                for instance in there:
                    found[study, instance] += 1
        return found

    @invariant()
    def nothing_acknowledged_is_lost(self) -> None:
        found = self.places()
        for content in self.acknowledged.values():
            assert found[content] >= 1, f"lost {content}"

    @invariant()
    def a_marker_is_never_beside_an_instance_it_does_not_name(self) -> None:
        for frozen in frozen_studies(self.worker):
            folder = self.worker.outbox / frozen.name
            marker = read_json(folder / ".complete")
            assert marker is not None
            assert {path.stem for path in folder.rglob("*.dcm")} == {instance for _, instance, _ in marker["files"]}

    def finish(self) -> None:
        """Let everything run to its end: each acknowledged instance has arrived exactly once."""
        for reception, _ in self.receptions:
            reception.drop()
        self.receptions.clear()
        if self.intake is None:
            self.receiver_starts()
        self.room(room=True)
        while list(quarantine.items(self.worker)):
            self.requeue(step=0)
        for arrival in incoming.arrivals(self.worker):
            self.file(arrival)
        for _ in range(2):
            advance(61, self.receiver, self.worker)
            self.watch(step=0)
        self.send_all(cleanup=True)
        assert self.intake is not None
        self.intake.stop(cut=False)
        arrived = Counter(content for contents in self.taken.values() for content in contents)
        assert arrived == Counter(set(self.acknowledged.values()))
        assert set(self.places().values()) <= {1}
        assert list(self.worker.studies.iterdir()) == []


TestPipeline = pytest.mark.filterwarnings("error")(Pipeline.TestCase)
TestPipeline.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
