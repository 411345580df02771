"""`incoming/`: what has arrived, what somebody dropped there, and how either is taken."""

import contextlib
import errno
import heapq
import logging
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from dicomrx.errors import Reject
from dicomrx.spool import durable, locks
from dicomrx.spool.layout import Spool
from dicomrx.spool.ledger import Fate
from dicomrx.spool.names import Arrival, stamp, told_by, visible
from dicomrx.spool.quarantine import put_aside
from dicomrx.spool.spares import Spares
from dicomrx.spool.studies import is_marked, newest_arrival, open_studies

QUIET_S: Final = 5.0
PATIENCE_S: Final = 3600.0
_PORTION: Final = 1 << 12

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listing:
    """What lies in `incoming/`: arrivals by the begin of their reception, and what others dropped there."""

    arrivals: list[Arrival]
    foreign: list[Path]


def look(spool: Spool) -> Listing:
    """List `incoming/` once, before anything in it is judged: what is renamed meanwhile is seen by one of its names."""
    listing = Listing([], [])
    for name, is_ours in _judged(spool, os.listdir(spool.incoming)):
        if is_ours and (arrival := Arrival.parse(name)):
            listing.arrivals.append(arrival)
        else:
            listing.foreign.append(spool.incoming / name)
    listing.arrivals.sort()
    listing.foreign.sort()
    return listing


def _judged(spool: Spool, names: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """The visible ones, and whether each is an arrival: none is any other name, one of an unknown run or with a stamp in the future."""
    known: dict[str, bool] = {}
    now = stamp(spool.now())
    for name in filter(visible, names):
        told = told_by(name)
        if told is None:
            yield name, False
            continue
        begin, end, run = told
        if run not in known:
            known[run] = spool.ledger.knows(run)
        if end > now:
            now = stamp(spool.now())  # it may have come since: whatever was read has ended before this
        yield name, known[run] and begin <= end <= now


def _streamed(spool: Spool) -> Iterator[str]:
    """The names, however many, in no memory."""
    with os.scandir(spool.incoming) as entries:
        yield from (entry.name for entry in entries)


def _foreign(spool: Spool) -> list[Path]:
    return sorted(spool.incoming / name for name, is_ours in _judged(spool, _streamed(spool)) if not is_ours)


def arrivals(spool: Spool) -> list[Arrival]:
    """Every arrival not yet filed, by the begin of its reception."""
    return look(spool).arrivals


def backlog(spool: Spool) -> Iterator[str]:
    """The names of those that are there when it begins, in the same order: however many, in little memory."""
    last, later = "", stamp(spool.now() + 1)
    while some := _portion(spool, last, later):
        yield from (name for name, is_ours in _judged(spool, some) if is_ours)
        last = some[-1]


def _portion(spool: Spool, after: str, before: str) -> list[str]:
    """The first names between the two, in order."""
    return heapq.nsmallest(_PORTION, (name for name in _streamed(spool) if after < name < before))


@contextlib.contextmanager
def claimed(path: Path | str) -> Iterator[BinaryIO | None]:
    """Take an input for this process alone: its open file, or None where another has it or it is gone.

    Raises Reject for what this user may not read and for what is no file: it is that input's own fault, unlike rights on our folders.
    """
    try:
        fd = locks.claim(path)
    except PermissionError as error:
        raise Reject("not-readable", "this user may not read it") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Reject("not-a-file", "a symbolic link") from error
        raise
    if fd is None:
        yield None
        return
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Reject("not-a-file", "a folder or device")
    with open(fd, "rb") as file:
        yield file


def finish(spool: Spool, fates: Mapping[Arrival, Fate], spares: Spares) -> None:
    """Note what became of arrivals and remove them from `incoming/`: the last step, when all else is durable."""
    spool.ledger.note_all(fates)
    spares.take(fates)
    for name in spool.struck() & {arrival.name for arrival in fates}:
        spool.clear_strikes(name)


def new_arrival(spool: Spool, number: int, begin: int | None = None) -> Arrival:
    """An arrival of this process's own making, ended now, and begun at `begin` or now."""
    now = spool.now()
    spool.ledger.register(spool.scratch.run)
    return Arrival(now if begin is None else begin, now, spool.scratch.run, 0, number)


@dataclass
class _Seen:
    """How a foreign entry looked when it was last seen to change, by our own monotonic clock."""

    first: float
    since: float
    looks: tuple[int, int, int]


class Adoption:
    """Turns what others drop into `incoming/` into arrivals, once it has been quiet for `QUIET_S`.

    Quiet is judged by the change time that the kernel gives, which no copying program can set, or where the wall clock has
    been set back, by our own observation.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._seen: dict[Path, _Seen] = {}
        self._stuck: set[Path] = set()
        self._number = 0
        self._begin = 0

    def run(self) -> list[Arrival]:
        """Adopt what is ready; returns the new arrivals."""
        entries = [entry for path in _foreign(self._spool) for entry in _walk(path)]
        present = {path for path, _ in entries}
        self._seen = {path: seen for path, seen in self._seen.items() if path in present}
        self._stuck &= present
        kernel_now = self._kernel_now() if entries else 0.0
        self._begin = self._oldest_open() if entries else 0
        adopted = [self._take(path, status, kernel_now) for path, status in entries]
        return [arrival for arrival in adopted if arrival is not None]

    def pending(self) -> bool:
        """True while something waits to be adopted that this process may adopt."""
        stuck = {self._spool.incoming / path.relative_to(self._spool.incoming).parts[0] for path in self._stuck}
        return bool(set(_foreign(self._spool)) - stuck)

    def _take(self, path: Path, status: os.stat_result, kernel_now: float) -> Arrival | None:
        quiet = self._is_quiet(path, status, kernel_now)
        try:
            if stat.S_ISDIR(status.st_mode):
                _remove_empty(path, quiet=quiet)
            elif not stat.S_ISREG(status.st_mode):
                self._put_aside(path, "not-a-file", "a link, device or socket in incoming/")
            elif quiet:
                return self._adopt(path)
            else:
                self._give_up(path)
        except FileNotFoundError:
            pass
        except PermissionError:
            self._refused(path)
        return None

    def _is_quiet(self, path: Path, status: os.stat_result, kernel_now: float) -> bool:
        mono = time.monotonic()
        looks = (status.st_ctime_ns, status.st_size, status.st_ino)
        seen = self._seen.setdefault(path, _Seen(mono, mono, looks))
        if seen.looks != looks:
            seen.looks, seen.since = looks, mono
        return kernel_now - status.st_ctime >= QUIET_S or mono - seen.since >= QUIET_S

    def _adopt(self, path: Path) -> Arrival:
        self._number += 1
        arrival = new_arrival(self._spool, self._number, self._begin)
        durable.move(path, self._spool.incoming / arrival.name)
        self._spool.ledger.note(arrival, Fate.ACKNOWLEDGED)
        return arrival

    def _refused(self, path: Path) -> None:
        if path not in self._stuck:
            self._stuck.add(path)
            log.error("something in incoming/ may not be moved by this user: until it is taken away, no study completes")
        with contextlib.suppress(PermissionError):
            self._give_up(path)

    def _give_up(self, path: Path) -> None:
        if time.monotonic() - self._seen[path].first > PATIENCE_S:
            self._put_aside(path, "not-adopted", "an hour in incoming/ without being quiet or readable")

    def _put_aside(self, path: Path, reason: str, detail: str) -> None:
        target = put_aside(self._spool, path, "anonymize", reason, detail)
        if target is not None:  # its own name may be a patient's
            log.warning("%s: quarantined: %s: %s", target.stem, reason, detail)

    def _oldest_open(self) -> int:
        """When what is adopted now began: no later than the newest arrival of any study that is not complete.

        It may belong to any of them, and for how long it has been coming nobody knows: until it is filed, none of them completes.
        """
        oldest = [self._spool.now(), *(arrival.begin for arrival in look(self._spool).arrivals[:1])]
        open_now = [uid for uid in open_studies(self._spool) if not is_marked(self._spool, uid)]
        newest = [newest_arrival(self._spool, uid) for uid in open_now]
        return min([*oldest, *(arrived for arrived in newest if arrived is not None)])

    def _kernel_now(self) -> float:
        probe = self._spool.new_path(".now")
        probe.touch()
        now = probe.stat().st_ctime
        probe.unlink()
        return now


def _walk(top: Path) -> list[tuple[Path, os.stat_result]]:
    """`top` and all below it, a folder after what it holds; hidden names too, once they lie in a folder of someone's."""
    found = []
    stack = [top]
    while stack:
        path = stack.pop()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            status = path.lstat()
            found.append((path, status))
            if stat.S_ISDIR(status.st_mode):
                with contextlib.suppress(PermissionError):
                    stack += sorted(path.iterdir())
    return found[::-1]


def _remove_empty(path: Path, *, quiet: bool) -> None:
    """Remove a dropped folder once nothing is left in it and nobody has touched it for a while; raises PermissionError."""
    try:
        empty = next(path.iterdir(), None) is None
        if empty and quiet:
            path.rmdir()
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
