"""One loop for every stage: `all`, a single stage, `--once`, workers and the tests all run this.

Events only wake it; the scan decides. A job that cannot be done now stays where it is, one that never can goes to quarantine.
"""

import logging
import os
import threading
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from dicomrx.errors import DicomrxError, Defer, Reject, UnavailableError, is_machine_error
from dicomrx.spool import quarantine
from dicomrx.spool.layout import Spool

STRIKES: Final = 3
_RESCAN_S: Final = 5.0
_AFTER_FAILURE_S: Final = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One thing a stage found to do: its path in the spool; `path.name` is what strikes and logs call it."""

    path: Path


class Stage(Protocol):
    """What a stage is: it finds jobs, and does one. Doing one twice does no harm."""

    name: str
    watched: Sequence[Path]
    """Folders in which an event means that a scan may find something."""

    def scan(self) -> Iterable[Job]:
        """The jobs that are ready, oldest first; cheap."""
        ...

    def process(self, job: Job) -> None:
        """Do one job. Returning is done; raises Defer, Reject, or UnavailableError, which ends the pass."""
        ...

    def ready_in(self) -> float | None:
        """Seconds until something that waits may be ready, or None where nothing waits that `--once` must wait for."""
        ...


class Chosen:
    """A stage that sees only the jobs it is given, once."""

    def __init__(self, stage: Stage, jobs: Sequence[Job]) -> None:
        self.name = stage.name
        self.watched: Sequence[Path] = ()
        self._stage = stage
        self._jobs = list(jobs)

    def scan(self) -> Iterable[Job]:
        """The jobs not yet tried."""
        jobs, self._jobs = self._jobs, []
        return jobs

    def process(self, job: Job) -> None:
        """As the stage does it."""
        self._stage.process(job)

    def ready_in(self) -> float | None:
        """Nothing is waited for."""
        return None


@dataclass
class Tally:
    """What became of the jobs of one pass."""

    done: int = 0
    deferred: int = 0
    rejected: int = 0
    unavailable: UnavailableError | None = None


class Runner:
    """Runs a stage until there is nothing left (`once`) or until it is told to stop (`forever`)."""

    def __init__(self, stage: Stage, spool: Spool) -> None:
        self._stage = stage
        self._spool = spool
        self._wake = threading.Event()
        self._stop = threading.Event()

    def stop(self) -> None:
        """End after the job in hand; for another thread, not for a signal handler."""
        self._stop.set()
        self._wake.set()

    def once(self) -> Tally:
        """Do all that is ready, waiting for what is about to be; the tally tells what was left."""
        self._spool.sweep()
        total = Tally()
        while not self._stop.is_set():
            tally = self._pass()
            total = Tally(total.done + tally.done, tally.deferred, total.rejected + tally.rejected, tally.unavailable)
            if tally.done or tally.rejected:
                continue
            pause = self._stage.ready_in()
            if pause is None or tally.unavailable:
                break
            self._wake.wait(pause)
        return total

    def forever(self) -> None:
        """Work until `stop`."""
        self._spool.sweep()
        hints = Hints(self._stage.watched, self._wake)
        try:
            while not self._stop.is_set():
                hints.tend()
                self._wake.clear()
                if self._stop.is_set():
                    break
                tally = self._pass()
                pause = self._stage.ready_in()
                wait = _RESCAN_S if pause is None else min(pause, _RESCAN_S)
                if tally.deferred or tally.unavailable:
                    self._stop.wait(min(wait, _AFTER_FAILURE_S))
                self._wake.wait(wait)
        finally:
            hints.close()

    def _pass(self) -> Tally:
        tally = Tally()
        sick: list[Job] = []
        for job in self._stage.scan():
            if self._stop.is_set():
                break
            try:
                self._do(job, tally, sick)
            except UnavailableError as error:
                log.warning("%s: %s", job.path.name, error)
                tally.unavailable = error
                break
        self._spool.in_hand("")
        if tally.done:  # the machine is well: what failed fails alone
            for job in sick:
                self._spool.strike(job.path.name)
        return tally

    def _do(self, job: Job, tally: Tally, sick: list[Job]) -> None:
        self._spool.in_hand(job.path.name)
        try:
            if self._spool.strikes(job.path.name) >= STRIKES:
                raise Reject("three-strikes", "the stage failed or died three times on this input")  # noqa: TRY301
            self._stage.process(job)
            tally.done += 1
        except Defer as later:
            tally.deferred += 1
            log.warning("%s: %s", job.path.name, later)
        except Reject as never:
            self._reject(job, never, tally)
        except UnavailableError:
            raise
        except DicomrxError:
            raise
        except Exception as error:  # noqa: BLE001  the one place: a bug in one job must not stop the others
            if is_machine_error(error):
                tally.deferred += 1
                sick.append(job)
                log.error("%s: the machine is unwell: %s", job.path.name, _kind(error))  # noqa: TRY400
            else:
                log.error("%s: a bug: %s", job.path.name, _kind(error))  # noqa: TRY400
                self._reject(job, Reject("bug", _kind(error)), tally)

    def _reject(self, job: Job, never: Reject, tally: Tally) -> None:
        if not os.path.lexists(job.path):
            return
        if job.path.parent == self._spool.studies:  # nobody takes a study apart: it stays, and is tried again
            tally.deferred += 1
            log.error("%s: %s", job.path.name, never)
            return
        quarantine.put_aside(self._spool, job.path, self._stage.name, never.reason, never.detail)
        tally.rejected += 1
        log.warning("%s: quarantined: %s", job.path.name, never)


class Hints:
    """Sets an event when something happens in a folder. May miss anything: the periodic scan is the truth."""

    def __init__(self, folders: Sequence[Path], wake: threading.Event) -> None:
        self._folders = folders
        self._handler = _Wake(wake)
        self._observer: BaseObserver | None = None
        self.tend()

    def tend(self) -> None:
        """Start the observer, or start it again where a thread of it has died or a folder was replaced."""
        if self._observer is not None and self._is_well(self._observer):
            return
        self.close()
        observer = Observer()
        try:
            for folder in self._folders:
                observer.schedule(self._handler, str(folder))
            observer.start()
        except OSError as error:  # no inotify instance or watch left: scans alone do
            log.warning("no file events (%s): polling every %g s", error.strerror, _RESCAN_S)
            return
        self._observer = observer

    @staticmethod
    def _is_well(observer: BaseObserver) -> bool:
        return observer.is_alive() and all(emitter.is_alive() for emitter in observer.emitters)

    def close(self) -> None:
        """Stop watching."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None


class _Wake(FileSystemEventHandler):
    def __init__(self, wake: threading.Event) -> None:
        self._wake = wake

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in {"created", "moved"}:
            self._wake.set()


def _kind(error: BaseException) -> str:
    """What went wrong and where, without the message: it may quote a value."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    code = f" [{error.strerror}]" if isinstance(error, OSError) and error.strerror else ""
    return f"{type(error).__name__}{code}{where}"
