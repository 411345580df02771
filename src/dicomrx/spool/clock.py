"""Spool time: the wall clock read once per boot, plus the monotonic clock since.

Neither a clock step nor suspend exists for it, and every process of one boot shares it.
"""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from dicomrx.spool.durable import publish
from dicomrx.spool.locks import locked
from dicomrx.spool.runs import RunDirectory

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_TIME_NAMESPACE: Final = Path("/proc/self/ns/time")
_NS: Final = 1_000_000_000


class SpoolClock:
    """Counts on from the anchor of this boot, which the first process of the boot makes.

    `newest_stamp` is asked for the newest stamp in the spool, below which the anchor never lies: a wall clock that was wrong
    at boot cannot run behind what is already there.
    """

    def __init__(self, folder: Path, scratch: Callable[[], RunDirectory], newest_stamp: Callable[[], int]) -> None:
        anchor = folder / _boot_name()
        if not anchor.exists():
            with locked(folder / ".lock"):
                if not anchor.exists():
                    begin = max(time.time_ns(), newest_stamp() + 1)
                    publish(str(begin - _monotonic()).encode(), anchor, scratch())
        self._offset = int(anchor.read_text())

    def now(self) -> int:
        """Spool time in nanoseconds."""
        return self._offset + _monotonic()


def _monotonic() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def _boot_name() -> str:
    """One name for one count of CLOCK_MONOTONIC: the boot, and the time namespace, which shifts it."""
    namespace = os.stat(_TIME_NAMESPACE).st_ino if _TIME_NAMESPACE.exists() else 0
    return f"{_BOOT_ID.read_text().strip()}.{namespace}"


def utc(time_ns: int) -> str | None:
    """Spool time for a person, UTC ISO 8601; None for never."""
    return datetime.fromtimestamp(time_ns / _NS, UTC).isoformat(timespec="milliseconds") if time_ns else None
