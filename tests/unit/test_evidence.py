from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from dicomrx.spool import durable, evidence
from dicomrx.spool.completion import CEILING, QUIET, Findings, Rules, complete_by_hand, findings, wait
from dicomrx.spool.evidence import Sighting, sender_of
from dicomrx.spool.intake import Intake
from dicomrx.spool.layout import MARKER, Spool, read_json
from dicomrx.spool.ledger import Fate
from dicomrx.spool.names import Arrival
from dicomrx.spool.studies import Study
from tests.spool_rig import INSTANCE, SECOND, SERIES, STUDY, die, filed, open_spool, receive, see

THIRD = "2.25.3"
RULES = Rules(60, {"PACS": 600, "FAST": 5}, {"MR": 300, "CR": 10})
LONGEST = 600


def seen_and_filed(spool: Spool, instance: str = INSTANCE, number: int | str = 1, **told: object) -> Path:
    see(spool, instance, number, **told)  # type: ignore[arg-type]
    return filed(spool, instance=instance)


def found(spool: Spool, rules: Rules = RULES) -> Findings:
    return findings(spool, STUDY, Study(spool, STUDY).entries(), rules)


pseudonyms = st.integers(0, 2**128 - 1).map("2.25.{}".format)


@given(
    st.builds(
        Sighting,
        fate=st.sampled_from(Fate),
        run=st.from_regex(r"[0-9a-f]{8}", fullmatch=True),
        association=st.integers(0, 10**9),
        series=pseudonyms,
        instance=pseudonyms,
        number=st.none() | st.integers(-(10**11), 10**11),
        modality=st.just("") | st.from_regex(r"[A-Z0-9_]{1,16}", fullmatch=True),
        sender=st.text().map(sender_of),
    )
)
def test_a_sighting_survives_its_line(sighting: Sighting) -> None:
    assert Sighting.parse(str(sighting)) == sighting


@given(st.text(), st.text(), st.text())
def test_whatever_an_instance_tells_makes_one_line_of_known_form(number: str, modality: str, calling: str) -> None:
    sighting = Sighting.of(Arrival(1, 2, "0123abcd", 3, 4), Fate.FILED, (SERIES, INSTANCE), (number, modality, calling))
    assert len(str(sighting).splitlines()) == 1
    assert Sighting.parse(str(sighting)) == sighting


@pytest.mark.parametrize("told", [("Smith^John", "PatientName", ""), ("1.5", "C\nT", ""), ("9" * 13, "CT" * 9, "")])
def test_what_is_not_of_the_form_that_dicom_gives_it_is_not_kept(told: tuple[str, str, str]) -> None:
    sighting = Sighting.of(Arrival(1, 2, "0123abcd", 3, 4), Fate.FILED, (SERIES, INSTANCE), told)
    assert (sighting.number, sighting.modality, sighting.sender) == (None, "", "")


def test_of_a_calling_ae_title_nothing_is_written_down_that_can_be_read(spool: Spool) -> None:
    sighting = Sighting.of(Arrival(1, 2, "0123abcd", 3, 4), Fate.FILED, (SERIES, INSTANCE), ("1", "CT", "WARD7CT1"))
    evidence.note(spool, STUDY, sighting)
    assert "WARD7" not in (spool.run_dir / "evidence" / STUDY).read_text()
    assert evidence.read(spool, STUDY)[0].sender == sender_of("WARD7CT1") != sender_of("WARD7CT2")


def test_a_line_cut_short_spoils_none_after_it(spool: Spool) -> None:
    see(spool)
    with (spool.run_dir / "evidence" / STUDY).open("ab") as file:
        file.write(b"\nfiled 0123abcd-0 2.25.10 2.2\0\xff")
    see(spool, SECOND)
    assert [each.instance for each in evidence.read(spool, STUDY)] == [INSTANCE, SECOND]


def test_what_leaves_no_file_is_synced_and_what_does_need_not_be(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(durable, "sync_file", synced.append)
    see(spool, fate=Fate.FILED)
    assert synced == []
    for fate in (Fate.DUPLICATE, Fate.QUARANTINED):
        see(spool, fate=fate)
    assert synced == [spool.run_dir / "evidence" / STUDY] * 2


@pytest.mark.parametrize(
    ("arrivals", "expected"),
    [
        ([("CT1", "CT")], 60),
        ([("FAST", "CT")], 5),
        ([("CT1", "CR")], 10),
        ([("FAST", "CR")], 10),
        ([("FAST", "MR")], 300),
        ([("FAST", "CT"), ("CT1", "CR")], 10),
        ([("FAST", "CT"), ("CT1", "CT")], 60),
        ([("FAST", "CR"), ("PACS", "CR")], 600),
        ([("FAST", "")], 5),
        ([("", "")], 60),
        ([], 60),
    ],
)
def test_an_instance_waits_the_longest_rule_of_its_own_and_a_study_the_longest_of_its_instances(
    spool: Spool, arrivals: list[tuple[str, str]], expected: float
) -> None:
    (spool.studies / STUDY).mkdir()
    for number, (calling, modality) in enumerate(arrivals, 1):
        seen_and_filed(spool, f"2.25.{number}", number, calling=calling, modality=modality)
    assert found(spool).timeout_s == expected


def test_a_resend_and_a_refused_instance_are_its_senders_too(spool: Spool) -> None:
    seen_and_filed(spool, calling="FAST")
    see(spool, fate=Fate.DUPLICATE, calling="PACS")
    assert found(spool).timeout_s == 600
    see(spool, SECOND, fate=Fate.QUARANTINED, calling="PACS")
    assert found(spool).timeout_s == 600


@pytest.mark.parametrize("lost", ["one line", "the file"])
def test_lost_evidence_never_shortens_a_wait(spool: Spool, lost: str) -> None:
    seen_and_filed(spool, calling="FAST")
    assert (found(spool).whole, found(spool).timeout_s, found(spool).confidence) == (True, 5, "high")
    if lost == "the file":
        (spool.run_dir / "evidence" / STUDY).unlink()
    else:
        filed(spool, instance=SECOND)
    assert (found(spool).whole, found(spool).timeout_s, found(spool).confidence) == (False, LONGEST, "unknown")


def test_gaps_are_found_between_the_lowest_and_the_highest_number_of_a_series(spool: Spool) -> None:
    for number in (3, 4, 7, 10, 2**31 - 1):
        seen_and_filed(spool, f"2.25.{number}", number)
    see(spool, "2.25.8", 8, fate=Fate.QUARANTINED)
    assert found(spool).gaps == {SERIES: [(5, 6), (8, 9), (11, 2**31 - 2)]}
    assert found(spool).confidence == "low"
    for number in (5, 6, 8, 9):
        see(spool, f"2.25.{number}", number, fate=Fate.DUPLICATE)
    assert found(spool).gaps == {SERIES: [(11, 2**31 - 2)]}


def test_an_instance_without_a_number_makes_no_gap(spool: Spool) -> None:
    seen_and_filed(spool, number="")
    assert found(spool).gaps == {}


def test_what_is_quarantined_counts_until_it_is_filed(spool: Spool) -> None:
    seen_and_filed(spool)
    see(spool, SECOND, 2, fate=Fate.QUARANTINED)
    see(spool, SECOND, 2, fate=Fate.QUARANTINED)
    assert (found(spool).quarantined, found(spool).confidence) == (1, "low")
    seen_and_filed(spool, SECOND, 2)
    assert (found(spool).quarantined, found(spool).confidence) == (0, "high")
    see(spool, INSTANCE, fate=Fate.QUARANTINED)  # in conflict with what is filed
    see(spool, INSTANCE, fate=Fate.DUPLICATE)
    assert found(spool).quarantined == 1


@pytest.mark.parametrize("ended", ["released", "aborted", "lost"])
def test_every_association_of_a_study_is_counted_by_its_end(spool: Spool, intake: Intake, ended: str) -> None:
    for association in (1, 2, 3):
        intake.note_association(association, calling="CT1", ended="open", instances=0)
    seen_and_filed(spool, arrival=receive(intake, association=1))
    seen_and_filed(spool, SECOND, 2, arrival=receive(intake, association=2))
    assert (found(spool).associations, found(spool).last) == ({"open": 2}, "open")
    intake.note_association(2, calling="CT1", ended=ended, instances=1)
    intake.note_association(1, calling="CT1", ended="released", instances=1)
    assert found(spool).last == ended
    assert sum(found(spool).associations.values()) == 2
    assert bool(found(spool).doubts) == (ended != "released")
    assert found(spool).confidence == ("high" if ended == "released" else "low")


def test_what_was_open_when_its_receiver_died_was_cut(spool: Spool, tmp_path: Path) -> None:
    victim = open_spool(tmp_path)
    dead = Intake(victim)
    dead.note_association(1, calling="CT1", ended="open", instances=0)
    seen_and_filed(spool, arrival=receive(dead))
    die(victim, dead)
    assert found(spool).last == "cut"


def test_an_association_goes_on_in_the_run_that_the_receiver_opens_after_a_full_disk(spool: Spool, intake: Intake) -> None:
    intake.note_association(7, calling="CT1", ended="open", instances=0)
    seen_and_filed(spool, arrival=receive(intake, association=7))
    for floor in (1 << 62, 0):
        intake._min_free = floor
        intake.tend()
    intake.note_association(7, calling="CT1", ended="aborted", instances=1)
    assert found(spool).last == "aborted"


def test_an_association_that_was_never_noted_is_unknown_and_no_reason_to_wait(spool: Spool, intake: Intake) -> None:
    seen_and_filed(spool, arrival=receive(intake))
    assert (found(spool).last, found(spool).doubts) == ("unknown", [])


def test_doubts_lengthen_the_wait_to_the_ceiling_and_no_further(spool: Spool) -> None:
    seen_and_filed(spool)
    seen_and_filed(spool, THIRD, 3)
    waits = [wait(spool, Study(spool, STUDY), Rules(60, evidence_wait_s=ceiling)) for ceiling in (0, 30, 900)]
    assert [(each.rule, each.quiet_s) for each in waits] == [(QUIET, 60), (QUIET, 60), (CEILING, 900)]
    seen_and_filed(spool, SECOND, 2)
    now = wait(spool, Study(spool, STUDY), Rules(60, evidence_wait_s=900))
    assert (now.rule, now.quiet_s) == (QUIET, 60)


def test_a_study_marked_by_hand_says_so_and_what_is_missing(spool: Spool) -> None:
    seen_and_filed(spool)
    seen_and_filed(spool, THIRD, 3)
    with Study.locked(spool, STUDY) as study:
        assert complete_by_hand(spool, study)
    marker = read_json(spool.studies / STUDY / MARKER)
    assert marker is not None
    assert (marker["rule"], marker["confidence"], marker["evidence"]["gaps"]) == ("hand", "unknown", {SERIES: [[2, 2]]})
