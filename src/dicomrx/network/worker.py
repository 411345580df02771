"""One process of a receiver: serves what its parent accepts, and asks it who may associate."""

import socket
import threading
from collections.abc import Mapping, Sequence
from queue import SimpleQueue

from dicomrx.network.admission import Listen
from dicomrx.network.engine import Associations
from dicomrx.network.link import Link
from dicomrx.network.ports import Intake
from dicomrx.network.refusals import Refusal
from dicomrx.network.visit import GONE, Visit


class Worker:
    """It is the doorkeeper of its visits, by asking the parent at the other `end`."""

    def __init__(self, listen: Listen, intake: Intake, end: socket.socket) -> None:
        self._associations = Associations(listen, intake)
        self._link = Link(end)
        self._lock = threading.Lock()
        self._asking: dict[int, SimpleQueue[Refusal | None]] = {}
        self._closing = False
        self._thread = threading.Thread(target=self._listen_to_parent, name="dicomrx-parent", daemon=True)

    @property
    def alive(self) -> bool:
        """False before `start`, and where the parent says no more."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Serve."""
        self._thread.start()
        self._link.say("ready", 0)

    def refused(self) -> Sequence[Mapping[str, object]] | None:
        """Nobody: its parent does."""
        return None

    def stop(self, grace_s: float) -> bool:
        """Let associations end within `grace_s`, abort those left; True where one was cut."""
        self._closing = True
        return self._associations.stop(grace_s)

    def _listen_to_parent(self) -> None:
        for (what, number, told), client in self._link.messages():
            if what == "verdict":
                self._asking.pop(number).put(told and Refusal(*told))
                continue
            self._link.say("heard", number)
            if client is not None:
                self._associations.meet(Visit(self, number, told, client))
            else:  # a mere call, or one whose connection was lost for want of descriptors
                self._link.say("leave", number)

    def admit(self, visit: Visit, called: str, calling: str, *, room: bool) -> Refusal | None:
        """See `Doorkeeper`."""
        if self._closing:
            return GONE
        verdict: SimpleQueue[Refusal | None] = SimpleQueue()
        self._asking[visit.number] = verdict
        self._link.say("admit", visit.number, called, calling, room)
        refusal = verdict.get()
        visit.admitted = refusal is None
        return refusal

    def turn_away(self, visit: Visit, setting: str, why: str) -> None:
        """See `Doorkeeper`."""
        self._link.say("turn_away", visit.number, setting, why)

    def leave(self, visit: Visit) -> None:
        """See `Doorkeeper`."""
        with self._lock:
            gone, visit.gone = visit.gone, True
        if not gone:
            self._link.say("leave", visit.number)
