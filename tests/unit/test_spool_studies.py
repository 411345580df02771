import json
import os
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from dicomrx.errors import Defer, NoInputError, PermissionRefused, TryAgainError
from dicomrx.spool import aio, durable, outbox, quarantine
from dicomrx.spool.by_name import frozen_by_name, not_sent, sent_already
from dicomrx.spool.intake import Intake
from dicomrx.spool.layout import ARRIVED, ATTEMPTS, MANIFEST, MARKER, RECEIPT, Spool, read_json
from dicomrx.spool.ledger import Fate
from dicomrx.spool.names import Frozen
from dicomrx.spool.outbox import Outgoing, frozen_studies
from dicomrx.spool.sending import Record, Step
from dicomrx.spool.spares import Spares
from dicomrx.spool.studies import Addition, Entry, Study, count, file_all, is_marked, open_studies
from tests.spool_rig import (
    INSTANCE,
    OTHER_STUDY,
    SECOND,
    SERIES,
    STUDY,
    file_one,
    filed,
    finished,
    freeze,
    frozen,
    mark,
    names,
    open_spool,
    receive,
    tree,
)

DIGEST = sha256(b"output").hexdigest()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with open_spool(tmp_path) as spool:
        yield spool


def note_syncs(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What is synced from now on, one by one, as where asynchronous I/O is forbidden."""
    synced: list[Path] = []
    monkeypatch.setattr(aio, "fsync", lambda _: [])
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(path_of(fd)))
    return synced


def path_of(fd: int) -> Path:
    return Path(os.readlink(f"/proc/self/fd/{fd}"))


def proofs(spool: Spool, instance: str = INSTANCE) -> set[str]:
    with Study.locked(spool, STUDY) as study:
        return study.filed(SERIES, instance)


def arrived(spool: Spool, end: int) -> int | None:
    with Study.locked(spool, STUDY) as study:
        study.arrived(end)
        return study.newest_arrival()


def settle(spool: Spool, one: Frozen, *, receipt: bool = True) -> Path:
    with Outgoing.claimed(spool, one) as outgoing:
        assert outgoing is not None
        rows = [{"series": SERIES, "instance": INSTANCE, "size": 6, "sha256": DIGEST}]
        outgoing.write(MANIFEST, {"instances": rows})
        if receipt:
            outgoing.write(RECEIPT, {"status": 201})
        return outgoing.settle()


# Filing


def test_an_instance_is_filed_under_its_pseudonymous_names(spool: Spool) -> None:
    path = filed(spool)
    assert path == spool.studies / STUDY / SERIES / f"{INSTANCE}.dcm"
    assert path.read_bytes() == b"output"
    assert open_studies(spool) == [STUDY]


def test_filing_never_overwrites(spool: Spool) -> None:
    filed(spool)
    with pytest.raises(FileExistsError):
        filed(spool, data=b"other")
    assert filed(spool, instance=SECOND).parent.joinpath(f"{INSTANCE}.dcm").read_bytes() == b"output"


@pytest.mark.parametrize("name", ["", "..", "../../etc", "1.2.840.113619.2.1", "2.25.1/2.25.2", "2.25.01"])
def test_a_study_has_a_pseudonymous_name_or_none(spool: Spool, name: str) -> None:
    with pytest.raises(ValueError, match="pseudonymous"), Study.locked(spool, name):
        pass


def test_the_arrival_is_noted_before_the_instance_is_there(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash between the two must not leave a study that looks quiet: it would be cut."""

    class Killed(BaseException):
        pass

    def die_here(*_: object) -> None:
        raise Killed

    filed(spool)
    before = spool.now()
    with monkeypatch.context() as patch:
        patch.setattr(durable, "link_all", die_here)
        with pytest.raises(Killed):
            filed(spool, instance=SECOND)
    newest = Study(spool, STUDY).newest_arrival()
    assert newest is not None
    assert newest > before
    assert not (spool.studies / STUDY / SERIES / f"{SECOND}.dcm").exists()


def test_filing_makes_every_folder_above_durable_even_where_another_made_it(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who made the folders may have been killed before they were durable."""
    (spool.studies / STUDY / SERIES).mkdir(parents=True)
    synced = note_syncs(monkeypatch)
    path = filed(spool)
    assert {path.parent, path.parent.parent, spool.studies} <= {*synced}


def test_several_studies_wait_for_the_disk_together_and_none_looks_quiet_meanwhile(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [filed(spool, study).parent for study in (STUDY, OTHER_STUDY)]
    parts = [finished(Spares(spool, 4), b"output") for _ in folders]
    rounds: list[set[Path]] = []

    def sync_all(fds: Sequence[int]) -> list[OSError | None]:
        rounds.append({path_of(fd) for fd in fds})
        return [None for _ in fds]

    monkeypatch.setattr(durable, "sync_all", sync_all)
    with Study.all_locked(spool, [STUDY, OTHER_STUDY]) as studies:
        file_all({study: Addition({(SERIES, SECOND): part}, spool.now()) for study, part in zip(studies.values(), parts, strict=True)})
    above = {folder.parent for folder in folders}
    assert rounds == [{study / ARRIVED for study in above}, {*folders, *above, spool.studies}]


def test_arrived_never_goes_back(spool: Spool) -> None:
    filed(spool)
    newest = Study(spool, STUDY).newest_arrival() or 0
    assert arrived(spool, newest - 1) == newest
    assert arrived(spool, newest + 1) == newest + 1
    assert (spool.studies / STUDY / ARRIVED).read_bytes() == b""


def test_arrived_never_makes_a_folder(spool: Spool) -> None:
    assert arrived(spool, spool.now()) is None
    assert open_studies(spool) == []


def test_arrived_takes_the_marker_away_also_for_an_older_stamp(spool: Spool) -> None:
    """A resend is a sender still at work."""
    filed(spool)
    assert mark(spool)
    arrived(spool, 1)
    assert not is_marked(spool, STUDY)


# Duplicates


def test_a_file_proves_itself_wherever_its_generation_lies(spool: Spool) -> None:
    assert proofs(spool) == set()
    one = frozen(spool)
    assert proofs(spool) == {DIGEST}
    quarantine.put_aside(spool, spool.outbox / one.name, "upload", "http-400")
    assert proofs(spool) == {DIGEST}
    assert proofs(spool, SECOND) == set()
    filed(spool, data=b"other")
    assert proofs(spool) == {DIGEST, sha256(b"other").hexdigest()}


def test_a_receipt_proves_what_was_removed_and_a_manifest_alone_does_not(spool: Spool) -> None:
    sent = settle(spool, frozen(spool), receipt=False)
    durable.remove_tree(sent / SERIES)
    assert proofs(spool) == set()
    spool.write_json(sent / RECEIPT, {"status": 201})
    assert proofs(spool) == {DIGEST}
    assert proofs(spool, SECOND) == set()


def test_a_proof_is_made_durable_before_it_is_relied_on(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    path = filed(spool)
    synced = note_syncs(monkeypatch)
    assert proofs(spool)
    assert synced == [path, path.parent, path.parent.parent, spool.studies]


def test_a_resend_is_a_duplicate_in_every_state_of_its_study(spool: Spool) -> None:
    intake = Intake(spool)
    assert file_one(spool, receive(intake, number=1)) is Fate.FILED
    assert file_one(spool, receive(intake, number=2)) is Fate.DUPLICATE
    assert mark(spool)
    one = freeze(spool)
    assert one is not None
    assert file_one(spool, receive(intake, number=3)) is Fate.DUPLICATE
    outbox.clean(spool, settle(spool, one))
    assert file_one(spool, receive(intake, number=4)) is Fate.DUPLICATE
    assert open_studies(spool) == []
    assert names(spool.incoming) == []
    intake.stop(cut=False)


# Marking


def test_a_marker_says_what_the_study_holds(spool: Spool) -> None:
    filed(spool)
    filed(spool, instance=SECOND, data=b"longer output")
    assert mark(spool)
    assert read_json(spool.studies / STUDY / MARKER) == {
        "version": 1,
        "study": STUDY,
        "rule": "hand",
        "quiet_s": 0,
        "watermark": None,
        "evidence": {},
        "counts": {SERIES: 2},
        "files": [[SERIES, INSTANCE, 6], [SERIES, SECOND, 13]],
    }


def test_filing_into_a_marked_study_removes_the_marker_first(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    filed(spool)
    assert mark(spool)
    seen = []
    real = durable.link_all

    def link_all(pairs: Iterable[tuple[Path, Path]], *above: Path) -> None:
        seen.append(is_marked(spool, STUDY))
        real(pairs, *above)

    monkeypatch.setattr(durable, "link_all", link_all)
    filed(spool, instance=SECOND)
    assert seen == [False]
    assert not is_marked(spool, STUDY)


def test_a_folder_without_instances_is_removed_not_marked(spool: Spool) -> None:
    (spool.studies / STUDY / SERIES).mkdir(parents=True)
    arrived(spool, spool.now())
    assert not mark(spool)
    assert names(spool.studies) == []


def test_a_folder_with_a_hidden_file_of_another_is_neither(spool: Spool) -> None:
    (spool.studies / STUDY / SERIES).mkdir(parents=True)
    (spool.studies / STUDY / SERIES / ".nfs01").touch()
    arrived(spool, spool.now())
    assert not mark(spool)
    assert names(spool.studies / STUDY) == [ARRIVED, SERIES]


@pytest.mark.parametrize("stray", ["notes.txt", f"{SERIES}/notes.txt", f"{SERIES}/{SECOND}", f"{SERIES}/SMITH.dcm", "SMITH/2.25.9.dcm"])
def test_what_is_not_ours_in_a_study_is_never_sent(spool: Spool, stray: str) -> None:
    filed(spool)
    assert mark(spool)
    path = spool.studies / STUDY / stray
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"Name: Smith")
    assert freeze(spool) is None
    with pytest.raises(Defer, match="not dicomrx's") as caught:
        mark(spool)
    assert "SMITH" not in str(caught.value)
    path.unlink()
    if not any(path.parent.iterdir()):
        path.parent.rmdir()
    assert mark(spool)


def test_a_link_in_the_place_of_an_instance_is_not_ours(spool: Spool) -> None:
    path = filed(spool)
    (spool.root.parent / "secret").write_bytes(b"output")
    path.unlink()
    path.symlink_to(spool.root.parent / "secret")
    with pytest.raises(Defer):
        mark(spool)


# Freezing


def test_freezing_moves_exactly_what_was_marked(spool: Spool) -> None:
    one = frozen(spool)
    assert one == Frozen(STUDY, 1)
    assert open_studies(spool) == []
    assert names(spool.outbox / one.name) == [ARRIVED, MARKER, SERIES]


@pytest.mark.parametrize("change", ["more", "less", "longer"])
def test_a_folder_that_is_not_its_marker_loses_it_instead_of_being_frozen(spool: Spool, change: str) -> None:
    path = filed(spool)
    filed(spool, instance=SECOND)
    assert mark(spool)
    if change == "more":
        path.with_name("2.25.3.dcm").write_bytes(b"")
    elif change == "less":
        path.unlink()
    else:
        path.write_bytes(b"longer output")
    assert freeze(spool) is None
    assert not is_marked(spool, STUDY)
    assert names(spool.outbox) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}'])
def test_a_marker_of_another_kind_is_removed(spool: Spool, text: str) -> None:
    filed(spool)
    (spool.studies / STUDY / MARKER).write_text(text)
    assert freeze(spool) is None
    assert not is_marked(spool, STUDY)


def test_an_unmarked_study_is_not_frozen(spool: Spool) -> None:
    filed(spool)
    assert freeze(spool) is None
    assert open_studies(spool) == [STUDY]


def test_generations_count_over_outbox_sent_and_failed(spool: Spool) -> None:
    first = frozen(spool)
    settle(spool, first)
    second = frozen(spool, instance="2.25.2")
    quarantine.put_aside(spool, spool.outbox / second.name, "upload", "http-400")
    third = frozen(spool, instance="2.25.3")
    fourth = frozen(spool, instance="2.25.4")
    other = frozen(spool, OTHER_STUDY)
    assert [one.generation for one in (first, second, third, fourth, other)] == [1, 2, 3, 4, 1]
    assert frozen_studies(spool) == [third, fourth, other]


def test_a_freeze_is_durable_in_both_parents_before_it_is_worked_on(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who froze it may have been killed before: after a power cut it would be in studies/ again, and sent with what came later."""
    one = frozen(spool)
    synced = note_syncs(monkeypatch)
    with Outgoing.claimed(spool, one):
        assert set(synced) == {spool.outbox, spool.studies}


# Sending


def test_a_frozen_study_is_claimed_by_one_process_at_a_time(spool: Spool, tmp_path: Path) -> None:
    one = frozen(spool)
    with open_spool(tmp_path) as other, Outgoing.claimed(spool, one) as mine:
        assert mine is not None
        with Outgoing.claimed(other, one) as theirs:
            assert theirs is None
        assert quarantine.put_aside(other, other.outbox / one.name, "upload", "bug") is None
        mine.settle()
        with Outgoing.claimed(other, one) as theirs:
            assert theirs is None
    assert names(spool.sent) == [one.name]


def test_the_steps_of_an_attempt_survive_a_line_cut_short(spool: Spool) -> None:
    one = frozen(spool)
    with Outgoing.claimed(spool, one) as outgoing:
        assert outgoing is not None
        assert Record.read(outgoing.folder).steps == ()
        outgoing.note(Step.SENDING, attempt=1)
        with (outgoing.folder / "attempts.jsonl").open("ab") as file:
            file.write(b'\n{"attempt": 1, "en')
        outgoing.note(Step.SENDING, attempt=2)
        assert [step["attempt"] for step in Record.read(outgoing.folder).steps] == [1, 2]
        assert outgoing.instances() == [(SERIES, INSTANCE)]


def test_a_document_is_written_once(spool: Spool) -> None:
    with Outgoing.claimed(spool, frozen(spool)) as outgoing:
        assert outgoing is not None
        outgoing.write(MANIFEST, {"a": 1})
        outgoing.write(MANIFEST, {"a": 2})
        assert outgoing.document(MANIFEST) == {"version": 1, "a": 1}
        assert json.loads(outgoing.manifest_bytes()) == {"version": 1, "a": 1}


def test_a_zip_gets_its_name_when_it_is_finished(spool: Spool) -> None:
    with Outgoing.claimed(spool, frozen(spool)) as outgoing:
        assert outgoing is not None
        with pytest.raises(ZeroDivisionError), outgoing.making_zip() as file:
            file.write(b"half")
            raise ZeroDivisionError
        assert not outgoing.zip.exists()
        with outgoing.making_zip() as file:
            file.write(b"whole")
        assert outgoing.zip.read_bytes() == b"whole"
        assert names(spool.zip_scratch.path) == []


def test_cleaning_takes_a_receipt_and_leaves_it_and_the_manifest(spool: Spool) -> None:
    without = settle(spool, frozen(spool, OTHER_STUDY), receipt=False)
    sent = settle(spool, frozen(spool))
    for folder in (without, sent):
        (spool.zips / f"{folder.name}.zip").write_bytes(b"")
        outbox.clean(spool, folder)
    assert (without / SERIES / f"{INSTANCE}.dcm").exists()
    assert names(spool.zips) == [f"{without.name}.zip"]
    assert names(sent) == [ARRIVED, MARKER, ATTEMPTS, MANIFEST, RECEIPT]
    before = tree(spool.root)
    outbox.clean(spool, sent)
    assert tree(spool.root) == before


# Dead letters


def test_a_dead_letter_keeps_its_reason_and_comes_back_to_the_outbox(spool: Spool) -> None:
    one = frozen(spool)
    spool.strike(one.name)
    failed = quarantine.put_aside(spool, spool.outbox / one.name, "upload", "http-400", "no")
    assert failed == spool.failed / one.name
    (item,) = quarantine.find(spool, one.name)
    assert (item.stage, item.reason, item.detail, item.name) == ("upload", "http-400", "no", one.name)
    assert spool.strikes(one.name) == 0
    assert quarantine.requeue(spool, item, 1) == spool.outbox / one.name
    assert frozen_studies(spool) == [one]
    assert list(quarantine.items(spool)) == []
    again = quarantine.put_aside(spool, spool.outbox / one.name, "upload", "http-413")
    assert again is not None
    assert [item.reason for item in quarantine.items(spool)] == ["http-413"]


def test_the_reason_of_a_crash_before_the_move_is_not_that_of_the_next(spool: Spool) -> None:
    one = frozen(spool)
    spool.write_json(spool.outbox / one.name / "reason.json", {"reason": "http-400", "stage": "upload"})
    quarantine.put_aside(spool, spool.outbox / one.name, "upload", "http-422")
    assert [item.reason for item in quarantine.items(spool)] == ["http-422"]


def test_what_somebody_left_beside_the_dead_letters_is_none(spool: Spool) -> None:
    one = frozen(spool)
    quarantine.put_aside(spool, spool.outbox / one.name, "upload", "http-400")
    (spool.failed / "notes.txt").write_text("somebody's")
    (spool.failed / "somebody's").mkdir()
    assert [item.name for item in quarantine.find(spool, "all")] == [one.name]


def test_what_is_not_in_quarantine_is_told(spool: Spool) -> None:
    with pytest.raises(NoInputError, match="quarantine list"):
        quarantine.find(spool, "all")


# By name


def test_a_study_is_found_by_folder_zip_and_uid_and_marked_by_hand(spool: Spool) -> None:
    filed(spool)
    assert frozen_by_name(spool, STUDY) == [Frozen(STUDY, 1)]
    marker = read_json(spool.outbox / f"{STUDY}.1" / MARKER)
    assert marker is not None
    assert marker["rule"] == "hand"
    for path in (spool.outbox / f"{STUDY}.1", spool.zips / f"{STUDY}.1.zip"):
        assert frozen_by_name(spool, str(path)) == [Frozen(STUDY, 1)]
    filed(spool, instance=SECOND)
    assert frozen_by_name(spool, f"{spool.studies}/{STUDY}/") == [Frozen(STUDY, 1), Frozen(STUDY, 2)]


def test_a_marked_study_that_is_not_its_marker_is_marked_anew_by_hand(spool: Spool) -> None:
    path = filed(spool)
    assert mark(spool)
    path.with_name("2.25.3.dcm").write_bytes(b"")
    assert frozen_by_name(spool, STUDY) == [Frozen(STUDY, 1)]
    marker = read_json(spool.outbox / f"{STUDY}.1" / MARKER)
    assert marker is not None
    assert marker["counts"] == {SERIES: 2}


def test_a_dead_letter_is_made_pending_and_a_sent_study_is_nothing_to_do(spool: Spool) -> None:
    one = frozen(spool)
    quarantine.put_aside(spool, spool.outbox / one.name, "upload", "http-400")
    assert frozen_by_name(spool, str(spool.failed / one.name)) == [one]
    assert isinstance(not_sent(spool, [one]), TryAgainError)
    assert sent_already(spool, [one]) == []
    settle(spool, one)
    assert not_sent(spool, [one]) is None
    for wanted in (STUDY, one.name, f"{one.name}.zip", str(spool.sent / one.name), str(spool.zips / f"{one.name}.zip")):
        assert frozen_by_name(spool, wanted) == [one]
    (line,) = sent_already(spool, [one])
    assert line.startswith(f"{one.name} was sent already")


def test_a_spool_reached_by_another_path_is_the_same_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to("a")
    monkeypatch.chdir(tmp_path / "a")
    with open_spool(Path("../b")) as spool:
        filed(spool)
        assert frozen_by_name(spool, f"storage/studies/{STUDY}") == [Frozen(STUDY, 1)]


def test_what_is_not_of_this_spool_is_refused_with_the_way_in(spool: Spool, tmp_path: Path) -> None:
    filed(spool)
    outside = tmp_path / STUDY
    outside.mkdir()
    link = spool.root / "link"
    link.symlink_to(outside)
    for path in (outside, link, spool.studies / STUDY / SERIES, spool.root):
        with pytest.raises(PermissionRefused, match="incoming") as caught:
            frozen_by_name(spool, str(path))
        assert caught.value.exit_code == 77
    for wanted in (str(tmp_path / "gone"), OTHER_STUDY, str(spool.outbox / f"{OTHER_STUDY}.1")):
        with pytest.raises(NoInputError):
            frozen_by_name(spool, wanted)


def test_entries_are_sorted_and_leave_documents_out(spool: Spool) -> None:
    filed(spool, instance=SECOND)
    filed(spool, instance=INSTANCE)
    (spool.studies / STUDY / RECEIPT).write_text("{}")
    assert Study(spool, STUDY).entries() == [Entry(SERIES, INSTANCE, 6), Entry(SERIES, SECOND, 6)]


def test_a_count_is_that_of_the_entries_strays_among_them(spool: Spool) -> None:
    filed(spool)
    folder = spool.studies / STUDY
    for name in (RECEIPT, "stray.txt", ".hidden", f"{SERIES}/stray.txt", f"{SERIES}/.hidden"):
        (folder / name).touch()
    (folder / "folder").mkdir()
    assert count(folder) == len(Study(spool, STUDY).entries()) == 4
