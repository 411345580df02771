"""The real commands over real sockets and files, for tests that use dicomrx as its users do."""

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from pydicom import FileDataset, dcmread

from dicomrx.demo.api_server import DemoApi
from dicomrx.network.sender import Sent, echo, send


class Pipeline:
    """A spool, a state and an API in one folder, and the commands that work on them."""

    def __init__(self, root: Path, api: DemoApi, **settings: object) -> None:
        self.root = root
        self.api = api
        self.port = free_port()
        self.storage, self.state, self.zips = root / "spool", root / "state", root / "zips"
        given: dict[str, object] = {
            "PORT": self.port,
            "HOST": "127.0.0.1",
            "STORAGE_DIR": self.storage,
            "STATE_DIR": self.state,
            "ZIP_DIR": self.zips,
            "API_URL": api.url,
            "API_USERNAME": api.username,
            "API_PASSWORD": api.password,
            "AUTO_UPLOAD": "true",
            "TIMEOUT": 2,
            "MAX_RETRIES": 1,
            "RETRY_DELAY": 0.2,
            "MIN_FREE": "1M",
            **settings,
        }
        self.env = {**os.environ, **{f"DICOM_RECEIVER_{name}": str(value) for name, value in given.items()}}

    def run(self, *arguments: str, code: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "dicomrx", *arguments],
            env={**self.env, **env},
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if code is not None:
            assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[bytes]:
        with (self.root / f"{arguments[0]}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dicomrx", *arguments], env={**self.env, **env}, cwd=self.root, stdout=log, stderr=log
            )

    @contextlib.contextmanager
    def running(self, *arguments: str, **env: str) -> Iterator[subprocess.Popen[bytes]]:
        process = self.start(*arguments, **env)
        try:
            if arguments[0] in {"all", "scp"}:
                self.wait_for_echo()
            yield process
        except BaseException:
            print(self.logs())
            print("\n".join(str(path) for path in sorted(self.storage.rglob("*"))))
            raise
        finally:
            stop(process)

    def wait_for_echo(self) -> None:
        wait_until(lambda: echo("127.0.0.1", self.port, timeout_s=2), 30)

    def send(self, paths: Sequence[Path], calling: str = "SCANNER") -> list[Sent]:
        return list(send(paths, "127.0.0.1", self.port, calling=calling))

    def status(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.run("status", "--json").stdout)
        return found

    def logs(self) -> str:
        return "".join(path.read_text() for path in self.root.glob("*.log"))

    def incoming(self) -> list[Path]:
        return sorted((self.storage / "incoming").iterdir())

    def uploaded(self) -> dict[str, bytes]:
        """Every entry of every accepted zip; an entry in two zips fails."""
        found: dict[str, bytes] = {}
        for upload in self.api.accepted:
            with zipfile.ZipFile(upload.path) as bundle:
                for name in bundle.namelist():
                    assert name not in found, f"uploaded twice: {name}"
                    found[name] = bundle.read(name)
        return found

    def uploaded_datasets(self) -> list[FileDataset]:
        return [dcmread(io.BytesIO(data)) for _, data in sorted(self.uploaded().items())]

    def restored(self, out: Path) -> dict[str, str]:
        """SHA-256 of the dataset bytes of every original of what was uploaded, by its path."""
        for upload in self.api.accepted:
            self.run("restore", str(upload.path), str(out / upload.name))
        return {str(path.relative_to(out)): dataset_sha256(path) for path in sorted(out.rglob("*.dcm"))}


def dataset_sha256(path: Path) -> str:
    """SHA-256 of what follows the file meta."""
    data = path.read_bytes()
    length = int.from_bytes(data[140:144], "little")
    return sha256(data[144 + length :]).hexdigest()


def stop(process: subprocess.Popen[bytes], timeout: float = 40) -> int:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def wait_until(true: Callable[[], object], seconds: float = 60, what: str = "") -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def children(pid: int) -> dict[str, list[int]]:
    """The stage processes below `pid`, by the name on their command line."""
    found: dict[str, list[int]] = {}
    todo = [pid]
    while todo:
        parent = todo.pop()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            below = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
            for child in map(int, below):
                todo.append(child)
                words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
                if b"dicomrx" in words:
                    found.setdefault(words[words.index(b"dicomrx") + 1].decode(), []).append(child)
    return found
