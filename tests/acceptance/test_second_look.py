"""From thousands of planted values to the zip that leaves, through the real commands; and `dicomrx verify`, which looks again."""

import io
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from dicomrx.deid import named_profile, pseudonymous_uid, read
from dicomrx.demo.api_server import DemoApi
from dicomrx.vault import Patient, State
from tests import factories
from tests.acceptance.pipeline import Pipeline, wait_until
from tests.unit.deid_files import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, tag_of
from tests.unit.test_deid_canaries import Planter, inflated, stands_in, stressed

SYNTAXES = (EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED)
# An instance with a document inside is refused whole, so it would show nothing here.
DOCUMENT = frozenset({tag_of("EncapsulatedDocument")})


def everything_that_leaves(pipeline: Pipeline) -> dict[str, bytes]:
    """Every file of the spool and zip folders, every upload and every log, inflated; by a path relative to the site."""
    found: dict[str, bytes] = {}
    folders = (pipeline.storage, pipeline.zips, pipeline.api.accepted[0].path.parent)
    paths = [path for folder in folders for path in folder.rglob("*")] + list(pipeline.root.glob("*.log"))
    for path in paths:
        name = str(path.relative_to(pipeline.root.parent))
        found[name] = path.read_bytes() if path.is_file() else b""
        if path.is_file() and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as bundle:
                found |= {f"{name}/{entry}": bundle.read(entry) for entry in bundle.namelist()}
    for name, data in found.items():
        if data[128:132] == b"DICM":
            instance = read(io.BytesIO(data))
            found[name] = inflated(data, instance.transfer_syntax)
    return found


@pytest.mark.parametrize("name", ["basic", "research"])
def test_of_thousands_of_values_none_leaves_in_files_zips_names_or_logs(new_pipeline: Callable[..., Pipeline], name: str) -> None:
    pipeline = new_pipeline(BURNED_IN="pass", LOG_LEVEL="DEBUG", PROFILE=name)
    planter, planted = Planter(), 0
    # Dropped by hand, so that file and folder names carry values too.
    for syntax in SYNTAXES:
        stem, folder = (planter.value("LO") or b"", planter.value("PN") or b"")
        first = len(planter.planted)
        file = stressed(planter, syntax, DOCUMENT)
        before = inflated(file, syntax)
        planted += sum(value in before for value in planter.planted[first:]) + 2
        target = pipeline.root / folder.decode() / f"{stem.decode()}.dcm"
        target.parent.mkdir()
        target.write_bytes(file)
    assert planted > 4 * 1200
    pipeline.storage.mkdir()
    (pipeline.storage / "incoming").mkdir()
    for dropped in list(pipeline.root.glob("Cnry*")):
        shutil.move(dropped, pipeline.storage / "incoming" / dropped.name)
    with pipeline.running("all"):
        wait_until(lambda: len(pipeline.uploaded()) == len(SYNTAXES))
    leaving = everything_that_leaves(pipeline)
    assert any(name.endswith(".log") for name in leaving)
    everything = b"\n".join([*leaving.values(), *(name.encode() for name in leaving)])
    kept = {value for syntax in SYNTAXES for value in planter.kept(named_profile(name), syntax)}
    with State.open(pipeline.state, create=False) as state:
        for number in range(1, state.highest_number() + 1):
            kept |= planter.moved(state.date_shift(Patient(number, "", b"")))
    assert [value for value in planter.planted if value not in kept and stands_in(value, everything)] == []
    pipeline.run("verify", *(str(upload.path) for upload in pipeline.api.accepted), str(pipeline.storage / "sent"))


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A study that was de-identified; nothing here changes it."""
    root = tmp_path_factory.mktemp("site")
    with DemoApi(root / "received") as api:
        pipeline = Pipeline(root, api)
        (pipeline.storage / "incoming").mkdir(parents=True)
        for path in factories.study(root / "sources", images=2):
            shutil.copy(path, pipeline.storage / "incoming")
        pipeline.run("anonymize", "--once")
        yield pipeline


def filed(pipeline: Pipeline) -> list[Path]:
    return sorted(pipeline.storage.glob("*/*/*/*.dcm"))


def test_a_clean_study_ends_with_0_and_says_how_much_was_searched(sent: Pipeline) -> None:
    done = sent.run("verify", str(sent.storage / "studies"), str(filed(sent)[0]))
    assert "3 clean, 0 with survivors, 0 not proven" in done.stdout


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientComments", "old name: QUIXANO"),
        ("SeriesDate", "20240517"),
        ("FrameOfReferenceUID", factories.uid(4, 1)),
        ("StationName", "ACC5566778"),
    ],
)
def test_a_survivor_ends_with_1_and_is_named_by_its_element_alone(sent: Pipeline, tmp_path: Path, keyword: str, value: str) -> None:
    leaking = dcmread(filed(sent)[0])
    setattr(leaking, keyword, value)
    leaking.save_as(tmp_path / "leaking.dcm")
    done = sent.run("verify", str(tmp_path / "leaking.dcm"), code=1)
    assert f"SURVIVOR in leaking.dcm: {keyword}" in done.stdout
    assert value not in done.stdout + done.stderr


@pytest.mark.parametrize("place", ["preamble", "behind"])
def test_a_survivor_outside_the_data_set_is_found(sent: Pipeline, tmp_path: Path, place: str) -> None:
    data = filed(sent)[0].read_bytes()
    leak = b"HID-778899"
    data = leak.ljust(128, b"\0") + data[128:] if place == "preamble" else data + b"\0\0" + leak
    (tmp_path / "leaking.dcm").write_bytes(data)
    done = sent.run("verify", str(tmp_path / "leaking.dcm"), code=1)
    assert place in done.stdout
    assert leak.decode() not in done.stdout


def test_a_name_in_a_zip_and_the_name_of_the_zip_are_searched(sent: Pipeline, tmp_path: Path) -> None:
    for zip_name, entry, code in (("out.zip", "a/Quixano_1.dcm", 1), ("ACC5566778.zip", "a/1.dcm", 1), ("out.zip", "a/1.dcm", 0)):
        with zipfile.ZipFile(tmp_path / zip_name, "w") as bundle:
            bundle.write(filed(sent)[0], entry)
        done = sent.run("verify", str(tmp_path / zip_name), code=code)
        assert "uixano" not in done.stdout
        assert "ACC" not in done.stdout


def test_another_file_beside_the_images_is_searched_too(sent: Pipeline, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as bundle:
        bundle.write(filed(sent)[0], "a/1.dcm")
        bundle.writestr("index.txt", "1 image of Alonso")
    assert "its text" in sent.run("verify", str(tmp_path / "out.zip"), code=1).stdout


def test_who_is_called_as_a_word_of_our_own_documents_is_no_survivor_there_but_anywhere_else(pipeline: Pipeline) -> None:
    def through(number: int, names: list[str]) -> Path:
        image = factories.dataset(number)
        image.OtherPatientNames = names
        factories.write(pipeline.storage / "incoming" / "1.dcm", image)
        pipeline.run("anonymize", "--once")
        pipeline.run("watch", "--complete", "all")
        before = set((pipeline.storage / "sent").iterdir())
        pipeline.run("upload", "--once")
        return (set((pipeline.storage / "sent").iterdir()) - before).pop()

    (pipeline.storage / "incoming").mkdir(parents=True)
    first = through(1, [])
    text = "".join((first / name).read_text() for name in (".complete", "manifest.json", "attempts.jsonl"))
    words = {word for key in re.findall(r'"([a-z_]+)":', text) for word in key.split("_")} | {"hand", "high", "last"}
    words -= {"attempts", "complete", "name", "size"}  # files are called so, and the API answers so
    assert {"parent", "quiet", "rule", "whole"} <= words
    sent = through(2, sorted(words))
    pipeline.run("verify", str(sent))
    (sent / "note.txt").write_text("Mrs Parent")
    assert f"SURVIVOR in {sent.name}/note.txt: its text" in pipeline.run("verify", str(sent), code=1).stdout


def test_what_cannot_be_searched_is_told_and_hides_no_survivor(sent: Pipeline, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as bundle:
        bundle.write(filed(sent)[0], "a/1.dcm")
        bundle.writestr("big.txt", b"-" * (1 << 24) + b"Alonso")
        bundle.writestr("index.txt", "1 image of Alonso")
    done = sent.run("verify", str(tmp_path / "out.zip"), code=1)
    assert "proves nothing: out.zip/big.txt" in done.stderr
    assert "its text" in done.stdout
    assert "SURVIVOR" not in sent.run("verify", str(tmp_path / "out.zip"), str(tmp_path / "nowhere"), code=66).stdout
    damage(tmp_path / "out.zip", "big.txt")
    done = sent.run("verify", str(tmp_path), code=1)
    assert "damaged" in done.stderr
    assert "its text" in done.stdout


def damage(path: Path, entry: str) -> None:
    """Change bytes in the middle of an entry."""
    with zipfile.ZipFile(path) as bundle:
        info = bundle.getinfo(entry)
    data = bytearray(path.read_bytes())
    middle = info.header_offset + 30 + len(entry) + info.compress_size // 2
    data[middle] ^= 1
    path.write_bytes(data)


def test_an_original_that_was_named_by_mistake_is_one_big_survivor(sent: Pipeline) -> None:
    found = sent.run("verify", str(sent.root / "sources"), code=1).stdout
    for where in ("PatientName", "PatientID", "StudyInstanceUID", "file meta"):
        assert where in found
    assert "uixano" not in found


def test_what_has_no_original_proves_nothing_and_ends_with_66(sent: Pipeline, tmp_path: Path) -> None:
    factories.study(tmp_path / "others", 9)
    assert "no original" in sent.run("verify", str(tmp_path / "others"), code=66).stderr
    (tmp_path / "empty").mkdir()
    assert "there is no DICOM file" in sent.run("verify", str(tmp_path / "empty"), code=66).stderr
    sent.run("verify", str(tmp_path / "nowhere"), code=66)
    sent.run("verify", str(filed(sent)[0]), code=66, DICOM_RECEIVER_STATE_DIR=str(tmp_path / "none"))


def test_a_slip_of_the_profile_is_caught_before_filing(pipeline: Pipeline) -> None:
    """A kernel is kept as technical text; this one is the patient's name."""
    slip = factories.dataset()
    slip.ConvolutionKernel = "Quixano"
    (pipeline.storage / "incoming").mkdir(parents=True)
    factories.write(pipeline.storage / "incoming" / "1.dcm", slip)
    done = pipeline.run("anonymize", "--once")
    assert "dummies in ConvolutionKernel" in done.stderr
    assert "uixano" not in done.stderr
    (path,) = filed(pipeline)
    assert dcmread(path).ConvolutionKernel == "ANON"


def test_what_no_dummy_can_replace_is_quarantined_with_the_element_named(pipeline: Pipeline) -> None:
    slip = factories.dataset()
    slip.RelatedGeneralSOPClassUID = slip.StudyInstanceUID
    (pipeline.storage / "incoming").mkdir(parents=True)
    factories.write(pipeline.storage / "incoming" / "1.dcm", slip)
    pipeline.run("anonymize", "--once")
    listed = pipeline.run("quarantine", "list").stdout
    assert "anonymize/second-look" in listed
    shown = pipeline.run("quarantine", "show", "second-look").stdout
    assert "RelatedGeneralSOPClassUID" in shown
    assert slip.StudyInstanceUID not in shown
    with State.open(pipeline.state, create=False) as state:
        assert not state.vault.find(pseudonymous_uid(state.uid_key, slip.SOPInstanceUID))
