"""One connection, from accept to close, wherever it is served."""

import socket
from math import inf
from typing import Final, Protocol

from dicomrx.network.refusals import Refusal

GONE: Final = Refusal(2, 3, 1, "", "the receiver is stopping, or the peer has hung up")


class Doorkeeper(Protocol):
    """Who decides about visits: the admission, or what knows it from another process. Safe for threads."""

    def admit(self, visit: "Visit", called: str, calling: str, *, room: bool) -> Refusal | None:
        """Judge a request to associate, and count it as an association where it may; `room` says whether instances are taken in."""

    def turn_away(self, visit: "Visit", setting: str, why: str) -> None:
        """Note that it was turned away before it asked."""

    def leave(self, visit: "Visit") -> None:
        """One connection less; nothing happens the second time."""


class Visit:
    """One connection; its fields are the doorkeeper's to change, `client` its door's. `number` is the admission's."""

    def __init__(self, doorkeeper: Doorkeeper, number: int, address: str, client: socket.socket, deadline: float = inf) -> None:
        self.number = number
        self.address = address
        self.client = client
        self.deadline = deadline
        self.admitted = False
        self.gone = False
        self._doorkeeper = doorkeeper

    def admit(self, called: str, calling: str, *, room: bool) -> Refusal | None:
        """Ask to associate: None, or why not."""
        return self._doorkeeper.admit(self, called, calling, room=room)

    def turn_away(self, setting: str, why: str) -> None:
        """It is turned away before it asked."""
        self._doorkeeper.turn_away(self, setting, why)

    def leave(self) -> None:
        """Give the place up."""
        self._doorkeeper.leave(self)
