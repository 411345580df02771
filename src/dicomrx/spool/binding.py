"""The spool's half of what binds it to its state: ids, the highest number given, and how far the vault had come.

Each is noted after the state's own commit and before its use, and never goes back: a state that is older than its spool is
found out before a number can be given twice.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dicomrx.spool import durable
from dicomrx.spool.durable import RunDirectory

_ID: Final = "id"
_STATE: Final = "state"
_NUMBERS: Final = "numbers"
_POSITIONS: Final = "positions"


class Binding:
    """The notes under `<spool>/.run/`; safe for many processes at once."""

    def __init__(self, run_dir: Path) -> None:
        self._root = run_dir
        self._numbers = run_dir / _NUMBERS
        self._positions = run_dir / _POSITIONS

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
        if number <= self.highest_number():
            return
        path = self._numbers / str(number)
        path.touch(mode=0o660)
        durable.sync_directory(self._numbers)
        for lower in self._noted():
            if lower < number:
                (self._numbers / str(lower)).unlink(missing_ok=True)

    def highest_number(self) -> int:
        """The highest number ever noted, 0 where there is none."""
        return max(self._noted(), default=0)

    def _noted(self) -> list[int]:
        return [int(name) for name in os.listdir(self._numbers) if name.isdigit()]

    def note_position(self, segment: str, end: int) -> None:
        """Note how far a vault segment had come; called by its only writer, after its fsync."""
        path = self._positions / segment
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o660)
        try:
            os.pwrite(fd, f"{end:020d}".encode(), 0)
        finally:
            os.close(fd)

    def positions(self) -> Iterator[tuple[str, int]]:
        """Every segment noted, and how far it had come (bytes)."""
        for path in sorted(self._positions.iterdir()):
            text = path.read_text()
            if text.isdigit():
                yield path.name, int(text)
