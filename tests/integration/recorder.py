"""A recording proxy: what a sender says on the wire, read without any code of ours."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Self

_P_DATA = 4
_COMMAND, _LAST = 1, 2


class Recorder:
    """Stands between senders and the receiver at `receiver`, and keeps what the senders say; used as a context manager."""

    def __init__(self, receiver: tuple[str, int]) -> None:
        self._receiver = receiver
        self._said: list[bytearray] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=32)
        self._open = contextlib.ExitStack()
        self._open.enter_context(self._listener)
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._open:
            self._listener.shutdown(socket.SHUT_RDWR)
            for thread in self._threads:
                thread.join(10)
                assert not thread.is_alive(), "a sender left its connection open"

    def data_sets(self) -> list[bytes]:
        """The data set of each message of the connections so far, as it was sent."""
        return [data for said in self._said for data in _data_sets(bytes(said))]

    def _accept(self) -> None:
        while True:
            try:
                sender, _ = self._listener.accept()
            except OSError:
                return
            receiver = socket.create_connection(self._receiver)
            for stream in (sender, receiver):
                self._open.enter_context(stream)
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            said = bytearray()
            self._said.append(said)
            for ends in ((sender, receiver, said), (receiver, sender, bytearray())):
                self._threads.append(threading.Thread(target=_pump, args=ends, daemon=True))
                self._threads[-1].start()


def _pump(source: socket.socket, target: socket.socket, said: bytearray) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            said += data
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _data_sets(said: bytes) -> Iterator[bytes]:
    """PS3.8 9.3.5 and E.2: of each presentation data value, what its control header calls data, up to its last fragment."""
    data = b""
    for header, value in _values(said):
        if not header & _COMMAND:
            data += value
            if header & _LAST:
                yield data
                data = b""
    assert not data, "the sender was cut inside a data set"


def _values(said: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset < len(said):
        kind, length = struct.unpack_from(">BxI", said, offset)
        inner, offset = offset + 6, offset + 6 + length
        while kind == _P_DATA and inner < offset:
            (size,) = struct.unpack_from(">I", said, inner)
            yield said[inner + 5], said[inner + 6 : inner + 4 + size]
            inner += 4 + size
