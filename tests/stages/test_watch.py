import time
from pathlib import Path

import pytest

from dicomrx.jobs import Tally
from dicomrx.runner import Runner
from dicomrx.spool import incoming, quarantine
from dicomrx.spool.completion import Rules
from dicomrx.spool.intake import Intake
from dicomrx.spool.layout import ARRIVED, MARKER, Spool, read_json
from dicomrx.spool.ledger import Fate
from dicomrx.spool.studies import Study, is_marked
from dicomrx.stages.watch import Watch
from tests.spool_rig import OTHER_STUDY, SECOND, SERIES, STUDY, advance, die, drop, file_one, filed, names, open_spool, receive, see, tree

QUIET_S = 60.0
RULES = Rules(QUIET_S)


def watch(spool: Spool, rules: Rules = RULES) -> Tally:
    return Runner(Watch(spool, rules), spool).once()


def marked(spool: Spool, study: str = STUDY, rules: Rules = RULES) -> bool:
    watch(spool, rules)
    return is_marked(spool, study)


def arrive(spool: Spool, intake: Intake, number: int, calling: str = "CT1", modality: str = "CT") -> None:
    """Receive and file the instance with this number, and note what it told."""
    arrival = receive(intake, number=number)
    instance = f"2.25.{number}"
    see(spool, instance, number, modality=modality, calling=calling, arrival=arrival)
    file_one(spool, arrival, instance=instance)


def test_a_study_is_complete_when_it_has_been_quiet_for_long_enough(spool: Spool, intake: Intake) -> None:
    file_one(spool, receive(intake))
    advance(59, spool)
    assert not marked(spool)
    advance(2, spool)
    assert marked(spool)
    marker = read_json(spool.studies / STUDY / MARKER)
    assert marker is not None
    assert (marker["rule"], marker["quiet_s"], marker["counts"]) == ("quiet", QUIET_S, {SERIES: 1})
    assert marker["evidence"]["receiver_start"] < marker["evidence"]["newest_arrival"] < marker["watermark"]


def test_without_a_receiver_quiet_alone_decides(spool: Spool) -> None:
    filed(spool)
    advance(61, spool)
    assert marked(spool)


def test_a_slow_association_holds_every_study_back_and_so_does_a_backlog(spool: Spool, intake: Intake) -> None:
    file_one(spool, receive(intake))
    slow = intake.begin(2, 1)
    advance(3000, spool)
    assert not marked(spool)
    backlog = slow.keep()
    slow.drop()
    assert not marked(spool)
    file_one(spool, backlog, OTHER_STUDY)
    assert marked(spool)
    assert not is_marked(spool, OTHER_STUDY)  # its own end has only just been


def test_quiet_counts_from_the_end_of_an_arrival_and_not_from_its_filing(spool: Spool, intake: Intake) -> None:
    arrival = receive(intake)
    advance(3600, spool)
    file_one(spool, arrival)
    assert marked(spool)


def test_a_resend_starts_the_wait_anew_and_takes_the_marker(spool: Spool, intake: Intake) -> None:
    file_one(spool, receive(intake))
    advance(61, spool)
    assert marked(spool)
    file_one(spool, receive(intake, number=2))
    assert not marked(spool)
    advance(61, spool)
    assert marked(spool)


def test_after_a_restart_the_wait_begins_anew(spool: Spool) -> None:
    first = Intake(spool)
    file_one(spool, receive(first))
    first.stop(cut=False)
    advance(3600, spool)
    second = Intake(spool)
    assert not marked(spool)
    advance(61, spool)
    assert marked(spool)
    second.stop(cut=False)


def test_what_was_quiet_before_the_receiver_closed_completes_so_that_a_full_disk_empties_itself(spool: Spool, intake: Intake) -> None:
    file_one(spool, receive(intake))
    late = receive(intake, number=2)
    advance(61, spool)
    file_one(spool, receive(intake, number=3), OTHER_STUDY)
    advance(59, spool)
    intake._min_free = 1 << 62
    intake.tend()
    advance(3600, spool)
    assert not marked(spool)  # an instance of it still waits to be filed
    file_one(spool, late, instance=SECOND)
    assert marked(spool)
    assert not is_marked(spool, OTHER_STUDY)  # its sender may be among those refused


def test_while_a_receiver_is_dead_or_closed_nothing_completes(spool: Spool, tmp_path: Path) -> None:
    victim = open_spool(tmp_path)
    dead = Intake(victim)
    file_one(spool, receive(dead))
    die(victim, dead)
    advance(3600, spool)
    assert not marked(spool)
    successor = Intake(spool, min_free=1 << 62)
    successor.tend()
    advance(3600, spool)
    assert not marked(spool)
    successor._min_free = 0
    successor.tend()
    advance(61, spool)
    assert marked(spool)
    successor.stop(cut=False)


def test_while_files_of_others_are_not_adopted_nothing_completes(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    filed(spool)
    path = drop(spool, "scan.dcm")
    advance(3600, spool)
    assert not marked(spool)
    path.unlink()
    assert marked(spool)


def test_what_arrives_between_scan_and_mark_prevents_the_mark(spool: Spool, intake: Intake) -> None:
    file_one(spool, receive(intake))
    advance(61, spool)
    stage = Watch(spool, RULES)
    (job,) = stage.scan()
    reception = intake.begin(1, 2)
    advance(-61, spool)
    advance(61, spool)
    reception.keep()
    reception.drop()
    stage.process(job)
    assert is_marked(spool, STUDY)  # it began 61 s after the last: that is a study of its own generation
    file_one(spool, incoming.arrivals(spool)[0], instance="2.25.2")
    assert not is_marked(spool, STUDY)
    stage.process(job)
    assert not is_marked(spool, STUDY)


def test_two_watchers_mark_a_study_once(spool: Spool) -> None:
    filed(spool)
    advance(61, spool)
    stage = Watch(spool, RULES)
    (job,) = stage.scan()
    stage.process(job)
    before = tree(spool.studies)
    stage.process(job)
    assert tree(spool.studies) == before


def test_a_study_of_which_no_arrival_is_noted_waits_from_now(spool: Spool, intake: Intake) -> None:
    filed(spool)
    (spool.studies / STUDY / ARRIVED).unlink()
    advance(3600, spool)
    assert not marked(spool)
    advance(59, spool)
    assert not marked(spool)
    advance(2, spool)
    assert marked(spool)


def test_a_study_waits_as_long_as_the_rules_for_its_senders_and_modalities_want(spool: Spool, intake: Intake) -> None:
    rules = Rules(QUIET_S, {"PACS": 600, "FAST": 5})
    arrive(spool, intake, 1, calling="FAST")
    advance(6, spool)
    assert marked(spool, rules=rules)
    arrive(spool, intake, 2, calling="PACS")
    stage = Runner(Watch(spool, rules), spool)
    advance(599, spool)
    stage.once()
    assert not is_marked(spool, STUDY)
    advance(2, spool)
    stage.once()
    assert is_marked(spool, STUDY)


def test_gaps_lengthen_the_wait_and_what_fills_them_ends_that(spool: Spool, intake: Intake) -> None:
    rules = Rules(QUIET_S, evidence_wait_s=900)
    stage = Runner(Watch(spool, rules), spool)
    arrive(spool, intake, 1)
    late = receive(intake, number=2)
    arrive(spool, intake, 3)
    advance(600, spool)
    assert not marked(spool, rules=rules)  # its backlog holds it
    (spool.incoming / late.name).rename(held := spool.root / ".held")
    stage.once()
    assert not is_marked(spool, STUDY)  # the gap holds it
    held.rename(spool.incoming / late.name)
    see(spool, SECOND, 2, arrival=late)
    file_one(spool, late, instance=SECOND)  # older than the newest arrival: only the evidence has changed
    stage.once()
    assert is_marked(spool, STUDY)
    marker = read_json(spool.studies / STUDY / MARKER)
    assert marker is not None
    assert (marker["rule"], marker["confidence"], marker["quiet_s"]) == ("quiet", "high", QUIET_S)


def test_the_ceiling_ends_the_wait_for_evidence_and_never_that_for_the_watermark(spool: Spool, intake: Intake) -> None:
    rules = Rules(QUIET_S, evidence_wait_s=900)
    arrive(spool, intake, 1)
    arrive(spool, intake, 3)
    slow = intake.begin(1, 9)
    advance(3000, spool)
    assert not marked(spool, rules=rules)
    slow.drop()
    assert marked(spool, rules=rules)
    marker = read_json(spool.studies / STUDY / MARKER)
    assert marker is not None
    assert (marker["rule"], marker["confidence"], marker["quiet_s"]) == ("ceiling", "low", 900)
    assert marker["evidence"]["gaps"] == {SERIES: [[2, 2]]}


def test_an_aborted_last_association_lengthens_the_wait_and_sending_all_again_ends_that(spool: Spool, intake: Intake) -> None:
    rules = Rules(QUIET_S, evidence_wait_s=900)
    intake.note_association(1, ended="open", instances=0)
    arrive(spool, intake, 1)
    intake.note_association(1, ended="aborted", instances=1)
    advance(300, spool)
    assert not marked(spool, rules=rules)
    for number in (1, 2):
        again = receive(intake, association=2, number=number)
        see(spool, f"2.25.{number}", number, fate=Fate.DUPLICATE if number == 1 else Fate.FILED, arrival=again)
        file_one(spool, again, instance=f"2.25.{number}")
    intake.note_association(2, ended="released", instances=2)
    advance(59, spool)
    assert not marked(spool, rules=rules)
    advance(2, spool)
    assert marked(spool, rules=rules)
    marker = read_json(spool.studies / STUDY / MARKER)
    assert marker is not None
    assert marker["evidence"]["associations"] == {"aborted": 1, "released": 1}
    assert marker["confidence"] == "high"


def test_what_is_requeued_in_the_middle_of_a_study_begins_its_wait_anew(spool: Spool, intake: Intake) -> None:
    file_one(spool, receive(intake))
    second = receive(intake, number=2)
    assert quarantine.put_aside(spool, spool.incoming / second.name, "anonymize", "bug")
    advance(59, spool)
    (item,) = quarantine.items(spool)
    requeued = quarantine.requeue(spool, item, 1)
    advance(2, spool)
    assert not marked(spool)  # the one that comes back began 59 s after the last
    (again,) = incoming.arrivals(spool)
    assert requeued.name == again.name
    file_one(spool, again, instance=SECOND)
    assert not is_marked(spool, STUDY)
    advance(57, spool)
    assert not marked(spool)
    advance(2, spool)
    assert marked(spool)


def test_a_folder_dropped_by_others_completes_when_all_of_it_is_filed(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever times its files bear, and however slowly they are copied."""
    monkeypatch.setattr(incoming, "QUIET_S", 0.3)
    adoption = incoming.Adoption(spool)
    filed(spool)
    for number, age_s in enumerate([10 * 365 * 86400.0, -86400.0, 0.0]):
        drop(spool, f"export/series/{number}.dcm", age_s=age_s)
        advance(100, spool)
        assert adoption.run() == []  # it is young
        assert not marked(spool)
    time.sleep(0.35)
    (spool.incoming / "export" / "series" / "2.dcm").write_bytes(b"still being copied")
    first = adoption.run()
    assert len(first) == 2
    advance(100, spool)
    assert not marked(spool)
    for number, arrival in enumerate(first):
        file_one(spool, arrival, instance=f"2.25.{10 + number}")
    time.sleep(0.35)
    (last,) = adoption.run()
    time.sleep(0.35)
    adoption.run()  # the folder itself goes
    advance(1000, spool)
    assert not marked(spool)  # it may have lain there before the others were quiet
    file_one(spool, last, instance=SECOND)
    assert marked(spool)
    assert names(spool.incoming) == []


def test_an_empty_folder_is_removed_once_the_watermark_has_passed_it(spool: Spool, intake: Intake) -> None:
    for study in (STUDY, OTHER_STUDY):
        (spool.studies / study / SERIES).mkdir(parents=True)
    with Study.locked(spool, STUDY) as held:
        held.arrived(spool.now())
    watch(spool)
    assert names(spool.studies) == [STUDY, OTHER_STUDY]
    advance(61, spool)
    watch(spool)
    assert names(spool.studies) == []


def test_strangers_in_a_study_are_told_and_the_others_go_on(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    for study in (STUDY, OTHER_STUDY):
        filed(spool, study)
    (spool.studies / STUDY / "SMITH.txt").write_text("Smith")
    advance(61, spool)
    assert watch(spool).deferred == 1
    assert not is_marked(spool, STUDY)
    assert is_marked(spool, OTHER_STUDY)
    assert "move them away" in caplog.text
    assert "SMITH" not in caplog.text


def test_names_that_are_no_studies_are_not_touched(spool: Spool) -> None:
    (spool.studies / "notes").mkdir()
    (spool.studies / "1.2.3").mkdir()
    advance(3600, spool)
    assert watch(spool) == Tally()
    assert names(spool.studies) == ["1.2.3", "notes"]


def test_with_nothing_to_do_watching_changes_nothing(spool: Spool, intake: Intake) -> None:
    file_one(spool, receive(intake))
    advance(61, spool)
    filed(spool, OTHER_STUDY)
    watch(spool)
    before = tree(spool.root)
    watch(spool)
    after = tree(spool.root)
    in_hand = f".run/tmp/{spool.scratch.run}/in-hand"
    before.pop(in_hand)
    after.pop(in_hand)
    assert before == after
