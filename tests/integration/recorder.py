"""A recording proxy: what a sender says on the wire, read without any code of ours."""

import asyncio
import contextlib
import ssl
import struct
import threading
from collections.abc import Iterator
from typing import Self

_P_DATA = 4
_COMMAND, _LAST = 1, 2


class Recorder:
    """Stands between senders and the receiver at `receiver`, and keeps what the senders say; used as a context manager.

    With `tls` it is a tunnel: it speaks TLS to the receiver, for senders that cannot.
    """

    def __init__(self, receiver: tuple[str, int], tls: ssl.SSLContext | None = None) -> None:
        self._receiver = receiver
        self._tls = tls
        self._said: list[bytearray] = []
        self._talks: list[asyncio.Task | None] = []
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._talk, "127.0.0.1", 0))
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the senders' end; TimeoutError where one left its connection open."""
        try:
            asyncio.run_coroutine_threadsafe(self._finish(), self._loop).result(10)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def data_sets(self) -> list[bytes]:
        """The data set of each message of the connections so far, as it was sent."""
        return [data for said in self._said for data in _data_sets(bytes(said))]

    async def _finish(self) -> None:
        self._server.close()
        await asyncio.gather(*filter(None, self._talks))

    async def _talk(self, sender: asyncio.StreamReader, to_sender: asyncio.StreamWriter) -> None:
        self._talks.append(asyncio.current_task())
        receiver, to_receiver = await asyncio.open_connection(*self._receiver, ssl=self._tls, server_hostname="" if self._tls else None)
        said = bytearray()
        self._said.append(said)
        await asyncio.gather(_pump(sender, to_receiver, said), _pump(receiver, to_sender, bytearray()))
        for end in (to_sender, to_receiver):
            end.close()
            with contextlib.suppress(OSError):
                await end.wait_closed()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter, said: bytearray) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(1 << 16):
            said += data
            target.write(data)
            await target.drain()
    with contextlib.suppress(OSError):
        if target.can_write_eof():
            target.write_eof()
        else:  # TLS has no such thing
            target.close()


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
