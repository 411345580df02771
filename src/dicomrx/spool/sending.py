"""What is recorded of sending one frozen study: each step is durable before what follows it."""

import contextlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from dicomrx.spool import durable, locks
from dicomrx.spool.clock import utc
from dicomrx.spool.layout import ATTEMPTS, Spool


class Step(StrEnum):
    """A line of `attempts.jsonl`."""

    SEALED = "sealed"  # size and SHA-256 of the zip, before it has its name
    SENDING = "sending"  # before the first byte of a request
    FAILED = "failed"  # no accept: why, and whether the API may have the study nevertheless
    HELD = "held"  # ON_AMBIGUOUS: somebody must say that it is to be sent again
    RELEASED = "released"  # somebody did
    SENT = "sent"  # the accept, and all that the receipt says of it
    CLEANED = "cleaned"  # before the data goes; the receipt was there


class Seal(NamedTuple):
    """The zip as it was made, and as every repeat must be."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Record:
    """The steps of one study so far; what a crash or a full disk cut short of a line says nothing."""

    steps: tuple[dict[str, Any], ...]

    @classmethod
    def read(cls, folder: Path) -> "Record":
        """The record kept in a study's folder."""
        steps = []
        with contextlib.suppress(FileNotFoundError):
            for line in (folder / ATTEMPTS).read_bytes().splitlines():
                with contextlib.suppress(ValueError, TypeError):
                    steps.append({**json.loads(line)})
        return cls(tuple(steps))

    @property
    def seal(self) -> Seal | None:
        """The zip that is sent."""
        sealed = [step["zip"] for step in self.steps if step.get("step") == Step.SEALED]
        return Seal(sealed[-1]["size"], sealed[-1]["sha256"]) if sealed else None

    @property
    def sent(self) -> dict[str, Any] | None:
        """The accept, None where there was none: what has one is never sent again, also where a crash came before its receipt."""
        return next((step for step in self.steps if step.get("step") == Step.SENT), None)

    @property
    def attempts(self) -> int:
        """How many requests were begun."""
        return sum(step.get("step") == Step.SENDING for step in self.steps)

    @property
    def last(self) -> dict[str, Any]:
        """The newest step, empty where there is none."""
        return self.steps[-1] if self.steps else {}

    @property
    def interrupted(self) -> bool:
        """A request was begun whose end nobody noted."""
        told = [step["step"] for step in self.steps if step.get("step") in (Step.SENDING, Step.FAILED, Step.SENT)]
        return told[-1:] == [Step.SENDING]

    @property
    def ambiguous(self) -> bool:
        """The API may have the study."""
        return _any_ambiguous(self.steps)

    @property
    def released(self) -> bool:
        """Somebody said, since the last request, that it is to be sent again."""
        return Step.RELEASED in (step.get("step") for step in self._since(Step.SENDING))

    @property
    def to_hold(self) -> bool:
        """The API may have the study, by what was done since somebody last said that it is to be sent again."""
        return _any_ambiguous(self._since(Step.RELEASED))

    @property
    def refused(self) -> bool:
        """The destination refused us over this study last: others go first."""
        return bool(self.last.get("refused"))

    def _since(self, step: Step) -> tuple[dict[str, Any], ...]:
        last = max((number for number, one in enumerate(self.steps, 1) if one.get("step") == step), default=0)
        return self.steps[last:]


def note(spool: Spool, folder: Path, step: Step, **facts: object) -> None:
    """Record a step durably."""
    line = json.dumps({"step": step, "at": utc(spool.now()), **facts}, sort_keys=True)
    fd = os.open(folder / ATTEMPTS, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o660)
    try:
        durable.write_all(fd, b"\n" + line.encode())
        durable.sync(fd)
    finally:
        os.close(fd)
    durable.sync_directory(folder)


def taken_up(spool: Spool, folder: Path) -> Record:
    """The record of a study that the caller has claimed; a request that its process did not survive is noted as ambiguous."""
    record = Record.read(folder)
    if not record.interrupted:
        return record
    note(spool, folder, Step.FAILED, error="the uploader ended before the answer came", ambiguous=True)
    return Record.read(folder)


def release(spool: Spool, folder: Path) -> None:
    """Note that somebody wants a study sent, whatever came before; does nothing while it is being sent."""
    fd = locks.claim(folder)
    if fd is None:
        return
    try:
        if taken_up(spool, folder).attempts:
            note(spool, folder, Step.RELEASED)
    finally:
        os.close(fd)


def _any_ambiguous(steps: Iterable[dict[str, Any]]) -> bool:
    return any(step.get("ambiguous") for step in steps)
