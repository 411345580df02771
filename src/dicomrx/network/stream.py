"""The bytes of one connection: never blocked without a deadline, and read ahead, for TLS and pynetdicom alike."""

import contextlib
import errno
import os
import select
import socket
import ssl
import time
from typing import Final

_AHEAD: Final = 1 << 20  # a CT image at once: each call gives up the interpreter to the other associations, and waits to get it back
MAX_PDU_READ: Final = 1 << 20  # an A-ASSOCIATE-RQ with 128 contexts of many transfer syntaxes; of others only what is no P-DATA
_ONE: Final = b"\1" + bytes(7)
_NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError)


class Stream:
    """A connected socket, plain or TLS; read by one thread, `interrupt` and `hang_up` are for the others.

    `read_s` is how long a PDU may take, and how long a peer may take nothing of what is sent to it.
    """

    def __init__(self, client: socket.socket, read_s: float, first: bytes = b"") -> None:
        client.setblocking(False)  # noqa: FBT003 - the name of the method says it
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client = client
        self._read_s = read_s
        self._poll = select.poll()
        self._poll.register(client, select.POLLIN)
        self._ahead = bytearray(first)
        self.view = memoryview(self._ahead)
        self.at, self.end = 0, len(first)  # what has been read ahead and not been taken
        self._wake = open(os.eventfd(0), "r+b", buffering=0)  # noqa: SIM115, PTH123 - closed by `close`
        self._poll.register(self._wake, select.POLLIN)
        self._interrupted = False

    def read_ahead(self) -> None:
        """Make room for reading ahead, which only `more` does."""
        if len(self._ahead) < _AHEAD:
            rest = self.view[self.at : self.end]
            self._ahead = bytearray(_AHEAD)
            self.at, self.end = 0, len(rest)
            self._ahead[: self.end] = rest
            self.view = memoryview(self._ahead)

    def more(self, wait_s: float) -> bool:
        """Read what has come, behind what is ahead; False where the peer has ended. Raises OSError, TimeoutError where nothing comes."""
        if self.at:
            rest = bytes(self.view[self.at : self.end])
            self.at, self.end = 0, len(rest)
            if rest:
                self.view[: self.end] = rest
        if self._interrupted:
            return False
        count = self._into(self.view[self.end :] if self.end else self.view, time.monotonic() + wait_s)
        self.end += count
        return count > 0

    def read(self, count: int) -> bytearray:
        """So many bytes, fewer where the peer has ended. Raises OSError for too many, or where they do not come in time."""
        if count > MAX_PDU_READ:
            raise OSError(errno.EMSGSIZE, "a PDU of impossible length")
        ahead = self.view[self.at : min(self.end, self.at + count)]
        self.at += len(ahead)
        data = bytearray(count)
        data[: len(ahead)] = ahead
        view, got = memoryview(data), len(ahead)
        deadline = time.monotonic() + self._read_s
        while got < count:
            more = self._into(view[got:], deadline)
            if not more:
                return data[:got]
            got += more
        return data

    def readable(self, wait_s: float) -> bool:
        """True where `read` or `more` would find something, an end too."""
        if self.at < self.end or (isinstance(self.client, ssl.SSLSocket) and self.client.pending()):
            return True
        try:
            return bool(self._poll.poll(wait_s * 1000))
        except ValueError:  # closed
            return False

    def write(self, data: bytes) -> None:
        """Send it all, in one go where the peer reads; raises OSError where it does not."""
        view = memoryview(data)
        while view:
            try:
                view = view[self.client.send(view) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                writable = select.poll()
                writable.register(self.client, select.POLLOUT)
                if not writable.poll(self._read_s * 1000):
                    raise TimeoutError(errno.ETIMEDOUT, "the peer does not read") from None

    def discard(self) -> None:
        """Throw away what has come."""
        self.at = self.end = 0
        with contextlib.suppress(OSError, ValueError):
            for _ in range(64):
                if not self.client.recv(_AHEAD):
                    return

    def interrupt(self) -> None:
        """Make `more` find an end, in another thread; that can still write."""
        self._interrupted = True
        with contextlib.suppress(ValueError):  # it has been closed
            self._wake.write(_ONE)

    def hang_up(self) -> None:
        """End the connection under a thread that reads or writes."""
        hang_up(self.client)

    def close(self) -> None:
        """Nothing happens the second time."""
        self.hang_up()
        self.client.close()
        self._wake.close()
        self._ahead, self.view = bytearray(), memoryview(b"")  # what else pynetdicom leaves for the garbage collector is small

    def _into(self, view: memoryview, deadline: float) -> int:
        while True:
            try:
                return self.client.recv_into(view)
            except _NOT_NOW:
                if self._interrupted:
                    return 0
                # Only now, for it is not sticky: without it a sender with Nagle's algorithm waits 40 ms for our acknowledgement.
                self.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                if not self._poll.poll(max(deadline - time.monotonic(), 0) * 1000):
                    raise TimeoutError(errno.ETIMEDOUT, "nothing came in time") from None


def hang_up(client: socket.socket) -> None:
    """End a connection under whoever reads or writes."""
    with contextlib.suppress(OSError):  # the peer was faster
        socket.socket.shutdown(client, socket.SHUT_RDWR)  # ssl's own would forget its keys under the reader
