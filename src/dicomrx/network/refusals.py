"""Whom the receiver turned away and why, for the log and the status view; no more of them than can be looked at."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

_log = logging.getLogger(__name__)

_KEPT: Final = 50
_TOLD: Final = 1000
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
    """One peer turned away for one reason, and the setting that decided: how often, and when last (UTC)."""

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
        self._told: dict[tuple[str, str], float] = {}
        self._changed = False

    def note(self, peer: str, setting: str, why: str, *, calling: str = "", called: str = "") -> None:
        """One more; it is logged, unless the same was said of that peer within a minute."""
        key = (peer, calling, why)
        with self._lock:
            before = self._kept.pop(key, None)
            count = 1 if before is None else before.count + 1
            at = datetime.now(UTC).isoformat(timespec="seconds")
            self._kept[key] = Refused(peer=peer, calling=calling, called=called, setting=setting, why=why, count=count, last=at)
            if len(self._kept) > _KEPT:
                self._forget_one()
            self._changed = True
            tell = self._may_tell((peer, why))
        if tell:
            detail = f" (it called {called!r} and is {calling!r})" if calling or called else ""
            _log.warning("refused %s: %s%s", peer, why, detail)

    def _forget_one(self) -> None:
        """The oldest of whoever fills most of the list, so that nobody can hide another."""
        most = Counter(peer for peer, _, _ in self._kept).most_common(1)[0][0]
        del self._kept[next(key for key in self._kept if key[0] == most)]

    def _may_tell(self, what: tuple[str, str]) -> bool:
        now = time.monotonic()
        if now < self._told.get(what, 0.0):
            return False
        if len(self._told) >= _TOLD:
            self._told.clear()
        self._told[what] = now + _TELL_AGAIN_S
        return True

    def news(self) -> Sequence[Refused] | None:
        """All that are kept, the newest first; None where there was none since the last time."""
        with self._lock:
            if not self._changed:
                return None
            self._changed = False
            return [replace(refused) for refused in reversed(self._kept.values())]
