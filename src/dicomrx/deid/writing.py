"""Writes what `deidentify` gives: the bytes depend on nothing but the data set."""

import struct
import zlib
from bisect import bisect
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import pairwise
from typing import BinaryIO, Final

from dicomrx.deid.dataset import DataSet, Element, Halved, Output, Shared, Value
from dicomrx.deid.encoding import META, Encoding
from dicomrx.deid.reading import raw_value

# The same as the receiver's: one program, one UID (made from a random UUID, PS3.5 B.2).
IMPLEMENTATION_CLASS_UID: Final = b"2.25.180359664797480045516660657176646159747"
IMPLEMENTATION_VERSION: Final = b"DICOMRX"

_UNDEFINED: Final = 0xFFFFFFFF
_LONG: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_NUL_PADDED: Final = frozenset({"UI", "OB", "UN"})
_DEFLATE_LEVEL: Final = 6


def raw(tag: int, vr: str, value: Value, encoding: Encoding, *, undefined: bool = False) -> Element:
    """An element from its value, padded to even length; `undefined` keeps encapsulated pixel data without a length."""
    if len(value) & 1:
        value = bytes(value) + (b"\0" if vr in _NUL_PADDED else b" ")
    return Element(tag, None if encoding.implicit else vr, value, undefined=undefined)


def file_meta(dataset: DataSet, transfer_syntax: str) -> DataSet:
    """New file meta information, but for its length: nothing of the old one but the transfer syntax."""
    own = raw(0x00020003, "UI", raw_value(dataset, 0x00080018).strip(b" \0"), META)
    return Halved(_common_meta(raw_value(dataset, 0x00080016).strip(b" \0"), transfer_syntax), DataSet({own.tag: own}))


@lru_cache(maxsize=64)
def _common_meta(sop_class: bytes, transfer_syntax: str) -> Shared:
    values = (
        (0x00020001, "OB", b"\0\1"),
        (0x00020002, "UI", sop_class),
        (0x00020010, "UI", transfer_syntax.encode("ascii")),
        (0x00020012, "UI", IMPLEMENTATION_CLASS_UID),
        (0x00020013, "SH", IMPLEMENTATION_VERSION),
    )
    return Shared(DataSet((tag, raw(tag, vr, value, META)) for tag, vr, value in values))


def write(output: Output, stream: BinaryIO) -> None:
    """The file of an output of `deidentify`."""
    for part in parts(output):
        stream.writelines([part] if isinstance(part, bytes) else part.chunks())


def parts(output: Output) -> Iterator[Value]:
    """The same in parts: an empty preamble, the file meta, and the data set; small values joined, big ones left where they are."""
    meta = b"".join(_chunks(_encoded(output.meta, META)))
    length = raw(0x00020000, "UL", struct.pack("<I", len(meta)), META)
    head = [bytes(128) + b"DICM", *_element(length, META), meta]
    dataset = _encoded(output.dataset, output.encoding)
    if output.encoding.deflated:
        yield from (*head, *_deflated(_chunks(_joined(dataset))))
    else:
        yield from _joined([*head, *dataset])


def _joined(values: Iterable[Value]) -> Iterator[Value]:
    """Small values joined."""
    small: list[bytes] = []
    for value in values:
        if isinstance(value, bytes):
            small.append(value)
        else:
            yield b"".join(small)
            small.clear()
            yield value
    yield b"".join(small)


def _chunks(values: Iterable[Value]) -> Iterator[bytes]:
    """Values in chunks of which none is big."""
    for value in values:
        if isinstance(value, bytes):
            yield value
        else:
            yield from value.chunks()


def _encoded(dataset: DataSet, encoding: Encoding) -> list[Value]:
    """A data set or item, in order of tags."""
    if dataset.halves is None:
        return [value for tag in sorted(dataset) for value in _element(dataset[tag], encoding)]
    shared, own = dataset.halves
    tags = sorted(own)
    first, *others = shared.once("runs", (encoding, tags), lambda: _between(shared, tags, encoding))
    return [first, *(value for tag, run in zip(tags, others, strict=True) for value in (*_element(own[tag], encoding), run))]


def _between(shared: Shared, tags: list[int], encoding: Encoding) -> list[bytes]:
    """What is shared, joined to runs before, between and behind elements of these tags."""
    common = shared.once("encoded", encoding, lambda: _joined_by_tag(shared.elements, encoding))
    order = sorted(common)
    ends = (0, *(bisect(order, tag) for tag in tags), len(order))
    return [b"".join(common[tag] for tag in order[begin:end]) for begin, end in pairwise(ends)]


def _joined_by_tag(dataset: DataSet, encoding: Encoding) -> dict[int, bytes]:
    return {tag: b"".join(map(bytes, _element(element, encoding))) for tag, element in dataset.items()}


def _element(element: Element, encoding: Encoding) -> list[Value]:
    tag, vr, value, items, undefined = element
    if items is not None:
        content = [value for item in items for value in _item(item, encoding)]
        return [_header(tag, "SQ", _length(content), encoding), *content]
    head = _header(tag, vr or "", _UNDEFINED if undefined else len(value), encoding)
    return [head, value, _item_header(0xE0DD, 0, encoding)] if undefined else [head, value]


def _item(item: DataSet, encoding: Encoding) -> list[Value]:
    content = _encoded(item, encoding)
    return [_item_header(0xE000, _length(content), encoding), *content]


def _length(values: Iterable[Value]) -> int:
    return sum(map(len, values))


def _header(tag: int, vr: str, length: int, encoding: Encoding) -> bytes:
    order = "<" if encoding.little else ">"
    group, element = tag >> 16, tag & 0xFFFF
    if encoding.implicit:
        return struct.pack(f"{order}HHI", group, element, length)
    if vr in _LONG:
        return struct.pack(f"{order}HH2sxxI", group, element, vr.encode("ascii"), length)
    return struct.pack(f"{order}HH2sH", group, element, vr.encode("ascii"), length)


def _item_header(element: int, length: int, encoding: Encoding) -> bytes:
    return struct.pack("<HHI" if encoding.little else ">HHI", 0xFFFE, element, length)


def _deflated(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """PS3.5 A.5: a raw deflate stream, of even length."""
    deflate = zlib.compressobj(_DEFLATE_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    length = 0
    for chunk in chunks:
        piece = deflate.compress(chunk)
        length += len(piece)
        yield piece
    rest = deflate.flush()
    yield rest + b"\0" * ((length + len(rest)) & 1)
