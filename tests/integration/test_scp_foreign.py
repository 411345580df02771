"""Programs of others deliver. They rewrite what they send: data sets are compared by element, or with what went over the wire."""

import hashlib
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from tests.acceptance.pipeline import Pipeline
from tests.conftest import needs_tool, not_here
from tests.integration.certificates import Authority
from tests.integration.recorder import Recorder
from tests.integration.scp_rig import ENGINES, LISTEN, Folder, arrivals, data_set_of, receiving
from tests.integration.senders import DCMJS, FILES, SENDERS, Sender, Tls, run, sources
from tests.integration.test_scp_tls import client_context

pytestmark = pytest.mark.foreign

# A file for each transfer syntax, with the option that makes storescu propose it.
SYNTAXES = {
    "uncompressed": ("CT_small.dcm", "-xe"),
    "implicit": ("rtplan.dcm", "-xi"),
    "big endian": ("MR_small_bigendian.dcm", "-xb"),
    "deflated": ("image_dfl.dcm", "-xd"),
    "JPEG baseline": ("SC_rgb_jpeg_dcmtk.dcm", "-xy"),
    "JPEG extended": ("JPGExtended.dcm", "-xx"),
    "JPEG-LS": ("MR_small_jpeg_ls_lossless.dcm", "-xt"),
    "JPEG 2000": ("MR_small_jp2klossless.dcm", "-xv"),
    "RLE": ("MR_small_RLE.dcm", "-xr"),
}


@pytest.fixture(params=ENGINES)
def intake(tmp_path: Path, request: pytest.FixtureRequest) -> Folder:
    return Folder(tmp_path / "intake", request.param)


def assert_same(received: Path, source: Path, *, syntax: bool = True) -> None:
    got, sent = pydicom.dcmread(received), pydicom.dcmread(source)
    assert not syntax or got.file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID
    for element in sent:
        if element.tag.element != 0 and not element.tag.is_private and element.keyword != "DataSetTrailingPadding":
            assert got[element.tag].value == element.value, element.tag


def present(name: str) -> Sender:
    needs_tool(*SENDERS[name].needs)
    if name == DCMJS.name and not DCMJS.is_dir():
        not_here(f"{name}, which .ci/run installs by npm")
    return SENDERS[name]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", SENDERS)
def test_what_a_foreign_sender_says_on_the_wire_is_what_lies_in_incoming(
    name: str, engine: str, pipeline: Pipeline, tmp_path: Path
) -> None:
    sender = present(name)
    sent = sources(sender, tmp_path)
    with pipeline.running("scp", DICOM_RECEIVER_ENGINE=engine), Recorder(("127.0.0.1", pipeline.port)) as recorder:
        sender.send(recorder.port, sent, tmp_path, None)
    said = hashes(recorder.data_sets())
    assert said.total() == len(sent)
    assert hashes(map(data_set_of, pipeline.incoming())) == said


@pytest.mark.slow
@pytest.mark.parametrize("name", SENDERS)
def test_a_foreign_sender_delivers_over_tls_what_it_says_without(name: str, tmp_path: Path) -> None:
    sender = present(name)
    sent = sources(sender, tmp_path)
    ours = Authority(tmp_path / "ours", "hospital")
    tls = Tls(ours.issue("modality"), ours.certificate)
    plain = Folder(tmp_path / "plain")
    with receiving(plain) as server, Recorder(server.address) as recorder:
        sender.send(recorder.port, sent, tmp_path, None)
    said = hashes(recorder.data_sets())
    assert said.total() == len(sent)
    listen = replace(LISTEN, tls_cert=ours.issue("receiver"), tls_ca=ours.certificate)
    for engine in ENGINES:
        intake = Folder(tmp_path / engine, engine)
        with receiving(intake, listen) as server, Recorder(server.address, client_context(ours, tls.own)) as tunnel:
            sender.send(server.address[1] if sender.speaks_tls else tunnel.port, sent, tmp_path, tls)
        assert hashes(map(data_set_of, arrivals(intake))) == said


def hashes(data_sets: Iterable[bytes]) -> Counter[str]:
    return Counter(hashlib.sha256(data).hexdigest() for data in data_sets)


@pytest.mark.needs_tool("storescu")
@pytest.mark.parametrize("kind", SYNTAXES)
def test_storescu_delivers(kind: str, intake: Folder) -> None:
    name, option = SYNTAXES[kind]
    with receiving(intake) as server:
        run("storescu", "-aec", "DICOMRCV", option, *server.address, FILES / name)
    (received,) = arrivals(intake)
    assert_same(received, FILES / name)


@pytest.mark.needs_tool("dcmsend")
def test_dcmsend_delivers_all_of_them_at_once(intake: Folder) -> None:
    sources = {pydicom.dcmread(FILES / name).SOPInstanceUID: FILES / name for name, _ in SYNTAXES.values()}
    with receiving(intake) as server:
        run("dcmsend", "-aec", "DICOMRCV", "-dn", *server.address, *sources.values())
    received = {pydicom.dcmread(path).SOPInstanceUID: path for path in arrivals(intake)}
    assert received.keys() == sources.keys()
    for uid, path in received.items():
        compressed = pydicom.dcmread(sources[uid]).file_meta.TransferSyntaxUID.is_compressed
        assert_same(path, sources[uid], syntax=compressed)  # dcmsend offers every uncompressed syntax in one context


@pytest.mark.needs_tool("storescu", "echoscu")
def test_a_wrong_called_ae_title_is_refused(intake: Folder) -> None:
    with receiving(intake) as server:
        run("echoscu", "-aec", "DICOMRCV", *server.address)
        result = subprocess.run(
            ["storescu", "-aec", "WRONG", server.address[0], str(server.address[1]), str(FILES / "CT_small.dcm")],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert result.returncode != 0
    assert "Called AE Title Not Recognized" in result.stderr
    assert arrivals(intake) == []


@pytest.mark.needs_tool("storescu")
def test_stock_storescu_is_not_held_up_by_delayed_acknowledgements(intake: Folder) -> None:
    with receiving(intake) as server:
        began = time.monotonic()
        run("storescu", "-aec", "DICOMRCV", "--repeat", 50, *server.address, FILES / "CT_small.dcm")
        took = time.monotonic() - began
    assert len(arrivals(intake)) == 50
    assert took < 50 * 0.04, "44 ms an image is what the trap costs"


@pytest.mark.slow
@pytest.mark.needs_tool("storescu")
def test_a_multi_frame_of_200_mb_passes_with_flat_memory(tmp_path: Path, intake: Folder) -> None:
    def measure() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], resident())

    source = multi_frame(tmp_path / "big.dcm")
    peak, done = [0], threading.Event()
    with receiving(intake) as server:
        before = resident()
        watcher = threading.Thread(target=measure)
        watcher.start()
        run("storescu", "-aec", "DICOMRCV", *server.address, source)
        done.set()
        watcher.join()
    assert peak[0] - before < 20_000_000
    (received,) = arrivals(intake)
    assert received.stat().st_size > 200_000_000
    with received.open("rb") as got, source.open("rb") as sent:
        got.seek(-200_000_000, 2)
        sent.seek(-200_000_000, 2)
        while chunk := sent.read(1 << 20):
            assert got.read(1 << 20) == chunk
    source.unlink()
    received.unlink()


def multi_frame(path: Path) -> Path:
    dataset = pydicom.dcmread(FILES / "CT_small.dcm")
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.2.1")
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.Rows = dataset.Columns = 512
    dataset.NumberOfFrames = 400
    dataset.PixelData = bytes(range(256)) * (512 * 512 * 2 * 400 // 256)
    if "DataSetTrailingPadding" in dataset:
        del dataset.DataSetTrailingPadding
    dataset.save_as(path)
    return path


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
