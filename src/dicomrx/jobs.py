"""What a stage is to the runner: the jobs that it finds and does, and what became of them."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from dicomrx.errors import UnavailableError


@dataclass(frozen=True)
class Job:
    """One thing a stage found to do: where it lies in the spool, and what strikes and logs call it."""

    folder: Path
    name: str

    @property
    def at(self) -> str:
        """Its path as text: `Path` interns each name it has ever met, and Python 3.12 keeps them all."""
        return f"{self.folder}/{self.name}"

    @property
    def path(self) -> Path:
        """Its path, for what is rarely done."""
        return self.folder / self.name

    def is_there(self) -> bool:
        """True while something lies where it lay."""
        return os.path.lexists(self.at)


class Stage(Protocol):
    """What a stage is: it finds jobs, and does one. Doing one twice does no harm."""

    name: str
    watched: Sequence[Path]
    """Folders in which an event means that a scan may find something."""

    def scan(self) -> Iterable[Job]:
        """The jobs that are ready, oldest first; cheap."""
        ...

    def process(self, job: Job) -> None:
        """Do one job. Returning is done; raises Defer, Reject, Taken, or UnavailableError, which ends the pass."""
        ...

    def ready_in(self) -> float | None:
        """Seconds until something that waits may be ready, or None where nothing waits that `--once` must wait for."""
        ...


@runtime_checkable
class Batching(Protocol):
    """What a stage may be besides: one that does several jobs together for less than one by one."""

    batch: int
    """The most of them."""

    def process_all(self, jobs: Sequence[Job]) -> Mapping[Job, Exception]:
        """Do jobs; returns what `process` would have raised for each one that is not done."""
        ...


class Chosen:
    """A stage that sees only the jobs it is given."""

    def __init__(self, stage: Stage, jobs: Sequence[Job]) -> None:
        self.name = stage.name
        self.watched: Sequence[Path] = ()
        self._stage = stage
        self._jobs = dict.fromkeys(jobs)

    def scan(self) -> Iterable[Job]:
        """The jobs that are left."""
        return [job for job in list(self._jobs) if job.is_there()]

    def process(self, job: Job) -> None:
        """As the stage does it."""
        self._stage.process(job)
        self._jobs.pop(job, None)

    def ready_in(self) -> float | None:
        """Nothing is waited for."""
        return None


@dataclass
class Tally:
    """What became of the jobs of one pass; of those that others had in hand, nothing."""

    done: int = 0
    deferred: int = 0
    rejected: int = 0
    unavailable: UnavailableError | None = None
    stayed: set[Job] = field(default_factory=set, repr=False)
    """Those of the done ones that lie where they lay."""

    def note_done(self, job: Job) -> None:
        """Count a job as done."""
        self.done += 1
        if job.is_there():
            self.stayed.add(job)

    def and_also(self, other: "Tally") -> "Tally":
        """Both together; what stayed and was done in both counts once: to do it again was no progress."""
        done = self.done + other.done - len(self.stayed & other.stayed)
        unavailable = self.unavailable or other.unavailable
        return Tally(done, self.deferred + other.deferred, self.rejected + other.rejected, unavailable, self.stayed | other.stayed)
