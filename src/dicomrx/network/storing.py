"""C-STORE as its acceptor sees it: from presentation data values to a kept instance and its answer.

Bytes go to the reception as they come: nothing of a data set is decoded, held or judged. What fails on the way decides the answer;
the rest of the data set is then read and thrown away, and the association goes on.
"""

import contextlib
import errno
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from math import inf
from typing import Final

from dicomrx.network.classes import is_storage
from dicomrx.network.filemeta import file_head
from dicomrx.network.ports import Intake, Reception
from dicomrx.network.wire import C_STORE_RQ, Command, WireError, store_response

_log = logging.getLogger(__name__)

_MAX_COMMAND: Final = 16 << 10
_MAX_OTHER: Final = 1 << 20  # data sets of other messages than C-STORE are held in memory
_OTHER_EVERY_S: Final = 0.1  # messages that are no C-STORE: each costs pynetdicom milliseconds of what all associations share
_OTHERS_AHEAD_S: Final = 2.0
_MAX_INSTANCE: Final = 64 << 30
_GRACE_S: Final = 60.0
_SOON_S: Final = 0.02  # for which a reception begun ahead waits for its instance
_LEAST_RATE: Final = 8 << 10  # bytes a second, after the grace: a slow line is no attack, a trickle is


class Status(IntEnum):
    """How a C-STORE is answered (PS3.4 B.2.3, PS3.7 C)."""

    SUCCESS = 0x0000
    INVALID_INSTANCE = 0x0117
    CLASS_NOT_SUPPORTED = 0x0122
    OUT_OF_RESOURCES = 0xA700
    CANNOT_UNDERSTAND = 0xC000


_WHY: Final = {
    Status.INVALID_INSTANCE: "its SOP Instance UID is missing or malformed",
    Status.CLASS_NOT_SUPPORTED: "its SOP class, or that of its presentation context, is not storage",
    Status.OUT_OF_RESOURCES: "it cannot be written: look at the space and health of the storage disk",
    Status.CANNOT_UNDERSTAND: "it has no data set, or dicomrx has a bug",
}


@dataclass(frozen=True, slots=True)
class Context:
    """An accepted presentation context."""

    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class Association:
    """Who is at the other end; `number` is the intake's."""

    number: int
    calling: str
    called: str


@dataclass(frozen=True, slots=True)
class Engine:
    """What the engine underneath does: tells the contexts it accepted, sends an answer, takes the messages that are not C-STORE."""

    context: Callable[[int], Context | None]
    answer: Callable[[int, bytes], None]
    other: Callable[[int, bytes], None]


class Storing:
    """The message that one association is sending; used by one thread.

    `instance_s` is how long one instance may take at most, however big and fast: while it is in reception, no study completes.
    """

    def __init__(self, association: Association, intake: Intake, engine: Engine, instance_s: float) -> None:
        self.kept = 0
        self._association = association
        self._intake = intake
        self._engine = engine
        self._instance_s = instance_s
        self._numbers = 0
        self._others_until = 0.0
        self._told: set[Status] = set()
        self._pieces: list[bytes | memoryview] = []
        self._reset()

    def _reset(self) -> None:
        self._context_id = 0
        self._encoded = b""
        self._request: Command | None = None
        self._in_other = False  # inside the data set of another message
        self._reception: Reception | None = None
        self._status: Status | None = None  # undecided; only a reception that was kept makes it a success
        self._likely = False  # that another instance follows at once
        self._began = 0.0
        self._bytes = 0
        self._pieces.clear()

    def take(self, context_id: int, data: memoryview, *, command: bool, last: bool) -> None:
        """The next presentation data value, or a part of it. Raises WireError where the association must be aborted.

        `data` may be kept until `flush`.
        """
        if not context_id or (self._context_id and context_id != self._context_id):
            raise WireError("a message in two presentation contexts, or in none")
        if command:
            self._command(context_id, data, last=last)
        elif self._request is not None:
            self._pieces.append(data)
            self._bytes += len(data)
            if last:
                self._finish()
        elif self._in_other:
            self._other_data(data, last=last)
        else:
            raise WireError("a data set without a command")

    def flush(self) -> float:
        """Write what was taken; the seconds in which the message must end, infinite between messages.

        Raises WireError where it takes too long.
        """
        if not self._context_id:
            return inf
        left_s = self._began + min(self._instance_s, _GRACE_S + self._bytes / _LEAST_RATE) - time.monotonic()
        if left_s < 0:
            raise WireError("an instance that takes too long")
        if self._pieces:
            self._do(self._write)
            self._pieces.clear()
        return left_s

    def ahead(self) -> float:
        """Begin the next reception while its sender is still at work on it; the seconds after which it must be withdrawn.

        They are few, for its begin holds the watermark; infinite where nothing was begun.
        """
        if self._context_id or not self._likely:
            return inf
        self._likely = False
        with contextlib.suppress(Exception):  # the instance will meet it again, and be told
            self._reception = self._intake.begin(self._association.number, self._numbers + 1)
        return inf if self._reception is None else _SOON_S

    def withdraw(self) -> bool:
        """Give up what was begun ahead; False where nothing was, or where its instance has come."""
        if self._context_id or self._reception is None:
            return False
        self._drop()
        return True

    def close(self) -> None:
        """The association is over: what was coming leaves nothing behind."""
        self._drop()
        self._reset()

    def _command(self, context_id: int, data: memoryview, *, last: bool) -> None:
        if self._request is not None or self._in_other:
            raise WireError("a command inside a data set")
        if not self._context_id:
            self._context_id = context_id
            self._began = time.monotonic()
            if not last:  # it may be a C-STORE: its reception begins now
                self._begin()
        self._encoded += data
        if len(self._encoded) > _MAX_COMMAND:
            raise WireError("a command set of impossible length")
        if last:
            request = Command.parse(self._encoded)
            if request.field == C_STORE_RQ:
                self._start(request)
            else:
                self._pass_on(request)

    def _pass_on(self, request: Command) -> None:
        now = time.monotonic()
        self._others_until = max(self._others_until, now - _OTHERS_AHEAD_S) + _OTHER_EVERY_S
        time.sleep(max(0.0, self._others_until - now))
        context_id, encoded, began = self._context_id, self._encoded, self._began
        self.close()
        if request.has_data_set:
            self._context_id, self._in_other, self._began = context_id, True, began
        self._engine.other(context_id, b"\3" + encoded)

    def _start(self, request: Command) -> None:
        context = self._engine.context(self._context_id)
        if context is None:
            raise WireError("a C-STORE in a presentation context that was not accepted")
        self._request = request
        if not request.has_data_set:
            self._fail(Status.CANNOT_UNDERSTAND)
        elif request.sop_class is None or not (is_storage(request.sop_class) and is_storage(context.abstract_syntax)):
            self._fail(Status.CLASS_NOT_SUPPORTED)
        elif request.sop_instance is None:
            self._fail(Status.INVALID_INSTANCE)
        else:
            self._start_file(request.sop_class, request.sop_instance, context)
        if not request.has_data_set:
            self._finish()

    def _start_file(self, sop_class: str, sop_instance: str, context: Context) -> None:
        if self._status is None:
            self._begin()
        self._numbers += 1
        self._pieces.append(
            file_head(
                sop_class=sop_class,
                sop_instance=sop_instance,
                transfer_syntax=context.transfer_syntax,
                calling=self._association.calling,
                called=self._association.called,
            )
        )

    def _other_data(self, data: memoryview, *, last: bool) -> None:
        context_id = self._context_id
        self._bytes += len(data)
        if self._bytes > _MAX_OTHER:
            raise WireError("a message that is no C-STORE and too long")
        if last:
            self._reset()
        self._engine.other(context_id, (b"\2" if last else b"\0") + data)

    def _begin(self) -> None:
        if self._reception is not None:
            return
        try:
            self._reception = self._intake.begin(self._association.number, self._numbers + 1)
        except Exception as error:  # noqa: BLE001 - see `_do`
            self._fail(_status_of(error), error)

    def _write(self, reception: Reception) -> None:
        if self._bytes > _MAX_INSTANCE:
            raise OSError(errno.EFBIG, "an instance of impossible length")
        reception.write(*self._pieces)

    def _finish(self) -> None:
        self.flush()
        self._do(self._keep)
        if self._request is not None:
            status = Status.CANNOT_UNDERSTAND if self._status is None else self._status
            self._engine.answer(self._context_id, store_response(self._request, status))
        likely = self._status == Status.SUCCESS
        self.close()  # only now: its sender is already at work on the next
        self._likely = likely

    def _keep(self, reception: Reception) -> None:
        reception.keep()
        self._status = Status.SUCCESS
        self.kept += 1

    def _do(self, step: Callable[[Reception], object]) -> None:
        """One step of storing, where nothing has failed yet."""
        if self._reception is not None:
            try:
                step(self._reception)
            except Exception as error:  # noqa: BLE001 - the promise is an answer, whatever the bug
                self._fail(_status_of(error), error)

    def _fail(self, status: Status, error: Exception | None = None) -> None:
        self._status = status
        self._drop()
        if status not in self._told:  # once an association: a full disk refuses thousands
            self._told.add(status)
            _log.warning(
                "association %d: refused an instance with %04X: %s%s", self._association.number, status, _WHY[status], _cause(error)
            )

    def _drop(self) -> None:
        reception, self._reception = self._reception, None
        if reception is not None:
            try:
                reception.drop()
            except OSError as error:
                _log.warning("association %d: a part file could not be removed: %s", self._association.number, error.strerror)


def _status_of(error: Exception) -> Status:
    return Status.OUT_OF_RESOURCES if isinstance(error, (OSError, MemoryError)) else Status.CANNOT_UNDERSTAND


def _cause(error: Exception | None) -> str:
    if error is None:
        return ""
    return f" ({type(error).__name__}{f': {error.strerror}' if isinstance(error, OSError) else ''})"
