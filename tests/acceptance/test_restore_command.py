"""`dicomrx restore`: from the vault, byte for byte; and from the older tool's map."""

import json
import shutil
from pathlib import Path

import pytest
from pydicom import dcmread

from tests import factories
from tests.acceptance.pipeline import Pipeline, dataset_sha256, wait_until


@pytest.fixture
def sent(pipeline: Pipeline, tmp_path: Path) -> Pipeline:
    with pipeline.running("all"):
        pipeline.send(factories.study(tmp_path / "sources"))
        wait_until(lambda: pipeline.api.accepted)
    return pipeline


def sources(tmp_path: Path) -> list[str]:
    return sorted(dataset_sha256(path) for path in (tmp_path / "sources").iterdir())


def test_a_zip_a_folder_and_a_file_come_back_and_out_gets_nothing_else(sent: Pipeline, tmp_path: Path) -> None:
    (folder,) = (sent.storage / "sent").iterdir()
    one = min(folder.glob("*/*.dcm"))
    for name, source, count in (("zip", sent.api.accepted[0].path, 4), ("folder", folder, 4), ("file", one, 1)):
        out = tmp_path / "out" / name
        sent.run("restore", str(source), str(out))
        files = [path for path in [out, *out.rglob("*")] if path.is_file()]
        assert len(files) == count
        assert {dataset_sha256(path) for path in files} <= set(sources(tmp_path))


def test_nothing_is_overwritten(sent: Pipeline, tmp_path: Path) -> None:
    (folder,) = (sent.storage / "sent").iterdir()
    one = min(folder.glob("*/*.dcm"))
    target = tmp_path / "mine.dcm"
    target.write_text("mine")
    sent.run("restore", str(one), str(target), code=73)
    assert target.read_text() == "mine"


@pytest.mark.parametrize("where", ["spool/studies", "spool/restored", "spool/outbox/x", "zips", "state/x", "through a link"])
def test_originals_never_go_where_they_could_be_sent_from(sent: Pipeline, tmp_path: Path, where: str) -> None:
    (sent.root / "through a link").symlink_to(sent.storage / "studies")
    before = sorted(sent.root.rglob("*"))
    done = sent.run("restore", str(sent.api.accepted[0].path), str(sent.root / where), code=73)
    assert "outside" in done.stderr
    assert sorted(sent.root.rglob("*")) == before


def test_what_the_vault_does_not_know_is_said_and_ends_with_66(sent: Pipeline, tmp_path: Path) -> None:
    done = sent.run("restore", str(tmp_path / "sources"), str(tmp_path / "out"), code=66)
    assert "no original" in done.stderr
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    sent.run("restore", str(tmp_path / "nowhere"), str(tmp_path / "out"), code=66)


def test_a_tampered_record_is_refused(sent: Pipeline, tmp_path: Path) -> None:
    segment = max((sent.state / "vault").glob("*.seg"), key=lambda path: path.stat().st_size)  # one a worker that stored anything
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    done = sent.run("restore", str(sent.api.accepted[0].path), str(tmp_path / "out"), code=None)
    assert done.returncode != 0
    assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == 3


def test_the_wrong_key_is_refused_with_78(sent: Pipeline, tmp_path: Path) -> None:
    (sent.state / "site.key").write_bytes(b"A" * 43 + b"=\n")
    done = sent.run("restore", str(sent.api.accepted[0].path), str(tmp_path / "out"), code=78)
    assert "site.key" in done.stderr


def test_a_zip_whose_names_lead_out_writes_nothing_outside(sent: Pipeline, tmp_path: Path) -> None:
    import zipfile

    evil = tmp_path / "evil.zip"
    (folder,) = (sent.storage / "sent").iterdir()
    with zipfile.ZipFile(evil, "w") as bundle:
        bundle.write(min(folder.glob("*/*.dcm")), "../../escaped.dcm")
    sent.run("restore", str(evil), str(tmp_path / "deep" / "er"), code=66)
    assert not list(tmp_path.rglob("escaped.dcm"))


FLAT = "flat"
FULL = "full"


@pytest.mark.parametrize("form", [FULL, FLAT])
@pytest.mark.parametrize("bare", [False, True])
def test_the_older_map_restores_a_file_anonymized_in_the_older_way(pipeline: Pipeline, tmp_path: Path, form: str, bare: bool) -> None:
    made = factories.dataset()
    original = {"PatientName": "Quixano^Alonso", "PatientID": "HID-778899", "PatientBirthDate": "19470923"}
    info = {made.StudyInstanceUID: original}
    full = {
        "patient_info": info,
        "patient_name_map": {"Quixano^Alonso": "sub-001"},
        "patient_study_map": {"sub-001": [made.StudyInstanceUID]},
    }
    (tmp_path / "patient_info_map.json").write_text(json.dumps(full if form == FULL else info))
    made.PatientName, made.PatientBirthDate = "sub-001^", "19000101"
    path = tmp_path / "anonymous" / "image.dcm"
    if bare:
        path.parent.mkdir()
        made.save_as(path, implicit_vr=False, little_endian=True)
    else:
        factories.write(path, made)
    pipeline.run("restore", str(path), str(tmp_path / "out"), "--map-file", str(tmp_path / "patient_info_map.json"))
    back = dcmread(tmp_path / "out")
    assert {keyword: str(back[keyword].value) for keyword in original} == original
    assert back.PixelData == made.PixelData


def test_a_map_that_is_garbage_is_named(pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text("{")
    done = pipeline.run("restore", str(tmp_path), str(tmp_path / "out"), "--map-file", str(tmp_path / "map.json"), code=78)
    assert "map.json" in done.stderr
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
