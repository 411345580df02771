import os
import stat
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomrx.errors import NoInputError
from dicomrx.spool import durable, incoming, quarantine
from dicomrx.spool.incoming import Adoption
from dicomrx.spool.intake import Intake
from dicomrx.spool.layout import Spool, read_json
from dicomrx.spool.ledger import Fate, Ledger
from dicomrx.spool.names import Arrival, stamp
from tests.spool_rig import NS, advance, die, drop, file_one, names, open_spool, receive, tree

QUIET_S = 0.3


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with open_spool(tmp_path) as spool:
        yield spool


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quiet after a third of a second, not after five."""
    monkeypatch.setattr(incoming, "QUIET_S", QUIET_S)


def adopt(spool: Spool, within_s: float = 3.0) -> list[Arrival]:
    """Adopt until nothing is pending."""
    adoption = Adoption(spool)
    adopted = adoption.run()
    deadline = time.monotonic() + within_s
    while adoption.pending() and time.monotonic() < deadline:
        time.sleep(0.05)
        adopted += adoption.run()
    assert not adoption.pending()
    return adopted


def put_aside(spool: Spool) -> list[tuple[str, str]]:
    return [(item.stage, item.reason) for item in quarantine.items(spool)]


def test_arrivals_are_listed_by_the_begin_of_their_reception(spool: Spool) -> None:
    intake = Intake(spool)
    late_end = intake.begin(1, 1)
    second = receive(intake, number=2)
    first = late_end.keep()
    late_end.drop()
    assert incoming.arrivals(spool) == [first, second]
    intake.stop(cut=False)


def test_a_young_file_waits_and_an_old_mtime_does_not_hasten_it(spool: Spool, soon: None) -> None:
    path = drop(spool, "scan.dcm", age_s=3600)
    adoption = Adoption(spool)
    assert adoption.run() == []
    assert path.exists()
    assert adoption.pending()
    time.sleep(QUIET_S + 0.05)
    (arrival,) = adoption.run()
    assert names(spool.incoming) == [arrival.name]
    assert not adoption.pending()


def test_a_file_still_being_written_waits(spool: Spool, soon: None) -> None:
    path = drop(spool, "scan.dcm")
    adoption = Adoption(spool)
    for _ in range(6):
        time.sleep(QUIET_S / 3)
        with path.open("ab") as file:
            file.write(b"more")
        assert adoption.run() == []
    assert [arrival.association for arrival in adopt(spool)] == [0]


def test_five_seconds_by_the_kernels_clock_are_enough_at_first_sight(spool: Spool, soon: None) -> None:
    drop(spool, "scan.dcm")
    time.sleep(QUIET_S + 0.05)
    assert len(Adoption(spool).run()) == 1


def test_where_the_wall_clock_was_set_back_own_observation_decides(spool: Spool, soon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    drop(spool, "tree/scan.dcm")
    monkeypatch.setattr(Adoption, "_kernel_now", lambda _: time.time() - 3600)
    assert len(adopt(spool)) == 1
    assert len(names(spool.incoming)) == 1


def test_a_folder_is_walked_and_removed(spool: Spool, soon: None) -> None:
    for name in ("CD/a/b/one.dcm", "CD/a/two", "CD/.DS_Store", "CD/empty/x"):
        drop(spool, name, data=name.encode())
    (spool.incoming / "CD/empty/x").unlink()
    started = time.monotonic()
    adopted = adopt(spool)
    assert time.monotonic() - started < 5 * QUIET_S  # not once more for every level
    assert names(spool.incoming) == sorted(arrival.name for arrival in adopted)
    assert {(spool.incoming / arrival.name).read_bytes() for arrival in adopted} == {b"CD/a/b/one.dcm", b"CD/a/two", b"CD/.DS_Store"}


def test_a_folder_in_which_a_file_is_young_stays(spool: Spool, soon: None) -> None:
    drop(spool, "CD/one")
    time.sleep(QUIET_S + 0.05)
    drop(spool, "CD/two")
    assert len(Adoption(spool).run()) == 1
    assert names(spool.incoming / "CD") == ["two"]


def test_a_hidden_name_does_not_exist(spool: Spool, soon: None) -> None:
    drop(spool, ".scan.dcm.Xa81kd")
    time.sleep(QUIET_S + 0.05)
    adoption = Adoption(spool)
    assert adoption.run() == []
    assert not adoption.pending()
    assert names(spool.incoming) == [".scan.dcm.Xa81kd"]


def test_links_and_devices_are_quarantined_unread(spool: Spool) -> None:
    secret = spool.root.parent / "secret"
    secret.write_bytes(b"not ours")
    (spool.incoming / "link.dcm").symlink_to(secret)
    (spool.incoming / "folder").mkdir()
    (spool.incoming / "folder" / "dirlink").symlink_to(spool.root.parent)
    os.mkfifo(spool.incoming / "fifo")
    Adoption(spool).run()
    assert put_aside(spool) == [("anonymize", "not-a-file")] * 3
    assert secret.read_bytes() == b"not ours"
    assert names(spool.incoming) == ["folder"]


def test_an_unknown_run_is_somebodys_file_and_its_name_is_never_kept(spool: Spool, soon: None) -> None:
    past = stamp(spool.now() - NS)
    drop(spool, f"{past}.{past}.0123abcd-1-1.dcm")
    assert incoming.arrivals(spool) == []
    (arrival,) = adopt(spool)
    assert arrival.run == spool.scratch.run
    assert names(spool.incoming) == [arrival.name]


def test_a_stamp_in_the_future_is_adopted(spool: Spool, soon: None) -> None:
    intake = Intake(spool)
    known = receive(intake)
    future = Arrival(known.begin, spool.now() + 3600 * NS, known.run, 1, 2)
    drop(spool, future.name)
    backwards = Arrival(known.begin, known.begin - 1, known.run, 1, 3)
    drop(spool, backwards.name)
    assert incoming.arrivals(spool) == [known]
    assert len(adopt(spool)) == 2
    assert known.name in names(spool.incoming)
    assert future.name not in names(spool.incoming)
    intake.stop(cut=False)


def test_no_name_of_others_is_kept_in_quarantine(spool: Spool) -> None:
    past = stamp(spool.now() - NS)
    for name in ("SMITH^JOHN 19700101.dcm", f"{past}.{past}.0123abcd-1-1.dcm"):
        (spool.incoming / name).symlink_to("/nowhere")
    Adoption(spool).run()
    kept = [path.name for path in spool.quarantine.rglob("*")]
    assert len(kept) == 2 + 2 + 2  # folders, files, reasons
    assert not any("SMITH" in name or "0123abcd" in name for name in kept)


def test_what_cannot_be_adopted_within_an_hour_is_quarantined(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "PATIENCE_S", 0.2)
    drop(spool, "endless")
    adoption = Adoption(spool)
    adoption.run()
    assert names(spool.incoming) == ["endless"]
    time.sleep(0.25)
    adoption.run()
    assert names(spool.incoming) == []
    assert put_aside(spool) == [("anonymize", "not-adopted")]


def test_what_this_user_may_not_move_blocks_nothing_but_completion(
    spool: Spool, soon: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    drop(spool, "theirs/scan.dcm")
    drop(spool, "ours.dcm")
    real = durable.move

    def move(source: Path, target: Path) -> None:
        if source.parent.name == "theirs":
            raise PermissionError(13, "Permission denied", str(source))
        real(source, target)

    monkeypatch.setattr(durable, "move", move)
    time.sleep(QUIET_S + 0.05)
    adoption = Adoption(spool)
    assert len(adoption.run()) == 1
    adoption.run()
    assert not adoption.pending()  # --once does not wait for what it may not do
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert (spool.incoming / "theirs" / "scan.dcm").exists()


def test_a_thousand_folders_deep_is_walked(spool: Spool, soon: None) -> None:
    deep = str(spool.incoming)
    for _ in range(1100):
        deep += "/d"
        os.mkdir(deep)
    Path(deep, "f").write_bytes(b"x")
    assert len(adopt(spool)) == 1
    assert len(names(spool.incoming)) == 1


def test_adopting_again_changes_nothing(spool: Spool, soon: None) -> None:
    drop(spool, "scan.dcm")
    adopt(spool)
    before = tree(spool.root)
    assert Adoption(spool).run() == []
    assert tree(spool.root) == before


def test_an_input_in_another_process_is_left_alone(spool: Spool) -> None:
    intake = Intake(spool)
    arrival = receive(intake)
    with incoming.claimed(spool.incoming / arrival.name) as file:
        assert file is not None
        assert file_one(spool, arrival) is None
        assert quarantine.put_aside(spool, spool.incoming / arrival.name, "anonymize", "bug") is None
    assert file_one(spool, arrival) is Fate.FILED
    assert quarantine.put_aside(spool, spool.incoming / arrival.name, "anonymize", "bug") is None  # it is gone
    intake.stop(cut=False)


def test_adopted_and_received_files_are_worked_off_alike(spool: Spool, soon: None) -> None:
    intake = Intake(spool)
    receive(intake)
    drop(spool, "scan.dcm")
    adopt(spool)
    fates = [file_one(spool, arrival, instance=f"2.25.{number}") for number, arrival in enumerate(incoming.arrivals(spool))]
    assert fates == [Fate.FILED, Fate.FILED]
    assert names(spool.incoming) == []
    assert spool.ledger.counts() == {Fate.ACKNOWLEDGED: 2, Fate.FILED: 2}
    intake.stop(cut=False)


def test_a_quarantined_input_comes_back_with_new_stamps_and_its_reason_goes(spool: Spool) -> None:
    intake = Intake(spool)
    arrival = receive(intake)
    path = quarantine.put_aside(spool, spool.incoming / arrival.name, "anonymize", "Burned In!", "it says so")
    assert path is not None
    document = read_json(path.with_suffix(".json"))
    assert document is not None
    assert (path.parent.name, document["reason"], document["arrival"]) == ("burned-in-", "Burned In!", arrival.id)
    assert stat.S_ISREG(path.stat().st_mode)
    (item,) = quarantine.find(spool, arrival.name.removesuffix(".dcm"))
    assert quarantine.find(spool, arrival.name) == [item]  # as the log calls it
    advance(10, spool)
    target = quarantine.requeue(spool, item, 1)
    (again,) = incoming.arrivals(spool)
    assert target == spool.incoming / again.name
    assert again.begin > arrival.end
    assert list(quarantine.items(spool)) == []
    assert names(path.parent) == []
    assert file_one(spool, again) is Fate.FILED
    intake.stop(cut=False)


def test_a_requeued_input_is_known_in_the_next_process_too(spool: Spool, tmp_path: Path) -> None:
    intake = Intake(spool)
    quarantine.put_aside(spool, spool.incoming / receive(intake).name, "anonymize", "bug")
    with open_spool(tmp_path) as other:
        (item,) = quarantine.find(other, "bug")
        quarantine.requeue(other, item, 1)
    assert len(incoming.arrivals(spool)) == 1
    assert incoming.look(spool).foreign == []
    intake.stop(cut=False)


@pytest.mark.parametrize(("where", "step"), [(durable, "move"), (Ledger, "note")])
def test_a_crash_while_something_is_requeued_counts_nothing_twice(
    spool: Spool, where: object, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake = Intake(spool)
    quarantine.put_aside(spool, spool.incoming / receive(intake).name, "anonymize", "bug")
    (item,) = quarantine.items(spool)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(where, step, interrupted)
        quarantine.requeue(spool, item, 1)
    if item.path.exists():
        quarantine.requeue(spool, item, 2)
    (again,) = incoming.arrivals(spool)
    assert file_one(spool, again) is Fate.FILED
    fates = spool.ledger.counts()
    assert (fates[Fate.ACKNOWLEDGED], fates[Fate.QUARANTINED], fates[Fate.FILED]) == (2, 1, 1)
    intake.stop(cut=False)


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_who_requeues_what_somebody_else_just_did_is_told(spool: Spool) -> None:
    intake = Intake(spool)
    quarantine.put_aside(spool, spool.incoming / receive(intake).name, "anonymize", "bug")
    (item,) = quarantine.items(spool)
    quarantine.requeue(spool, item, 1)
    with pytest.raises(NoInputError, match="somebody else"):
        quarantine.requeue(spool, item, 2)
    assert spool.ledger.counts()[Fate.ACKNOWLEDGED] == 2
    intake.stop(cut=False)


def test_a_crash_between_reason_and_move_leaves_an_input_that_is_quarantined_again(spool: Spool) -> None:
    intake = Intake(spool)
    arrival = receive(intake)
    folder = spool.quarantine / "anonymize" / "bug"
    durable.make_directory(folder)
    stem = arrival.name.removesuffix(".dcm")
    spool.write_json(folder / f"{stem}.json", {"reason": "bug"})
    die(spool, intake)
    quarantine.put_aside(spool, spool.incoming / arrival.name, "anonymize", "bug")
    assert names(folder) == [f"{stem}.dcm", f"{stem}.json"]


def test_a_backlog_is_told_in_portions_in_the_order_of_its_begin(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "_PORTION", 3)
    intake = Intake(spool)
    told = [receive(intake, number=number).name for number in range(1, 9)]
    drop(spool, "foreign")
    drop(spool, ".hidden")
    backlog = incoming.backlog(spool)
    assert next(backlog) == told[0]
    (spool.incoming / told[0]).unlink()
    (spool.incoming / told[5]).unlink()  # another process has done it, before its portion is read
    receive(intake, number=9)  # for the next time
    assert list(backlog) == [*told[1:5], *told[6:]]


def test_a_backlog_is_told_in_little_memory(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "_PORTION", 250)
    spool.ledger.register("0123abcd")
    now = spool.now()
    for number in range(4000):
        (spool.incoming / Arrival(now - 1, now, "0123abcd", 1, number).name).touch()
    tracemalloc.start()
    try:
        told = sum(1 for _ in incoming.backlog(spool))
        listed = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert told == 4000
    assert listed < 250_000
