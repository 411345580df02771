"""One pass over an instance's bytes: the original's are hashed, the output's are written, and what both share is read once."""

import os
import threading
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import BinaryIO, Final, NamedTuple

from dicomrx import deid
from dicomrx.errors import Reject
from dicomrx.spool import durable
from dicomrx.vault import Own
from dicomrx.vault.segments import FRAME

_CHUNK: Final = 1 << 20
# To keep a byte, deflated and encrypted, takes ten times as long as to hash one, and room.
_WORTH: Final = 32


class _Buffer(threading.local):
    """A thread's own, used again and again: pages that are new each time would cost a quarter of the whole."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(_CHUNK))


_buffer: Final = _Buffer()


class Written(NamedTuple):
    """SHA-256, in hex: of the file that was written, or instead its own bytes; and of the original's data set, behind its file meta."""

    output: str | Own
    dataset: str


def rewrite(file: BinaryIO, instance: deid.Instance, output: deid.Output, fd: int, pixels: range) -> Written:
    """Write an output, not yet synced, but on its way to the disk; `file` is the original's, whose `pixels` are the output's too.

    Pixels that are many are hashed once, and nearly all of that is done without the interpreter's lock: threads do several at once.
    """
    parts: Iterable[deid.Value] = deid.parts(output)
    own = None
    if pixels:
        parts = list(parts)
        own = _own(parts, pixels)
    run = _Run(file, instance.dataset_offset, fd, own)
    for part in parts:
        if isinstance(part, bytes):
            run.write(part)
        elif part.lies_in(file) and part.place.start >= run.at:
            run.share(part.place)
        else:
            for chunk in part.chunks():
                run.write(chunk)
    return run.end()


def _own(parts: Sequence[deid.Value], pixels: range) -> Own | None:
    """What an output has beside its pixels, where to keep that costs less than to hash them once more."""
    if sum(map(len, parts)) - len(pixels) > min(FRAME, len(pixels) // _WORTH):
        return None
    at = next(at for at, part in enumerate(parts) if not isinstance(part, bytes) and part.place == pixels)
    return Own(b"".join(map(bytes, parts[:at])), b"".join(map(bytes, parts[at + 1 :])))


class _Run:
    """`at` is how far the original's data set was hashed; the output is hashed where its `own` bytes are not known."""

    def __init__(self, file: BinaryIO, at: int, fd: int, own: Own | None) -> None:
        self.at = at
        self._own = own
        self._source = file.fileno()
        self._fd = fd
        self._pieces: list[bytes | memoryview] = []
        self._made, self._original = sha256(), sha256()

    def write(self, piece: bytes | memoryview) -> None:
        """To the output alone."""
        if self._own is None:
            self._made.update(piece)
        self._pieces.append(piece)
        if len(piece) >= _CHUNK:
            self._flush()

    def share(self, place: range) -> None:
        """Hash the original up to the end of a part of it that is the output's too."""
        while self.at < place.stop:
            begin = self.at
            chunk = self._read(min(_CHUNK, place.stop - begin))
            if not chunk:
                raise Reject("truncated", "the file has become shorter")
            shared = chunk[max(0, place.start - begin) :]
            if shared:
                self.write(shared)
                self._flush()

    def end(self) -> Written:
        """Hash and write what is left."""
        self._flush()
        durable.end_here(self._fd)
        durable.begin_sync(self._fd)
        while self._read(_CHUNK):
            pass
        return Written(self._own or self._made.hexdigest(), self._original.hexdigest())

    def _read(self, length: int) -> memoryview:
        """So much of the original, or what is left; good until the next is read."""
        chunk = _buffer.view[:length]
        chunk = chunk[: os.preadv(self._source, [chunk], self.at)]
        self._original.update(chunk)
        self.at += len(chunk)
        return chunk

    def _flush(self) -> None:
        durable.write_pieces(self._fd, self._pieces)
        self._pieces.clear()
