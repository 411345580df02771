"""The processes behind one listener, as their parent sees them: each connection goes to the one that has fewest."""

import contextlib
import socket
import threading
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

from dicomrx.network.link import Link
from dicomrx.network.visit import GONE, Visit


class Workers:
    """Those that are alive; safe for threads."""

    def __init__(self) -> None:
        self._alive: list[_Worker] = []

    def connect(self) -> socket.socket:
        """The end of a new link, for a worker that is about to start."""
        ours, theirs = Link.pair()
        threading.Thread(target=self._attend, args=(_Worker(ours),), name="dicomrx-worker", daemon=True).start()
        return theirs

    def able(self) -> bool:
        """True while there is one."""
        return bool(self._alive)

    def meet(self, visit: Visit) -> None:
        """Hand a visit over; where nobody takes it, it has to leave."""
        for worker in sorted(self._alive, key=lambda worker: len(worker.visits)):
            if worker.take(visit):
                return
        _dismiss(visit)

    def _attend(self, worker: "_Worker") -> None:
        try:
            for words, _ in worker.link.messages():
                if words == ["ready"]:
                    self._alive.append(worker)
                else:
                    worker.hear(words)
        finally:
            with contextlib.suppress(ValueError):  # it has never been ready
                self._alive.remove(worker)
            worker.link.close()
            for visit in list(worker.visits.values()):
                _dismiss(visit)


class _Worker:
    """The link to one of them, and the visits that it has."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.visits: dict[int, Visit] = {}

    def take(self, visit: Visit) -> bool:
        self.visits[visit.number] = visit
        try:
            self.link.hand_over(visit.client, "visit", visit.number, visit.address)
        except OSError:
            del self.visits[visit.number]
            return False
        return True

    def hear(self, words: Sequence[Any]) -> None:
        """What it says of one of its visits, as the visit itself would say it to a doorkeeper here."""
        what, number, *told = words
        visit = self.visits.get(number)
        if what == "admit":
            called, calling, room = told
            refusal = GONE if visit is None else visit.admit(called, calling, room=room)
            if visit is not None and visit.admitted:
                visit.client.close()  # its waiting is over: nobody hangs up on it from here any more
            self.link.say(number, refusal and astuple(refusal))
        elif visit is not None and what == "turn_away":
            visit.turn_away(*told)
        elif visit is not None:
            del self.visits[number]
            _dismiss(visit)


def _dismiss(visit: Visit) -> None:
    visit.leave()
    visit.client.close()
