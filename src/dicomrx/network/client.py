"""An association as its requestor sees it, on a plain socket: nothing of a data set is decoded or rewritten."""

import contextlib
import errno
import socket
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import BinaryIO, Final, Self

from dicomrx.errors import UnavailableError
from dicomrx.network import wire
from dicomrx.network.wire import Command

Offers = Sequence[tuple[int, str, Sequence[str]]]  # odd ID, abstract syntax, transfer syntaxes

_MAX_ANSWER: Final = 1 << 20

_REJECTIONS: Final[Mapping[tuple[int, int], str]] = {
    (1, 3): "the calling AE title is not known there",
    (1, 7): "the called AE title is not the receiver's",
    (3, 1): "it is congested for the moment",
    (3, 2): "it has as many associations as it takes",
}


class Association:
    """An open association; `contexts` are those accepted: {ID: transfer syntax}.

    Made by `connect`. The methods raise UnavailableError where the peer is gone, too slow, or breaks the protocol.
    """

    def __init__(self, stream: socket.socket, peer: str) -> None:
        self.contexts: dict[int, str] = {}
        self._stream = stream
        self._peer = peer
        self._size = 0
        self._messages = 0

    @classmethod
    def connect(cls, address: tuple[str, int], titles: tuple[str, str], offers: Offers, timeout_s: float) -> Self:
        """Connect and associate; `titles` are calling and called."""
        peer = f"{address[0]} port {address[1]}"
        try:
            stream = socket.create_connection(address, timeout_s)
        except OSError as error:
            msg = f"{peer} cannot be reached: {error.strerror or error}"
            raise UnavailableError(msg) from error
        association = cls(stream, peer)
        try:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            association._negotiate(titles, offers)
        except BaseException:
            stream.close()
            raise
        return association

    def _negotiate(self, titles: tuple[str, str], offers: Offers) -> None:
        self.write([wire.associate_rq(*titles, offers)])
        kind, body = self.read()
        if kind == wire.ASSOCIATE_RJ and len(body) >= 4:  # noqa: PLR2004 - the length of an A-ASSOCIATE-RJ
            why = _REJECTIONS.get((body[2], body[3]), f"result {body[1]}, source {body[2]}, reason {body[3]}")
            msg = f"{self._peer} refused the association: {why}"
            raise UnavailableError(msg)
        if kind != wire.ASSOCIATE_AC:
            raise self._broken("it did not answer the request to associate")
        try:
            self.contexts, max_pdu = wire.parse_associate_ac(body)
        except wire.WireError as error:
            raise self._broken(f"it sent {error}") from error
        self._size = wire.payload_size(max_pdu)

    def store(self, context_id: int, sop_class: str, sop_instance: str, data_set: BinaryIO) -> int:
        """C-STORE the rest of the open file `data_set`; the peer's status."""
        self._messages = self._messages % 0xFFFF + 1
        self._send(context_id, wire.store_request(self._messages, sop_class, sop_instance))
        self.write(self._data_pdus(context_id, data_set))
        return self._status(wire.C_STORE_RSP)

    def echo(self, context_id: int) -> int:
        """C-ECHO; the peer's status."""
        self._messages = self._messages % 0xFFFF + 1
        self._send(context_id, wire.echo_request(self._messages))
        return self._status(wire.C_ECHO_RSP)

    def release(self) -> None:
        """End in order, and close; a peer that just hangs up does not matter, for all was answered."""
        with contextlib.suppress(UnavailableError):
            self.write([wire.pdu(wire.RELEASE_RQ, bytes(4))])
            self.read()
        self._stream.close()

    def abort(self) -> None:
        """End at once, and close; a peer that is gone already does not matter."""
        with contextlib.suppress(OSError):
            self._stream.sendall(wire.pdu(wire.ABORT, bytes(4)))
        self._stream.close()

    def _send(self, context_id: int, command: bytes) -> None:
        self.write([wire.command_pdus(context_id, command, self._size)])

    def _data_pdus(self, context_id: int, data_set: BinaryIO) -> Iterable[bytes]:
        chunk, ahead = data_set.read(self._size), data_set.read(self._size)
        while ahead:
            yield wire.p_data(context_id, b"\0" + chunk)
            chunk, ahead = ahead, data_set.read(self._size)
        yield wire.p_data(context_id, b"\2" + chunk)

    def _status(self, field: int) -> int:
        encoded, last = b"", False
        while not last:
            kind, body = self.read()
            if kind != wire.P_DATA:
                raise self._broken("it ended the association")
            try:
                for _, value in wire.values(body):
                    _, last, data = wire.split(value)
                    encoded += data
                answer = Command.parse(encoded) if last else None
            except wire.WireError as error:
                raise self._broken(f"it sent {error}") from error
        if answer is None or answer.field != field or answer.status is None:
            raise self._broken("it answered something else")
        return answer.status

    def write(self, pdus: Iterable[bytes]) -> None:
        """Send PDUs as they are."""
        for pdu in pdus:
            try:
                self._stream.sendall(pdu)
            except OSError as error:
                raise self._broken(error.strerror or "too slow") from error

    def read(self) -> tuple[int, bytes]:
        """The next PDU: its type and the rest of it after the length."""
        try:
            kind, length = wire.header(self._exactly(6))
            if length > _MAX_ANSWER:
                raise self._broken("it announced a PDU of impossible length")
            return kind, self._exactly(length)
        except OSError as error:
            raise self._broken(error.strerror or "no answer in time") from error

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self._stream.recv(count - len(data))
            if not more:
                raise OSError(errno.ECONNRESET, "it closed the connection")
            data += more
        return data

    def _broken(self, why: str) -> UnavailableError:
        return UnavailableError(f"the association with {self._peer} broke: {why}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.release()
        else:
            self.abort()
