import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomrx.errors import CannotCreateError, NoInputError
from dicomrx.spool import clock
from dicomrx.spool.intake import Intake
from dicomrx.spool.layout import Spool
from dicomrx.spool.ledger import Fate
from dicomrx.spool.names import Arrival, Frozen, stamp
from tests.spool_rig import NS, STUDY, advance, die, file_one, filed, names, open_spool, receive, tree


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with open_spool(tmp_path) as spool:
        yield spool


def test_a_missing_spool_is_made_only_by_those_who_may(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match=str(tmp_path / "storage")) as caught:
        Spool.open(tmp_path / "storage", tmp_path / "zips")
    assert caught.value.exit_code == 66
    assert names(tmp_path) == []
    with open_spool(tmp_path) as spool:
        assert stat.S_IMODE(spool.root.stat().st_mode) == 0o700
    with Spool.open(tmp_path / "storage", tmp_path / "zips"):
        pass


def test_a_folder_of_others_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "storage").mkdir()
    (tmp_path / "storage" / "thesis.tex").write_text("years of work")
    before = tree(tmp_path)
    with pytest.raises(CannotCreateError, match="no spool and not empty") as caught:
        open_spool(tmp_path)
    assert caught.value.exit_code == 73
    assert tree(tmp_path) == before


def test_a_folder_with_nothing_but_incoming_counts_as_missing(tmp_path: Path) -> None:
    for name in ("incoming", "lost+found", ".snapshot"):
        (tmp_path / "storage" / name).mkdir(parents=True)
    (tmp_path / "storage" / "incoming" / "waiting").write_bytes(b"x")
    with open_spool(tmp_path) as spool:
        assert names(spool.incoming) == ["waiting"]


def test_a_spool_half_made_by_a_process_that_died_is_completed(tmp_path: Path) -> None:
    with open_spool(tmp_path):
        pass
    (tmp_path / "storage" / ".run" / "id").unlink()
    for name in ("receiving", "studies", "outbox", "sent", "failed", "quarantine"):
        (tmp_path / "storage" / name).rmdir()
    with open_spool(tmp_path) as spool:
        assert spool.outbox.is_dir()


def test_a_file_where_the_spool_should_be_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "storage").write_bytes(b"")
    with pytest.raises(CannotCreateError, match="cannot use the spool"):
        open_spool(tmp_path)


def test_a_spool_over_two_file_systems_is_refused(tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system")
    with open_spool(tmp_path) as spool:
        spool.studies.rmdir()
        spool.studies.symlink_to(elsewhere)
    with pytest.raises(CannotCreateError, match=r"split over file systems \(studies\)"):
        open_spool(tmp_path)
    assert names(tmp_path / "storage" / ".run" / "tmp") == []


def test_looking_at_a_spool_changes_nothing(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        spool.now()
    before = tree(tmp_path)
    looker = Spool.at(tmp_path / "storage", tmp_path / "zips")
    assert looker.now() > 0
    assert tree(tmp_path) == before


def test_a_closed_spool_leaves_no_run_directory(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        spool.new_path().write_bytes(b"unfinished")
        spool.zip_scratch.new_path().write_bytes(b"unfinished")
        roots = (spool.run_dir / "tmp", spool.zips / ".tmp")
        assert [len(names(root)) for root in roots] == [1, 1]
    assert [names(root) for root in roots] == [[], []]


def test_spool_time_is_shared_by_processes_and_never_goes_back(spool: Spool, tmp_path: Path) -> None:
    with open_spool(tmp_path) as other:
        times = [spool.now(), other.now(), spool.now(), other.now()]
    assert times == sorted(times)
    assert len(names(spool.run_dir / "clock")) == 2  # one anchor and the lock


def test_a_step_of_the_wall_clock_does_not_exist_for_spool_time(spool: Spool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = spool.now()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    with open_spool(tmp_path) as other:
        assert before < other.now() < before + 10 * NS


@pytest.mark.parametrize("where", ["arrival", "part", "run", "arrived"])
def test_the_anchor_of_a_new_boot_lies_above_the_newest_stamp(tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock is wrong after this boot: years behind what is in the spool."""
    with open_spool(tmp_path) as spool:
        intake = Intake(spool)
        reception = intake.begin(1, 1) if where == "part" else None
        if where == "arrival":
            receive(intake)
        elif where == "arrived":
            file_one(spool, receive(intake))
        newest = spool.now()
        if where not in {"run", "part"}:
            intake.stop(cut=False)
        die(spool, intake if where in {"run", "part"} else None)
        assert reception is None or reception.fileno()
    monkeypatch.setattr(time, "time_ns", lambda: 1)
    monkeypatch.setattr(clock, "_boot_name", lambda: "another-boot")
    with open_spool(tmp_path) as spool:
        assert newest - NS < spool.now() < newest + 10 * NS


def test_a_stamp_that_no_clock_of_ours_gave_does_not_carry_the_anchor_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_spool(tmp_path) as spool:
        spool.ledger.register("0123abcd")
        (spool.incoming / f"{stamp(9 * 10**19)}.{stamp(9 * 10**19)}.0123abcd-1-1.dcm").write_bytes(b"")
        (spool.incoming / f"{stamp(9 * 10**18)}.{stamp(9 * 10**18)}.fedcba98-1-1.dcm").write_bytes(b"of an unknown run")
    monkeypatch.setattr(clock, "_boot_name", lambda: "another-boot")
    with open_spool(tmp_path) as spool:
        assert abs(spool.now() - time.time_ns()) < 60 * NS


def test_what_a_dead_process_had_in_hand_gets_a_strike(tmp_path: Path, spool: Spool) -> None:
    victim = open_spool(tmp_path)
    path = spool.incoming / "input"
    path.write_bytes(b"")
    victim.in_hand(path)
    spool.sweep()
    assert spool.strikes("input") == 0  # it lives
    die(victim)
    spool.sweep()
    assert spool.strikes("input") == 1
    spool.sweep()
    assert spool.strikes("input") == 1
    assert names(spool.run_dir / "tmp") == [spool.scratch.run]


@pytest.mark.parametrize("last", ["nothing", "a finished input"])
def test_a_process_that_died_with_empty_hands_strikes_nothing(tmp_path: Path, spool: Spool, last: str) -> None:
    victim = open_spool(tmp_path)
    victim.in_hand(*[spool.incoming / "finished"] * (last != "nothing"))
    die(victim)
    spool.sweep()
    assert names(spool.run_dir / "strikes") == []


def test_strikes_are_counted_and_forgotten(spool: Spool) -> None:
    assert [spool.strike("input") for _ in range(3)] == [1, 2, 3]
    assert spool.strikes("input") == 3
    spool.clear_strikes("input")
    assert spool.strikes("input") == 0


def test_the_ledger_counts_each_fate_once_and_survives_a_line_cut_short(spool: Spool) -> None:
    arrival = Arrival(1, 2, "0123abcd", 1, 1)
    other = Arrival(1, 2, "0123abcd", 1, 2)
    spool.ledger.register(arrival.run)
    spool.ledger.note(arrival, Fate.ACKNOWLEDGED)
    with (spool.run_dir / "arrivals" / arrival.run).open("ab") as file:
        file.write(b"\n1-2 ackno")
    spool.ledger.note(other, Fate.ACKNOWLEDGED)
    spool.ledger.note(other, Fate.FILED)
    spool.ledger.note(other, Fate.FILED)
    assert spool.ledger.counts() == {Fate.ACKNOWLEDGED: 2, Fate.FILED: 1}


@pytest.mark.parametrize(
    "name",
    [
        "x.dcm",
        "1.2.0123abcd-1-1.dcm",
        f"{stamp(1)}.{stamp(2)}.0123ABCD-1-1.dcm",
        f"{stamp(1)}.{stamp(2)}.0123abcd-1-1.dcm\n",
        f"{stamp(1)}.{stamp(2)}.0123abcd-\u0661-1.dcm",
    ],
)
def test_only_a_name_of_ours_is_an_arrival(name: str) -> None:
    assert Arrival.parse(name) is None


def test_names_are_read_as_they_are_written() -> None:
    arrival = Arrival(3, 4, "0123abcd", 7, 12)
    assert Arrival.parse(arrival.name) == arrival
    assert arrival.id == "0123abcd-7-12"
    assert Frozen.parse(Frozen(STUDY, 12).name) == Frozen(STUDY, 12)
    assert Frozen.parse(f"{STUDY}.0") is None
    assert Frozen.parse(STUDY) is None or Frozen.parse(STUDY) != Frozen(STUDY, 1)


def test_rights_are_tightened_at_every_start(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        spool.root.chmod(0o755)
    with open_spool(tmp_path) as spool:
        assert stat.S_IMODE(spool.root.stat().st_mode) == 0o700


def test_a_folder_for_zips_that_was_there_keeps_its_rights(tmp_path: Path) -> None:
    (tmp_path / "zips").mkdir()
    (tmp_path / "zips").chmod(0o755)
    with open_spool(tmp_path) as spool:
        assert stat.S_IMODE(spool.zips.stat().st_mode) == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a group away")
def test_one_group_by_setting(tmp_path: Path) -> None:
    with Spool.open(tmp_path / "storage", tmp_path / "zips", make=True, group="root") as spool:
        assert [stat.S_IMODE(folder.stat().st_mode) for folder in (spool.root, spool.zips)] == [0o2770] * 2
    with pytest.raises(CannotCreateError, match="SPOOL_GROUP"):
        Spool.open(tmp_path / "storage", tmp_path / "zips", group="no-such-group-here")


def test_time_that_passes_is_seen_by_all(spool: Spool, tmp_path: Path) -> None:
    """Of the rig: tests that wait for nothing rely on it."""
    filed(spool)
    before = spool.now()
    advance(100, spool)
    with open_spool(tmp_path) as other:
        assert before + 100 * NS < other.now() < before + 110 * NS
