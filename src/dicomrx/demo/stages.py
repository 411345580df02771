"""The stages of the gateway as processes of their own, so that each can be stopped, held up and started in the middle of things."""

import contextlib
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

from dicomrx.demo import evidence
from dicomrx.demo.api_server import DemoApi
from dicomrx.demo.gateway import Gateway
from dicomrx.settings import Timeout
from dicomrx.supervise import GRACE_S

NAMES: Final = ("scp", "anonymize", "watch", "upload")
QUIET_S: Final = 10.0
EVIDENCE_WAIT_S: Final = 40.0
SLOW_AE: Final = "DEMO_PACS"
SLOW_S: Final = 25.0


class Stages(Gateway):
    """`dicomrx scp`, `anonymize`, `watch` and `upload`, or those of them that are named, from `__enter__` until `__exit__`."""

    def __init__(self, root: Path, api: DemoApi, port: int, names: tuple[str, ...] = NAMES) -> None:
        super().__init__(root, api, port)
        slow = (Timeout(SLOW_AE, SLOW_S),)
        self.settings = replace(self.settings, timeout=QUIET_S, timeout_ae=slow, evidence_wait=EVIDENCE_WAIT_S)
        self._names = names
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        for name in self._names:
            self.start(name)
            if name == "scp":
                self.wait()  # it makes the spool
        return self

    @property
    def alive(self) -> bool:
        """False once a stage has ended by itself."""
        return all(process.poll() is None for process in self._processes.values())

    def start(self, name: str) -> None:
        """Start a stage."""
        with (self.root / evidence.LOG).open("ab") as log:
            self._processes[name] = subprocess.Popen(  # noqa: S603  our own program
                self._command(name), env=self._environment(), cwd=self.root, stderr=log, stdout=log, start_new_session=True
            )

    def hold(self, name: str) -> None:
        """Let a stage, with its workers, do nothing until `release`, as on a machine that is busy with other things."""
        os.killpg(self._processes[name].pid, signal.SIGSTOP)

    def release(self, name: str) -> None:
        """Let it go on."""
        os.killpg(self._processes[name].pid, signal.SIGCONT)

    def kill(self, name: str) -> None:
        """Let a stage die with no time for a word."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def _end(self, name: str) -> int:
        process = self._processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGCONT)
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(GRACE_S + 5)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def stop(self) -> int:
        """End all of them; the first exit code that is not 0."""
        codes = [self._end(name) for name in list(self._processes)]
        return next((code for code in codes if code), 0)
