"""Programs of others that send DICOM, each with what it can send of pydicom's bundled files and a private SOP class."""

import contextlib
import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pydicom.data
from pydicom.uid import generate_uid

from dicomrx.network.filemeta import FileMeta, read_meta
from tests import factories
from tests.acceptance.pipeline import free_port, wait_until

FILES = Path(pydicom.data.__file__).parent / "test_files"
PRIVATE_CLASS = "1.2.826.0.1.3680043.9.9999.77.1"
FOREIGN = Path(__file__).parents[1] / "foreign"
NODE_MODULES = Path(__file__).parents[2] / ".venv" / "npm" / "node_modules"
DCMJS = NODE_MODULES / "dcmjs-dimse"

# The option that makes storescu propose a transfer syntax.
_PROPOSE = {
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.2": "-xb",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
    "1.2.840.10008.1.2.5": "-xr",
}
_PROFILE = f"""[[TransferSyntaxes]]
[Explicit]
TransferSyntax1 = LittleEndianExplicit
[[PresentationContexts]]
[Private]
PresentationContext1 = {PRIVATE_CLASS}\\Explicit
[[Profiles]]
[Private]
PresentationContexts = Private
"""


class Tls(NamedTuple):
    """What a sender speaks TLS with: its key and certificate in one file, and whom it trusts."""

    own: Path
    trusted: Path


class Sender(NamedTuple):
    """`send(port, files, work, tls)` sends files to a receiver on this machine; those named in `cannot` it could send to none."""

    send: Callable[[int, Sequence[Path], Path, Tls | None], None]
    needs: tuple[str, ...]
    cannot: frozenset[str]
    speaks_tls: bool = True


def sources(sender: Sender, work: Path) -> list[Path]:
    private = factories.dataset(7)
    private.SOPClassUID, private.SOPInstanceUID = PRIVATE_CLASS, generate_uid()
    candidates = [factories.write(work / "private.dcm", private), *sorted(FILES.glob("*.dcm"))]
    return [path for path in candidates if path.name not in sender.cannot and _read(path) is not None]


def _read(path: Path) -> FileMeta | None:
    with path.open("rb") as file:
        return read_meta(file)


def _meta(path: Path) -> FileMeta:
    meta = _read(path)
    assert meta is not None
    return meta


def run(*command: object) -> None:
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def _by_syntax(files: Sequence[Path]) -> Iterator[tuple[str, list[Path]]]:
    for syntax, group in groupby(sorted(files, key=lambda path: _meta(path).transfer_syntax), lambda path: _meta(path).transfer_syntax):
        yield syntax, list(group)


def _storescu(port: int, files: Sequence[Path], work: Path, tls: Tls | None) -> None:
    command = ["storescu", "-aec", "DICOMRCV", *(["+tls", tls.own, tls.own, "+cf", tls.trusted] if tls else [])]
    profile = work / "storescu.cfg"
    profile.write_text(_PROFILE)
    private = [path for path in files if _meta(path).sop_class == PRIVATE_CLASS]
    run(*command, "-xf", profile, "Private", "127.0.0.1", port, *private)
    for syntax, group in _by_syntax([path for path in files if path not in private]):
        run(*command, "-R", _PROPOSE[syntax], "127.0.0.1", port, *group)


def _dcmsend(port: int, files: Sequence[Path], _work: Path, _tls: Tls | None) -> None:
    run("dcmsend", "-aec", "DICOMRCV", "-dn", "-nuc", "127.0.0.1", port, *files)


def _gdcmscu(port: int, files: Sequence[Path], _work: Path, _tls: Tls | None) -> None:
    """It dies once it has sent all, with any receiver (Debian's 3.0.21), so its exit code says nothing."""
    for _, group in _by_syntax(files):
        command = ["gdcmscu", "--store", "--call", "DICOMRCV", "127.0.0.1", str(port), *map(str, group)]
        subprocess.run(command, capture_output=True, timeout=120, check=False)


def _dcmjs(port: int, files: Sequence[Path], _work: Path, tls: Tls | None) -> None:
    command = ["node", str(FOREIGN / "dcmjs_send.js"), str(port), *map(str, files)]
    environment = {**os.environ, "NODE_PATH": str(NODE_MODULES)}
    environment |= {"TLS_OWN": str(tls.own), "TLS_TRUSTED": str(tls.trusted)} if tls else {}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    told = [line for line in result.stdout.splitlines() if line.endswith(".dcm")]
    assert told == [f"0 {path}" for path in files]


def _orthanc(port: int, files: Sequence[Path], work: Path, tls: Tls | None) -> None:
    with _orthanc_running(port, work, tls) as url:
        for path in files:
            stored = json.loads(_post(f"{url}/instances", path.read_bytes()))
            _post(f"{url}/modalities/receiver/store", stored["ID"].encode())


@contextlib.contextmanager
def _orthanc_running(port: int, work: Path, tls: Tls | None) -> Iterator[str]:
    settings: dict[str, object] = {
        "StorageDirectory": str(work / "orthanc"),
        "IndexDirectory": str(work / "orthanc"),
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "OverwriteInstances": True,  # bundled files share their UIDs
        "DicomModalities": {"receiver": {"AET": "DICOMRCV", "Host": "127.0.0.1", "Port": port, "UseDicomTls": tls is not None}},
    }
    if tls:
        own, trusted = str(tls.own), str(tls.trusted)
        settings |= {"DicomTlsCertificate": own, "DicomTlsPrivateKey": own, "DicomTlsTrustedCertificates": trusted}
    for _ in range(5):  # another may take a port between its choice and its use: Orthanc ends then
        http = free_port()
        with _orthanc_at(http, settings, work) as process:
            url = f"http://127.0.0.1:{http}"
            wait_until(partial(_answers_or_ended, f"{url}/system", process), 30)
            if process.poll() is None:
                yield url
                return
    msg = "Orthanc ends as it starts"
    raise AssertionError(msg)


@contextlib.contextmanager
def _orthanc_at(http: int, settings: dict[str, object], work: Path) -> Iterator[subprocess.Popen[bytes]]:
    file = work / "orthanc.json"
    file.write_text(json.dumps(settings | {"HttpPort": http}))
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    process = subprocess.Popen(["Orthanc", str(file)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()  # it would hold its association open for a while
        process.wait()


def _answers_or_ended(url: str, process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is not None or _answers(url)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        time.sleep(0.05)
        return False


def _post(url: str, body: bytes) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=60) as answer:
        return bytes(answer.read())


# Without SOP class or instance, or not to be parsed, as most of them see it.
_UNREADABLE = frozenset({"UN_sequence.dcm", "no_meta_group_length.dcm", "priv_SQ.dcm", "SC_rgb_jpeg.dcm"})
_TRUNCATED = frozenset({"MR_truncated.dcm", "rtplan_truncated.dcm"})

SENDERS = {
    "storescu": Sender(_storescu, ("storescu",), _UNREADABLE | _TRUNCATED | {"rtdose_rle.dcm", "rtdose_rle_1frame.dcm"}),
    "dcmsend": Sender(_dcmsend, ("dcmsend",), _UNREADABLE | _TRUNCATED, speaks_tls=False),
    "gdcmscu": Sender(
        _gdcmscu, ("gdcmscu",), _UNREADABLE - {"SC_rgb_jpeg.dcm"} | {"private.dcm", "rtplan_truncated.dcm"}, speaks_tls=False
    ),
    "Orthanc": Sender(
        _orthanc,
        ("Orthanc",),
        # The four have no patient, without which it stores nothing.
        _UNREADABLE
        | _TRUNCATED
        | {"JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm", "SC_rgb_jls_lossy_line.dcm", "SC_rgb_jls_lossy_sample.dcm"},
    ),
    "dcmjs-dimse": Sender(
        _dcmjs,
        ("node",),
        # It cannot write the date of the first, nor transcode the others.
        _UNREADABLE | {"ExplVR_BigEnd.dcm", "rtdose_rle.dcm", "rtdose_rle_1frame.dcm", "badVR.dcm", "liver_1frame.dcm"},
    ),
}
