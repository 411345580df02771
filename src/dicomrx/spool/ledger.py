"""What explains, and is never read to decide: arrivals acknowledged, their outcomes, associations and how they ended."""

import contextlib
import json
import os
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from dicomrx.spool.durable import sync_directory, write_all
from dicomrx.spool.names import Arrival, visible


class Fate(StrEnum):
    """What became of an arrival."""

    ACKNOWLEDGED = "acknowledged"
    FILED = "filed"
    DUPLICATE = "duplicate"
    QUARANTINED = "quarantined"
    REQUEUED = "requeued"


class RunLedger:
    """The arrivals of one run, open for writing; a line is written by one call, so many processes can share it."""

    def __init__(self, path: Path) -> None:
        self._fd = _open(path)

    def note(self, arrival: Arrival, fate: Fate) -> None:
        """Write down what became of an arrival."""
        write_all(self._fd, f"\n{arrival.association}-{arrival.number} {fate}".encode())

    def close(self) -> None:
        """Once only."""
        os.close(self._fd)


class Ledger:
    """Append-only files, one a run.

    A line begins with its newline: one that a full disk cut short spoils none after it.
    """

    def __init__(self, arrivals: Path, associations: Path) -> None:
        self._arrivals = arrivals
        self._associations = associations

    def register(self, run: str) -> RunLedger:
        """Make a run known: an arrival of an unknown run is somebody's file and is adopted. To be closed by the caller."""
        ledger = RunLedger(self._arrivals / run)
        sync_directory(self._arrivals)
        return ledger

    def knows(self, run: str) -> bool:
        """True for a run of this spool."""
        return (self._arrivals / run).exists()

    def note(self, arrival: Arrival, fate: Fate) -> None:
        """Write down what became of an arrival."""
        with contextlib.closing(RunLedger(self._arrivals / arrival.run)) as ledger:
            ledger.note(arrival, fate)

    def note_association(self, run: str, facts: Mapping[str, object]) -> None:
        """Write down an association: AE titles, peer, how it ended; nothing of a patient."""
        _append(self._associations / run, b"\n" + json.dumps(facts, sort_keys=True).encode())

    def counts(self) -> Counter[Fate]:
        """How many arrivals met each fate; one that met the same twice counts once."""
        total: Counter[Fate] = Counter()
        for path in self._arrivals.iterdir():
            if visible(path.name):
                lines = path.read_text().splitlines()
                known = {line for line in lines if line.partition(" ")[2] in set(Fate)}
                total.update(Fate(line.partition(" ")[2]) for line in known)
        return total


def _append(path: Path, line: bytes) -> None:
    fd = _open(path)
    try:
        write_all(fd, line)
    finally:
        os.close(fd)


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o660)
