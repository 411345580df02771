"""The receiver's side of the spool: instances on their way in, and when they are in.

One receiver at a time, of one process or several. The run directory of each, `receiving/<start>.<run>/`, is held while it lives; the next
process to start removes what a dead one left. What is in it has begun, or will in a moment, and is not yet in `incoming/`, which is all
that the watermark needs to know. It says `open`, or `closed` from a refusal on until an instance is kept again, or none was refused for a
minute: a large one that is tried again and again must not hold back those that would make room. The mtime of `closed` is the watermark's
last word: all that is refused later had begun no earlier.
"""

import contextlib
import errno
import itertools
import logging
import os
import threading
from typing import Final

from dicomrx.spool import durable, locks, runs
from dicomrx.spool.layout import Spool
from dicomrx.spool.ledger import Fate
from dicomrx.spool.names import Arrival, part_name, stamp
from dicomrx.spool.runs import RunDirectory

OPEN: Final = "open"
CLOSED: Final = "closed"
_SETTLED_NS: Final = 60_000_000_000
_LOOKS: Final = 32  # each of eight receivers looks after a quarter of its share

log = logging.getLogger(__name__)


class Intake:
    """Hands out receptions, and closes itself while there is no room; safe for the threads of one receiver.

    `min_free` is the floor in bytes below which nothing is taken in, nor written of what has begun.
    """

    def __init__(self, spool: Spool, min_free: int = 0) -> None:
        self.now = spool.now
        self.incoming = str(spool.incoming)  # as text: a Path costs more than the link
        self._spool = spool
        self._min_free = min_free
        self._lock = threading.Lock()
        self._busy: dict[str, list[int]] = {}  # the begins of the receptions in each run directory
        self._unseen = 0  # bytes written since the disk was looked at
        self._look_after = 0  # as many of them as may be
        self._associations = itertools.count(1)
        self._run = _Run(spool)
        self._open = True
        self._refused = 0  # when it was closed last
        for path in runs.dead(spool.receiving, locks.LOCK_PATIENCE_S):
            durable.remove_tree(path)

    def new_association(self) -> int:
        """The number of an association of this receiver, from 1."""
        return next(self._associations)

    def begin(self, association: int, number: int) -> "Reception":
        """Stamp the begin of an instance and make its part; called at the first fragment of its command, or a moment before it.

        Raises OSError, ENOSPC among them, where there is no room: the instance must then be refused with A700.
        """
        self.spend(0)
        with self._lock:
            if not self._open:
                raise OSError(errno.ENOSPC, "intake is closed")
            run, begin = self._run, self.now()
            self._busy.setdefault(run.run, []).append(begin)
        try:
            return Reception(self, run, begin, (association, number))
        except OSError:
            self.close()
            self.release(run, begin)
            raise

    def spend(self, count: int) -> None:
        """So many bytes will be written; raises OSError ENOSPC where there is no room.

        The disk is looked at again long before what was left has been written: the later stages write too, and other workers.
        """
        self._unseen += count
        if not self._open or self._unseen > self._look_after:
            self.tend()
            if not self._open:
                raise OSError(errno.ENOSPC, "intake is closed")

    def tend(self) -> None:
        """Close for want of room, or open again; called now and then too.

        Where the disk does not let it, it stays as it is, and the next call tries again.
        """
        with self._lock, contextlib.suppress(OSError):
            left = self._spool.free_bytes() - self._min_free
            self._unseen = 0
            self._look_after = left // _LOOKS
            if left <= 0 and (self._open or not self._run.closed):
                self._close()
            elif left > 0:
                self._open = True
                if self._run.closed and self.now() - self._refused > _SETTLED_NS:
                    self._begin_anew()

    def close(self) -> None:
        """A write has failed: take nothing in until `tend` finds room, for what follows would fail too."""
        with self._lock, contextlib.suppress(OSError):
            if self._open:
                self._close()

    def settle(self) -> None:
        """An instance is in, but for its name: where none could be, the time in which no study completes is over."""
        closed = self._run
        if closed.closed:
            with self._lock:
                if closed is self._run and self._open:
                    self._begin_anew()

    def _close(self) -> None:
        self._open = False
        self._refused = self.now()
        if self._run.closed:
            return
        log.warning("no instance is taken in: there is no room in %s, or its disk fails", self._spool.root)
        with contextlib.suppress(OSError):  # then it stays at 0, and nothing at all completes
            durable.set_times({self._run.path / OPEN: min([self._spool.now(), *self._busy.get(self._run.run, [])])})
        durable.move(self._run.path / OPEN, self._run.path / CLOSED)
        self._run.closed = True

    def _begin_anew(self) -> None:
        old, self._run = self._run, _Run(self._spool)
        log.info("instances are taken in again")
        if not self._busy.get(old.run):
            old.close()
        self._spool.ledger.continue_associations(old.run, self._run.run)

    def release(self, run: "_Run", begin: int) -> None:
        """The reception of `run` that began so is over; a run directory left behind by reopening goes with its last."""
        with self._lock:
            self._busy[run.run].remove(begin)
            if run is not self._run and not self._busy[run.run]:
                run.close()

    def space_left(self) -> bool:
        """False while nothing is taken in for want of room."""
        self.tend()
        return self._open

    def note_association(self, association: int, /, **facts: object) -> None:
        """Write down how an association stands or ended; no fact identifies a patient."""
        self._spool.ledger.note_association(self._run.run, {"association": association, "at": self._spool.now(), **facts})

    def stop(self, *, cut: bool) -> None:
        """End this receiver.

        Where an association was `cut`, or an instance refused that its sender still has, its run directory stays, and
        completion waits for the next receiver.
        """
        self._run.close(keep=cut or self._run.closed or not self._open)


class _Run(RunDirectory):
    """The run directory of a receiver, which says `open`, and its ledger of arrivals."""

    def __init__(self, spool: Spool) -> None:
        super().__init__(spool.receiving, prefix=f"{stamp(spool.now())}.")
        self.folder = str(self.path)
        self.closed = False
        try:
            self.arrivals = spool.ledger.open_run(self.run)
            os.close(os.open(self.path / OPEN, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o660))
            durable.set_times({self.path / OPEN: 0})
        except OSError:
            super().close()
            raise

    def close(self, *, keep: bool = False) -> None:
        self.arrivals.close()
        super().close(keep=keep)


class Reception:
    """One instance on its way in: an arrival from `keep` on, a part file until `drop`."""

    def __init__(self, intake: Intake, run: _Run, begin: int, number: tuple[int, int]) -> None:
        self._intake = intake
        self._run, self._begin = run, begin
        self._id = number
        self._part = f"{run.folder}/{part_name(begin, *number)}"
        self._fd = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o660)

    def fileno(self) -> int:
        """The open part, for writers that do without `write`."""
        return self._fd

    def write(self, *pieces: bytes | memoryview) -> None:
        """Append to the part; raises OSError."""
        self._intake.spend(sum(map(len, pieces)))
        try:
            durable.write_pieces(self._fd, pieces)
        except OSError:
            self._intake.close()
            raise

    def keep(self) -> Arrival:
        """Make the instance an arrival: after this, and only after this, it may be acknowledged; its part is left to `drop`.

        Raises OSError; then nothing is under a final name, or the name is there and a resend will be a duplicate.
        """
        arrival = Arrival(self._begin, self._intake.now(), self._run.run, *self._id)
        try:
            durable.sync(self._fd)
            self._intake.settle()
            durable.link(self._part, f"{self._intake.incoming}/{arrival.name}")
            self._run.arrivals.note(arrival, Fate.ACKNOWLEDGED)
        except OSError:
            self._intake.close()
            raise
        return arrival

    def drop(self) -> None:
        """Give the part up, and what was not kept with it; nothing happens the second time."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        try:
            os.close(fd)
            os.unlink(self._part)
        except FileNotFoundError:  # somebody was faster
            pass
        finally:
            self._intake.release(self._run, self._begin)
