"""`dicomrx restore`: from the vault, byte for byte; and from the older tool's map."""

import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pydicom.data
import pytest
from pydicom import dcmread

from dicomrx.demo.api_server import DemoApi
from tests import factories
from tests.acceptance.pipeline import Pipeline, dataset_sha256, stop, wait_until


@pytest.fixture(scope="module")
def once_sent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A study that went all the way; nothing here changes it."""
    folder = tmp_path_factory.mktemp("sent")
    (folder / "site").mkdir()
    with DemoApi(folder / "received") as api:
        pipeline = Pipeline(folder / "site", api)
        with pipeline.running("all"):
            pipeline.send(factories.study(folder / "sources", side=32))  # large enough to leave the pixels out of the vault
            wait_until(lambda: api.accepted)
        yield pipeline


@pytest.fixture
def sent(once_sent: Pipeline, tmp_path: Path) -> Pipeline:
    """A copy of it, to be spoiled; `sources` beside it is what was sent."""
    for name in ("site", "sources"):
        shutil.copytree(once_sent.root.parent / name, tmp_path / name, symlinks=True)
    return Pipeline(tmp_path / "site", once_sent.api)


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
    factories.study(tmp_path / "others", 9)
    done = sent.run("restore", str(tmp_path / "others"), str(tmp_path / "out"), code=66)
    assert "no original" in done.stderr
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    sent.run("restore", str(tmp_path / "nowhere"), str(tmp_path / "out"), code=66)


def segment_of(sent: Pipeline) -> Path:
    """The vault's segment of the worker that stored anything."""
    return max((sent.state / "vault").glob("*.seg"), key=lambda path: path.stat().st_size)


def originals_in(out: Path) -> list[Path]:
    return [path for path in out.rglob("*") if path.is_file()]


def test_a_tampered_record_is_refused_with_77_whatever_of_it_was_changed(sent: Pipeline, tmp_path: Path) -> None:
    segment = max((sent.state / "vault").glob("*.seg"), key=lambda path: path.stat().st_size)  # one a worker that stored anything
    data = segment.read_bytes()
    instance = b'"instance": "2.25.'
    places = {
        "magic": 0,
        "header": data.index(b"series"),
        "instance": data.index(instance) + len(instance),
        "content": data.index(b"}") + 40,
    }
    for what, at in places.items():
        segment.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        done = sent.run("restore", str(sent.api.accepted[0].path), str(tmp_path / what), code=77)
        assert "tampered" in done.stderr
        assert len(originals_in(tmp_path / what)) == 3
    sent.run("verify", str(sent.api.accepted[0].path), code=77)


def test_a_file_without_the_originals_pixels_is_refused_and_nothing_written(sent: Pipeline, tmp_path: Path) -> None:
    path = min((sent.storage / "sent").glob("*/*/*.dcm"))
    pixels = dcmread(path).PixelData
    for number, (others, code) in enumerate(((pixels[:-2] + b"\x55\x55", 77), (pixels[:-2], 77), (None, 66))):
        changed = dcmread(path)
        if others is None:
            del changed.PixelData
        else:
            changed.PixelData = others
        changed.save_as(tmp_path / f"{number}.dcm")
        done = sent.run("restore", str(tmp_path / f"{number}.dcm"), str(tmp_path / "out"), code=code)
        assert "pixels" in done.stderr
        assert not list(tmp_path.glob("*out*"))


def test_a_copy_with_another_name_and_another_header_still_restores(sent: Pipeline, tmp_path: Path) -> None:
    for number, path in enumerate((sent.storage / "sent").glob("*/*/*.dcm")):
        copy = dcmread(path)
        copy.ImageComments = "looked at"
        copy.file_meta.ImplementationVersionName = "SOMEBODY"
        copy.save_as(tmp_path / f"{number}.bin")
        sent.run("restore", str(tmp_path / f"{number}.bin"), str(tmp_path / f"{number}.dcm"))
    assert sorted(map(dataset_sha256, tmp_path.glob("*.dcm"))) == sources(tmp_path)


def test_every_restore_is_in_the_audit_log_by_pseudonym_and_by_user(sent: Pipeline, tmp_path: Path) -> None:
    (folder,) = (sent.storage / "sent").iterdir()
    log = sent.state / "audit.log"
    assert not log.exists()
    one = min(folder.glob("*/*.dcm"))
    for source, out in ((sent.api.accepted[0].path, "zip"), (folder, "folder"), (one, "file")):
        sent.run("restore", str(source), str(tmp_path / "Quixano" / out), SUDO_USER="alice")
    sent.run("verify", str(folder))
    assert log.stat().st_mode & 0o777 == 0o600
    text = log.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(line["what"], line.get("source")) for line in lines] == (
        [("restore", "zip")] * 4 + [("restore", "folder")] * 4 + [("restore", "file"), ("verify", None)]
    )
    assert {line["by"]["uid"] for line in lines} == {os.getuid()}
    assert lines[0]["by"]["sudo_user"] == "alice"
    study = folder.name.rpartition(".")[0]
    assert {(line["patient"], line["study"]) for line in lines[:-1]} == {("sub-001", study)}
    assert lines[8]["instance"] == one.stem
    assert not re.search(r"uixano|HID-778899|19470923|" + str(tmp_path), text)


def test_what_cannot_be_noted_in_the_audit_log_is_not_decrypted(sent: Pipeline, tmp_path: Path) -> None:
    (sent.state / "audit.log").symlink_to(tmp_path / "elsewhere")
    bundle = str(sent.api.accepted[0].path)
    for arguments in (("restore", bundle, str(tmp_path / "out")), ("verify", bundle)):
        assert "audit log" in sent.run(*arguments, code=77).stderr
    assert not originals_in(tmp_path / "out")
    assert not (tmp_path / "elsewhere").exists()


def test_the_wrong_key_is_refused_with_78(sent: Pipeline, tmp_path: Path) -> None:
    (sent.state / "site.key").write_bytes(b"A" * 43 + b"=\n")
    done = sent.run("restore", str(sent.api.accepted[0].path), str(tmp_path / "out"), code=78)
    assert "site.key" in done.stderr


def test_a_zip_whose_names_lead_out_writes_nothing_outside(sent: Pipeline, tmp_path: Path) -> None:
    evil = tmp_path / "evil.zip"
    (folder,) = (sent.storage / "sent").iterdir()
    with zipfile.ZipFile(evil, "w") as bundle:
        bundle.write(min(folder.glob("*/*.dcm")), "../../escaped.dcm")
    sent.run("restore", str(evil), str(tmp_path / "deep" / "er"), code=66)
    assert not list(tmp_path.rglob("escaped.dcm"))


@pytest.mark.parametrize("how", ["damaged", "encrypted", "packed in another way", "cut short"])
def test_of_a_zip_that_cannot_be_unpacked_the_rest_comes_back(sent: Pipeline, tmp_path: Path, how: str) -> None:
    source = sent.api.accepted[0].path
    with zipfile.ZipFile(source) as bundle:
        first = bundle.infolist()[0]
    data = bytearray(source.read_bytes())
    central = data.index(b"PK\x01\x02")
    if how == "damaged":
        data[first.header_offset + 30 + len(first.filename) + first.compress_size // 2] ^= 0xFF
    elif how == "encrypted":
        data[first.header_offset + 6] |= 1
        data[central + 8] |= 1
    elif how == "packed in another way":
        data[first.header_offset + 8] = data[central + 10] = 99
    else:
        del data[central : central + 20]
    (tmp_path / "unfit.zip").write_bytes(data)
    done = sent.run("restore", str(tmp_path / "unfit.zip"), str(tmp_path / "out"), code=66)
    assert "damaged" in done.stderr
    assert len(originals_in(tmp_path / "out")) == (0 if how == "cut short" else 3)


def test_a_restore_that_is_stopped_ends_as_by_ctrl_c(sent: Pipeline, tmp_path: Path) -> None:
    one = min((sent.storage / "sent").glob("*/*/*.dcm"))
    (tmp_path / "anon").mkdir()
    for number in range(2000):
        (tmp_path / "anon" / f"{number}.dcm").hardlink_to(one)
    process = sent.start("restore", str(tmp_path / "anon"), str(tmp_path / "out"))
    wait_until(lambda: list(tmp_path.glob("out/*.dcm")))
    assert stop(process) == 130
    assert not list(tmp_path.glob("out/.*"))


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


@pytest.mark.filterwarnings("ignore:Expected explicit VR")
def test_a_file_that_cannot_be_written_again_stops_none_of_the_others(pipeline: Pipeline, tmp_path: Path) -> None:
    odd = Path(pydicom.data.__file__).parent / "test_files" / "SC_rgb_jpeg.dcm"
    studies = [str(dcmread(odd).StudyInstanceUID), factories.dataset().StudyInstanceUID]
    (tmp_path / "map.json").write_text(json.dumps({study: {"PatientName": "Quixano^Alonso"} for study in studies}))
    factories.write(tmp_path / "anonymous" / "b.dcm", factories.dataset())
    shutil.copy(odd, tmp_path / "anonymous" / "a.dcm")
    done = pipeline.run("restore", str(tmp_path / "anonymous"), str(tmp_path / "out"), "--map-file", str(tmp_path / "map.json"), code=66)
    assert "not restored: a.dcm" in done.stderr
    assert str(dcmread(tmp_path / "out" / "b.dcm").PatientName) == "Quixano^Alonso"
    assert [path.name for path in originals_in(tmp_path / "out")] == ["b.dcm"]


def test_a_map_that_is_garbage_is_named(pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text("{")
    done = pipeline.run("restore", str(tmp_path), str(tmp_path / "out"), "--map-file", str(tmp_path / "map.json"), code=78)
    assert "map.json" in done.stderr
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
