"""A data set as this program holds it: elements by tag, their values as bytes, or left where they lie where they are big."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, NamedTuple

from dicomrx.deid.encoding import Encoding

CHUNK: Final = 1 << 20


class Bulk:
    """A value left in its stream, which must stay open: as much of it as is asked for is read from there."""

    __slots__ = ("_stream", "place")

    def __init__(self, stream: BinaryIO, place: range) -> None:
        self._stream = stream
        self.place = place

    def lies_in(self, stream: BinaryIO) -> bool:
        """True where that is its stream."""
        return self._stream is stream

    def __len__(self) -> int:
        return len(self.place)

    def __getitem__(self, part: slice) -> bytes:
        place = self.place[part]
        self._stream.seek(place.start)
        return self._stream.read(len(place))

    def __bytes__(self) -> bytes:
        return self[:]

    def chunks(self) -> Iterator[bytes]:
        """All of it; raises EOFError where the stream has become shorter."""
        for begin in range(0, len(self), CHUNK):
            chunk = self[begin : begin + CHUNK]
            if len(chunk) < min(CHUNK, len(self) - begin):
                raise EOFError
            yield chunk


Value = bytes | Bulk


class Element(NamedTuple):
    """A value, and the items that it holds in a sequence; `vr` is that on the wire, None in implicit VR.

    `undefined`: it came without a length, as encapsulated pixel data, whose value are fragments, and many sequences, whose value is empty.
    """

    tag: int
    vr: str | None
    value: Value = b""
    items: "list[DataSet] | None" = None
    undefined: bool = False


class DataSet(dict[int, Element]):
    """The elements of a data set or item, by tag."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, repr=False)
class Output:
    """What is left of an instance: new file meta, without its length, and the data set in its own transfer syntax."""

    meta: DataSet
    dataset: DataSet
    encoding: Encoding


def size_of(stream: BinaryIO) -> int:
    """Bytes in a stream; its position stays."""
    here = stream.tell()
    size = stream.seek(0, io.SEEK_END)
    stream.seek(here)
    return size
