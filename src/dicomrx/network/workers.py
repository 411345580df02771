"""The processes behind one listener, as their parent sees them: each connection goes to the one that has fewest."""

import logging
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import astuple
from typing import Any, Final

from dicomrx.network.link import Link
from dicomrx.network.visit import GONE, Visit

_log = logging.getLogger(__name__)

_PATIENCE: Final = 15  # calls of `tend`
_PATIENCE_AT_START: Final = 60  # it waits for the disk too, and would never come to an end if it were cut each time


class Workers:
    """Those that are alive, or about to be; safe for threads."""

    def __init__(self) -> None:
        self._linked: list[_Worker] = []

    def connect(self, kill: Callable[[], None]) -> socket.socket:
        """The end of a new link, for a worker that is about to start."""
        ours, theirs = Link.pair()
        threading.Thread(target=self._attend, args=(_Worker(ours, kill),), name="dicomrx-worker", daemon=True).start()
        return theirs

    def _ready(self) -> list["_Worker"]:
        return [worker for worker in list(self._linked) if worker.is_ready]

    def able(self) -> bool:
        """True while there is one that serves."""
        return bool(self._ready())

    def meet(self, visit: Visit) -> None:
        """Hand a visit over, rather to one that listens; where nobody takes it, it has to leave."""
        for worker in sorted(self._ready(), key=lambda worker: (worker.is_slow, len(worker.visits))):
            if worker.take(visit):
                return
        _dismiss(visit)

    def tend(self) -> None:
        """Kill one that listens no more, for what it holds would be held for ever, or never begins to; called every other second."""
        for worker in list(self._linked):
            if worker.is_deaf():
                _log.error("a worker hangs: killed")
                worker.kill()

    def _attend(self, worker: "_Worker") -> None:
        self._linked.append(worker)
        try:
            for words, _ in worker.link.messages():
                worker.hear(words)
        finally:
            self._linked.remove(worker)
            worker.link.close()
            for visit in list(worker.visits.values()):
                _dismiss(visit)


class _Worker:
    """The link to one of them, and the visits that it has."""

    def __init__(self, link: Link, kill: Callable[[], None]) -> None:
        self.link = link
        self.kill = kill
        self.visits: dict[int, Visit] = {}
        self.is_ready = False
        self._unheard: set[int] = set()  # visits
        self._looks = 0  # since it last answered a call

    @property
    def is_slow(self) -> bool:
        """True while it has not heard of all its visits, or of a call long ago."""
        return self._looks > 1 or bool(self._unheard)

    def is_deaf(self) -> bool:
        """Call it; True where it has not answered the last call, look after look."""
        self._looks += 1
        if self._looks == 1:
            self.link.call("call", 0, None)
        return self._looks > (_PATIENCE if self.is_ready else _PATIENCE_AT_START)

    def take(self, visit: Visit) -> bool:
        self.visits[visit.number] = visit
        self._unheard.add(visit.number)
        try:
            self.link.hand_over(visit.client, "visit", visit.number, visit.address)
        except OSError:
            del self.visits[visit.number]
            self._unheard.discard(visit.number)
            return False
        return True

    def hear(self, words: Sequence[Any]) -> None:
        """What it says of one of its visits, as the visit itself would say it to a doorkeeper here; 0 is itself."""
        what, number, *told = words
        visit = self.visits.get(number)
        if what == "ready":
            self.is_ready, self._looks = True, 0
        elif what == "heard":
            self._unheard.discard(number)
            self._looks = self._looks if number else 0
        elif what == "admit":
            called, calling, room = told
            refusal = GONE if visit is None else visit.admit(called, calling, room=room)
            if visit is not None and visit.admitted:
                visit.client.close()  # its waiting is over: nobody hangs up on it from here any more
            self.link.say("verdict", number, refusal and astuple(refusal))
        elif visit is not None and what == "turn_away":
            visit.turn_away(*told)
        elif visit is not None:
            del self.visits[number]
            _dismiss(visit)


def _dismiss(visit: Visit) -> None:
    visit.leave()
    visit.client.close()
