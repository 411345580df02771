import errno
import logging
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomrx.spool import durable
from dicomrx.spool.intake import CLOSED, OPEN, Intake
from dicomrx.spool.layout import Spool
from dicomrx.spool.names import run_start
from dicomrx.spool.watermark import horizon
from tests.conftest import REQUIRE_TOOLS
from tests.spool_rig import NS, advance, die, names, open_spool, receive

ENDLESS = 1 << 62
QUIET = 60 * NS


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with open_spool(tmp_path) as spool:
        yield spool


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB: full is full."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    made = (
        mount and subprocess.run([mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=False, capture_output=True).returncode == 0
    )
    if not made:
        (pytest.fail if REQUIRE_TOOLS else pytest.skip)("a tmpfs cannot be mounted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def runs(spool: Spool) -> list[Path]:
    return sorted(spool.receiving.iterdir())


def test_an_instance_is_nowhere_until_it_is_kept_and_whole_after_it(spool: Spool) -> None:
    intake = Intake(spool)
    reception = intake.begin(3, 7)
    reception.write(b"first ")
    reception.write(memoryview(b"second"))
    assert names(spool.incoming) == []
    (part,) = (path for path in runs(spool)[0].iterdir() if path.suffix == ".part")
    arrival = reception.keep()
    reception.drop()
    assert (spool.incoming / arrival.name).read_bytes() == b"first second"
    assert part.name.startswith(f"{arrival.begin:020d}.3-7.")
    assert not part.exists()
    assert arrival.begin < arrival.end
    assert arrival.id == f"{runs(spool)[0].name[-8:]}-3-7"
    intake.stop(cut=False)


def test_bytes_then_name_are_durable_before_keep_returns(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    intake = Intake(spool)
    reception = intake.begin(1, 1)
    reception.write(b"x")
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(Path(os.readlink(f"/proc/self/fd/{fd}"))))
    reception.keep()
    reception.drop()
    assert [path.suffix or path.name for path in synced[:2]] == [".part", "incoming"]
    intake.stop(cut=False)


def test_a_dropped_instance_leaves_nothing_and_twice_is_once(spool: Spool) -> None:
    intake = Intake(spool)
    reception = intake.begin(1, 1)
    reception.write(b"x")
    for _ in range(2):
        reception.drop()
    assert names(runs(spool)[0]) == [OPEN]
    assert names(spool.incoming) == []
    intake.stop(cut=False)


def test_below_the_floor_nothing_is_taken_in_and_above_it_again_and_what_is_kept_begins_a_run_directory(spool: Spool) -> None:
    intake = Intake(spool)
    (first,) = runs(spool)
    intake._min_free = ENDLESS
    assert not intake.space_left()
    assert names(first) == [CLOSED]
    with pytest.raises(OSError, match="closed") as caught:
        intake.begin(1, 1)
    assert caught.value.errno == errno.ENOSPC
    intake._min_free = 0
    assert intake.space_left()
    assert runs(spool) == [first]
    assert names(first) == [CLOSED]
    assert receive(intake).run == first.name[-8:]
    (second,) = runs(spool)
    assert names(second) == [OPEN]
    began = run_start(second.name)
    assert began is not None
    assert began > (run_start(first.name) or 0)
    assert receive(intake).run == second.name[-8:]
    intake.stop(cut=False)


def test_what_is_tried_again_and_again_holds_back_no_study_that_would_make_room(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each try finds the intake open, for the part that was refused before has gone; that there is no room is told once."""
    with open_spool(small_disk) as spool:
        intake = Intake(spool)
        start = spool.now()
        advance(61, spool)
        for number in range(3):
            reception = intake.begin(1, number + 1)
            with pytest.raises(OSError, match="No space"):
                reception.write(bytes(8 << 20))
            reception.drop()
            assert intake.space_left()
            assert horizon(spool).completes(start, QUIET)
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        intake.stop(cut=False)


def test_an_intake_that_could_not_be_closed_is_closed_at_the_next_look(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    intake = Intake(spool, ENDLESS)

    def fail(_old: Path, _new: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(durable, "move", fail)
        intake.tend()
    assert not horizon(spool).closed
    intake.tend()
    assert horizon(spool).closed
    intake.stop(cut=False)


def test_an_intake_that_refused_nothing_for_a_minute_is_as_open_as_before(spool: Spool) -> None:
    intake = Intake(spool)
    (first,) = runs(spool)
    intake._min_free = ENDLESS
    intake.tend()
    intake._min_free = 0
    advance(59, spool)
    intake.tend()
    assert horizon(spool).closed
    advance(2, spool)
    intake.tend()
    assert not horizon(spool).closed
    assert not first.exists()
    intake.stop(cut=False)


def test_a_reception_that_outlives_a_closing_keeps_its_old_run_directory(spool: Spool) -> None:
    intake = Intake(spool)
    reception = intake.begin(1, 1)
    intake._min_free = ENDLESS
    intake.tend()
    intake._min_free = 0
    intake.tend()
    (old,) = runs(spool)
    arrival = reception.keep()
    assert arrival.run == old.name[-8:]
    assert [names(run)[-1:] for run in runs(spool)] == [[CLOSED], [OPEN]]
    assert horizon(spool).closed
    reception.drop()
    assert not old.exists()
    assert not horizon(spool).closed
    intake.stop(cut=False)


def test_a_full_disk_closes_the_intake_and_leaves_no_torn_file(small_disk: Path) -> None:
    with open_spool(small_disk) as spool:
        intake = Intake(spool)
        (run,) = runs(spool)
        reception = intake.begin(1, 1)
        with pytest.raises(OSError, match="No space") as caught:
            reception.write(bytes(8 << 20))
        assert caught.value.errno == errno.ENOSPC
        assert names(run) == [*names(run)[:1], CLOSED]
        assert horizon(spool).closed
        reception.drop()
        assert names(spool.incoming) == []
        kept = receive(intake, number=2)  # there is room for a small one: the intake has opened again by itself
        assert kept.run == run.name[-8:]
        assert not run.exists()
        assert runs(spool) == [next(path for path in runs(spool) if path != run)]
        intake.stop(cut=False)


def test_where_no_file_can_be_made_the_intake_closes(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    intake = Intake(spool)
    (run,) = runs(spool)
    real = os.open

    def no_inodes(path: Path, flags: int, mode: int = 0o777) -> int:
        if str(path).endswith(".part") and flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", no_inodes)
    with pytest.raises(OSError, match="No space"):
        intake.begin(1, 1)
    assert names(run) == [CLOSED]
    monkeypatch.undo()
    intake.stop(cut=False)


@pytest.mark.parametrize("step", ["sync", "link", "ledger"])
def test_a_disk_that_fails_in_keep_closes_the_intake_and_nothing_is_acknowledged(
    spool: Spool, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake = Intake(spool)
    (run,) = runs(spool)
    reception = intake.begin(1, 1)
    reception.write(b"x")

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        if step == "ledger":
            patch.setattr(intake._run.arrivals, "note", fail)
        else:
            patch.setattr(durable, step, fail)
        with pytest.raises(OSError, match="Input/output"):
            reception.keep()
            reception.drop()
    reception.drop()
    assert len(names(spool.incoming)) == (step == "ledger")  # after the link the instance is kept: a resend is a duplicate
    assert names(run) == [CLOSED]
    assert not intake._open
    intake.stop(cut=False)


def test_a_sick_disk_ends_no_receiver_and_leaks_no_run_directory(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    intake = Intake(spool)
    intake._min_free = ENDLESS
    intake.tend()
    intake._min_free = 0
    before = runs(spool)

    def fail(_: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(spool.ledger, "register", fail)
        for number in range(3):
            reception = intake.begin(1, number + 1)
            with pytest.raises(OSError, match="Input/output"):
                reception.keep()
            reception.drop()
    assert runs(spool) == before
    assert names(spool.incoming) == []
    assert intake.space_left()
    intake.stop(cut=False)


def test_closing_and_opening_are_told(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    intake = Intake(spool)
    for floor in (ENDLESS, ENDLESS, 0, 0):
        intake._min_free = floor
        intake.tend()
    receive(intake)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    intake.stop(cut=False)


def test_a_clean_stop_leaves_no_run_directory(spool: Spool) -> None:
    intake = Intake(spool)
    receive(intake)
    intake.stop(cut=False)
    assert runs(spool) == []


def test_a_stop_that_cuts_leaves_the_run_directory_and_the_next_receiver_removes_it(spool: Spool) -> None:
    intake = Intake(spool)
    intake.begin(1, 1).drop()
    intake.stop(cut=True)
    (left,) = runs(spool)
    assert horizon(spool).blocked
    second = Intake(spool)
    assert left not in runs(spool)
    assert not horizon(spool).blocked
    second.stop(cut=False)


def test_a_stop_while_instances_are_refused_leaves_the_run_directory(spool: Spool) -> None:
    intake = Intake(spool)
    intake._min_free = ENDLESS
    intake.tend()
    intake.stop(cut=False)
    assert len(runs(spool)) == 1
    assert horizon(spool).blocked


def test_the_next_receiver_removes_the_dead_and_what_they_had_begun_but_nothing_acknowledged(spool: Spool, tmp_path: Path) -> None:
    victim = open_spool(tmp_path)
    intake = Intake(victim)
    kept = receive(intake)
    torn = intake.begin(1, 2)
    torn.write(b"half")
    die(victim, intake)
    successor = Intake(spool)
    assert [names(run) for run in runs(spool)] == [[OPEN]]
    assert names(spool.incoming) == [kept.name]
    successor.stop(cut=False)


def test_the_instances_of_many_threads_are_kept_apart(spool: Spool) -> None:
    intake = Intake(spool)

    def send(association: int) -> None:
        for number in range(1, 11):
            receive(intake, f"{association}-{number}".encode(), association, number)

    threads = [threading.Thread(target=send, args=(intake.new_association(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    contents = {path.read_bytes() for path in spool.incoming.iterdir()}
    assert contents == {f"{association}-{number}".encode() for association in range(1, 5) for number in range(1, 11)}
    intake.stop(cut=False)
    assert runs(spool) == []


def test_how_an_association_ended_is_written_down(spool: Spool) -> None:
    intake = Intake(spool)
    intake.note_association(1, calling="CT1", ended="released")
    (path,) = (spool.run_dir / "associations").iterdir()
    assert path.name == runs(spool)[0].name[-8:]
    assert '"calling": "CT1"' in path.read_text()
    intake.stop(cut=False)
