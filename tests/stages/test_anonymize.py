"""The stage that de-identifies, run step by step."""

import errno
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from dicomrx import deid
from dicomrx.errors import Taken
from dicomrx.jobs import Job
from dicomrx.profiles import Profiles
from dicomrx.runner import Runner
from dicomrx.spool import aio, incoming, spares
from dicomrx.spool.intake import Intake
from dicomrx.spool.layout import Spool
from dicomrx.spool.names import Arrival
from dicomrx.stages.anonymize import Anonymize
from dicomrx.vault import State, open_bound
from tests.spool_rig import receive
from tests.unit.deid_files import element, file_of, joined, needed


def image(number: int) -> bytes:
    return file_of(joined(needed() | {0x00080018: ("UI", b"1.2.3.4.3.%d" % number)}) + element(0x7FE00010, "OW", b"\1\2"))


def stage_of(spool: Spool, state: State) -> Anonymize:
    return Anonymize(spool, state, profiles=Profiles(deid.BASIC, {}), burned_in="pass", issuers={}, placeholders=())


def test_headers_are_remembered_while_there_is_work_and_no_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = deid.Memory()
    monkeypatch.setattr(deid, "Memory", lambda: memory)
    spool = Spool.open(tmp_path / "storage", tmp_path / "zips", make=True)
    intake = Intake(spool)

    def is_known() -> bool:
        return deid.read(io.BytesIO(image(9)), memory).dataset.halves is not None

    with open_bound(tmp_path / "state", spool) as state:
        stage = stage_of(spool, state)
        for number in (1, 2):
            receive(intake, image(number), 1, number)
        for job in stage.scan():
            stage.process(job)
        assert len(list(spool.studies.glob("*/*/*.dcm"))) == 2
        assert is_known()
        assert list(stage.scan()) == []
        assert not is_known()


def test_the_files_of_inputs_become_those_of_later_outputs_and_nothing_is_left_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool.open(tmp_path / "storage", tmp_path / "zips", make=True)
    intake = Intake(spool)
    long, short = image(1) + b"\x09\x00\x10\x00LO\xe8\x03" + b"IDENTITY" * 125, image(2)
    with open_bound(tmp_path / "state", spool) as state:
        stage = stage_of(spool, state)
        inodes = []
        for number, data in enumerate((long, short), 1):
            arrival = receive(intake, data, 1, number)
            inodes.append((spool.incoming / arrival.name).stat().st_ino)
            for job in stage.scan():
                stage.process(job)
        outputs = {path.stat().st_ino: path for path in spool.studies.glob("*/*/*.dcm")}
        assert len(outputs) == 2
        assert inodes[0] in outputs
        assert b"IDENTITY" not in b"".join(path.read_bytes() for path in outputs.values())
        assert list(spool.scratch.path.glob("*.part")) != []
        receive(intake, image(3), 1, 3)  # and another process has it
        monkeypatch.setattr(spares, "_REST_S", 0.0)
        assert len(list(stage.scan())) == 1
        assert list(spool.scratch.path.glob("*.part")) == []


def test_what_another_process_has_is_told_as_theirs(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "storage", tmp_path / "zips", make=True)
    job = Job(spool.incoming, receive(Intake(spool), image(1)).name)
    with open_bound(tmp_path / "state", spool) as state:
        stage = stage_of(spool, state)
        with incoming.claimed(job.at), pytest.raises(Taken):
            stage.process(job)
        stage.process(job)


def backlog(spool: Spool, count: int) -> list[Arrival]:
    intake = Intake(spool)
    return [receive(intake, image(number), 1, number) for number in range(1, count + 1)]


@contextmanager
def beside_another(tmp_path: Path, count: int) -> Iterator[tuple[Spool, Anonymize]]:
    """A stage at a backlog of so many, the first batch of which another has in hand for ever."""
    spool = Spool.open(tmp_path / "storage", tmp_path / "zips", make=True)
    arrivals = backlog(spool, count)
    with open_bound(tmp_path / "state", spool) as state, ExitStack() as theirs:
        for arrival in arrivals[: Anonymize.batch]:
            theirs.enter_context(incoming.claimed(spool.incoming / arrival.name))
        yield spool, stage_of(spool, state)


def numbers(jobs: Iterable[Job]) -> list[int]:
    return [arrival.number for job in jobs if (arrival := Arrival.parse(job.name))]


def test_who_finds_another_at_work_leaves_it_a_stretch_and_looks_at_that_again(tmp_path: Path) -> None:
    with beside_another(tmp_path, 300) as (_, stage):
        jobs = iter(stage.scan())
        first = [next(jobs) for _ in range(Anonymize.batch)]
        assert {type(error) for error in stage.process_all(first).values()} == {Taken}
        assert numbers(jobs) == list(range(257, 301))
        assert stage.ready_in() == 0
        jobs = iter(stage.scan())
        stage.process_all([next(jobs) for _ in range(Anonymize.batch)])
        assert numbers(jobs) == list(range(Anonymize.batch + 1, 301))
        assert stage.ready_in() is None


def test_what_another_holds_for_ever_keeps_nothing_else_from_being_filed(tmp_path: Path) -> None:
    with beside_another(tmp_path, 100) as (spool, stage):
        assert Runner(stage, spool).once().done == 100 - Anonymize.batch
        assert len(incoming.arrivals(spool)) == Anonymize.batch


def test_an_output_that_could_not_be_synced_is_not_filed_though_the_same_call_would_succeed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells of a failed write once, and then holds for written what is not: its file may still hold an identity."""
    spool = Spool.open(tmp_path / "storage", tmp_path / "zips", make=True)
    intake = Intake(spool)
    with open_bound(tmp_path / "state", spool) as state:
        stage = stage_of(spool, state)
        for number in (1, 2):
            receive(intake, image(number), 1, number)
        fsync = os.fsync
        told: list[int] = []

        def tells_once(fd: int) -> None:
            if not told and os.readlink(f"/proc/self/fd/{fd}").startswith(f"{spool.scratch.path}/"):
                told.append(fd)
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            fsync(fd)

        with monkeypatch.context() as patched:
            patched.setattr(aio, "fsync", lambda fds: [])  # one by one, then
            patched.setattr(os, "fsync", tells_once)
            failed = stage.process_all(list(stage.scan()))
        assert [job.path for job in failed] == list(spool.incoming.iterdir())
        assert len(failed) == len(list(spool.studies.glob("*/*/*.dcm"))) == 1
