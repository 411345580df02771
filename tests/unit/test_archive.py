import os
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from dicomrx import archive

STUDY = "2.25.100"
NAMES = [("2.25.2", "2.25.20"), ("2.25.1", "2.25.11"), ("2.25.1", "2.25.10")]


def write_instance(path: Path, syntax: str, tail: bytes = b"", private: bytes = b"") -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = UID("2.25.1")
    meta.TransferSyntaxUID = UID(syntax)
    if private:
        meta.PrivateInformationCreatorUID = UID("2.25.2")
        meta.PrivateInformation = private
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.save_as(
        path, enforce_file_format=True, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=syntax != ExplicitVRBigEndian
    )
    with path.open("ab") as file:
        file.write(tail)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    noise = random.Random(3)
    for number, (series, instance) in enumerate(NAMES):
        syntax = JPEGBaseline8Bit if number == 1 else ExplicitVRLittleEndian
        write_instance(tmp_path / "in" / series / f"{instance}.dcm", syntax, noise.randbytes(50_000) + bytes(50_000))
    return tmp_path / "in"


def pack(folder: Path, names: list[tuple[str, str]], to: Path) -> list[archive.Entry]:
    with to.open("xb") as out:
        return archive.pack(folder, STUDY, names, out)


def test_the_same_instances_give_the_same_bytes_whatever_their_order_times_and_modes(folder: Path, tmp_path: Path) -> None:
    first = pack(folder, NAMES, tmp_path / "1.zip")
    for path in folder.rglob("*.dcm"):
        os.utime(path, (1e9, 1e9))
        path.chmod(0o400)
    second = pack(folder, NAMES[::-1], tmp_path / "2.zip")
    assert first == second
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()


def test_entries_are_sorted_named_by_pseudonyms_and_carry_no_time_of_ours(folder: Path, tmp_path: Path) -> None:
    pack(folder, NAMES, tmp_path / "1.zip")
    with zipfile.ZipFile(tmp_path / "1.zip") as packed:
        assert packed.testzip() is None
        infos = packed.infolist()
        assert packed.comment == b""
    assert [info.filename for info in infos] == [f"{STUDY}/{series}/{instance}.dcm" for series, instance in sorted(NAMES)]
    assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}
    assert {(info.external_attr, info.extra, info.comment, info.flag_bits) for info in infos} == {(0o600 << 16, b"", b"", 0)}


def test_each_entry_is_told_with_the_size_and_hash_that_the_zip_gives_back(folder: Path, tmp_path: Path) -> None:
    entries = pack(folder, NAMES, tmp_path / "1.zip")
    with zipfile.ZipFile(tmp_path / "1.zip") as packed:
        unpacked = [packed.read(name) for name in packed.namelist()]
    assert [(entry.series, entry.instance) for entry in entries] == sorted(NAMES)
    for entry, content in zip(entries, unpacked, strict=True):
        source = folder / entry.series / f"{entry.instance}.dcm"
        assert content == source.read_bytes()
        assert (entry.sha256, entry.size) == archive.digest(source)


def test_the_digest_is_what_sha256sum_says(folder: Path, tmp_path: Path) -> None:
    pack(folder, NAMES, tmp_path / "1.zip")
    said = subprocess.run(["sha256sum", tmp_path / "1.zip"], check=True, capture_output=True, text=True).stdout.split()[0]
    assert archive.digest(tmp_path / "1.zip") == (said, (tmp_path / "1.zip").stat().st_size)


@pytest.mark.parametrize(
    ("syntax", "method"),
    [
        (ImplicitVRLittleEndian, zipfile.ZIP_DEFLATED),
        (ExplicitVRLittleEndian, zipfile.ZIP_DEFLATED),
        (ExplicitVRBigEndian, zipfile.ZIP_DEFLATED),
        ("1.2.840.10008.1.2.1.98", zipfile.ZIP_DEFLATED),
        ("1.2.840.113619.5.2", zipfile.ZIP_DEFLATED),
        ("1.2.840.100080.1.2.3", zipfile.ZIP_DEFLATED),
        (DeflatedExplicitVRLittleEndian, zipfile.ZIP_STORED),
        (JPEGBaseline8Bit, zipfile.ZIP_STORED),
        (JPEG2000Lossless, zipfile.ZIP_STORED),
        (RLELossless, zipfile.ZIP_STORED),
    ],
)
def test_what_is_compressed_already_is_stored(syntax: str, method: int, tmp_path: Path) -> None:
    write_instance(tmp_path / "s" / "i.dcm", syntax, bytes(1000))
    pack(tmp_path, [("s", "i")], tmp_path / "1.zip")
    with zipfile.ZipFile(tmp_path / "1.zip") as packed:
        assert packed.infolist()[0].compress_type == method


def test_deflating_makes_a_native_image_smaller(tmp_path: Path) -> None:
    write_instance(tmp_path / "s" / "i.dcm", ExplicitVRLittleEndian, bytes(range(256)) * 400)
    (entry,) = pack(tmp_path, [("s", "i")], tmp_path / "1.zip")
    assert (tmp_path / "1.zip").stat().st_size < entry.size / 10


def test_a_file_that_is_no_dicom_is_zipped_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "i.dcm").write_bytes(b"")
    (entry,) = pack(tmp_path, [("s", "i")], tmp_path / "1.zip")
    assert entry.size == 0


@given(st.binary(max_size=300))
def test_no_file_meta_whatsoever_makes_the_look_at_it_fail(rest: bytes) -> None:
    archive.is_compressed(rest)
    archive.is_compressed(bytes(128) + b"DICM" + rest)


def test_a_syntax_is_found_behind_a_long_element_and_only_when_it_is_there_whole() -> None:
    before = b"\x02\x00\x01\x00OB\x00\x00\xc8\x00\x00\x00" + bytes(200)
    head = bytes(128) + b"DICM" + before + b"\x02\x00\x10\x00UI\x16\x001.2.840.10008.1.2.4.50"
    assert [archive.is_compressed(head[:cut]) for cut in range(len(head) + 1)] == [False] * len(head) + [True]


def test_an_entry_that_needs_zip64_gets_it(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_ZIP64_FROM", 1)
    pack(folder, NAMES, tmp_path / "1.zip")
    local_header = (tmp_path / "1.zip").read_bytes()[:30]
    assert local_header[18:26] == b"\xff" * 8  # sizes are in the extra field
    with zipfile.ZipFile(tmp_path / "1.zip") as packed:
        assert packed.testzip() is None


def test_an_instance_that_is_gone_is_an_error_and_no_shorter_zip(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        pack(folder, [*NAMES, ("2.25.1", "2.25.99")], tmp_path / "1.zip")


def test_memory_stays_flat_for_a_large_instance(tmp_path: Path) -> None:
    write_instance(tmp_path / "s" / "i.dcm", ExplicitVRLittleEndian)
    os.truncate(tmp_path / "s" / "i.dcm", 200_000_000)
    program = """
import sys, pathlib
from dicomrx import archive
folder = pathlib.Path(sys.argv[1])
with open(folder / "1.zip", "xb") as out:
    archive.pack(folder, "2.25.1", [("s", "i")], out)
archive.digest(folder / "1.zip")
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    env = {**os.environ, "PYTHONPATH": str(Path(archive.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", program, tmp_path], check=True, capture_output=True, text=True, env=env)
    assert int(done.stdout) < 40_000  # kB
