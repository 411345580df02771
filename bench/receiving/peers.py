"""The receivers: how each is started, where it puts what it receives, and why one cannot take part here."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dicomrx.network.sender import echo
from dicomrx.settings.table import ENGINES

MEMORY, DISK = "memory", "disk"
BARE = "bare-loop"
BEST = "dcmtk-best"
_START_S = 30


@dataclass(frozen=True)
class Peer:
    """One receiver; `command` takes its port, the folder for what it receives, and where that lies."""

    name: str
    title: str
    command: Callable[[int, Path, str], list[str]]
    program: str = sys.executable
    received: str = "*"
    places: tuple[str, ...] = (MEMORY,)
    environment: dict[str, str] = field(default_factory=dict)
    slow: bool = False  # takes some 100 images a second, or waits for delayed acknowledgements
    most: int = 64  # associations at a time
    why_not: str = ""

    def missing(self, associations):
        """Why it cannot take part here, or nothing."""
        if associations > self.most:
            return f"it takes {self.most} at a time"
        return self.why_not or ("" if shutil.which(self.program) else f"{self.program} is not on this machine")


def _dicomrx(engine):
    def command(port, folder, place):
        durable = "--durable" if place == DISK else "--no-durable"
        options = ["--host=127.0.0.1", f"--port={port}", f"--storage={folder}", f"--engine={engine}", "--max-connections=64", durable]
        return [sys.executable, "-m", "dicomrx", "scp", *options]

    return Peer(f"dicomrx-{engine}", f"dicomrx, engine {engine}", command, received="incoming/*.dcm", places=(MEMORY, DISK))


def _pynetdicom(port, folder, _place):
    return [sys.executable, "-m", "pynetdicom", "storescp", str(port), "-ba", "127.0.0.1", "-od", str(folder)]


def _storescp(*options):
    return lambda port, folder, _place: ["storescp", *options, "-od", str(folder), str(port)]


def _orthanc(**settings):
    def command(port, folder, _place):
        here, file = str(folder), folder.parent / "orthanc.json"
        base = {"Name": "bench", "StorageDirectory": here, "IndexDirectory": here, "DicomPort": port, "HttpServerEnabled": False}
        file.write_text(json.dumps(base | settings))
        return ["Orthanc", str(file)]

    return command


_NO_DELAY = {"TCP_NODELAY": "1"}
PEERS = {
    peer.name: peer
    for peer in (
        *map(_dicomrx, ENGINES),
        Peer("pynetdicom-app", "python -m pynetdicom storescp", _pynetdicom, slow=True, most=10),
        Peer("dcmtk-default", "DCMTK storescp", _storescp(), "storescp", slow=True, most=1),
        Peer("dcmtk-normal", "DCMTK storescp, normal", _storescp("--fork", "-pdu", "131072"), "storescp", environment=_NO_DELAY),
        Peer(BEST, "DCMTK storescp, best", _storescp("--fork", "+B", "-pdu", "131072"), "storescp", environment=_NO_DELAY),
        Peer("orthanc", "Orthanc", _orthanc(), "Orthanc", "*/*/*", (MEMORY, DISK), slow=True),
        Peer(
            "orthanc-tuned",
            "Orthanc, SyncStorageArea off",
            _orthanc(SyncStorageArea=False, DicomThreadsCount=64),
            "Orthanc",
            "*/*/*",
            environment=_NO_DELAY,
            slow=True,
        ),
        Peer(BARE, "bare loop, no network", lambda *_: [], received="incoming/*", places=(DISK,)),
    )
}


def ours():
    """Names of this receiver's engines."""
    return [name for name in PEERS if name.startswith("dicomrx-")]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(peer, folder, place):
    """The peer, listening: its port and its process, which is killed at the end with all that it started."""
    port = free_port()
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DICOM_RECEIVER_")}
    with folder.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(
            peer.command(port, folder, place),
            env=environment | peer.environment,
            cwd=folder.parent,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_for(process, port)
        yield port, process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for(process, port):
    deadline = time.monotonic() + _START_S
    while not echo("127.0.0.1", port, timeout_s=5):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("it did not start")
        time.sleep(0.02)
