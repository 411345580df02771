"""Files that are used again: nothing of what was in them is left, and only such are used as nobody else can have a hand on."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomrx.spool import durable, incoming
from dicomrx.spool import spares as module
from dicomrx.spool.intake import Intake
from dicomrx.spool.layout import Spool
from dicomrx.spool.ledger import Fate
from dicomrx.spool.names import Arrival
from dicomrx.spool.spares import Spares
from tests.spool_rig import drop, finished, names, open_spool, receive


@pytest.fixture
def spares(spool: Spool) -> Spares:
    spares = Spares(spool, 4)
    finished(spares, b"the first is new").unlink()
    return spares


def inode_of(spool: Spool, arrival: Arrival) -> int:
    return (spool.incoming / arrival.name).stat().st_ino


def finish(spool: Spool, spares: Spares, *arrivals: Arrival) -> None:
    incoming.finish(spool, dict.fromkeys(arrivals, Fate.FILED), spares)
    assert names(spool.incoming) == []


def kept(spares: Spares, spool: Spool) -> int:
    found = [path for path in spool.scratch.path.glob("*.part") if path.stat().st_size]
    assert set(found) == set(spares._paths)
    return len(found)


@given(before=st.binary(max_size=64), after=st.binary(max_size=64))
def test_of_what_was_in_a_file_nothing_is_left(tmp_path_factory: pytest.TempPathFactory, before: bytes, after: bytes) -> None:
    with open_spool(tmp_path_factory.mktemp("spool")) as spool:
        intake, spares = Intake(spool), Spares(spool, 4)
        finished(spares, b"the first is new").unlink()
        arrival = receive(intake, before)
        inode = inode_of(spool, arrival)
        finish(spool, spares, arrival)
        part = finished(spares, after)
        assert part.stat().st_ino == inode
        assert part.read_bytes() == after
        intake.stop(cut=False)


def test_a_received_input_becomes_the_next_output(spool: Spool, intake: Intake, spares: Spares) -> None:
    arrival = receive(intake)
    inode = inode_of(spool, arrival)
    finish(spool, spares, arrival)
    assert finished(spares, b"output").stat().st_ino == inode


def test_what_has_another_name_is_left_to_that(spool: Spool, intake: Intake, spares: Spares, tmp_path: Path) -> None:
    arrival = receive(intake, b"identity")
    os.link(spool.incoming / arrival.name, tmp_path / "backup")
    finish(spool, spares, arrival)
    assert kept(spares, spool) == 0
    finished(spares, b"output")
    assert (tmp_path / "backup").read_bytes() == b"identity"


def test_what_somebody_dropped_may_still_be_open_there_and_is_not_used(spool: Spool, spares: Spares) -> None:
    path = drop(spool, "scan.dcm")
    path.chmod(finished(spares, b"output").stat().st_mode)
    arrival = incoming.new_arrival(spool, 1)
    with path.open("r+b") as theirs:
        durable.move(path, spool.incoming / arrival.name)
        finish(spool, spares, arrival)
        part = finished(spares, b"output")
        theirs.write(b"identity")
    assert part.read_bytes() == b"output"


def test_a_file_with_other_rights_than_an_output_has_is_not_used(spool: Spool, intake: Intake, spares: Spares) -> None:
    arrival = receive(intake)
    (spool.incoming / arrival.name).chmod(0o604)
    finish(spool, spares, arrival)
    assert kept(spares, spool) == 0


def test_before_a_file_was_made_none_is_used_for_nobody_knows_yet_how_it_must_look(spool: Spool, intake: Intake) -> None:
    spares = Spares(spool, 4)
    finish(spool, spares, receive(intake))
    assert kept(spares, spool) == 0


def test_large_files_are_not_kept(spool: Spool, intake: Intake, spares: Spares) -> None:
    finish(spool, spares, receive(intake, bytes((1 << 20) + 1)))
    assert kept(spares, spool) == 0


def test_no_more_are_kept_than_are_of_use(spool: Spool, intake: Intake, spares: Spares) -> None:
    for first in (0, 3):
        finish(spool, spares, *[receive(intake, b"x", 1, first + number) for number in range(1, 4)])
    assert kept(spares, spool) == 4


def test_they_go_unless_one_has_come_just_now(spool: Spool, intake: Intake, spares: Spares, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(spool, spares, receive(intake))
    spares.tend()
    assert kept(spares, spool) == 1
    monkeypatch.setattr(module, "_REST_S", 0.0)
    spares.tend()
    assert kept(spares, spool) == 0


def test_the_oldest_is_used_first(spool: Spool, intake: Intake, spares: Spares) -> None:
    """Else those below would lie there for as long as there is work."""
    arrivals = [receive(intake, b"x", 1, number) for number in (1, 2)]
    oldest = inode_of(spool, arrivals[0])
    for arrival in arrivals:
        incoming.finish(spool, {arrival: Fate.FILED}, spares)
    assert finished(spares, b"output").stat().st_ino == oldest


def test_where_nothing_is_synced_none_is_used_for_a_power_cut_could_bring_back_what_was_in_it(
    spool: Spool, intake: Intake, spares: Spares
) -> None:
    arrival = receive(intake)
    durable.set_durable(enabled=False)
    try:
        finish(spool, spares, arrival)
    finally:
        durable.set_durable(enabled=True)
    assert kept(spares, spool) == 0


def test_one_that_was_linked_at_the_last_moment_is_not_used(spool: Spool, intake: Intake, spares: Spares, tmp_path: Path) -> None:
    finish(spool, spares, receive(intake, b"identity"))
    os.link(spares._paths[0], tmp_path / "backup")
    finished(spares, b"output").unlink()
    assert (tmp_path / "backup").read_bytes() == b"identity"
    assert kept(spares, spool) == 0


def test_an_input_that_is_gone_is_no_spare(spool: Spool, intake: Intake, spares: Spares) -> None:
    arrival = receive(intake)
    (spool.incoming / arrival.name).unlink()
    finish(spool, spares, arrival)
    assert kept(spares, spool) == 0


def test_an_input_that_goes_at_the_last_moment_is_no_spare(
    spool: Spool, intake: Intake, spares: Spares, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrival = receive(intake)
    real = os.link

    def too_late(source: str, target: Path) -> None:
        os.unlink(source)
        real(source, target)

    monkeypatch.setattr(os, "link", too_late)
    finish(spool, spares, arrival)
    assert finished(spares, b"output").read_bytes() == b"output"


def test_a_file_is_used_again_only_once_its_name_in_incoming_is_durably_gone(
    spool: Spool, intake: Intake, spares: Spares, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut could leave the name in `incoming/`, and another's bytes in it."""
    arrival, next_one = (receive(intake, b"identity", 1, number) for number in (1, 2))

    def fails(_: Path | str) -> None:
        raise OSError

    with monkeypatch.context() as patched, pytest.raises(OSError, match=r"^$"):
        patched.setattr(durable, "sync_directory", fails)
        incoming.finish(spool, {arrival: Fate.FILED}, spares)
    assert kept(spares, spool) == 0
    finish(spool, spares, next_one)  # a full disk lets files be removed, but perhaps not linked
    assert kept(spares, spool) == 0
