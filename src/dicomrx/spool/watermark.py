"""The watermark: before it, nothing is still on its way.

One function computes it for every reader, and lists upstream first (now, receiving, incoming; the reader looks at the study
last): an instance moves downstream only, so it is seen at least once on its way.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicomrx.spool import locks
from dicomrx.spool.incoming import look
from dicomrx.spool.intake import CLOSED, OPEN
from dicomrx.spool.layout import Spool
from dicomrx.spool.names import part_begin, run_start, visible

DEAD: Final = "the receiver died or was cut: start it again"
STARTING: Final = "the receiver is starting"
FOREIGN: Final = "files dropped into incoming/ are not adopted yet"
NO_ROOM: Final = "the receiver takes nothing in, for want of room: make some"

_RECEIVERS: Final = ("scp", "all")


@dataclass(frozen=True)
class Horizon:
    """How far the past is settled: all that began before `watermark` is filed.

    `receiver_start` is when the receiver's run began (0 where there is none): while it was down, quiet proves nothing.
    `blocked` says why nothing can complete at all, or is None. `closed` is true while the receiver refuses intake: the watermark then
    stands where it stood when that began, for what is refused may belong to any study that was not yet quiet.
    """

    watermark: int
    receiver_start: int
    blocked: str | None
    closed: bool = False

    @property
    def trouble(self) -> str | None:
        """What keeps studies from completing, and what to do about it; None where it is time alone."""
        return self.blocked or (NO_ROOM if self.closed else None)

    def quiet_since(self, arrived: int) -> int:
        """From when on a study whose newest arrival was at `arrived` has been quiet."""
        return max(arrived, self.receiver_start)

    def completes(self, arrived: int, quiet_ns: int) -> bool:
        """True where the watermark has passed, by `quiet_ns`, all that may have belonged to the study."""
        return self.blocked is None and self.watermark - quiet_ns >= self.quiet_since(arrived)


def horizon(spool: Spool) -> Horizon:
    """Look at what is on its way, upstream first."""
    watermark = spool.now()
    start = 0
    blocked = None
    closed = False
    for run in sorted(spool.receiving.iterdir()):
        began = run_start(run.name)
        if began is None:
            continue
        watermark = min([watermark, *_begins(run)])
        # Asked last: nothing leaves the directory of a living receiver but into incoming/.
        refusal, closed_at = _stands(run)
        blocked = blocked or refusal
        if closed_at is not None:
            closed, watermark = True, min(watermark, closed_at)
        start = max(start, began)
    if not start and any(locks.is_locked(spool.stage_lock(daemon)) for daemon in _RECEIVERS):
        blocked = STARTING  # or it is just ending: in `all` this stage may be faster
    for _ in range(2):  # a file renamed (adopted) while it is listed can be missed by one listing, never by both
        seen = look(spool)
        watermark = min([watermark, *(arrival.begin for arrival in seen.arrivals[:1])])
        if seen.foreign:
            blocked = blocked or FOREIGN
    return Horizon(watermark, start, blocked, closed)


def _stands(run: Path) -> tuple[str | None, int | None]:
    """Why a receiver's run blocks everything, or None; and where it refuses intake, the watermark when that began."""
    if not locks.is_locked(run):  # or gone this instant, and its successor not seen
        return DEAD, None
    if (run / OPEN).exists():
        return None, None
    try:
        return None, (run / CLOSED).stat().st_mtime_ns
    except FileNotFoundError:
        return STARTING, None


def in_reception(spool: Spool) -> list[int]:
    """When each instance that is on its way in began."""
    return sorted(begin for run in spool.receiving.iterdir() for begin in _begins(run))


def _begins(run: Path) -> list[int]:
    try:
        names = [path.name for path in run.iterdir() if visible(path.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [begin for begin in map(part_begin, names) if begin is not None]
