"""`dicomrx all` and `dicomrx restore` as anybody runs them: child processes with settings of their own."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from dicomrx.demo import evidence
from dicomrx.demo.api_server import DemoApi
from dicomrx.errors import TryAgainError, UnavailableError
from dicomrx.network.sender import echo
from dicomrx.settings import Settings, Space, as_env
from dicomrx.supervise import GRACE_S, PARENT

LOOPBACK: Final = "127.0.0.1"
AE_TITLE: Final = "DICOMRXDEMO"  # which no receiver of the user's answers to
QUIET_S: Final = 4.0
_MIN_FREE: Final = Space(64 << 20)
_START_S: Final = 30.0
_RESTORE_S: Final = 60.0


class Gateway:
    """A running `dicomrx all`, from `__enter__` until `__exit__`; it ends with this process, however that ends."""

    def __init__(self, root: Path, api: DemoApi, port: int) -> None:
        self.root = root
        self.port = _free_port(port)
        self.settings = Settings(
            host=LOOPBACK,
            port=self.port,
            ae_title=AE_TITLE,
            storage_dir=root / evidence.SPOOL,
            state_dir=root / evidence.STATE,
            zip_dir=root / evidence.ZIPS,
            min_free=_MIN_FREE,
            timeout=QUIET_S,
            auto_upload=True,
            api_url=api.url,
            api_username=api.username,
            api_password=api.password,
            retry_delay=1.0,
        )
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        # Of the terminal's Ctrl-C the child hears from us alone: one clean SIGTERM.
        with (self.root / evidence.LOG).open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  our own program
                self._command("all"), env=self._environment(), cwd=self.root, stderr=log, stdout=log, start_new_session=True
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def wait(self) -> None:
        """Until it answers a C-ECHO; raises UnavailableError where it does not."""
        deadline = time.monotonic() + _START_S
        while not echo(LOOPBACK, self.port, called=AE_TITLE, timeout_s=2.0):
            if not self.alive or time.monotonic() > deadline:
                msg = f"`dicomrx all` does not answer on port {self.port}"
                raise UnavailableError(msg)
            time.sleep(0.1)

    @property
    def alive(self) -> bool:
        """False once `all` has ended, by itself or by `stop`."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> int:
        """End it with SIGTERM, if it still runs; its exit code."""
        process = self._process
        if process is None:
            return 0
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            return process.wait(GRACE_S + 5)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def restore(self, bundle: Path, out: Path) -> int:
        """`dicomrx restore --all`; its exit code. Meant for several threads at once."""
        done = subprocess.run(  # noqa: S603  our own program
            self._command("restore", "--all", str(bundle), str(out)),
            env=self._environment(),
            cwd=self.root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_RESTORE_S,
            check=False,
        )
        return done.returncode

    def log_tail(self, lines: int = 8) -> list[str]:
        """The end of what `all` logged; it identifies nobody."""
        return (self.root / evidence.LOG).read_text().splitlines()[-lines:]

    def _environment(self) -> Mapping[str, str]:
        """The settings of the demo and none of the user's, nor any secret that systemd gives to the unit we may run in."""
        base = {name: value for name, value in os.environ.items() if name != "CREDENTIALS_DIRECTORY"}
        return {**as_env(self.settings, base), PARENT: str(os.getpid())}

    @staticmethod
    def _command(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "dicomrx", *arguments]


def _free_port(wanted: int) -> int:
    """`wanted`, or any where that is 0; raises TryAgainError where somebody listens: the demo must not send to another's receiver."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, wanted))
        except OSError as error:
            msg = f"port {wanted} cannot be used ({error.strerror}): name another with --port, or none"
            raise TryAgainError(msg) from error
        return int(probe.getsockname()[1])
