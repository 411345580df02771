from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomrx.spool import locks, quarantine
from dicomrx.spool.completion import Rules
from dicomrx.spool.intake import Intake
from dicomrx.spool.layout import RECEIPT, Spool
from dicomrx.spool.ledger import Fate
from dicomrx.spool.outbox import Outgoing
from dicomrx.spool.progress import note_stopped
from dicomrx.spool.sending import Step, note
from dicomrx.spool.studies import is_marked
from dicomrx.stages.watch import Watch
from dicomrx.why import Answer, Reason, explain
from tests.spool_rig import (
    OTHER_STUDY,
    STUDY,
    advance,
    die,
    drop,
    file_one,
    filed,
    freeze,
    frozen,
    mark,
    open_spool,
    receive,
    see,
)

RULES = Rules(60)


@pytest.fixture(autouse=True)
def running(spool: Spool) -> Iterator[None]:
    """The daemons of every stage, so that none of them is what is waited for."""
    with (
        locks.locked(spool.stage_lock("watch")),
        locks.locked(spool.stage_lock("anonymize")),
        locks.locked(spool.stage_lock("upload")),
    ):
        yield


def asked(spool: Spool, rules: Rules = RULES, study: str = STUDY) -> Answer:
    answer = explain(spool, study, rules)
    assert answer is not None
    return answer


def only(answer: Answer) -> Reason:
    (reason,) = answer.waits
    return reason


def test_a_study_that_no_one_takes_says_why_not(spool: Spool) -> None:
    frozen(spool)
    assert [reason.what for reason in asked(spool).waits] == ["it is still to be zipped and sent"]
    note_stopped(spool, "The API refused the login (HTTP 401).\x1b[2J")
    reason = only(asked(spool))
    assert "The API refused the login (HTTP 401)." in reason.what
    assert "\x1b" not in reason.what
    assert "AUTO_UPLOAD" in reason.ends
    assert "    nothing bounds it" in asked(spool).lines()


def test_a_held_upload_waits_for_a_person(spool: Spool) -> None:
    frozen(spool)
    note(spool, spool.outbox / f"{STUDY}.1", Step.HELD)
    reasons = asked(spool).waits
    assert [reason.what for reason in reasons] == ["its upload is held: the API may have it already"]
    assert f"`dicomrx upload {STUDY}.1`" in reasons[0].ends


def test_a_quiet_study_waits_for_time_alone(spool: Spool, intake: Intake) -> None:
    file_one(spool, receive(intake))
    answer = asked(spool)
    reason = only(answer)
    assert (answer.state, answer.instances) == ("open", 1)
    assert "60 s of quiet" in reason.what
    assert "newest arrival" in reason.ends
    assert reason.since is not None
    assert reason.until is not None
    assert answer.until == reason.until > reason.since


def test_after_a_restart_the_wait_counts_from_the_receivers_start(spool: Spool) -> None:
    filed(spool)
    advance(1000, spool)
    intake = Intake(spool)
    assert "receiver's start" in only(asked(spool)).ends
    intake.stop(cut=False)


def test_what_is_in_reception_and_what_waits_to_be_filed_is_named_with_what_bounds_it(spool: Spool, intake: Intake) -> None:
    file_one(spool, receive(intake))
    slow = intake.begin(2, 1)
    receive(intake, number=3)
    advance(3000, spool)
    reception, backlog = asked(spool).waits
    assert reception.what.startswith("1 instances in reception")
    assert reception.until is not None
    assert backlog.what.startswith("1 instances in incoming/")
    assert backlog.until is None
    assert asked(spool).until is None
    told = list(asked(spool).lines())
    assert f"    since {reception.since}; at the latest until {reception.until}" in told
    assert f"    since {backlog.since}; nothing bounds it" in told
    slow.drop()
    assert only(asked(spool)) == backlog


def test_what_began_after_the_study_was_quiet_is_not_waited_for(spool: Spool, intake: Intake) -> None:
    file_one(spool, receive(intake))
    advance(61, spool)
    late = intake.begin(1, 2)
    assert asked(spool).waits == []  # but for the next look of `watch`
    late.drop()


@pytest.mark.parametrize("trouble", ["the receiver died", "for want of room", "not adopted"])
def test_what_keeps_every_study_waiting_is_told_with_the_way_out(spool: Spool, tmp_path: Path, trouble: str) -> None:
    victim = open_spool(tmp_path)
    intake = Intake(victim)
    file_one(spool, receive(intake))
    if trouble == "the receiver died":
        die(victim, intake)
    elif trouble == "for want of room":
        intake._min_free = 1 << 62
        intake.tend()
    else:
        drop(spool, "SMITH.dcm")
    reason = asked(spool).waits[0]
    assert trouble in reason.what
    assert reason.what.count("receiver") < 2
    assert "dicomrx" in reason.ends
    assert asked(spool).until is None


def test_gaps_are_told_as_the_reason_of_a_longer_wait(spool: Spool) -> None:
    for number in (1, 4):
        see(spool, f"2.25.{number}", number)
        filed(spool, instance=f"2.25.{number}")
    advance(61, spool)
    reason = only(asked(spool, Rules(60, evidence_wait_s=900)))
    assert "900 s of quiet" in reason.what
    assert "2 instance numbers are missing in 1 series" in reason.what
    assert asked(spool, Rules(60, evidence_wait_s=900)).confidence == "low"


def test_a_stage_that_does_not_run_is_told(tmp_path: Path) -> None:
    with open_spool(tmp_path / "idle") as idle:
        intake = Intake(idle)
        file_one(idle, receive(intake))
        receive(intake, number=2)
        backlog, _, watch = asked(idle).waits
        assert "does not run" in backlog.ends
        assert "watch` does not run" in watch.what
        intake.stop(cut=False)


def test_strangers_in_its_folder_are_told_without_their_names(spool: Spool) -> None:
    filed(spool)
    (spool.studies / STUDY / "SMITH.txt").write_text("Smith")
    answer = asked(spool)
    assert any("not dicomrx's" in reason.what for reason in answer.waits)
    assert "SMITH" not in "\n".join(answer.lines())


def test_a_study_that_has_gone_on_tells_where_each_generation_is(spool: Spool) -> None:
    filed(spool)
    assert mark(spool)
    assert asked(spool).state == "complete"
    assert "zipped and sent" in only(asked(spool)).what
    first = freeze(spool)
    assert first is not None
    assert [(each.generation, each.state) for each in asked(spool).generations] == [(1, "pending")]
    with Outgoing.claimed(spool, first) as outgoing:
        assert outgoing is not None
        outgoing.write(RECEIPT, {"status": 201})
        outgoing.settle()
    assert (asked(spool).state, asked(spool).waits) == ("sent", [])
    second = frozen(spool, instance="2.25.2")
    assert quarantine.put_aside(spool, spool.outbox / second.name, "upload", "http-400")
    answer = asked(spool)
    assert (answer.state, [each.state for each in answer.generations]) == ("failed", ["sent", "failed"])
    assert "requeue" in only(answer).ends
    filed(spool, instance="2.25.3")
    assert asked(spool).state == "open"


def test_a_study_of_which_everything_is_in_quarantine_is_known(spool: Spool) -> None:
    see(spool, fate=Fate.QUARANTINED)
    answer = asked(spool)
    assert (answer.state, answer.waits) == ("quarantined", [])
    assert "1 of its instances" in "\n".join(answer.lines())


def test_a_study_that_nobody_knows_has_no_answer(spool: Spool) -> None:
    filed(spool)
    assert explain(spool, OTHER_STUDY, RULES) is None


def test_what_is_said_is_what_watch_does(spool: Spool, intake: Intake) -> None:
    """As long as a reason is told the study is not marked, and when none is left it is."""
    file_one(spool, receive(intake))
    slow = intake.begin(1, 2)
    stage = Watch(spool, RULES)

    def look() -> tuple[bool, bool]:
        reasons = bool(asked(spool).waits)
        for job in stage.scan():
            stage.process(job)
        return reasons, is_marked(spool, STUDY)

    assert look() == (True, False)
    advance(100, spool)
    assert look() == (True, False)
    slow.drop()
    assert look() == (False, True)
