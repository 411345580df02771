"""Whom the receiver turned away and why, for the log and the status view; no more of them than can be looked at."""

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

_log = logging.getLogger(__name__)

_KEPT: Final = 50
_TELL_AGAIN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """The fields of an A-ASSOCIATE-RJ, the setting that decided, and what an operator may do about it."""

    result: int
    source: int
    diagnostic: int
    setting: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """One peer turned away for one reason: how often, and when last (UTC)."""

    peer: str
    calling: str
    called: str
    setting: str
    why: str
    count: int
    last: str


class Refusals:
    """The newest refusals; safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str, str], Refused] = {}  # the one that happened last is last
        self._told: dict[tuple[str, str, str], float] = {}
        self._changed = False

    def note(self, peer: str, setting: str, why: str, *, calling: str = "", called: str = "") -> None:
        """One more; it is logged, the same one again after a minute."""
        key = (peer, calling, why)
        now = time.monotonic()
        with self._lock:
            before = self._kept.pop(key, None)
            count = 1 if before is None else before.count + 1
            at = datetime.now(UTC).isoformat(timespec="seconds")
            self._kept[key] = Refused(peer=peer, calling=calling, called=called, setting=setting, why=why, count=count, last=at)
            tell = now >= self._told.get(key, 0.0)
            if tell:
                self._told[key] = now + _TELL_AGAIN_S
            if len(self._kept) > _KEPT:
                oldest = next(iter(self._kept))
                del self._kept[oldest]
                self._told.pop(oldest, None)
            self._changed = True
        if tell:
            detail = f" (it called {called!r} and is {calling!r})" if calling or called else ""
            _log.warning("refused %s: %s%s", peer, why, detail)

    def news(self) -> Sequence[Refused] | None:
        """All that are kept, the newest first; None where there was none since the last time."""
        with self._lock:
            if not self._changed:
                return None
            self._changed = False
            return [replace(refused) for refused in reversed(self._kept.values())]
