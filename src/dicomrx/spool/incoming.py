"""`incoming/`: what has arrived, what somebody dropped there, and how either is taken."""

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from dicomrx.spool import durable
from dicomrx.spool.layout import Spool
from dicomrx.spool.ledger import Fate
from dicomrx.spool.names import Arrival, visible
from dicomrx.spool.quarantine import put_aside

QUIET_S: Final = 5.0
PATIENCE_S: Final = 3600.0


def arrivals(spool: Spool) -> list[Arrival]:
    """Every arrival not yet filed, by the begin of its reception."""
    now = spool.now()
    found = (Arrival.parse(name) for name in os.listdir(spool.incoming))
    known: dict[str, bool] = {}
    return sorted(arrival for arrival in found if arrival is not None and _is_ours(spool, arrival, now, known))


def foreign(spool: Spool) -> list[Path]:
    """What lies in `incoming/` and is no arrival: dropped by someone, an unknown run, or a stamp in the future."""
    names = [name for name in os.listdir(spool.incoming) if visible(name)]
    now = spool.now()
    known: dict[str, bool] = {}
    strangers = []
    for name in names:
        arrival = Arrival.parse(name)
        if arrival is None or not _is_ours(spool, arrival, now, known):
            strangers.append(spool.incoming / name)
    return sorted(strangers)


def _is_ours(spool: Spool, arrival: Arrival, now: int, known: dict[str, bool]) -> bool:
    if arrival.run not in known:
        known[arrival.run] = spool.ledger.knows(arrival.run)
    return known[arrival.run] and arrival.begin <= arrival.end <= now


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[BinaryIO | None]:
    """Take an input for this process alone: its open file, or None where another has it or it is gone."""
    fd = durable.claim(path)
    if fd is None:
        yield None
        return
    with open(fd, "rb") as file:
        yield file


def finish(spool: Spool, arrival: Arrival, fate: Fate) -> None:
    """Note what became of an arrival and remove it from `incoming/`: the last step, when all else is durable."""
    spool.ledger.note(arrival, fate)
    durable.remove(spool.incoming / arrival.name)
    spool.clear_strikes(arrival.name)


def new_arrival(spool: Spool, number: int) -> Arrival:
    """An arrival of this process's own making, begun and ended now."""
    now = spool.now()
    spool.ledger.register(spool.scratch.run)
    return Arrival(now, now, spool.scratch.run, 0, number)


@dataclass
class _Seen:
    """How a foreign entry looked when it was last seen to change, by our own monotonic clock."""

    first: float
    since: float
    looks: tuple[int, int, int]


class Adoption:
    """Turns what others drop into `incoming/` into arrivals, once it has been quiet for `QUIET_S`.

    Quiet is judged by the kernel's clock on the file system, or by our own observation, whichever says so first: neither a
    wrong wall clock nor a time copied from elsewhere can hasten it.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._seen: dict[Path, _Seen] = {}
        self._number = 0

    def run(self) -> list[Arrival]:
        """Adopt what is ready; returns the new arrivals."""
        entries = list(_walk(foreign(self._spool)))
        present = {path for path, _ in entries}
        self._seen = {path: seen for path, seen in self._seen.items() if path in present}
        kernel_now = self._kernel_now() if entries else 0.0
        adopted = [self._adopt(path, status, kernel_now) for path, status in entries]
        for path in foreign(self._spool):
            _remove_empty(path, kernel_now)
        return [arrival for arrival in adopted if arrival is not None]

    def pending(self) -> bool:
        """True while something waits to be adopted."""
        return bool(foreign(self._spool))

    def _adopt(self, path: Path, status: os.stat_result, kernel_now: float) -> Arrival | None:
        if not stat.S_ISREG(status.st_mode):
            put_aside(self._spool, path, "anonymize", "not-a-file", "a link, device or socket in incoming/")
            return None
        mono = time.monotonic()
        looks = (status.st_ctime_ns, status.st_size, status.st_ino)
        seen = self._seen.setdefault(path, _Seen(mono, mono, looks))
        if seen.looks != looks:
            seen.looks, seen.since = looks, mono
        quiet = kernel_now - status.st_ctime >= QUIET_S or mono - seen.since >= QUIET_S
        try:
            if not quiet:
                self._give_up(path, mono - seen.first)
                return None
            self._number += 1
            arrival = new_arrival(self._spool, self._number)
            durable.move(path, self._spool.incoming / arrival.name)
        except FileNotFoundError:
            return None
        except PermissionError:
            self._give_up(path, mono - seen.first)
            return None
        self._spool.ledger.note(arrival, Fate.ACKNOWLEDGED)
        return arrival

    def _give_up(self, path: Path, waited_s: float) -> None:
        if waited_s > PATIENCE_S:
            put_aside(self._spool, path, "anonymize", "not-adopted", "an hour in incoming/ without being quiet or readable")

    def _kernel_now(self) -> float:
        probe = self._spool.new_path(".now")
        probe.touch()
        now = probe.stat().st_ctime
        probe.unlink()
        return now


def _walk(paths: list[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything below `paths` that is not a folder, hidden names too once they lie in a folder of someone's."""
    for path in paths:
        try:
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode):
                yield from _walk(sorted(path.iterdir()))
            else:
                yield path, status
        except (FileNotFoundError, NotADirectoryError):
            continue


def _remove_empty(path: Path, kernel_now: float) -> None:
    """Remove a dropped folder once nothing is left in it and nobody has touched it for a while."""
    with contextlib.suppress(OSError):
        if path.is_symlink() or not path.is_dir():
            return
        for child in sorted(path.iterdir()):
            _remove_empty(child, kernel_now)
        if kernel_now - path.stat().st_ctime >= QUIET_S:
            path.rmdir()
