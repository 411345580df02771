"""The parts of a pynetdicom association that are ours: they read with caps and deadlines, and take C-STORE for themselves."""

import contextlib
import errno
import logging
import select
import socket
import time
from collections.abc import Callable
from typing import Final

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import InvalidEventError
from pynetdicom.pdu import A_ABORT_RQ, _PDUType
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket

from dicomrx.network import wire
from dicomrx.network.storing import Storing

_log = logging.getLogger(__name__)

_MAX_PDU_READ: Final = 1 << 20  # an A-ASSOCIATE-RQ with 128 contexts of many transfer syntaxes; P-DATA are smaller
_LOOK_S: Final = 0.01
_ESTABLISHED: Final = "Sta6"
_CLOSED_UNDER_US: Final = (OSError, ValueError)


class Socket(AssociationSocket):
    """Reads with a cap and a deadline, and waits for data instead of asking for it a thousand times a second."""

    def __init__(self, association: Association, client: socket.socket, read_s: float) -> None:
        super().__init__(association, client_socket=client)
        self._read_s = read_s

    @property
    def ready(self) -> bool:
        """True where there is something to read; waits a moment for it while the association is open."""
        if super().ready:
            return True
        if self.socket is None or self.assoc.dul.state_machine.current_state != _ESTABLISHED:
            return False
        try:
            return bool(select.select([self.socket], [], [], _LOOK_S)[0])
        except _CLOSED_UNDER_US:
            return False  # the next look finds it closed, and says so

    def recv(self, nr_bytes: int) -> bytearray:
        """Raises OSError for a PDU above the cap, or one that does not come in time."""
        if nr_bytes > _MAX_PDU_READ:
            raise OSError(errno.EMSGSIZE, "a PDU of impossible length")
        if self.socket is None:
            raise OSError(errno.ENOTCONN, "closed")
        data = bytearray(nr_bytes)
        view, got = memoryview(data), 0
        deadline = time.monotonic() + self._read_s
        while got < nr_bytes:
            self.socket.settimeout(max(deadline - time.monotonic(), 0.001))
            count = self.socket.recv_into(view[got:])
            if not count:
                return data[:got]
            got += count
        # Not sticky: without it a sender with Nagle's algorithm waits 40 ms for our acknowledgement.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return data

    def _shutdown_socket(self) -> None:
        # pynetdicom's own does not close what the peer has reset already.
        if self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()

    def send(self, bytestream: bytes) -> None:
        """One write for a PDU; a peer that does not read loses the connection."""
        try:
            if self.socket is not None:
                self.socket.settimeout(self._read_s)
                self.socket.sendall(bytestream)
        except OSError:
            self.event_queue.put("Evt17")


class Dimse(DIMSEServiceProvider):
    """Gives the values of a P-DATA to `storing`, which hands back what is no C-STORE."""

    storing: Storing | None = None

    def receive_primitive(self, primitive: P_DATA) -> None:
        """What the peer sent; what cannot be understood aborts the association."""
        try:
            for context_id, value in primitive.presentation_data_value_list:
                self._take(context_id, value)
        except wire.WireError as error:
            _log.warning("aborted an association: its peer sent %s", error)
            self.dul.event_queue.put("Evt19")
        except Exception as error:  # noqa: BLE001 - pynetdicom raises anything for a command set it does not understand
            _log.warning("aborted an association: its peer sent a message that cannot be read (%s)", type(error).__name__)
            self.dul.event_queue.put("Evt19")

    def _take(self, context_id: int, value: bytes) -> None:
        if self.storing is None:
            raise wire.WireError("data before an association")
        self.storing.take(context_id, value)

    def answer(self, context_id: int, command: bytes) -> None:
        """Send a command set."""
        for value in wire.fragments(command, wire.payload_size(self.maximum_pdu_size), command=True):
            self.dul.send_pdu(_p_data(context_id, value))

    def other(self, context_id: int, value: bytes) -> None:
        """A value of a message that pynetdicom is to answer."""
        super().receive_primitive(_p_data(context_id, value))


def _p_data(context_id: int, value: bytes) -> P_DATA:
    primitive = P_DATA()
    primitive.presentation_data_value_list.append((context_id, value))
    return primitive


class Dul(DULServiceProvider):
    """The thread that reads; its end is the end of the connection."""

    def __init__(self, association: Association, at_end: Callable[[str], None]) -> None:
        super().__init__(association)
        self.daemon = True
        self._at_end = at_end
        self._ended = "lost"

    def run_reactor(self) -> None:
        """Read until the connection ends, then give back all that it held."""
        try:
            super().run_reactor()
        except InvalidEventError:
            _log.debug("an association ended while it was being aborted")
        finally:
            if self.socket is not None:
                self.socket.close()
            self.to_user_queue.put(None)  # who waits for a request to associate need not go on waiting
            self._at_end(self._ended)

    def _is_transport_event(self) -> bool:
        if not self.assoc.is_alive():  # it died of a request that pynetdicom does not survive
            self.kill_dul()
            return False
        return super()._is_transport_event()

    def _decode_pdu(self, bytestream: bytearray) -> tuple[_PDUType, str]:
        pdu, event = super()._decode_pdu(bytestream)
        self._ended = {"Evt12": "released", "Evt16": "aborted"}.get(event, self._ended)
        return pdu, event

    def _send(self, pdu: _PDUType) -> None:
        if isinstance(pdu, A_ABORT_RQ):
            self._ended = "aborted"
        super()._send(pdu)
