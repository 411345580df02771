"""One loop for every stage: `all`, a single stage, `--once`, workers and the tests all run this.

Events only wake it; the scan decides. A job that cannot be done now stays where it is, one that never can goes to quarantine.
"""

import errno
import functools
import logging
import resource
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

from dicomrx.errors import Defer, DicomrxError, Reject, Taken, UnavailableError, is_machine_error
from dicomrx.hints import Hints
from dicomrx.jobs import Batching, Job, Stage, Tally
from dicomrx.spool import quarantine
from dicomrx.spool.layout import Spool

STRIKES: Final = 3
RESCAN_S: Final = 5.0
_AFTER_FAILURE_S: Final = 1.0
_IDLE_REST: Final = 150  # times the CPU time of a look that found nothing: two thirds of a percent of a core
_IDLE_REST_MAX_S: Final = 30.0
_UNAVAILABLE_MAX_S: Final = 30.0

T = TypeVar("T")

log = logging.getLogger(__name__)


class Runner:
    """Runs a stage until there is nothing left (`once`) or until it is told to stop (`forever`).

    With several `threads` each of them scans and works for itself, as processes would: claims keep them apart, so a long job holds
    back none of the others. The calling thread is one of them.

    An attempt that takes more than `cpu_s` seconds of the processor ends the process: it is a strike against what was in hand. One
    that wants more memory than the process may have, `memory` bytes, fails: a strike too.
    """

    def __init__(
        self, stage: Stage, spool: Spool, rescan_s: float = RESCAN_S, threads: int = 1, cpu_s: float = 0.0, memory: int = 0
    ) -> None:
        self._stage = stage
        self._cpu_s = cpu_s
        self._allowed = resource.getrlimit(resource.RLIMIT_DATA)
        self._memory = 0 if 0 <= self._allowed[0] <= memory else memory
        self._rescan_s = rescan_s
        self._threads = threads
        self._spool = spool
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._not_before: dict[str, float] = {}

    def stop(self) -> None:
        """End after the job in hand; for another thread, not for a signal handler."""
        self._stop.set()
        self._wake.set()

    def once(self) -> Tally:
        """Do all that is ready, waiting for what is about to be; the tally tells what was left."""
        self._spool.sweep()
        return functools.reduce(Tally.and_also, self._in_all_threads(self._until_nothing_is_left))

    def _until_nothing_is_left(self) -> Tally:
        total = Tally()
        while not self._stop.is_set():
            tally = self._pass()
            before = total.done
            total = replace(total.and_also(tally), deferred=tally.deferred)  # those that still are
            if tally.unavailable:
                break
            if total.done > before or tally.rejected:
                continue
            pause = self._stage.ready_in()
            if pause is None:
                break
            self._wake.wait(pause)
        return total

    def forever(self) -> None:
        """Work until `stop`."""
        self._spool.sweep()
        hints = Hints(self._stage.watched, self._wake)
        try:
            self._in_all_threads(lambda: self._until_stopped(hints))
        finally:
            hints.close()

    def _until_stopped(self, hints: Hints) -> None:
        refusals = 0
        while not self._stop.is_set():
            hints.tend()
            self._wake.clear()
            if self._stop.is_set():
                break
            began = time.thread_time()
            tally = self._tolerant_pass()
            wait = self._wait_s(tally, time.thread_time() - began)
            refusals = refusals + 1 if tally.unavailable else 0
            if refusals:  # with a whole study, perhaps: not every second
                self._stop.wait(min(_UNAVAILABLE_MAX_S, _AFTER_FAILURE_S * 2**refusals))
            elif tally.deferred:
                self._stop.wait(_AFTER_FAILURE_S)
            self._wake.wait(wait)

    def _wait_s(self, tally: Tally, spent_s: float) -> float:
        """How long to wait for an event; longer than usual after a look that found nothing and took long, in a large spool."""
        pause = self._stage.ready_in()
        if pause is not None:
            return min(pause, self._rescan_s)
        if tally.done or tally.deferred or tally.rejected:
            return self._rescan_s
        return max(self._rescan_s, min(_IDLE_REST * spent_s * self._threads, _IDLE_REST_MAX_S))

    def _in_all_threads(self, work: Callable[[], T]) -> list[T]:
        """What `work` returns in each thread; an error in one stops all."""

        def guarded() -> T:
            try:
                return work()
            except BaseException:
                self.stop()
                raise

        with ThreadPoolExecutor(self._threads) as pool:  # starts a thread where there is work for it
            others = [pool.submit(guarded) for _ in range(self._threads - 1)]
            mine = guarded()
        return [mine, *(other.result() for other in others)]

    def _tolerant_pass(self) -> Tally:
        """A pass that a sick machine may end, but not the daemon."""
        try:
            return self._pass()
        except OSError as error:
            if not is_machine_error(error):
                raise
            log.error("%s: the machine is unwell: %s", self._stage.name, _kind(error))  # noqa: TRY400
            return Tally(deferred=1)

    def _pass(self) -> Tally:
        tally = Tally()
        sick: list[Job] = []
        troubles: Counter[str] = Counter()
        try:
            for jobs in self._batches(tally):
                if self._stop.is_set():
                    break
                failed = self._attempt(jobs)
                _tell_the_first(failed, troubles)
                for job in jobs:
                    self._settle(job, failed.get(job), tally, sick)
        except UnavailableError as error:
            log.warning("%s: %s", self._stage.name, error)
            tally.unavailable = error
        finally:
            self._spool.in_hand()
            _tell_how_many(self._stage.name, troubles)
        if tally.done:  # the machine is well: what failed fails alone
            for job in sick:
                self._spool.strike(job.name)
        return tally

    def _batches(self, tally: Tally) -> Iterator[list[Job]]:
        """Jobs that are attempted together; one that failed before is alone, so that it can fail no other."""
        together: list[Job] = []
        struck = self._spool.struck()
        most = self._stage.batch if isinstance(self._stage, Batching) else 1
        for job in self._stage.scan():
            if self._not_before.get(job.name, 0.0) > time.monotonic():
                tally.deferred += 1
            elif most == 1 or job.name in struck:
                yield [job]
            else:
                together.append(job)
            if len(together) == most:
                yield together
                together, struck = [], self._spool.struck()
        if together:
            yield together

    def _attempt(self, jobs: Sequence[Job]) -> Mapping[Job, Exception]:
        """What kept jobs from being done."""
        try:
            self._spool.in_hand(*(job.at for job in jobs))
            signal.setitimer(signal.ITIMER_PROF, self._cpu_s)  # no handler: SIGPROF ends whatever it is that does not end
            self._limit_memory(self._memory)
            if len(jobs) > 1 and isinstance(self._stage, Batching):
                return self._stage.process_all(jobs)
            for job in jobs:
                self._attempt_one(job)
        except Exception as error:  # noqa: BLE001  the one place: a bug in one job must not stop the others
            return dict.fromkeys(jobs, error)
        finally:
            self._limit_memory(0)
            signal.setitimer(signal.ITIMER_PROF, 0.0)
        return {}

    def _limit_memory(self, most: int) -> None:
        """Let this process have so many bytes of its own at most, or (0) as many as it was allowed."""
        if self._memory:
            soft, hard = self._allowed
            resource.setrlimit(resource.RLIMIT_DATA, (most or soft, hard))

    def _attempt_one(self, job: Job) -> None:
        if self._spool.strikes(job.name) >= STRIKES and not self._is_study(job):
            raise Reject("three-strikes", "the stage failed or died three times on this input")
        self._stage.process(job)
        self._spool.clear_strikes(job.name)

    def _settle(self, job: Job, error: Exception | None, tally: Tally, sick: list[Job]) -> None:
        name = job.name
        self._not_before.pop(name, None)
        if error is None:
            tally.note_done(job)
        elif isinstance(error, Taken):
            pass
        elif isinstance(error, Defer):
            self._defer(job, error, tally)
        elif isinstance(error, Reject):
            self._reject(job, error, tally)
        elif isinstance(error, DicomrxError):
            raise error
        elif is_machine_error(error):
            tally.deferred += 1
            self._blame(job, error, sick)
        else:
            log.error("%s: a bug: %s", name, _kind(error))
            self._reject(job, Reject("bug", _kind(error)), tally)

    def _defer(self, job: Job, later: Defer, tally: Tally) -> None:
        tally.deferred += 1
        if later.retry_in is not None:
            self._not_before[job.name] = time.monotonic() + later.retry_in
        log.warning("%s: %s", job.name, later)

    def _blame(self, job: Job, error: Exception, sick: list[Job]) -> None:
        """Strike a job that wanted more memory than it may have; hold others in suspicion until it shows that the machine is well."""
        if self._memory and isinstance(error, MemoryError):
            self._spool.strike(job.name)
        elif _may_be_its_own_fault(error):
            sick.append(job)

    def _is_study(self, job: Job) -> bool:
        return job.folder == self._spool.studies

    def _reject(self, job: Job, never: Reject, tally: Tally) -> None:
        if self._is_study(job):  # nobody takes a study apart: it stays, and is tried again
            tally.deferred += 1
            log.error("%s: %s", job.name, never)
        elif quarantine.put_aside(self._spool, job.path, self._stage.name, never.reason, never.detail):
            tally.rejected += 1
            log.warning("%s: quarantined: %s", job.name, never)


def _tell_the_first(failed: Mapping[Job, Exception], troubles: Counter[str]) -> None:
    """Of each of the machine's troubles in a pass: a full disk is that of every input, and a log would fill what is left of it."""
    for job, error in failed.items():
        if is_machine_error(error):
            kind = _kind(error)
            if kind not in troubles:
                log.error("%s: the machine is unwell: %s", job.name, kind)
            troubles[kind] += 1


def _tell_how_many(stage: str, troubles: Counter[str]) -> None:
    for kind, count in troubles.items():
        if count > 1:
            log.error("%s: the machine was unwell for %d jobs: %s", stage, count, kind)


def _may_be_its_own_fault(error: BaseException) -> bool:
    """A full disk is never an input's: big ones would go to quarantine while small ones still fit."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.EIO)


def _kind(error: BaseException) -> str:
    """What went wrong and where, without the message: it may quote a value."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    code = f" [{error.strerror}]" if isinstance(error, OSError) and error.strerror else ""
    return f"{type(error).__name__}{code}{where}"
