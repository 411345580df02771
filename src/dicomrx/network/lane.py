"""The lane: C-STORE from the socket to its file without a detour; all else is pynetdicom's.

It runs in the thread of pynetdicom's upper layer while an association is open, and reads P-DATA-TF by itself. A message that is no
C-STORE goes to pynetdicom, which answers it before the lane reads on; a PDU that is no P-DATA-TF stays in the stream for it.
Meanwhile pynetdicom's other thread sleeps at its own checkpoint, so an open association that is idle costs nothing.
"""

import errno
import threading
from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ABORT, _PDUPrimitiveType

from dicomrx.network.provider import ESTABLISHED, Dul, Socket, aborting
from dicomrx.network.storing import Storing
from dicomrx.network.stream import MAX_PDU_READ, Stream
from dicomrx.network.wire import P_DATA, WireError, header, value_header

_HEADER: Final = 6  # bytes of a PDU's header, and of a presentation data value's
_ANY_LENGTH: Final = 1 << 32
_COMMAND: Final = 1
_LAST: Final = 2


class Pause(Enum):
    """Why the lane stopped reading."""

    OTHER_PDU = auto()
    HANDED_OVER = auto()
    ENDED = auto()
    IDLE = auto()


class Lane:
    """Reads the P-DATA-TF of one association into `storing`.

    `idle_s` is how long a peer may say nothing, `max_pdu` what it was told to send at most: 0 for any length.
    """

    def __init__(self, stream: Stream, storing: Storing, *, idle_s: float, max_pdu: int) -> None:
        self._stream = stream
        self._storing = storing
        self._idle_s = idle_s
        self._longest = max(max_pdu, MAX_PDU_READ) if max_pdu else _ANY_LENGTH
        self._in_pdu = 0  # bytes of the PDU that are still to come
        self._in_value = 0  # the same of the presentation data value
        self._context_id = 0
        self._control = 0
        self._handed_over = False
        stream.read_ahead()

    def pause(self) -> None:
        """Read on only when pynetdicom has answered what it has just been given."""
        self._handed_over = True

    def run(self) -> Pause:
        """Read until something is not for the lane. Raises WireError where the association must be aborted."""
        self._handed_over = False
        try:
            while self._in_value or self._next_value():
                self._take()
                if self._handed_over:
                    return Pause.HANDED_OVER
        except TimeoutError:
            return Pause.IDLE
        except OSError:
            return Pause.ENDED
        return Pause.OTHER_PDU

    def _next_value(self) -> bool:
        """Read headers up to a value that has data; False where a PDU comes that is no P-DATA-TF."""
        stream, in_pdu = self._stream, self._in_pdu
        while not in_pdu:
            if stream.end - stream.at < _HEADER:
                self._have(_HEADER)
            kind, in_pdu = header(stream.view, stream.at)
            if kind != P_DATA:
                return False
            if in_pdu > self._longest:
                raise WireError("a PDU of impossible length")
            stream.at += _HEADER
        if stream.end - stream.at < _HEADER:
            self._have(_HEADER)
        length, self._context_id, self._control = value_header(stream.view, stream.at)
        if not 2 <= length <= in_pdu - 4:  # noqa: PLR2004 - context ID and control header
            raise WireError("a P-DATA-TF with a value of impossible length")
        stream.at += _HEADER
        self._in_value = length - 2
        self._in_pdu = in_pdu - length - 4
        return True

    def _take(self) -> None:
        """Give on what has come of the value: a part of one is taken like a value of its own."""
        stream, control, left = self._stream, self._control, self._in_value
        if left and stream.at == stream.end:
            self._have(1)
        begin = stream.at
        stream.at = end = min(stream.end, begin + left)
        self._in_value = left = left - (end - begin)
        last = control & _LAST != 0 and not left
        self._storing.take(self._context_id, stream.view[begin:end], command=control & _COMMAND != 0, last=last)

    def _have(self, count: int) -> None:
        """Wait for so many bytes; what came before them goes to the file first, for its place is used again."""
        stream, storing = self._stream, self._storing
        while stream.end - stream.at < count:
            left_s = storing.flush()
            try:
                alive = stream.more(min(self._idle_s, left_s, storing.ahead()))
            except TimeoutError:
                if storing.withdraw():
                    continue
                storing.flush()  # which says whether it was the instance that took too long
                raise
            if not alive:
                raise ConnectionResetError(errno.ECONNRESET, "the peer has ended")


class _Checkpoint(threading.Event):
    """Where the thread of a pynetdicom association waits while this is not set; `asleep` says that it does."""

    asleep = False

    def wait(self, timeout: float | None = None) -> bool:
        self.asleep = True
        try:
            return super().wait(timeout)
        finally:
            self.asleep = False


class LaneDul(Dul):
    """Runs the lane while the association is open."""

    lane: Lane | None = None

    def __init__(self, association: Association, at_end: Callable[[str], None]) -> None:
        super().__init__(association, at_end)
        self._checkpoint = association._reactor_checkpoint = _Checkpoint()  # noqa: SLF001 - where its thread waits
        self._checkpoint.set()

    def run_reactor(self) -> None:
        """As before; the association's thread must see the end."""
        try:
            super().run_reactor()
        finally:
            self._checkpoint.set()

    def send_pdu(self, primitive: _PDUPrimitiveType) -> None:
        """As before; an abort does not wait for the lane."""
        super().send_pdu(primitive)
        if isinstance(primitive, A_ABORT) and isinstance(self.socket, Socket):
            self.socket.stream.interrupt()

    def _is_transport_event(self) -> bool:
        if self.lane is None or self.state_machine.current_state != ESTABLISHED or not self.assoc.is_alive():
            return super()._is_transport_event()
        if not self._all_answered():
            return False
        pause = Pause.HANDED_OVER
        with aborting(self.assoc):
            pause = self.lane.run()
        self._checkpoint.set()
        if pause is Pause.OTHER_PDU:
            return super()._is_transport_event()
        if pause is Pause.IDLE:
            self.assoc.acse.send_abort(0x00)
        elif pause is Pause.ENDED and self.to_provider_queue.empty():
            self.event_queue.put("Evt17")
        return True

    def _all_answered(self) -> bool:
        """True where pynetdicom has nothing to do; its thread then sleeps until the lane pauses."""
        self._checkpoint.clear()
        # In this order: its thread takes a message only when it is awake, and is asleep again only when the answer is there.
        return self.assoc.dimse.msg_queue.empty() and self._checkpoint.asleep and self.to_provider_queue.empty()
