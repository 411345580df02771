"""Any history of receiving, filing, marking, freezing, sending, late arrivals, quarantine and deaths: nothing lost, doubled or cut."""

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from dicomrx.spool import durable, incoming, outbox, quarantine, watermark
from dicomrx.spool.completion import Rules
from dicomrx.spool.intake import Intake, Reception
from dicomrx.spool.layout import MANIFEST, RECEIPT, Spool, read_json
from dicomrx.spool.names import Arrival
from dicomrx.spool.outbox import Outgoing, frozen_studies
from dicomrx.spool.sending import Step
from dicomrx.spool.spares import Spares
from dicomrx.spool.studies import Study, is_marked, open_studies
from dicomrx.stages.watch import Watch
from tests.spool_rig import NS, advance, die, file_one, open_spool

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

    def sync_directory(path: Path | str) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        real(path)

    durable.sync_directory = sync_directory
    try:
        yield
    finally:
        durable.sync_directory = real


steps = st.sampled_from([*[0] * 8, *range(1, 13)])
contents = st.tuples(st.sampled_from(STUDIES), st.sampled_from(INSTANCES))


class Pipeline(RuleBasedStateMachine):
    """The real spool, driven by hand; what was acknowledged and what the API took is remembered beside it."""

    def __init__(self) -> None:
        super().__init__()
        logging.disable()
        durable.set_durable(enabled=False)
        self.root = Path(tempfile.mkdtemp())
        self.receiving = open_spool(self.root)
        self.worker = open_spool(self.root)
        self.spares = Spares(self.worker, 4)
        self.intake: Intake | None = Intake(self.receiving)
        self.started = self.receiving.now()
        self.dead = False
        self.closed_at: int | None = None
        self.receptions: list[tuple[Reception, Content]] = []
        self.acknowledged: dict[Arrival, Content] = {}
        self.latest: Arrival
        self.newest: dict[str, int] = {}
        self.taken: dict[str, list[Content]] = {}
        self.number = 0

    def teardown(self) -> None:
        try:
            self.finish()
        finally:
            self.receiving.close()
            self.worker.close()
            durable.set_durable(enabled=True)
            logging.disable(logging.NOTSET)
            shutil.rmtree(self.root)

    # The receiver

    def start(self) -> None:
        self.receiving.close()
        self.receiving = open_spool(self.root)
        self.started = self.receiving.now()
        self.intake = Intake(self.receiving)
        self.dead = False
        self.closed_at = None

    def die(self) -> None:
        if self.intake is not None:
            die(self.receiving, self.intake)
            for run in {reception._run for reception, _ in self.receptions} - {self.intake._run}:
                run.close(keep=True)
            for reception, _ in self.receptions:
                os.close(reception._fd)
            self.receptions.clear()
            self.intake = None
            self.dead = True

    def stop(self) -> None:
        if self.intake is not None and not self.receptions and self.closed_at is None:
            self.intake.stop(cut=False)
            self.intake = None

    def close(self) -> None:
        if self.intake is not None:
            self.intake._min_free = 1 << 62
            self.tend()
            if self.closed_at is None:
                self.closed_at = min([self.receiving.now(), *(reception._begin for reception, _ in self.receptions)])

    def open(self) -> None:
        if self.intake is None:
            self.start()
        else:
            self.intake._min_free = 0
            self.tend()

    def tend(self) -> None:
        """As the receiver does now and then; open again, it begins anew after a minute, or with what is kept."""
        if self.intake is not None:
            before = self.receiving.now()
            self.intake.tend()
            self.look_whether_it_began_anew(before)

    def look_whether_it_began_anew(self, since: int) -> None:
        if self.intake is not None and self.closed_at is not None and not self.intake._run.closed:
            self.started = since
            self.closed_at = None

    def reboot(self, hours: int) -> None:
        """Everything dies, and the wall clock comes back wrong by so much."""
        self.die()
        for spool in (self.receiving, self.worker):
            die(spool)
        for anchor in (self.root / "storage" / ".run" / "clock").glob("[!.]*"):
            anchor.unlink()
        right = time.time_ns
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "time_ns", lambda: right() + hours * 3600 * NS)
            self.receiving, self.worker = open_spool(self.root), open_spool(self.root)
            self.spares = Spares(self.worker, 4)
            self.worker.now()
        self.worker.sweep()

    @rule(hours=st.sampled_from([-24 * 365, -2, 2]), step=steps)
    def wrong_clock_at_boot(self, hours: int, step: int) -> None:
        self.reboot(hours)
        self.watch(step)

    @rule(how=st.lists(st.sampled_from(["die", "stop", "close", "open"]), min_size=1, max_size=3), step=steps)
    def receiver(self, how: list[str], step: int) -> None:
        for event in how:
            getattr(self, event)()
        self.time_passes(61, step)

    @precondition(lambda self: self.intake is not None and not self.intake._min_free and len(self.receptions) < 3)
    @rule(content=contents)
    def begin(self, content: Content) -> None:
        assert self.intake is not None
        self.number += 1
        reception = self.intake.begin(1, self.number)
        reception.write(" ".join(content).encode())
        self.receptions.append((reception, content))

    @precondition(lambda self: self.receptions)
    @rule(which=st.integers(0, 2), keep=st.booleans())
    def end(self, which: int, keep: bool) -> None:
        reception, content = self.receptions.pop(which % len(self.receptions))
        if keep:
            before = self.receiving.now()
            self.latest = reception.keep()
            self.look_whether_it_began_anew(before)
            reception.drop()
            self.acknowledged[self.latest] = content
        else:
            reception.drop()

    @rule(content=contents, slow=st.booleans())
    def receive(self, content: Content, slow: bool = False) -> None:
        self.open()
        self.begin(content)
        if slow:
            advance(61, self.receiving, self.worker)
        self.end(-1, keep=True)

    @rule(content=contents, step=steps)
    def receive_and_file(self, content: Content, step: int) -> None:
        self.receive(content)
        self.work_off(self.latest, step)

    # Time

    @rule(seconds=st.sampled_from([1, 59, 61]), step=steps)
    def time_passes(self, seconds: int, step: int) -> None:
        advance(seconds, self.receiving, self.worker)
        self.tend()
        self.watch(step)

    @rule(content=contents)
    def a_study_completes(self, content: Content) -> None:
        self.receive_and_file(content, step=0)
        self.time_passes(61, step=0)

    # The workers

    def work(self, step: int, job: Callable[[], object]) -> None:
        try:
            with dying_at(step):
                job()
        except Killed:
            die(self.worker)
            self.worker = open_spool(self.root)
            self.spares = Spares(self.worker, 4)
            self.worker.sweep()

    def file(self, arrival: Arrival) -> None:
        study, instance = (self.worker.incoming / arrival.name).read_text().split()
        file_one(self.worker, arrival, study, instance, f"output of {study} {instance}".encode(), self.spares)

    def work_off(self, arrival: Arrival, step: int) -> None:
        self.work(step, lambda: self.file(arrival))
        study, _ = self.acknowledged[arrival]
        if not (self.worker.incoming / arrival.name).exists() and (self.worker.studies / study).is_dir():
            self.newest[study] = max(arrival.end, self.newest.get(study, 0))

    @rule(which=st.integers(0, 9), step=steps)
    def anonymize(self, which: int, step: int) -> None:
        waiting = incoming.arrivals(self.worker)
        if waiting:
            self.work_off(waiting[which % len(waiting)], step)

    @rule(content=contents, step=steps)
    def reject(self, content: Content, step: int) -> None:
        self.receive(content)
        path = self.worker.incoming / self.latest.name
        self.work(step, lambda: quarantine.put_aside(self.worker, path, "anonymize", "bug"))

    @rule(content=contents, step=steps)
    def dead_letter(self, content: Content, step: int) -> None:
        self.a_study_completes(content)
        self.freeze_all()
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

    def watch(self, step: int) -> None:
        before = {study for study in STUDIES if is_marked(self.worker, study)}
        bound = self.bound()
        stage = Watch(self.worker, Rules(QUIET_S))
        for job in stage.scan():
            self.work(step, lambda: stage.process(job))  # noqa: B023  done at once
            if step:
                break
        for study in STUDIES:
            if study not in before and is_marked(self.worker, study):
                assert not self.dead, "marked while the receiver was dead"
                assert self.newest[study] + QUIET_S * NS <= bound, "marked before its watermark"
                assert self.intake is None or self.started + QUIET_S * NS <= bound, "marked for quiet from before the receiver's start"

    def bound(self) -> int:
        """The watermark as the model knows it; a later `now` than the stage's own, which only makes it see less."""
        waiting = [arrival.begin for arrival in self.acknowledged if (self.worker.incoming / arrival.name).exists()]
        closed = [] if self.closed_at is None else [self.closed_at]
        return min([self.worker.now() + NS, *waiting, *closed, *(reception._begin for reception, _ in self.receptions)])

    def freeze_all(self) -> None:
        for study in open_studies(self.worker):
            with Study.locked(self.worker, study) as held:
                if held.freeze() is not None:
                    self.newest.pop(study, None)

    @rule(step=steps, cleanup=st.booleans(), freeze_only=st.booleans())
    def upload(self, step: int, cleanup: bool, freeze_only: bool) -> None:
        self.work(step, self.freeze_all)
        if not freeze_only:
            self.work(step, lambda: self.send_all(cleanup=cleanup))

    def send_all(self, *, cleanup: bool) -> None:
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
        outgoing.note(Step.SENDING, attempt=1)
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
        self.open()
        while list(quarantine.items(self.worker)):
            self.requeue(step=0)
        for arrival in incoming.arrivals(self.worker):
            self.work_off(arrival, 0)
        for _ in range(2):  # the receiver may have been closed a moment ago
            self.time_passes(61, step=0)
        self.freeze_all()
        self.send_all(cleanup=True)
        assert self.intake is not None
        self.intake.stop(cut=False)
        arrived = Counter(content for contents in self.taken.values() for content in contents)
        assert arrived == Counter(set(self.acknowledged.values()))
        assert set(self.places().values()) <= {1}
        assert list(self.worker.studies.iterdir()) == []


TestPipeline = pytest.mark.filterwarnings("error")(Pipeline.TestCase)
TestPipeline.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def test_with_end_stamps_in_the_watermark_the_model_finds_a_study_marked_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in reception has no end yet, and what waits to be filed is as old as its end: the rule of those who look at files alone."""
    real = incoming.look

    def look(spool: Spool) -> incoming.Listing:
        seen = real(spool)
        return incoming.Listing(sorted(arrival._replace(begin=arrival.end) for arrival in seen.arrivals), seen.foreign)

    monkeypatch.setattr(watermark, "look", look)
    monkeypatch.setattr(watermark, "_begins", lambda run: [])
    quickly = settings(TestPipeline.settings, max_examples=2000, phases=[Phase.generate], derandomize=True, print_blob=False)
    with pytest.raises(AssertionError, match=r"marked (before its watermark|for quiet from before)"):
        run_state_machine_as_test(Pipeline, settings=quickly)
