"""The spool's half of what binds it to its state: ids, the highest number given, and how far the vault had come.

Each is noted after the state's own commit and before its use, and never goes back: a state that is older than its spool is
found out before a number can be given twice.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from dicomrx.spool import durable, locks
from dicomrx.spool.runs import RunDirectory

_ID: Final = "id"
_STATE: Final = "state"
_NUMBERS: Final = "numbers"
_POSITIONS: Final = "positions"
_DIGITS: Final = 20
_FILE_MODE: Final = 0o660


class Binding:
    """The notes under `<spool>/.run/`; safe for many processes at once."""

    def __init__(self, run_dir: Path) -> None:
        self._root = run_dir
        self._numbers = run_dir / _NUMBERS
        self._positions = run_dir / _POSITIONS
        self._number_noted = 0
        self._segments_noted: set[str] = set()

    def create(self) -> None:
        """Give the spool its id, once."""
        for folder in (self._numbers, self._positions):
            durable.make_directory(folder)
        self._write_once(_ID, secrets.token_hex(16))

    @property
    def spool_id(self) -> str:
        """The spool's own id."""
        return (self._root / _ID).read_text()

    @property
    def state_id(self) -> str | None:
        """The id of the state that this spool is bound to, or None."""
        path = self._root / _STATE
        return path.read_text() if path.exists() else None

    def locked(self) -> AbstractContextManager[None]:
        """Hold the lock under which a spool is bound."""
        return locks.locked(self._root / "binding.lock")

    def bind(self, state_id: str) -> None:
        """Note the state that this spool belongs to from now on."""
        self._write_once(_STATE, state_id)

    def _write_once(self, name: str, text: str) -> None:
        if (self._root / name).exists():
            return
        with RunDirectory(self._root / "tmp") as scratch, contextlib.suppress(FileExistsError):
            durable.publish(text.encode(), self._root / name, scratch)

    def note_number(self, number: int) -> None:
        """Note a pseudonym's number before its first use: an empty file of that name; lower ones go."""
        if number <= self._number_noted:
            return
        if number > self.highest_number():
            (self._numbers / str(number)).touch(mode=_FILE_MODE)
        durable.sync_directory(self._numbers)  # also where another process has noted a higher one: it may not have synced it yet
        for lower in self._noted():
            if lower < number:
                (self._numbers / str(lower)).unlink(missing_ok=True)
        self._number_noted = number

    def highest_number(self) -> int:
        """The highest number ever noted, 0 where there is none."""
        return max(self._noted(), default=0)

    def _noted(self) -> list[int]:
        return [int(name) for name in os.listdir(self._numbers) if name.isdigit()]

    def note_position(self, segment: str, end: int) -> None:
        """Note how far a vault segment had come (bytes), before what ends there is relied on; the segment is synced so far.

        Noted by the segment's only writer, and by who finds a record of one that died before its note.
        """
        path = self._positions / segment
        with locks.locked(path):
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                if _as_number(os.pread(fd, _DIGITS, 0)) < end:
                    os.pwrite(fd, f"{end:0{_DIGITS}d}".encode(), 0)
                durable.sync(fd)
            finally:
                os.close(fd)
        if segment not in self._segments_noted:
            durable.sync_directory(self._positions)
            self._segments_noted.add(segment)

    def positions(self) -> Iterator[tuple[str, int]]:
        """Every segment noted, and how far it had come."""
        for path in self._positions.iterdir():
            yield path.name, _as_number(path.read_bytes())


def _as_number(text: bytes) -> int:
    """A note's number; 0 for one that a crash kept from being written."""
    return int(text) if text.isdigit() else 0
