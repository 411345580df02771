import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomrx import status
from dicomrx.spool import locks, quarantine
from dicomrx.spool.intake import Intake
from dicomrx.spool.layout import MANIFEST, RECEIPT, Spool
from dicomrx.spool.outbox import Outgoing, clean
from dicomrx.spool.sending import Step
from dicomrx.status import Queue
from tests.spool_rig import OTHER_STUDY, SECOND, SERIES, STUDY, advance, drop, file_one, filed, frozen, mark, open_spool, receive, tree

THIRD, FOURTH, FIFTH = "2.25.300", "2.25.400", "2.25.500"


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with open_spool(tmp_path) as spool:
        yield spool


def waiting(spool: Spool) -> dict[str, int]:
    return {queue.stage: queue.waiting for queue in status.read(spool).stages}


def test_an_empty_spool_shows_nothing_waiting(spool: Spool) -> None:
    seen = status.read(spool)
    assert seen.stages == [Queue(stage, running=False, waiting=0, oldest_s=None) for stage in ("scp", "anonymize", "watch", "upload")]
    assert (seen.studies, seen.sent, seen.quarantine, seen.blocked) == ([], 0, {}, None)
    assert set(seen.fates.values()) == {0}


def test_every_instance_is_counted_where_it_waits(spool: Spool) -> None:
    intake = Intake(spool)
    reception = intake.begin(1, 1)
    assert waiting(spool) == {"scp": 1, "anonymize": 0, "watch": 0, "upload": 0}
    arrival = reception.keep()
    reception.drop()
    drop(spool, "somebodys.dcm")
    assert waiting(spool) == {"scp": 0, "anonymize": 2, "watch": 0, "upload": 0}
    assert "adopted" in (status.read(spool).blocked or "")
    (spool.incoming / "somebodys.dcm").unlink()
    file_one(spool, arrival)
    assert waiting(spool) == {"scp": 0, "anonymize": 0, "watch": 1, "upload": 0}
    assert mark(spool)
    assert waiting(spool) == {"scp": 0, "anonymize": 0, "watch": 0, "upload": 1}
    intake.stop(cut=False)


def test_every_study_is_shown_with_its_state(spool: Spool) -> None:
    filed(spool, STUDY)
    filed(spool, STUDY, SECOND)
    filed(spool, OTHER_STUDY)
    assert mark(spool, OTHER_STUDY)
    frozen(spool, THIRD)
    with Outgoing.claimed(spool, frozen(spool, FOURTH)) as outgoing:
        assert outgoing is not None
        outgoing.note(Step.SENDING, attempt=1)
    with Outgoing.claimed(spool, frozen(spool, FIFTH)) as outgoing:
        assert outgoing is not None
        outgoing.write(MANIFEST, {"instances": [{"series": SERIES, "instance": "2.25.1", "sha256": ""}] * 3})
        outgoing.write(RECEIPT, {"status": 201})
        sent = outgoing.settle()
    dead = frozen(spool, FIFTH, SECOND)
    quarantine.put_aside(spool, spool.outbox / dead.name, "upload", "http-422", "no")
    expected = {
        (STUDY, None, "open", 2, ""),
        (OTHER_STUDY, None, "complete", 1, ""),
        (THIRD, 1, "pending", 1, ""),
        (FOURTH, 1, "pending", 1, "interrupted, may have arrived: sent again with the same key"),
        (FIFTH, 1, "sent", 3, "HTTP 201"),
        (FIFTH, 2, "failed", 1, "http-422"),
    }
    for _ in range(2):
        seen = status.read(spool)
        assert {(one.study, one.generation, one.state, one.instances, one.note) for one in seen.studies} == expected
        assert (seen.sent, seen.quarantine) == (1, {"upload/http-422": 1})
        clean(spool, sent)


def test_the_oldest_is_as_old_as_spool_time_says(spool: Spool) -> None:
    intake = Intake(spool)
    intake.begin(1, 1)
    receive(intake, number=2)
    advance(100, spool)
    receive(intake, number=3)
    ages = {queue.stage: queue.oldest_s for queue in status.read(spool).stages}
    assert ages["scp"] is not None
    assert ages["anonymize"] is not None
    assert 100 <= ages["anonymize"] <= ages["scp"] < 110
    intake.stop(cut=True)


def test_every_arrival_is_accounted_for(spool: Spool) -> None:
    intake = Intake(spool)
    arrivals = [receive(intake, number=number) for number in range(1, 5)]
    file_one(spool, arrivals[0])
    file_one(spool, arrivals[1])
    quarantine.put_aside(spool, spool.incoming / arrivals[2].name, "anonymize", "bug")
    (item,) = quarantine.items(spool)
    quarantine.requeue(spool, item, 1)
    fates = status.read(spool).fates
    assert fates == {"acknowledged": 5, "filed": 1, "duplicate": 1, "quarantined": 1, "requeued": 1}
    left = fates["acknowledged"] - fates["filed"] - fates["duplicate"] - fates["quarantined"]
    assert left == waiting(spool)["anonymize"] == 2
    intake.stop(cut=False)


def test_a_stage_runs_while_its_lock_is_held(spool: Spool) -> None:
    fd = locks.try_lock(spool.stage_lock("watch"))
    assert fd is not None
    assert [queue.running for queue in status.read(spool).stages] == [False, False, True, False]
    os.close(fd)
    assert not any(queue.running for queue in status.read(spool).stages)


def test_reading_the_status_changes_nothing(spool: Spool, tmp_path: Path) -> None:
    filed(spool)
    frozen(spool, OTHER_STUDY)
    before = tree(tmp_path)
    looker = Spool.at(tmp_path / "storage", tmp_path / "zips")
    assert json.loads(json.dumps(status.read(looker).as_json()))["version"] == 1
    assert tree(tmp_path) == before


def test_a_study_without_a_noted_arrival_is_shown_all_the_same(spool: Spool) -> None:
    filed(spool)
    (spool.studies / STUDY / ".arrived").unlink()
    assert [(one.study, one.age_s) for one in status.read(spool).studies] == [(STUDY, 0.0)]
