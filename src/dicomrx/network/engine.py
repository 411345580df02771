"""pynetdicom as the engine: it listens, negotiates, and answers what is no C-STORE.

No fork and no patched name: a request handler puts these subclasses into each fresh association. They use internals, so pynetdicom
is pinned. What they add: caps and deadlines for what is read, a C-STORE that goes to disk as it comes, and the
certainty that a connection, however it ends, gives everything back.
"""

import contextlib
import logging
import socket
import sys
import threading
import time
import warnings
from typing import TYPE_CHECKING

from pydicom.uid import UID
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.association import Association as PeerAssociation
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.transport import AssociationServer, RequestHandler

from dicomrx.network import wire
from dicomrx.network.admission import Admission, Listen, Visit
from dicomrx.network.classes import is_storage
from dicomrx.network.ports import Intake
from dicomrx.network.provider import Dimse, Dul, Socket
from dicomrx.network.storing import Association, Context, Engine, Storing
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


class Connection:
    """One connection and what belongs to it, from accept to close."""

    def __init__(self, association: PeerAssociation, server: "Listener", client: socket.socket, visit: Visit) -> None:
        self.visit = visit
        self._server = server
        self._association = association
        self._lock = threading.Lock()
        self._facts: dict[str, str] = {}
        self._number = 0
        self._storing: Storing | None = None
        listen = server.listen
        association.dul = self._dul = Dul(association, self.close)
        association.dimse = self._dimse = Dimse(association)
        association.set_socket(Socket(association, client, listen.read_s))
        association.acse_timeout = listen.associate_s  # these set the timers of the new DUL
        association.network_timeout = listen.idle_s
        association.bind(evt.EVT_REQUESTED, self._requested)

    def _requested(self, _event: evt.Event) -> None:
        association = self._association
        request = association.requestor.primitive
        if not isinstance(request, A_ASSOCIATE):
            return
        called, calling = request.called_ae_title.strip(), request.calling_ae_title.strip()
        refusal = self.visit.admit(called, calling)
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
        engine = Engine(context=self._context, answer=self._dimse.answer, other=self._dimse.other)
        self._storing = Storing(Association(self._number, calling, called), intake, engine, self._server.listen.instance_s)
        self._dimse.storing = self._storing
        self._note("open", 0)

    def _context(self, context_id: int) -> Context | None:
        context = self._association._accepted_cx.get(context_id)  # noqa: SLF001 - `accepted_contexts` sorts them all each time
        return None if context is None else Context(str(context.abstract_syntax), str(context.transfer_syntax[0]))

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
        """Tell the peer that it is over; a connection that is no association yet is just closed."""
        if self.visit.admitted:
            self._association.acse.send_abort(0x00)
        else:
            self.hang_up()

    def hang_up(self) -> None:
        """End the connection under a thread that reads or writes."""
        wrapped = self._dul.socket
        client = wrapped.socket if wrapped is not None else None
        if client is not None:
            with contextlib.suppress(OSError):  # the peer was faster
                client.shutdown(socket.SHUT_RDWR)


def _acceptable(offers: "list[PresentationContext]") -> "list[PresentationContext]":
    """What to accept: C-ECHO, and storage of any class, each offer in its first transfer syntax; the others are struck out.

    pynetdicom's UNRESTRICTED_STORAGE_SERVICE would refuse non-patient objects, and take queries whose keyword it does not know.
    """
    syntaxes: dict[str, set[UID]] = {}
    for offer in offers:
        abstract = str(offer.abstract_syntax)
        if abstract == VERIFICATION or is_storage(abstract):
            first = offer.transfer_syntax[:1]
            offer.transfer_syntax = [*first]
            syntaxes.setdefault(abstract, set()).update(first)
    return [build_context(abstract, list(all_first)) for abstract, all_first in syntaxes.items()]


class _Handler(RequestHandler):
    server: "Listener"

    def handle(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        association = self._create_association()
        visit = self.server.admission.arrive(self.client_address[0])
        connection = Connection(association, self.server, self.request, visit)
        self.server.connections.add(connection)
        try:
            association.start()
        except RuntimeError:  # no more threads
            connection.close("lost")
            raise


class Listener(AssociationServer):
    """The listening socket; binds when made, and raises OSError where that fails."""

    request_queue_size = 128

    def __init__(self, listen: Listen, intake: Intake) -> None:
        quiet()
        self.admission = Admission(listen)
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
