"""pynetdicom as the engine: it negotiates, and answers what is no C-STORE.

No fork and no patched name: these subclasses are put into each fresh association. They use internals, so pynetdicom
is pinned. What they add: caps and deadlines for what is read, a C-STORE that goes to disk as it comes, and the
certainty that a connection, however it ends, gives everything back.
"""

import logging
import threading
import time
import warnings
from functools import cache
from typing import TYPE_CHECKING, Final

from pydicom.uid import UID
from pynetdicom import AE, _config, build_context, evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.association import Association as PeerAssociation
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.transport import AddressInformation

from dicomrx.network import door, wire
from dicomrx.network.admission import Listen
from dicomrx.network.classes import is_storage
from dicomrx.network.lane import Lane, LaneDul
from dicomrx.network.ports import Intake
from dicomrx.network.provider import Dimse, Dul, Socket
from dicomrx.network.storing import Association, Context, Engine, Storing
from dicomrx.network.stream import Stream
from dicomrx.network.visit import Visit
from dicomrx.network.wire import VERIFICATION

if TYPE_CHECKING:
    from pynetdicom.presentation import PresentationContext

_log = logging.getLogger(__name__)

_ABORT_S: Final = 1.0
_HANG_UP_S: Final = 5.0


def quiet() -> None:
    """No log and no warning of pynetdicom's or pydicom's own in this process: they would quote patients."""
    _config.LOG_HANDLER_LEVEL = "none"
    for package in ("pydicom", "pynetdicom"):
        logging.getLogger(package).setLevel(logging.CRITICAL + 1)
        warnings.filterwarnings("ignore", module=rf"{package}\b")


_DULS: Final = {"lane": LaneDul, "pynetdicom": Dul}


class Connection:
    """One association and what belongs to it, from its request to the end of its connection."""

    def __init__(self, association: PeerAssociation, associations: "Associations", stream: Stream, visit: Visit) -> None:
        self.visit = visit
        self._associations = associations
        self._association = association
        self._stream = stream
        self._lock = threading.Lock()
        self._facts: dict[str, str] = {}
        self._number = 0
        self._fits = 0
        self._storing: Storing | None = None
        self._lane: Lane | None = None
        listen = associations.listen
        association.dul = self._dul = _DULS[listen.engine](association, self.close)
        association.dimse = self._dimse = Dimse(association)
        self._socket = Socket(association, stream)
        association.set_socket(self._socket)
        association.acse_timeout = listen.associate_s  # these set the timers of the new DUL
        association.network_timeout = None if isinstance(self._dul, LaneDul) else listen.idle_s  # the lane has its own
        association.bind(evt.EVT_REQUESTED, self._requested)

    def start(self) -> None:
        """Let pynetdicom work on it; raises RuntimeError where there are no more threads."""
        self._associations.connections.add(self)
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
        refusal = self.visit.admit(called, calling, room=self._associations.intake.space_left())
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
        intake = self._associations.intake
        self._number = intake.new_association()
        self._facts = {"calling": calling, "called": called, "peer": self.visit.address}
        self._fits = wire.payload_size(self._dimse.maximum_pdu_size)
        engine = Engine(context=cache(self._context), answer=self._answer, other=self._other)
        self._storing = Storing(Association(self._number, calling, called), intake, engine, self._associations.listen.instance_s)
        self._dimse.storing = self._storing
        if isinstance(self._dul, LaneDul):
            listen = self._associations.listen
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
        self._associations.connections.discard(self)

    def _note(self, ended: str, instances: int) -> None:
        try:
            self._associations.intake.note_association(self._number, **self._facts, ended=ended, instances=instances)
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


class Associations:
    """Those of one process, and what they share. Raises ConfigError for a certificate that cannot be used."""

    def __init__(self, listen: Listen, intake: Intake) -> None:
        quiet()
        self.listen = listen
        self.intake = intake
        self.connections: set[Connection] = set()
        self._tls = door.tls_context(listen)
        self._ae = AE(listen.ae_title.strip())
        self._ae.implementation_class_uid = UID(wire.IMPLEMENTATION_CLASS_UID)
        self._ae.implementation_version_name = wire.IMPLEMENTATION_VERSION
        self._ae.maximum_pdu_size = listen.max_pdu
        self._ae.maximum_associations = 1 << 30  # `Admission` counts; pynetdicom would count those that only wait

    def meet(self, visit: Visit) -> None:
        """Serve a visit, in threads of its own: pynetdicom hears of it only when it asks to associate."""
        try:
            threading.Thread(target=self._meet, args=(visit,), name="dicomrx-meet", daemon=True).start()
        except RuntimeError as error:  # no more threads
            _give_back(visit, error)

    def _meet(self, visit: Visit) -> None:
        try:
            first = door.request(visit, self._tls)
            stream = Stream(visit.client, self.listen.read_s, first)
            Connection(self._association(visit.address), self, stream, visit).start()
        except Exception as error:  # noqa: BLE001 - whatever it was, the connection gives its place back
            _give_back(visit, error)

    def _association(self, address: str) -> PeerAssociation:
        """What pynetdicom's own server would make."""
        association = PeerAssociation(self._ae, MODE_ACCEPTOR)
        association.acceptor.maximum_length = self._ae.maximum_pdu_size
        association.acceptor.ae_title = self._ae.ae_title
        association.acceptor.implementation_class_uid = self._ae.implementation_class_uid
        association.acceptor.implementation_version_name = self._ae.implementation_version_name
        association.requestor.address_info = AddressInformation(address, 0)
        return association

    def stop(self, grace_s: float) -> bool:
        """Let associations end within `grace_s`, abort those left; True where one was cut."""
        self._wait(grace_s)
        left = self.connections.copy()
        for connection in left:
            connection.abort()
        self._wait(_ABORT_S)
        for connection in self.connections.copy():
            connection.hang_up()
        self._wait(_HANG_UP_S)
        return any(connection.visit.admitted for connection in left)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.connections and time.monotonic() < deadline:
            time.sleep(0.02)


def _give_back(visit: Visit, error: Exception) -> None:
    """A connection that could not be served: that its peer has gone is nothing to speak of."""
    visit.leave()
    visit.client.close()
    if not isinstance(error, OSError):
        _log.error("a connection could not be served (%s)", type(error).__name__)
