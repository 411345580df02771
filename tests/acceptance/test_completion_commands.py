"""`dicomrx why` and `dicomrx watch --complete`, as an operator uses them."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread

from tests.acceptance.pipeline import Pipeline
from tests.factories import dataset, uid, write


@pytest.fixture
def cut(new_pipeline: Callable[..., Pipeline], tmp_path: Path) -> Pipeline:
    """Three of five images of a study are filed, and the receiver is dead."""
    pipeline = new_pipeline(TIMEOUT=3600, TIMEOUT_MODALITY="CT=7200", EVIDENCE_WAIT=9000, MANIFEST_IN_ZIP="true", PSEUDONYM="S-%02d")
    with pipeline.running("scp") as receiver:
        pipeline.send([write(tmp_path / f"{number}.dcm", dataset(1, 1, number)) for number in (1, 2, 5)])
        pipeline.run("anonymize", "--once")
        receiver.kill()
        receiver.wait()
    return pipeline


def the_study(pipeline: Pipeline) -> str:
    (study,) = (path.name for path in (pipeline.storage / "studies").iterdir())
    return study


def test_why_answers_by_every_name_that_the_asker_may_know(cut: Pipeline) -> None:
    study = the_study(cut)
    answers = [cut.run("why", name).stdout for name in (study, "S-01", uid(1, 1))]
    assert len(set(answers)) == 1
    assert answers[0].startswith(f"{study}: open, 3 instances")
    for words in ("the receiver died", "9000 s of quiet", "2 instance numbers are missing in 1 series", "`dicomrx watch` does not run"):
        assert words in answers[0]
    (answer,) = json.loads(cut.run("why", study, "--json").stdout)["studies"]
    assert (answer["state"], answer["until"], answer["confidence"]) == ("open", None, "low")
    for unknown in (uid(1, 2), "2.25.1", "S-02"):
        done = cut.run("why", unknown, code=66)
        assert unknown not in done.stdout + done.stderr
    (cut.state / "id").rename(cut.state / ".id")
    assert cut.run("why", study).stdout == answers[0]  # who may not read the state asks by pseudonym
    cut.run("why", "S-01", code=66)


def test_a_receiver_that_is_gone_for_good_is_ended_by_hand(cut: Pipeline) -> None:
    study = the_study(cut)
    cut.run("watch", "--once")
    cut.run("upload", "--once")
    assert cut.api.accepted == []
    cut.run("watch", "--complete", "2.25.1", code=66)
    cut.run("watch", "--complete", "all")
    assert cut.run("why", study).stdout.startswith(f"{study}: complete")
    cut.run("upload", "--once")
    (sent,) = cut.api.accepted
    with zipfile.ZipFile(sent.path) as bundle:
        told = bundle.read(f"{study}/manifest.json")
        assert len([dcmread(io.BytesIO(bundle.read(name))) for name in bundle.namelist() if name.endswith(".dcm")]) == 3
    assert (cut.storage / "sent" / f"{study}.1" / "manifest.json").read_bytes() == told
    manifest = json.loads(told)
    assert (manifest["generation"], manifest["parent"], len(manifest["instances"])) == (1, None, 3)
    assert (manifest["complete"]["rule"], manifest["complete"]["confidence"]) == ("hand", "unknown")
    assert manifest["complete"]["evidence"]["associations"] == {"released": 1}
    assert b"SCANNER" not in told  # no AE title leaves
    assert cut.run("why", study).stdout.startswith(f"{study}: sent, 3 instances")
    cut.run("verify", str(sent.path))
