"""A data set as this program holds it: elements by tag, their values as bytes, or left where they lie where they are big."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, NamedTuple, TypeVar

from dicomrx.deid.encoding import Encoding

CHUNK: Final = 1 << 20

T = TypeVar("T")


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

    @property
    def halves(self) -> "tuple[Shared, DataSet] | None":
        """Those of its elements that other data sets have in common with it, and the others; None where that is not known."""
        return None

    def once(self, _what: str, _tags: frozenset[int], _given: object, work: Callable[[], T]) -> T:
        """As `Shared.once`, for what depends on what stands under some tags, and is remembered where nothing of that is its own."""
        return work()


class Shared:
    """Small elements that several data sets have in common, never to be changed, and the latest of what was worked out about them."""

    __slots__ = ("_known", "elements")

    def __init__(self, elements: DataSet) -> None:
        self.elements = elements
        self._known: dict[str, tuple[object, Any]] = {}

    def once(self, what: str, given: object, work: Callable[[], T]) -> T:
        """What `work` gives, which is done again only when `given` is not what it was the last time."""
        known = self._known.get(what)
        if known is None or known[0] != given:
            known = self._known[what] = (given, work())
        found: T = known[1]
        return found


class Halved(DataSet):
    """A data set that has elements in common with others; none of its own is under a tag of these."""

    __slots__ = ("_halves",)

    def __init__(self, shared: Shared, own: DataSet) -> None:
        super().__init__(shared.elements)
        self.update(own)
        self._halves: tuple[Shared, DataSet] | None = shared, own

    def __setitem__(self, tag: int, element: Element) -> None:
        self._halves = None
        super().__setitem__(tag, element)

    def __delitem__(self, tag: int) -> None:
        self._halves = None
        super().__delitem__(tag)

    @property
    def halves(self) -> tuple[Shared, DataSet] | None:
        """None as soon as an element was changed."""
        return self._halves

    def once(self, what: str, tags: frozenset[int], given: object, work: Callable[[], T]) -> T:
        """Remembered with what it has in common with others."""
        if self._halves is None or not self._halves[1].keys().isdisjoint(tags):
            return work()
        return self._halves[0].once(what, given, work)

    def share(self, shared: Shared) -> None:
        """Have another half in common with others."""
        if self._halves is not None and shared is not self._halves[0]:
            own = self._halves[1]
            self.clear()
            self.update(shared.elements)
            self.update(own)
            self._halves = shared, own


@dataclass(frozen=True, slots=True, repr=False)
class Output:
    """What is left of an instance: new file meta, without its length, and the data set in its own transfer syntax."""

    meta: DataSet
    dataset: DataSet
    encoding: Encoding
