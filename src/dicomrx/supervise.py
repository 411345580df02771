"""`all`, and workers: the same commands as child processes, restarted with backoff, ended by one clean SIGTERM."""

import contextlib
import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from dicomrx.errors import TryAgainError

log = logging.getLogger(__name__)

PARENT: Final = "DICOMRX_PARENT_PID"
GRACE_S: Final = 25.0
_BACKOFF_S: Final = (0.2, 1.0, 3.0)  # short: a receiver that is down refuses its scanners
_WELL_AFTER_S: Final = 30.0
_POLL_S: Final = 0.1
_PR_SET_PDEATHSIG: Final = 1
_FATAL: Final = frozenset({64, 73, 77, 78})  # what a restart cannot help
_TAKEN: Final = 75  # its port, or its place on the spool: at a start perhaps by one that is still ending


def die_with_parent(*, at_once: bool = False) -> None:
    """Ask the kernel for SIGTERM, or `at_once` SIGKILL, when the process that started us is gone, so that no orphan holds a lock."""
    parent = os.environ.pop(PARENT, None)
    if parent is None:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL if at_once else signal.SIGTERM)
    if os.getppid() != int(parent):  # it died before we asked
        sys.exit(0)


@dataclass
class Child:
    """One command line of ours, run as a child process, again and again.

    `connect` makes what it gets as its standard input, anew at each start, and is told how to kill it; it keeps the descriptors in `keep`
    open while it lives.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    connect: Callable[[Callable[[], None]], socket.socket] | None = None
    keep: Sequence[int] = ()
    process: subprocess.Popen[bytes] | None = None
    first_started: float = 0.0
    started: float = 0.0
    had_its_place: bool = False
    failures: int = 0
    due: float = field(default=0.0)

    @property
    def title(self) -> str:
        """What logs call it."""
        return " ".join(self.arguments)

    def kill(self) -> None:
        """End it at once, wherever it hangs; it is started again as one that has died."""
        process = self.process
        if process is not None:
            process.kill()


class Supervisor:
    """Keeps child processes running, or runs each once, until `stop`."""

    def __init__(self, children: Sequence[Child]) -> None:
        self._children = children
        self._stop = threading.Event()

    def stop(self) -> None:
        """End the children, each with one SIGTERM."""
        self._stop.set()

    def forever(self) -> int:
        """Run all children until `stop`; returns the exit code: 0, or that of a child which no restart can help."""
        code = 0
        while not self._stop.is_set() and not code:
            for child in self._children:
                code = code or self._tend(child)
            self._stop.wait(_POLL_S)
        self._end()
        return code

    def once(self) -> int:
        """Run the children one after another, whatever each ends with; returns the gravest exit code, 0 after `stop`.

        Raises TryAgainError where one cannot be started.
        """
        codes = []
        for child in self._children:
            self._start(child)
            while child.process is not None and child.process.poll() is None:
                if self._stop.wait(_POLL_S):
                    self._end()
                    return 0
            codes.append(child.process.returncode if child.process else 0)
        return gravest(codes)

    def _tend(self, child: Child) -> int:
        if child.process is None:
            if time.monotonic() >= child.due:
                try:
                    self._start(child)
                except TryAgainError as error:
                    _back_off(child, str(error))
            return 0
        code = child.process.poll()
        if code is None:
            return 0
        child.process = None
        now = time.monotonic()
        was_well = now - child.started > _WELL_AFTER_S
        child.had_its_place = child.had_its_place or was_well or code != _TAKEN
        if code in _FATAL or (not child.had_its_place and now - child.first_started > GRACE_S):
            log.error("%s ended with %d: no restart can help", child.title, code)
            return code
        child.failures = 0 if was_well else child.failures
        _back_off(child, f"{child.title} ended ({_how(code)})")
        return 0

    def _start(self, child: Child) -> None:
        """Raises TryAgainError where the machine has no process, descriptor or thread left for it."""
        environment = {**child.environment, PARENT: str(os.getpid())}
        command = [sys.executable, "-m", "dicomrx", *child.arguments]
        try:
            with contextlib.ExitStack() as ends:
                end = ends.enter_context(child.connect(child.kill)).fileno() if child.connect else None
                child.process = subprocess.Popen(command, env=environment, stdin=end, pass_fds=child.keep)  # noqa: S603  our own program
        except (OSError, RuntimeError) as error:  # this one for a thread
            msg = f"{child.title} cannot be started ({error})"
            raise TryAgainError(msg) from error
        child.started = time.monotonic()
        child.first_started = child.first_started or child.started

    def _end(self) -> None:
        alive = [child.process for child in self._children if child.process is not None and child.process.poll() is None]
        for process in alive:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        for process in alive:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.error("a child did not end in %g s: killed", GRACE_S)  # noqa: TRY400  the trace would say nothing more
                process.kill()
                process.wait()


def _back_off(child: Child, why: str) -> None:
    child.failures += 1
    pause = _BACKOFF_S[min(child.failures, len(_BACKOFF_S)) - 1]
    child.due = time.monotonic() + pause
    log.warning("%s: starting it again in %g s", why, pause)


def gravest(codes: Sequence[int]) -> int:
    """The exit code to end with where several apply (78, 70, 69, 74, 75 first, then any other)."""
    order = (78, 70, 69, 74, 75)
    bad = [70 if code < 0 else code for code in codes if code]
    return min(bad, key=lambda code: order.index(code) if code in order else len(order), default=0)


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit {code}"
