"""Who is who, through the real commands: never guessed, and told to the operator without a name."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from tests import factories
from tests.acceptance.pipeline import Pipeline
from tests.crash.test_kill_anonymize import receive

OTHER = {"name": "Panza^Sancho", "birth_date": "19500101"}
SECRETS = ("uixano", "anza", "HID-778899", "HID-112233", "19470923", "19500101")


def arrive(pipeline: Pipeline, study: int, number: int = 1, /, **facts: Any) -> None:  # noqa: ANN401  what `dataset` takes
    path = pipeline.root / f"{study}-{number}.dcm"
    factories.write(path, factories.dataset(study, number=number, **facts))
    receive(pipeline, path)


def anonymized(pipeline: Pipeline) -> list[str]:
    """The pseudonym of every filed instance, once what has arrived was de-identified; nothing that was said tells of anyone."""
    done = pipeline.run("anonymize", "--once")
    assert not any(secret in done.stdout + done.stderr for secret in SECRETS)
    return sorted(str(dcmread(path).PatientID) for path in pipeline.storage.glob("studies/*/*/*.dcm"))


def quarantined(pipeline: Pipeline, reason: str) -> str:
    """What an operator sees of one instance that was put aside for this reason."""
    listed, shown = pipeline.run("quarantine", "list").stdout, pipeline.run("quarantine", "show", reason).stdout
    assert listed.count(f"anonymize/{reason} ") == 1
    asides = b"".join(path.read_bytes() for path in pipeline.storage.glob("quarantine/*/*/*.json")).decode()
    assert not any(secret in listed + shown + asides for secret in SECRETS)
    return shown


def test_one_id_of_two_people_is_quarantined_and_the_operator_is_told_what_to_do(pipeline: Pipeline) -> None:
    arrive(pipeline, 1)
    arrive(pipeline, 2, **OTHER)
    assert anonymized(pipeline) == ["sub-001"]
    assert "send the images again" in quarantined(pipeline, "identity-conflict")
    arrive(pipeline, 2, patient_id="HID-112233", **OTHER)
    assert anonymized(pipeline) == ["sub-001", "sub-002"]


def test_the_second_patient_of_one_study_is_quarantined_and_burns_no_number(pipeline: Pipeline) -> None:
    arrive(pipeline, 1)
    arrive(pipeline, 1, 2, patient_id="HID-112233", **OTHER)
    arrive(pipeline, 1, 3, patient_id="", name="", birth_date="")
    assert anonymized(pipeline) == ["sub-001", "sub-001"]
    assert "send them again" in quarantined(pipeline, "two-patients")
    arrive(pipeline, 3, patient_id="HID-112233", **OTHER)
    assert anonymized(pipeline) == ["sub-001", "sub-001", "sub-002"]


def test_a_site_names_its_own_placeholders_and_pseudonyms(new_pipeline: Callable[..., Pipeline]) -> None:
    pipeline = new_pipeline(PLACEHOLDERS="Notfall,zentrale notaufnahme", PSEUDONYM="north-%04d")
    arrive(pipeline, 1, patient_id="NOTFALL", name="", birth_date="")
    arrive(pipeline, 2, patient_id="NOTFALL", name="Zentrale^Notaufnahme", birth_date="19470923")
    arrive(pipeline, 3)
    assert anonymized(pipeline) == ["north-0001", "north-0002", "north-0003"]
    pipeline.run("verify", str(pipeline.storage / "studies"))
    refused = pipeline.run("anonymize", "--once", code=78, DICOM_RECEIVER_PSEUDONYM="sub-%03d").stderr
    assert "north-%04d" in refused


def test_a_numbering_that_was_imported_before_the_first_start_is_used(pipeline: Pipeline) -> None:
    table = pipeline.root / "ours.csv"
    table.write_text("patient_id,issuer,pseudonym\nHID-778899,,sub-017\n")
    first = pipeline.run("map", "import", str(table))
    assert "1 imported, 0 known" in first.stdout
    assert "site.key" in first.stderr
    arrive(pipeline, 1)
    arrive(pipeline, 2, patient_id="HID-112233", **OTHER)
    assert anonymized(pipeline) == ["sub-017", "sub-018"]
    with pipeline.running("anonymize"):
        assert "0 imported, 1 known" in pipeline.run("map", "import", str(table)).stdout
    table.write_text("patient_id,issuer,pseudonym\nHID-112233,,sub-030\n")
    refused = pipeline.run("map", "import", str(table), code=78).stderr
    assert "line 2" in refused
    assert not any(secret in refused for secret in SECRETS)
    pipeline.run("map", "import", str(pipeline.root / "none.csv"), code=66)
    pipeline.run("map", "import", code=64)


def test_no_state_is_made_for_a_table_that_cannot_be_read(pipeline: Pipeline) -> None:
    table = pipeline.root / "ours.csv"
    table.write_text("patient_id,pseudonym\nHID-778899,nobody\n")
    pipeline.run("map", "import", str(table), code=78)
    assert not pipeline.state.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_table_of_anothers_is_refused_with_77(pipeline: Pipeline) -> None:
    table: Path = pipeline.root / "ours.csv"
    table.touch(mode=0o200)
    pipeline.run("map", "import", str(table), code=77)
