import errno
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from dicomrx.spool import durable, incoming, locks, watermark
from dicomrx.spool.intake import CLOSED, OPEN, Intake
from dicomrx.spool.layout import Spool
from dicomrx.spool.names import stamp
from dicomrx.spool.runs import RunDirectory
from dicomrx.spool.watermark import horizon
from tests.spool_rig import NS, advance, die, drop, file_one, open_spool, receive

QUIET = 60 * NS


def test_with_nothing_on_its_way_the_watermark_is_now(spool: Spool) -> None:
    before = spool.now()
    seen = horizon(spool)
    assert before < seen.watermark < spool.now()
    assert (seen.receiver_start, seen.blocked) == (0, None)


def test_an_instance_in_reception_holds_the_watermark_at_its_begin(spool: Spool, intake: Intake) -> None:
    begun = spool.now()
    reception = intake.begin(1, 1)
    advance(1000, spool)
    assert begun < horizon(spool).watermark < begun + NS
    reception.drop()
    assert horizon(spool).watermark > begun + 999 * NS


def test_an_arrival_holds_it_at_its_begin_not_at_its_end(spool: Spool, intake: Intake) -> None:
    reception = intake.begin(1, 1)
    advance(1000, spool)
    arrival = reception.keep()
    reception.drop()
    receive(intake, number=2)
    assert arrival.end - arrival.begin > 999 * NS
    assert horizon(spool).watermark == arrival.begin
    for each in incoming.arrivals(spool):
        file_one(spool, each)
    assert horizon(spool).watermark > arrival.end


def test_upstream_is_listed_first_so_that_what_moves_on_meanwhile_is_still_seen(
    spool: Spool, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every step of the look, the instance moves on by one."""
    reception = intake.begin(1, 1)
    begun = spool.now()
    real_look, real_stands = incoming.look, watermark._stands
    moved: list[object] = []

    def look(spool: Spool) -> incoming.Listing:
        if not moved:
            moved.append(reception.keep())
            reception.drop()
        return real_look(spool)

    def blocks(run: Path) -> tuple[str | None, int | None]:
        moved.append(reception.keep())
        reception.drop()
        return real_stands(run)

    with monkeypatch.context() as patch:
        patch.setattr(watermark, "look", look)
        assert horizon(spool).watermark < begun
    reception = intake.begin(1, 2)
    begun = spool.now()
    for arrival in incoming.arrivals(spool):
        file_one(spool, arrival)
    moved.clear()
    with monkeypatch.context() as patch:
        patch.setattr(watermark, "_stands", blocks)
        assert horizon(spool).watermark < begun


def test_what_arrives_during_the_look_is_no_stranger(spool: Spool, intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.listdir
    kept: list[object] = []

    def listdir(path: Path) -> list[str]:
        if path == spool.incoming:
            kept.append(receive(intake, number=len(kept) + 1))
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)
    assert incoming.look(spool).foreign == []
    assert incoming.arrivals(spool) == kept


def test_a_file_adopted_during_one_listing_is_seen_in_the_other(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """readdir may miss both names of a file that is renamed meanwhile."""
    drop(spool, "scan.dcm")
    adopted = incoming.new_arrival(spool, 1)
    real = os.listdir
    listed = []

    def listdir(path: Path) -> list[str]:
        listed.append(path)
        if listed.count(spool.incoming) == 1:
            (spool.incoming / "scan.dcm").rename(spool.incoming / adopted.name)
            return []
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)
    assert horizon(spool).watermark == adopted.begin


def test_a_dead_receiver_stands_until_the_next_has_started(spool: Spool, tmp_path: Path) -> None:
    victim = open_spool(tmp_path)
    die(victim, Intake(victim))
    assert "died" in (horizon(spool).blocked or "")
    successor = Intake(spool)
    assert horizon(spool).blocked is None
    successor.stop(cut=False)
    assert horizon(spool).blocked is None


def close(intake: Intake) -> None:
    intake._min_free = 1 << 62
    intake.tend()


def test_a_closed_receiver_holds_the_watermark_where_it_stood(spool: Spool, intake: Intake) -> None:
    close(intake)
    closed = spool.now()
    advance(1000, spool)
    seen = horizon(spool)
    assert seen.closed
    assert "for want of room" in (seen.trouble or "")
    assert seen.receiver_start < seen.watermark <= closed
    intake._min_free = 0
    intake.tend()
    seen = horizon(spool)
    assert (seen.closed, seen.trouble) == (False, None)
    assert seen.watermark > closed + 999 * NS


def test_what_was_in_reception_when_it_closed_holds_the_watermark_though_it_was_refused(spool: Spool, intake: Intake) -> None:
    """Its sender still has it: it may belong to any study that was not quiet before it began."""
    reception = intake.begin(1, 1)
    begun = spool.now()
    advance(1000, spool)
    close(intake)
    reception.drop()
    assert horizon(spool).watermark < begun


def test_where_the_disk_lets_no_closing_be_noted_nothing_completes(spool: Spool, intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(times: Mapping[Path, int]) -> None:
        raise OSError(errno.EIO, "sick")

    advance(1000, spool)
    with monkeypatch.context() as patch:
        patch.setattr(durable, "set_times", fail)
        close(intake)
    assert not horizon(spool).completes(0, QUIET)


@pytest.mark.parametrize("after", [None, OPEN, CLOSED])
def test_a_run_directory_without_a_living_receiver_stands_whatever_it_says(spool: Spool, after: str | None) -> None:
    run = spool.receiving / f"{stamp(spool.now())}.0123abcd"
    run.mkdir()
    if after:
        (run / after).touch()
    assert horizon(spool).blocked


def test_a_receiver_that_is_starting_stands(spool: Spool) -> None:
    with RunDirectory(spool.receiving, prefix=f"{stamp(spool.now())}."):
        assert "starting" in (horizon(spool).blocked or "")


@pytest.mark.parametrize("daemon", ["scp", "all"])
def test_a_receiver_that_is_about_to_start_blocks(spool: Spool, daemon: str) -> None:
    """In `all` the other stages may be faster, and a receiver that was stopped between associations left nothing behind."""
    with locks.locked(spool.stage_lock(daemon)):
        assert "starting" in (horizon(spool).blocked or "")
        intake = Intake(spool)
        assert horizon(spool).blocked is None
        intake.stop(cut=False)
    assert horizon(spool).blocked is None


def test_a_run_directory_that_vanishes_during_the_look_stands(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead one, removed by its successor, whose own directory came after the listing."""
    gone = spool.receiving / f"{stamp(1)}.0123abcd"

    def vanish(run: Path) -> list[int]:
        gone.rmdir()
        return []

    monkeypatch.setattr(watermark, "_begins", vanish)
    gone.mkdir()
    assert horizon(spool).blocked


def test_quiet_counts_from_the_start_of_the_run(spool: Spool, intake: Intake) -> None:
    seen = horizon(spool)
    start = seen.receiver_start
    assert start > 0
    assert not seen.completes(start - 10 * QUIET, QUIET)
    advance(61, spool)
    seen = horizon(spool)
    assert seen.completes(start - 10 * QUIET, QUIET)
    assert not seen.completes(seen.watermark - QUIET + NS, QUIET)
    assert seen.completes(seen.watermark - QUIET, QUIET)


def test_a_restart_makes_everything_wait_again(spool: Spool) -> None:
    first = Intake(spool)
    old = horizon(spool).receiver_start
    advance(61, spool)
    assert horizon(spool).completes(old, QUIET)
    first.stop(cut=False)
    second = Intake(spool)
    assert not horizon(spool).completes(old, QUIET)
    second.stop(cut=False)


def test_reopening_after_a_full_disk_makes_everything_wait_again(spool: Spool, intake: Intake) -> None:
    old = horizon(spool).receiver_start
    advance(61, spool)
    intake._min_free = 1 << 62
    intake.tend()
    intake._min_free = 0
    receive(intake)
    assert horizon(spool).blocked is None
    assert not horizon(spool).completes(old, QUIET)


def test_files_of_others_block_until_they_are_adopted(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    drop(spool, "scan.dcm")
    assert "adopted" in (horizon(spool).blocked or "")
    monkeypatch.setattr(incoming, "QUIET_S", 0.0)
    (arrival,) = incoming.Adoption(spool).run()
    seen = horizon(spool)
    assert seen.blocked is None
    assert seen.watermark == arrival.begin


def test_hidden_files_of_others_do_not_block(spool: Spool) -> None:
    drop(spool, ".nfs0001")
    assert horizon(spool).blocked is None
