"""pynetdicom as the engine: it listens, negotiates, and answers what is no C-STORE.

No fork and no patched name: a request handler puts these subclasses into each fresh association. They use internals, so pynetdicom
is pinned. What they add: caps and deadlines for what is read, a C-STORE that goes to disk as it comes, and the
certainty that a connection, however it ends, gives everything back.
"""

import logging
import socket
import sys
import threading
import time
import warnings
from functools import cache
from typing import TYPE_CHECKING, Final

from pydicom.uid import UID
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.association import Association as PeerAssociation
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.transport import AssociationServer, RequestHandler

from dicomrx.network import door, wire
from dicomrx.network.admission import Admission, Listen, Visit
from dicomrx.network.classes import is_storage
from dicomrx.network.lane import Lane, LaneDul
from dicomrx.network.ports import Intake
from dicomrx.network.provider import Dimse, Dul, Socket
from dicomrx.network.storing import Association, Context, Engine, Storing
from dicomrx.network.stream import Stream
from dicomrx.network.wire import VERIFICATION

if TYPE_CHECKING:
    from pynetdicom.presentation import PresentationContext

_log = logging.getLogger(__name__)

_Request = socket.socket | tuple[bytes, socket.socket]


def quiet() -> None:
    """No log and no warning of pynetdicom's or pydicom's own in this process: they would quote patients."""
    _config.LOG_HANDLER_LEVEL = "none"
    for package in ("pydicom", "pynetdicom"):
        logging.getLogger(package).setLevel(logging.CRITICAL + 1)
        warnings.filterwarnings("ignore", module=rf"{package}\b")


_DULS: Final = {"lane": LaneDul, "pynetdicom": Dul}


class Connection:
    """One association and what belongs to it, from its request to the end of its connection."""

    def __init__(self, association: PeerAssociation, server: "Listener", stream: Stream, visit: Visit) -> None:
        self.visit = visit
        self._server = server
        self._association = association
        self._stream = stream
        self._lock = threading.Lock()
        self._facts: dict[str, str] = {}
        self._number = 0
        self._fits = 0
        self._storing: Storing | None = None
        self._lane: Lane | None = None
        listen = server.listen
        association.dul = self._dul = _DULS[listen.engine](association, self.close)
        association.dimse = self._dimse = Dimse(association)
        self._socket = Socket(association, stream)
        association.set_socket(self._socket)
        association.acse_timeout = listen.associate_s  # these set the timers of the new DUL
        association.network_timeout = None if isinstance(self._dul, LaneDul) else listen.idle_s  # the lane has its own
        association.bind(evt.EVT_REQUESTED, self._requested)

    def start(self) -> None:
        """Let pynetdicom work on it; raises RuntimeError where there are no more threads."""
        self._server.connections.add(self)
        try:
            self._association.start()
        except RuntimeError:
            self._stream.close()
            self.close("lost")
            raise

    def _requested(self, _event: evt.Event) -> None:
        association = self._association
        request = association.requestor.primitive
        if not isinstance(request, A_ASSOCIATE):
            return
        called, calling = request.called_ae_title.strip(), request.calling_ae_title.strip()
        refusal = self.visit.admit(called, calling, room=self._server.intake.space_left())
        if refusal is not None:
            association.acse.send_reject(refusal.result, refusal.source, refusal.diagnostic)
            association.is_rejected = True
            association.kill()
            return
        association.acceptor.supported_contexts = _acceptable(request.presentation_context_definition_list)
        with self._lock:
            if not self.visit.gone:
                self._open(calling, called)

    def _open(self, calling: str, called: str) -> None:
        intake = self._server.intake
        self._number = intake.new_association()
        self._facts = {"calling": calling, "called": called, "peer": self.visit.address}
        self._fits = wire.payload_size(self._dimse.maximum_pdu_size)
        engine = Engine(context=cache(self._context), answer=self._answer, other=self._other)
        self._storing = Storing(Association(self._number, calling, called), intake, engine, self._server.listen.instance_s)
        self._dimse.storing = self._storing
        if isinstance(self._dul, LaneDul):
            listen = self._server.listen
            self._lane = Lane(self._stream, self._storing, idle_s=listen.idle_s, max_pdu=listen.max_pdu)
            self._dul.lane = self._lane
        self._note("open", 0)

    def _context(self, context_id: int) -> Context | None:
        context = self._association._accepted_cx.get(context_id)  # noqa: SLF001 - `accepted_contexts` sorts them all each time
        return None if context is None else Context(str(context.abstract_syntax), str(context.transfer_syntax[0]))

    def _answer(self, context_id: int, command: bytes) -> None:
        self._socket.send(wire.command_pdus(context_id, command, self._fits))

    def _other(self, context_id: int, value: bytes) -> None:
        if self._lane is not None:
            self._lane.pause()
        self._dimse.other(context_id, value)

    def close(self, ended: str) -> None:
        """The connection is gone: nothing of it stays."""
        self.visit.leave()
        with self._lock:
            if self._storing is not None:
                self._storing.close()
                self._note(ended, self._storing.kept)
        self._server.connections.discard(self)

    def _note(self, ended: str, instances: int) -> None:
        try:
            self._server.intake.note_association(self._number, **self._facts, ended=ended, instances=instances)
        except OSError as error:
            _log.warning("association %d: what became of it cannot be noted: %s", self._number, error.strerror)

    def abort(self) -> None:
        """Tell the peer that it is over."""
        self._association.acse.send_abort(0x00)

    def hang_up(self) -> None:
        """End the connection under a thread that reads or writes."""
        self._stream.hang_up()


def _acceptable(offers: "list[PresentationContext]") -> "list[PresentationContext]":
    """What to accept: C-ECHO, and storage of any class, in the one transfer syntax that the door leaves of an offer.

    pynetdicom's UNRESTRICTED_STORAGE_SERVICE would refuse non-patient objects, and take queries whose keyword it does not know.
    """
    syntaxes: dict[str, set[UID]] = {}
    for offer in offers:
        abstract = str(offer.abstract_syntax)
        if abstract == VERIFICATION or is_storage(abstract):
            syntaxes.setdefault(abstract, set()).update(offer.transfer_syntax)
    return [build_context(abstract, list(taken)) for abstract, taken in syntaxes.items()]


class _Handler(RequestHandler):
    """Meets a peer in a thread of its own: pynetdicom hears of it only when it asks to associate."""

    server: "Listener"

    def handle(self) -> None:
        visit = self.server.admission.arrive(self.client_address[0], self.request)
        try:
            threading.Thread(target=self._meet, args=(visit,), name="dicomrx-meet", daemon=True).start()
        except RuntimeError:  # no more threads
            visit.leave()
            raise

    def _meet(self, visit: Visit) -> None:
        listen = self.server.listen
        try:
            first = door.request(visit, self.server.tls)
            self.request = visit.client
            stream = Stream(visit.client, listen.read_s, first)
            Connection(self._create_association(), self.server, stream, visit).start()
        except Exception as error:  # noqa: BLE001 - whatever it was, the connection gives its place back
            visit.leave()
            visit.client.close()
            if not isinstance(error, OSError):
                self.server.handle_error(self.request, self.client_address)


class Listener(AssociationServer):
    """The listening socket; binds when made, and raises OSError where that fails."""

    request_queue_size = 128

    def __init__(self, listen: Listen, intake: Intake) -> None:
        quiet()
        self.admission = Admission(listen)
        self.tls = door.tls_context(listen)
        ae = AE(listen.ae_title.strip())
        ae.implementation_class_uid = UID(wire.IMPLEMENTATION_CLASS_UID)
        ae.implementation_version_name = wire.IMPLEMENTATION_VERSION
        ae.maximum_pdu_size = listen.max_pdu
        ae.maximum_associations = 1 << 30  # `Admission` counts; pynetdicom would count those that only wait
        self.listen = listen
        self.intake = intake
        self.connections: set[Connection] = set()
        super().__init__(ae, (listen.host, listen.port), ae.ae_title, [build_context(VERIFICATION)], request_handler=_Handler)

    def verify_request(self, _request: _Request, client_address: tuple[str, int]) -> bool:
        """Turn away, before a thread is made for it, who may not even ask."""
        return self.admission.lets_in(client_address[0])

    def service_actions(self) -> None:
        """Hang up on who waits for too long; called ten times a second, so without pynetdicom's own collection of garbage."""
        self.admission.hang_up_on_overdue()

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Raises OSError; at the limit of descriptors only after a moment, for the loop above asks again at once."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(0.05)
            raise

    def handle_error(self, _request: _Request, _client_address: tuple[str, int]) -> None:
        """A connection that could not be served, for want of threads or descriptors; socketserver closes it."""
        _log.error("a connection could not be served (%s)", type(sys.exception()).__name__)
