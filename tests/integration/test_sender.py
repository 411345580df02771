"""Sending files as they lie there."""

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pydicom.data
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info

from dicomrx.errors import UnavailableError
from dicomrx.network import filemeta
from dicomrx.network.classes import is_storage
from dicomrx.network.sender import echo, send
from tests.integration.scp_rig import CT, EXPLICIT, PRIVATE_CLASS, PRIVATE_SYNTAX, Folder, arrivals, data_set_of, receiving


@pytest.fixture
def intake(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "intake")


def bundled() -> Iterator[Path]:
    """pydicom's own files that tell what they are, but its DICOMDIRs, which are no storage."""
    folder = Path(pydicom.data.__file__).parent
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                meta = filemeta.read_meta(file)
            if meta is not None and is_storage(meta.sop_class):
                yield path


def made(path: Path, data: bytes, sop_class: str, syntax: str = EXPLICIT, uid: str = "1.2.3") -> Path:
    path.write_bytes(filemeta.file_head(sop_class=sop_class, sop_instance=uid, transfer_syntax=syntax, calling="", called="") + data)
    return path


def test_every_data_set_arrives_byte_for_byte(tmp_path: Path, intake: Folder) -> None:
    paths = [*bundled(), made(tmp_path / "private.dcm", b"whatever it is", PRIVATE_CLASS, PRIVATE_SYNTAX)]
    assert len(paths) > 60
    with receiving(intake) as server:
        results = list(send(paths, *server.address))
        assert [(result.path, result.status) for result in results if result.status != 0] == []
    assert [result.path for result in results] == paths
    by_number = sorted(arrivals(intake), key=lambda path: [int(part) for part in path.stem.split("-")])
    for path, arrived in zip(paths, by_number, strict=True):
        with path.open("rb") as file, arrived.open("rb") as kept:
            sent, got = filemeta.read_meta(file), filemeta.read_meta(kept)
            assert sent is not None
            assert got is not None
            assert (sent.sop_class, sent.sop_instance, sent.transfer_syntax) == (got.sop_class, got.sop_instance, got.transfer_syntax)
            file.seek(sent.offset)
            assert file.read() == data_set_of(arrived), path.name


def test_where_a_data_set_begins_is_where_pydicom_sees_it() -> None:
    for path in bundled():
        with path.open("rb") as file:
            meta = filemeta.read_meta(file)
            assert meta is not None
            file.seek(0)
            expected = pydicom.filereader.read_preamble(file, force=True)
            assert (expected is not None) == (path.read_bytes()[128:132] == b"DICM")
            pydicom.filereader._read_file_meta_info(file)
            assert file.tell() == meta.offset, path.name


def test_the_head_is_what_pydicom_would_write(tmp_path: Path) -> None:
    path = made(tmp_path / "a.dcm", b"", CT, uid="1.2.34")
    meta = pydicom.filereader.read_file_meta_info(path)
    assert isinstance(meta, FileMetaDataset)
    theirs = DicomBytesIO()
    write_file_meta_info(theirs, meta)
    assert path.read_bytes() == bytes(128) + b"DICM" + theirs.getvalue()


def test_files_of_more_kinds_than_an_association_has_contexts_take_another(tmp_path: Path, intake: Folder) -> None:
    paths = [made(tmp_path / f"{n}.dcm", str(n).encode(), f"{PRIVATE_CLASS}.{n}") for n in range(130)]
    with receiving(intake) as server:
        assert all(result.status == 0 for result in send(paths, *server.address))
    assert [note["instances"] for note in intake.notes if note["ended"] == "released"] == [128, 2]


def test_a_file_that_does_not_tell_what_it_is_is_named_and_the_others_are_sent(tmp_path: Path, intake: Folder) -> None:
    (tmp_path / "x.txt").write_bytes(b"no DICOM")
    (tmp_path / "short.dcm").write_bytes(bytes(128) + b"DICM\2\0\2\0UI\xff\x00")
    good = made(tmp_path / "good.dcm", b"data", CT)
    with receiving(intake) as server:
        results = list(send([tmp_path / "x.txt", tmp_path / "short.dcm", good], *server.address))
    assert {result.path.name: result.status for result in results} == {"x.txt": None, "short.dcm": None, "good.dcm": 0}
    assert "file meta" in results[0].reason


def test_what_the_peer_does_not_take_is_named_and_the_others_are_sent(tmp_path: Path, intake: Folder) -> None:
    query = made(tmp_path / "query.dcm", b"data", "1.2.840.10008.5.1.4.31")
    good = made(tmp_path / "good.dcm", b"data", CT)
    with receiving(intake) as server:
        results = list(send([query, good], *server.address))
    assert [result.status for result in results] == [None, 0]
    assert "does not take" in results[0].reason


def test_a_receiver_that_is_not_there_is_said_to_be(tmp_path: Path, intake: Folder) -> None:
    path = made(tmp_path / "a.dcm", b"data", CT)
    with receiving(intake) as server:
        address = server.address
        with pytest.raises(UnavailableError, match="called AE title"):
            list(send([path], *address, called="WRONG"))
    with pytest.raises(UnavailableError, match="cannot be reached"):
        list(send([path], *address))
    assert not echo(*address)


def test_a_sender_that_is_left_in_the_middle_hangs_up(tmp_path: Path, intake: Folder) -> None:
    path = made(tmp_path / "a.dcm", b"data", CT)
    with receiving(intake) as server:
        results = send([path, path], *server.address)
        assert next(results).status == 0
        results.close()
    assert intake.notes[-1]["ended"] == "aborted"
    assert intake.notes[-1]["instances"] == 1


@pytest.mark.slow
def test_200_mb_pass_with_flat_memory_on_both_sides(tmp_path: Path, intake: Folder) -> None:
    def measure() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], resident())

    path = made(tmp_path / "big.dcm", b"", CT)
    with path.open("ab") as file:
        for n in range(200):
            file.write(bytes([n]) * 1_000_000)
    with receiving(intake) as server:
        peak, done, before = [0], threading.Event(), resident()
        watcher = threading.Thread(target=measure)
        watcher.start()
        assert [result.status for result in send([path], *server.address)] == [0]
        done.set()
        watcher.join()
    assert peak[0] - before < 20_000_000
    assert data_set_of(arrivals(intake)[0]) == data_set_of(path)
    shutil.rmtree(tmp_path)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


EXAMPLE = Path(__file__).parents[2] / "examples" / "send_folder.py"


def test_the_example_sends_a_folder_and_names_what_is_no_dicom(tmp_path: Path, intake: Folder) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    made(folder / "deep" / "a.dcm", b"data", CT)
    (folder / "notes.txt").write_text("not DICOM")
    with receiving(intake) as server:
        port = str(server.address[1])
        result = subprocess.run([sys.executable, EXAMPLE, folder, "--port", port], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1, result.stderr
    assert "1 sent, 1 not" in result.stdout
    assert "notes.txt" in result.stderr
    result = subprocess.run([sys.executable, EXAMPLE, folder, "--port", port], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 69
