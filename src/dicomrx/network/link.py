"""What a receiver and its workers say to each other: a message a packet, with the connection that it hands over."""

import contextlib
import json
import socket
from array import array
from collections.abc import Iterator
from typing import Any, Final

_LONGEST: Final = 4096


class Link:
    """One end of it; for many threads at once, `messages` for one alone."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    @classmethod
    def pair(cls) -> "tuple[Link, socket.socket]":
        """Our end, and the other for another process."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), theirs

    def say(self, *words: object) -> None:
        """Send a message, waiting where the other is slow to listen; where it is gone, nobody needs it any more."""
        with contextlib.suppress(OSError):
            self._end.sendall(json.dumps(words).encode())

    def hand_over(self, client: socket.socket, *words: object) -> None:
        """Send a message with a connection; raises OSError where the other is gone, or does not listen now."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [client.fileno()]))]
        self._end.sendmsg([json.dumps(words).encode()], rights, socket.MSG_DONTWAIT)

    def call(self, *words: object) -> None:
        """Send a message, unless the other is gone or does not listen now."""
        with contextlib.suppress(OSError):
            self._end.send(json.dumps(words).encode(), socket.MSG_DONTWAIT)

    def messages(self) -> Iterator[tuple[list[Any], socket.socket | None]]:
        """What the other says, until it is gone."""
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self._end, _LONGEST, 1, socket.MSG_CMSG_CLOEXEC)
            except ConnectionError:
                return
            if not data:
                return
            yield json.loads(data), socket.socket(fileno=fds[0]) if fds else None

    def close(self) -> None:
        """End it."""
        self._end.close()
