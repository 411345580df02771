import io
import os
import random
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from hashlib import sha256
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
        writer = archive.Writer(out)
        entries = writer.pack(folder, STUDY, names)
        told = writer.finish()
    assert told == archive.digest(to)
    return entries


def zipped(*contents: bytes) -> io.BytesIO:
    out = io.BytesIO()
    writer = archive.Writer(out)
    for number, content in enumerate(contents):
        writer.add(str(number), io.BytesIO(content))
    assert writer.finish() == (len(out.getvalue()), sha256(out.getvalue()).hexdigest())
    return out


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
    assert {(info.external_attr, info.extra, info.comment) for info in infos} == {(0o600 << 16, b"", b"")}


def test_each_entry_is_told_with_the_size_and_hash_that_the_zip_gives_back(folder: Path, tmp_path: Path) -> None:
    entries = pack(folder, NAMES, tmp_path / "1.zip")
    with zipfile.ZipFile(tmp_path / "1.zip") as packed:
        unpacked = [packed.read(name) for name in packed.namelist()]
    assert [(entry.series, entry.instance) for entry in entries] == sorted(NAMES)
    for entry, content in zip(entries, unpacked, strict=True):
        source = folder / entry.series / f"{entry.instance}.dcm"
        assert content == source.read_bytes()
        assert (entry.size, entry.sha256) == archive.digest(source)


def test_the_digest_is_what_sha256sum_says(folder: Path, tmp_path: Path) -> None:
    pack(folder, NAMES, tmp_path / "1.zip")
    said = subprocess.run(["sha256sum", tmp_path / "1.zip"], check=True, capture_output=True, text=True).stdout.split()[0]
    assert archive.digest(tmp_path / "1.zip") == ((tmp_path / "1.zip").stat().st_size, said)


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


NATIVE = bytes(range(256)) * 9000  # more than one chunk
COMPRESSED = bytes(128) + b"DICM" + b"\x02\x00\x10\x00UI\x16\x001.2.840.10008.1.2.4.50" + NATIVE


@given(st.lists(st.tuples(st.sampled_from([b"", COMPRESSED, NATIVE]), st.binary(max_size=2000)), max_size=5))
def test_whatever_goes_in_comes_out_of_another_s_reader(parts: list[tuple[bytes, bytes]]) -> None:
    contents = [head + tail for head, tail in parts]
    with zipfile.ZipFile(zipped(*contents)) as packed:
        assert [packed.read(info) for info in packed.infolist()] == contents


@pytest.mark.parametrize("zip64_from", [archive._ZIP64_FROM, 1])
@pytest.mark.parametrize("most", [0xFFFF_FFFF, 100])
def test_others_read_it_with_zip64_and_without(zip64_from: int, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_ZIP64_FROM", zip64_from)
    monkeypatch.setattr(archive, "_LARGEST", most)
    (tmp_path / "1.zip").write_bytes(zipped(NATIVE, COMPRESSED).getvalue())
    with zipfile.ZipFile(tmp_path / "1.zip") as packed:
        assert packed.testzip() is None
    for command in (["unzip", "-tq"], ["bsdtar", "-tf"], ["7z", "t"]):
        if shutil.which(command[0]):
            subprocess.run([*command, tmp_path / "1.zip"], check=True, capture_output=True)


def test_an_entry_that_may_need_zip64_says_so_before_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_ZIP64_FROM", 1)
    made = zipped(NATIVE).getvalue()
    assert made[18:26] == b"\xff" * 8  # sizes are in the extra field
    behind = struct.unpack_from("<4sL2Q", made, made.index(b"PK\x01\x02") - 24)
    assert behind[:2] == (b"PK\x07\x08", zlib.crc32(NATIVE))
    assert behind[3] == len(NATIVE)


def test_more_entries_than_a_plain_zip_can_count_are_all_there() -> None:
    with zipfile.ZipFile(zipped(*[b""] * 0x1_0001)) as packed:
        assert len(packed.infolist()) == 0x1_0001


def test_an_entry_beyond_four_gigabytes_is_found(tmp_path: Path) -> None:
    with (tmp_path / "1.zip").open("xb") as out:
        writer = archive.Writer(out)
        writer._size = out.seek(0x1_0000_0005)  # behind a hole, which takes no room
        writer.add("behind", io.BytesIO(NATIVE))
        assert writer.finish()[0] == out.tell()
    with zipfile.ZipFile(tmp_path / "1.zip") as packed:
        assert packed.getinfo("behind").header_offset == 0x1_0000_0005
        assert packed.testzip() is None


def test_what_is_stored_has_its_sizes_before_it_for_readers_that_never_go_back() -> None:
    with zipfile.ZipFile(zipped(NATIVE, COMPRESSED)) as packed:
        assert [info.flag_bits & 8 for info in packed.infolist()] == [8, 0]


def test_what_is_not_the_same_when_it_is_read_again_is_an_error() -> None:
    class Rotting(io.BytesIO):
        def seek(self, offset: int, whence: int = 0) -> int:
            self.getbuffer()[-1] += 1
            return super().seek(offset, whence)

    with pytest.raises(OSError, match="not the same"):
        archive.Writer(io.BytesIO()).add("1", Rotting(COMPRESSED[:500]))


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
    archive.Writer(out).pack(folder, "2.25.1", [("s", "i")])
archive.digest(folder / "1.zip")
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    env = {**os.environ, "PYTHONPATH": str(Path(archive.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", program, tmp_path], check=True, capture_output=True, text=True, env=env)
    assert int(done.stdout) < 40_000  # kB
