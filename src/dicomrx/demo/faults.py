"""What can go wrong with a request to the demo API, on purpose."""

import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

_CHUNK: Final = 1 << 16


@dataclass(frozen=True)
class Arrival:
    """One request: `path`, and its number among those to that path, from 1."""

    path: str
    number: int


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request; without `lose_answer` nothing is accepted.

    `status` and `headers` answer instead of the API, before the body is read where `early`; `reset_at` resets the
    connection after that fraction of the body; `hang_s` waits so long and then drops it; `raw` is sent as it is;
    `lose_answer` accepts the upload and drops the connection; `drip_s` pauses so long before each byte of the answer.
    `meanwhile` is called before anything of this, once the body has come as far as it will.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    early: bool = False
    reset_at: float | None = None
    hang_s: float | None = None
    raw: bytes | None = None
    lose_answer: bool = False
    drip_s: float = 0.0
    meanwhile: Callable[[], None] = field(default=lambda: None, repr=False)


class FaultyBody:
    """The body of one request and no byte more; where the fault wants a reset, `reset` is called for it."""

    def __init__(self, source: io.BufferedIOBase, length: int, fault: Fault, reset: Callable[[], None]) -> None:
        self._source = source
        self._fault = fault
        self._reset = reset
        self._left = length
        self._stop_at = -1 if fault.reset_at is None else length - int(length * fault.reset_at)

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at its end."""
        if self._stop_at >= 0:
            size = min(size, self._left - self._stop_at)
            if size == 0:
                self._fault.meanwhile()
                self._reset()
        data = self._source.read(min(size, self._left)) if self._left else b""
        self._left -= len(data)
        return data

    def drain(self) -> None:
        """Read all of it."""
        while self.read(_CHUNK):
            pass


class Dripping(io.BufferedIOBase):
    """What is written to it goes on byte by byte, `pause_s` seconds before each."""

    def __init__(self, out: io.BufferedIOBase, pause_s: float) -> None:
        self._out = out
        self._pause_s = pause_s

    def write(self, data: bytes) -> int:  # type: ignore[override]  # nobody writes anything else
        """Write all of it."""
        for byte in data:
            time.sleep(self._pause_s)
            self._out.write(bytes([byte]))
        return len(data)
