"""The receiver's side of the spool: instances on their way in, and when they are in.

One receiver at a time. Its run directory `receiving/<start>.<run>/` is held while it lives and says `open`, or `closed` while it
refuses intake. What is in it has begun and is not yet in `incoming/`, which is all that the watermark needs to know.
"""

import contextlib
import errno
import itertools
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dicomrx.spool import durable
from dicomrx.spool.durable import RunDirectory
from dicomrx.spool.layout import Spool
from dicomrx.spool.ledger import Fate
from dicomrx.spool.names import Arrival, part_name, stamp

OPEN: Final = "open"
CLOSED: Final = "closed"

log = logging.getLogger(__name__)


class Intake:
    """Hands out receptions, and closes itself while there is no room; safe for the threads of one receiver.

    `min_free` is the floor in bytes below which nothing is taken in.
    """

    def __init__(self, spool: Spool, min_free: int = 0) -> None:
        self._spool = spool
        self._min_free = min_free
        self._lock = threading.Lock()
        self._busy: dict[str, int] = {}
        self._associations = itertools.count(1)
        self._run = self._start_run()
        self._open = True
        for path in durable.dead_run_directories(spool.receiving, durable.LOCK_PATIENCE_S):
            durable.remove_tree(path)

    def _start_run(self) -> RunDirectory:
        run = RunDirectory(self._spool.receiving, prefix=f"{stamp(self._spool.now())}.")
        try:
            self._spool.ledger.register(run.run)
            _touch(run.path / OPEN)
        except OSError:
            run.close()
            raise
        return run

    def new_association(self) -> int:
        """The number of an association of this receiver, from 1."""
        return next(self._associations)

    def begin(self, association: int, number: int) -> "Reception":
        """Stamp the begin of an instance and make its part; called at the first fragment of its command.

        Raises OSError, ENOSPC among them, where there is no room: the instance must then be refused with A700.
        """
        self.tend()
        with self._lock:
            if not self._open:
                raise OSError(errno.ENOSPC, "intake is closed")
            run = self._run
            self._busy[run.run] = self._busy.get(run.run, 0) + 1
        try:
            with self.closing_on_machine_errors():
                return Reception(self, self._spool, run, association, number)
        except OSError:
            self.release(run)
            raise

    def tend(self) -> None:
        """Close for want of room, or open again in a run directory of its own; called now and then, and before each instance.

        Where the disk does not let it, it stays as it is, and the next call tries again.
        """
        with self._lock, contextlib.suppress(OSError):
            room = self._spool.free_bytes() > self._min_free
            if self._open and not room:
                self._close()
            elif not self._open and room:
                self._reopen()

    @contextlib.contextmanager
    def closing_on_machine_errors(self) -> Iterator[None]:
        """Close the intake where a write fails, until `tend` finds room: what follows would fail too."""
        try:
            yield
        except OSError:
            with self._lock, contextlib.suppress(OSError):
                if self._open:
                    self._close()
            raise

    def _close(self) -> None:
        self._open = False
        log.warning("no instance is taken in: there is no room in %s, or its disk fails", self._spool.root)
        durable.move(self._run.path / OPEN, self._run.path / CLOSED)

    def _reopen(self) -> None:
        old, self._run = self._run, self._start_run()
        self._open = True
        log.info("instances are taken in again")
        if not self._busy.get(old.run):
            old.close()

    def release(self, run: RunDirectory) -> None:
        """One reception of `run` is over; a run directory left behind by reopening goes with its last."""
        with self._lock:
            self._busy[run.run] -= 1
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
        self._run.close(keep=cut or not self._open)


class Reception:
    """One instance on its way in: a part file until `keep`, an arrival after it."""

    def __init__(self, intake: Intake, spool: Spool, run: RunDirectory, association: int, number: int) -> None:
        self._intake = intake
        self._spool = spool
        self._run = run
        self._id = (association, number)
        self._begin = spool.now()
        self._part = run.path / part_name(self._begin, association, number)
        self._fd = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o660)

    def fileno(self) -> int:
        """The open part, for writers that do without `write`."""
        return self._fd

    def write(self, *pieces: bytes | memoryview) -> None:
        """Append to the part; raises OSError."""
        with self._intake.closing_on_machine_errors():
            durable.write_pieces(self._fd, pieces)

    def keep(self) -> Arrival:
        """Make the instance an arrival: after this, and only after this, it may be acknowledged.

        Raises OSError; then nothing is under a final name, or the name is there and a resend will be a duplicate.
        """
        arrival = Arrival(self._begin, self._spool.now(), self._run.run, *self._id)
        with self._intake.closing_on_machine_errors():
            durable.sync(self._fd)
            durable.link(self._part, self._spool.incoming / arrival.name)
            self._spool.ledger.note(arrival, Fate.ACKNOWLEDGED)
        self.drop()
        return arrival

    def drop(self) -> None:
        """Give the part up; nothing happens the second time."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        try:
            os.close(fd)
            self._part.unlink(missing_ok=True)
        finally:
            self._intake.release(self._run)


def _touch(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o660))
