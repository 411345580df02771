"""The parts of a pynetdicom association that are ours: they read with caps and deadlines, and take C-STORE for themselves."""

import contextlib
import logging
from collections.abc import Callable, Iterator
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
from dicomrx.network.stream import Stream

_log = logging.getLogger(__name__)

_LOOK_S: Final = 0.01
ESTABLISHED: Final = "Sta6"
_CLOSING: Final = "Sta13"


class Socket(AssociationSocket):
    """A stream as pynetdicom sees it: it waits for data instead of asking for it a thousand times a second."""

    def __init__(self, association: Association, stream: Stream) -> None:
        super().__init__(association, client_socket=stream.client)
        self.stream = stream

    @property
    def ready(self) -> bool:
        """True where there is something to read; waits a moment for it while the association is open."""
        established = self.assoc.dul.state_machine.current_state == ESTABLISHED
        return self.socket is not None and self.stream.readable(_LOOK_S if established else 0)

    def recv(self, nr_bytes: int) -> bytearray:
        """Raises OSError for a PDU above the cap, or one that does not come in time."""
        return self.stream.read(nr_bytes)

    def _shutdown_socket(self) -> None:
        # pynetdicom's own does not close what the peer has reset already.
        self.stream.close()

    def send(self, bytestream: bytes) -> None:
        """One write for a PDU; a peer that does not read loses the connection."""
        try:
            self.stream.write(bytestream)
        except OSError:
            self.event_queue.put("Evt17")


class Dimse(DIMSEServiceProvider):
    """Gives the values of a P-DATA to `storing`, which hands back what is no C-STORE."""

    storing: Storing | None = None

    def receive_primitive(self, primitive: P_DATA) -> None:
        """What the peer sent; what cannot be understood aborts the association."""
        with aborting(self.assoc):
            for context_id, value in primitive.presentation_data_value_list:
                self._take(context_id, value)

    def _take(self, context_id: int, value: bytes) -> None:
        if self.storing is None:
            raise wire.WireError("data before an association")
        command, last, data = wire.split(value)
        self.storing.take(context_id, data, command=command, last=last)
        self.storing.flush()

    def other(self, context_id: int, value: bytes) -> None:
        """A value of a message that pynetdicom is to answer."""
        primitive = P_DATA()
        primitive.presentation_data_value_list.append((context_id, value))
        super().receive_primitive(primitive)


@contextlib.contextmanager
def aborting(association: Association) -> Iterator[None]:
    """Abort the association where its peer breaks the protocol."""
    try:
        yield
    except wire.WireError as error:
        _log.warning("aborted an association: its peer sent %s", str(error))
        association.dul.event_queue.put("Evt19")
    except Exception as error:  # noqa: BLE001 - pynetdicom raises anything for a command set it does not understand
        _log.warning("aborted an association: its peer sent a message that cannot be read (%s)", type(error).__name__)
        association.dul.event_queue.put("Evt19")


class Dul(DULServiceProvider):
    """The thread that reads; its end is the end of the connection."""

    def __init__(self, association: Association, at_end: Callable[[str], None]) -> None:
        super().__init__(association)
        self.daemon = True
        self._at_end = at_end
        self._ended = "lost"

    def start(self) -> None:
        """As ever; raises RuntimeError where there are no more threads, and then this is the end too."""
        try:
            super().start()
        except RuntimeError:
            self._end()
            raise

    def run_reactor(self) -> None:
        """Read until the connection ends, then give back all that it held."""
        try:
            super().run_reactor()
        except InvalidEventError:
            _log.debug("an association ended while it was being aborted")
        finally:
            self._end()

    def _end(self) -> None:
        if self.socket is not None:
            self.socket.close()
        self.to_user_queue.put(None)  # who waits for a request to associate need not go on waiting
        self._at_end(self._ended)

    def _is_transport_event(self) -> bool:
        if not self.assoc.is_alive():  # it died of a request that pynetdicom does not survive
            self.kill_dul()
            return False
        if self.state_machine.current_state == _CLOSING and isinstance(self.socket, Socket):
            self.socket.stream.discard()  # unread, it would make the close a reset, and our last word lost
            self.socket.close()
            return True
        return super()._is_transport_event()

    def _decode_pdu(self, bytestream: bytearray) -> tuple[_PDUType, str]:
        pdu, event = super()._decode_pdu(bytestream)
        self._ended = {"Evt12": "released", "Evt16": "aborted"}.get(event, self._ended)
        return pdu, event

    def _send(self, pdu: _PDUType) -> None:
        if isinstance(pdu, A_ABORT_RQ):
            self._ended = "aborted"
        super()._send(pdu)
