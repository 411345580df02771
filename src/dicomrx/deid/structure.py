"""A strict walk over the bytes of a data set, which pydicom is too lenient to do: lengths, nesting, delimiters, duplicates.

It decodes no value. What it lets pass, pydicom reads wholly; what it refuses would be read in part, and silently.
"""

import io
import struct
from typing import BinaryIO, Final, NoReturn

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.tag import BaseTag

from dicomrx.deid.encoding import Encoding
from dicomrx.errors import Reject

MAX_DEPTH: Final = 32
MAX_ELEMENTS: Final = 1_000_000

_UNDEFINED: Final = 0xFFFFFFFF
_ITEM: Final = 0xFFFEE000
_ITEM_END: Final = 0xFFFEE00D
_SEQUENCE_END: Final = 0xFFFEE0DD
_PIXEL_DATA: Final = 0x7FE00010
_LONG: Final = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_SHORT: Final = frozenset(
    {
        b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS", b"ST",
        b"TM", b"UI", b"UL", b"US",
    }
)  # fmt: skip
_FRAGMENTED: Final = frozenset({b"OB", b"OW", b"UN"})


def end_of_dataset(stream: BinaryIO, encoding: Encoding) -> int:
    """Where the data set that begins at the stream's position ends: at the end of the stream, or before padding and bytes behind it.

    Raises Reject "truncated" where a length leads beyond the end, "unreadable" where the bytes are no data set, both naming tags only.
    """
    start = stream.tell()
    end = stream.seek(0, io.SEEK_END)
    stream.seek(start)
    return _Walk(stream, encoding, end).top_level()


def text_of(tag: int) -> str:
    """A tag as the standard prints it."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


class _Walk:
    """One walk; `end` is the end of the stream."""

    def __init__(self, stream: BinaryIO, encoding: Encoding, end: int) -> None:
        self._stream = stream
        self._end = end
        self._encoding = encoding
        order = "<" if encoding.little else ">"
        self._tag = struct.Struct(f"{order}HH")
        self._long = struct.Struct(f"{order}I")
        self._short = struct.Struct(f"{order}H")
        self._elements = 0

    def top_level(self) -> int:
        """Walks element after element, until the end or until what follows is not of the data set any more."""
        seen: set[int] = set()
        last = 0
        while (position := self._stream.tell()) < self._end:
            if self._is_behind(position, last):
                self._stream.seek(position)
                return position
            self._stream.seek(position)
            last = self._element(seen, self._end, self._encoding.implicit, 0)
        return self._end

    def _is_behind(self, position: int, last: int) -> bool:
        """True where the rest is padding of zeros, or lies behind the pixel data and is no element that could follow it."""
        head = self._stream.read(min(8, self._end - position))
        if head.count(0) == len(head):
            return self._rest_is_zero()
        if last < _PIXEL_DATA:
            return False
        if len(head) < 8:  # noqa: PLR2004 - the shortest element
            return True
        group, element = self._tag.unpack(head[:4])
        return bool((group << 16 | element) <= last) or not (self._encoding.implicit or head[4:6] in _LONG | _SHORT)

    def _rest_is_zero(self) -> bool:
        while chunk := self._stream.read(1 << 16):
            if chunk.count(0) != len(chunk):
                return False
        return True

    def _element(self, seen: set[int], limit: int, implicit: bool, depth: int) -> int:  # noqa: FBT001 - as in the standard
        tag, vr, length = self._header(limit, implicit)
        if tag in seen:
            self._unreadable(f"{_shown(tag)} stands twice in one data set")
        seen.add(tag)
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            self._unreadable(f"more than {MAX_ELEMENTS} elements")
        if length == _UNDEFINED:
            self._undefined(tag, vr, limit, implicit, depth)
        elif vr == b"SQ" or (vr == b"UN" and self._encoding.little and _known_vr(tag) == b"SQ"):
            self._items(tag, self._within(tag, length, limit), implicit or vr == b"UN", depth, delimited=False)
        else:
            self._stream.seek(self._within(tag, length, limit))
        return tag

    def _header(self, limit: int, implicit: bool) -> tuple[int, bytes, int]:  # noqa: FBT001 - as in the standard
        head = self._take(8, limit)
        group, element = self._tag.unpack(head[:4])
        tag = group << 16 | element
        if group == 0xFFFE:  # noqa: PLR2004 - the group of items and delimiters
            self._unreadable(f"{_shown(tag)} where an element should begin")
        if implicit:
            return tag, _known_vr(tag), self._long.unpack(head[4:])[0]
        vr = head[4:6]
        if vr in _SHORT:
            return tag, vr, self._short.unpack(head[6:])[0]
        if vr not in _LONG:
            self._unreadable(f"{_shown(tag)} has no VR of the standard")
        return tag, vr, self._long.unpack(self._take(4, limit))[0]

    def _undefined(self, tag: int, vr: bytes, limit: int, implicit: bool, depth: int) -> None:  # noqa: FBT001
        if vr in _FRAGMENTED and tag == _PIXEL_DATA:
            if not self._encoding.encapsulated:
                self._unreadable(f"{_shown(tag)} has no length in a transfer syntax that wants one")
            self._fragments(tag, limit)
        elif vr in {b"SQ", b"UN", b""}:
            # UN without a length is a sequence of implicit VR, in every transfer syntax (PS3.5 6.2.2).
            self._items(tag, limit, implicit, depth, delimited=True)
        else:
            self._unreadable(f"{_shown(tag)} has no length, and is no sequence")

    def _items(self, tag: int, limit: int, implicit: bool, depth: int, *, delimited: bool) -> None:  # noqa: FBT001
        if depth >= MAX_DEPTH:
            self._unreadable(f"sequences nested deeper than {MAX_DEPTH}")
        while delimited or self._stream.tell() < limit:
            found, length = self._item_header(limit)
            if found == _SEQUENCE_END and delimited:
                return
            if found != _ITEM:
                self._unreadable(f"{_shown(tag)} holds something else where an item should begin")
            if length == _UNDEFINED:
                self._item(limit, implicit, depth, delimited=True)
            else:
                self._item(self._within(tag, length, limit), implicit, depth, delimited=False)

    def _item(self, limit: int, implicit: bool, depth: int, *, delimited: bool) -> None:  # noqa: FBT001
        implicit = implicit or self._turns_implicit(limit)
        seen: set[int] = set()
        while delimited or self._stream.tell() < limit:
            if delimited and self._ends_item(limit):
                return
            self._element(seen, limit, implicit, depth + 1)

    def _turns_implicit(self, limit: int) -> bool:
        """True where an item in explicit VR holds implicit VR: in UN, and from some writers elsewhere; pydicom reads both."""
        position = self._stream.tell()
        head = self._stream.read(max(0, min(6, limit - position)))
        self._stream.seek(position)
        if len(head) < 6 or self._tag.unpack(head[:4])[0] == 0xFFFE:  # noqa: PLR2004
            return False
        return not head[4:6].isalpha() or not head[4:6].isupper()

    def _ends_item(self, limit: int) -> bool:
        position = self._stream.tell()
        found, _ = self._item_header(limit)
        if found != _ITEM_END:
            self._stream.seek(position)
        return found == _ITEM_END

    def _fragments(self, tag: int, limit: int) -> None:
        while True:
            found, length = self._item_header(limit)
            if found == _SEQUENCE_END:
                return
            if found != _ITEM or length == _UNDEFINED:
                self._unreadable(f"{_shown(tag)} holds something else where a fragment should begin")
            self._stream.seek(self._within(tag, length, limit))

    def _item_header(self, limit: int) -> tuple[int, int]:
        head = self._take(8, limit)
        group, element = self._tag.unpack(head[:4])
        return group << 16 | element, self._long.unpack(head[4:])[0]

    def _take(self, count: int, limit: int) -> bytes:
        if self._stream.tell() + count > limit:
            raise Reject("truncated", "the data set ends inside an element")
        return self._stream.read(count)

    def _within(self, tag: int, length: int, limit: int) -> int:
        end = self._stream.tell() + length
        if end > limit:
            raise Reject("truncated", f"{_shown(tag)} is longer than what holds it")
        return end

    @staticmethod
    def _unreadable(detail: str) -> NoReturn:
        raise Reject("unreadable", detail)


def _shown(tag: int) -> str:
    """A tag for a message; one of no attribute may be bytes of a value, read out of step, and those are nobody's business."""
    return text_of(tag) if tag >> 16 == 0xFFFE or dictionary_has_tag(BaseTag(tag)) else "an unknown element"  # noqa: PLR2004


def _known_vr(tag: int) -> bytes:
    """The dictionary's VR for an element of implicit VR; empty where it knows none."""
    if tag >> 16 & 1 or not dictionary_has_tag(BaseTag(tag)):
        return b""
    return dictionary_VR(BaseTag(tag))[:2].encode("ascii")
