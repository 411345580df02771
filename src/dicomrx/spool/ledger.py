"""What explains: arrivals acknowledged, their outcomes, associations and how they ended.

Nothing of it is read to decide, but that an association which was cut short may lengthen a study's wait.
"""

import contextlib
import json
import mmap
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from dicomrx.spool.durable import sync_directory, write_all
from dicomrx.spool.names import Arrival, visible

_CONTINUED: Final = "continued"


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
        write_all(self._fd, _line(arrival, fate).encode())

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

    def register(self, run: str) -> None:
        """Make a run known: an arrival of an unknown run is somebody's file and is adopted."""
        append(self._arrivals / run, b"\n")  # the first block is taken while there is room: a note must not fail after a link
        sync_directory(self._arrivals)

    def open_run(self, run: str) -> RunLedger:
        """Make a run known and keep its file open, to be closed by the caller."""
        self.register(run)
        return RunLedger(self._arrivals / run)

    def knows(self, run: str) -> bool:
        """True for a run of this spool."""
        return (self._arrivals / run).exists()

    def note(self, arrival: Arrival, fate: Fate) -> None:
        """Write down what became of an arrival."""
        self.note_all({arrival: fate})

    def note_all(self, fates: Mapping[Arrival, Fate]) -> None:
        """The same for several, one call for all of a run."""
        lines: defaultdict[str, str] = defaultdict(str)
        for arrival, fate in fates.items():
            lines[arrival.run] += _line(arrival, fate)
        for run, text in lines.items():
            append(self._arrivals / run, text.encode())

    def note_association(self, run: str, facts: Mapping[str, object]) -> None:
        """Write down an association: AE titles, peer, how it ended; nothing of a patient."""
        append(self._associations / run, b"\n" + json.dumps(facts, sort_keys=True).encode())

    def continue_associations(self, run: str, successor: str) -> None:
        """Write down that the associations of a run go on in another of the same receiver."""
        append(self._associations / run, b"\n" + json.dumps({_CONTINUED: successor}).encode())

    def ends(self, met: Iterable[tuple[str, int]], alive: AbstractSet[str]) -> dict[tuple[str, int], str]:
        """How these associations, pairs of a run and a number, ended: as noted, or `open`, `cut` with their receiver, `unknown`."""
        wanted: dict[str, set[int]] = {}
        found = dict.fromkeys(met, "unknown")
        for run, association in found:
            wanted.setdefault(run, set()).add(association)
        for run, numbers in wanted.items():
            for association, ended in self._ends(run, numbers, alive).items():
                found[run, association] = ended
        return found

    def _ends(self, run: str, numbers: AbstractSet[int], alive: AbstractSet[str]) -> dict[int, str]:
        found: dict[int, str] = {}
        lived: str | None = run
        while lived is not None:
            run, lived = lived, None
            for note in self._notes(run, min(numbers)):
                lived = note.get(_CONTINUED, lived)
                if note.get("association") in numbers:
                    found[note["association"]] = note.get("ended", "unknown")
        return {number: "cut" if ended == "open" and run not in alive else ended for number, ended in found.items()}

    def _notes(self, run: str, first: int) -> Iterator[dict[str, Any]]:
        """What was noted of a run's associations from the first mention of this one on, or all of it: the file may be a year's."""
        try:
            with (self._associations / run).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as notes:
                start = notes.find(b'\n{"association": %d,' % first)
                lines = notes[max(start, 0) :].splitlines()
        except (FileNotFoundError, ValueError):  # ValueError: an empty file
            return
        for line in lines:
            with contextlib.suppress(ValueError):
                yield json.loads(line)

    def counts(self) -> Counter[Fate]:
        """How many arrivals met each fate; one that met the same twice counts once.

        One that met any was acknowledged, also where a crash came between its move and its note.
        """
        total: Counter[Fate] = Counter()
        fates = {fate.value: fate for fate in Fate}
        for path in self._arrivals.iterdir():
            if visible(path.name):
                parted = (line.partition(" ") for line in path.read_text().splitlines())
                known = {(arrival, fates[fate]) for arrival, _, fate in parted if fate in fates}
                total.update(fate for _, fate in known if fate is not Fate.ACKNOWLEDGED)
                total[Fate.ACKNOWLEDGED] += len({arrival for arrival, _ in known})
        return total


def _line(arrival: Arrival, fate: Fate) -> str:
    return f"\n{arrival.association}-{arrival.number} {fate}"


def append(path: Path, line: bytes) -> None:
    """Add a line by one call, making the file where it is missing; a line begins with its newline."""
    fd = _open(path)
    try:
        write_all(fd, line)
    finally:
        os.close(fd)


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o660)
