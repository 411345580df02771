"""Parses a data set strictly: lengths, nesting, delimiters, duplicates. It decodes no value, and reads no big one.

What it lets pass is read wholly; libraries read in part, and silently, what is refused here.
"""

import io
import re
from collections.abc import Iterable, Iterator
from struct import Struct
from typing import BinaryIO, Final, NamedTuple, NoReturn

from dicomrx.deid.dataset import Bulk, DataSet, Element, Value
from dicomrx.deid.encoding import IMPLICIT_META, META, Encoding
from dicomrx.deid.tags import PIXELS, known_vr, text_of
from dicomrx.errors import Reject

MAX_DEPTH: Final = 32
MAX_ELEMENTS: Final = 1_000_000
# A longer value is left in the stream.
WINDOW: Final = 1 << 16

_UNDEFINED: Final = 0xFFFFFFFF
_ITEM: Final = 0xFFFEE000
_ITEM_END: Final = 0xFFFEE00D
_SEQUENCE_END: Final = 0xFFFEE0DD
_PIXEL_DATA: Final = 0x7FE00010
_LONG: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_SHORT: Final = frozenset(
    {"AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "PN", "SH", "SL", "SS", "ST", "TM", "UI", "UL", "US"}
)
_VRS: Final = {vr.encode("ascii"): vr for vr in _LONG | _SHORT}
_UID: Final = re.compile(rb"[0-9.]{1,64}")
_FRAGMENTED: Final = frozenset({"OB", "OW", "UN"})
# A header in explicit VR and in implicit VR, a number of four bytes and of two.
_LITTLE: Final = (Struct("<HH2sH"), Struct("<HHI"), Struct("<I"), Struct("<H"))
_BIG: Final = (Struct(">HH2sH"), Struct(">HHI"), Struct(">I"), Struct(">H"))


# What stands before a value: tag; VR, None where there is none; the same or else the dictionary's; length, and where the value begins.
_Head = tuple[int, str | None, str, int, int]


class Run(NamedTuple):
    """Elements that follow each other, as bytes; the tag of the first."""

    tag: int
    raw: bytes


class Parser:
    """One run over one stream from where that is, through a window on it; `at` is how far it came, `elements` how many it met."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.at = self._base = stream.tell()
        self._end = stream.seek(0, io.SEEK_END)
        stream.seek(self.at)
        self._window = stream.read(WINDOW)
        self._places: list[tuple[int, int, int]] = []
        self.elements = 0
        self.begin(META)

    def parse(self, encoding: Encoding, group: int | None = None) -> DataSet:
        """The data set that comes next; `group`: the elements of that one alone.

        It ends at the end of the stream, or before padding and bytes behind it. Raises Reject "truncated" where a length leads beyond the
        end, "unreadable" where the bytes are no data set, both naming tags only.
        """
        self.begin(encoding, group)
        return self.top_level()

    def skip(self, count: int) -> bytes:
        """So many bytes that come next, or what is left."""
        skipped = self._peek(self.at, count)
        self.at += len(skipped)
        return skipped

    def meta_encoding(self) -> Encoding:
        """That of file meta information that comes next: some write it in implicit VR."""
        return IMPLICIT_META if self._turns_implicit(self.at, self._end) else META

    def begin(self, encoding: Encoding, group: int | None = None) -> None:
        """What comes next is a data set in this encoding, or the elements of one group."""
        self._encoding = encoding
        self._explicit, self._implicit, self._long, self._short = _LITTLE if encoding.little else _BIG
        self._group = None if group is None else self._short.pack(group)
        self._start, self._first, self._first_base = self.at, self._window, self._base

    def top_level(self) -> DataSet:
        """Element after element, until the end or until what follows is not of the data set any more."""
        found = DataSet()
        self.elements = 0
        self._rest(found, self._start, 0)
        return _in_order(found)

    def beside(self, runs: Iterable[Run]) -> DataSet | None:
        """The elements between and behind runs that are known, all before the pixels; None where one of these is not in its place."""
        found = DataSet()
        at, last, implicit = self._start, 0, self._encoding.implicit
        for first, raw in runs:
            while not self._window.startswith(raw, at - self._base):
                if self._is_over(at, last):
                    return None
                last, at = self._element(found, at, self._end, implicit, 0)
                if last >= first:
                    return None
            at += len(raw)
        self._rest(found, at, last)
        return found

    def runs(self) -> Iterator[Run]:
        """Each element that `top_level` found before the pixels and in the first window, as long as they go up."""
        last = 0
        for tag, begin, end in self._places:
            if not last < tag < min(PIXELS) or end > self._first_base + len(self._first):
                return
            yield Run(tag, self._first[begin - self._first_base : end - self._first_base])
            last = tag

    def guessed(self, tag: int) -> bytes:
        """Probably the UID under a tag, by where its bytes stand first in the window, unparsed; else another, or none."""
        head = self._implicit.pack(tag >> 16, tag & 0xFFFF, 0)[:4]
        match = _UID.match(self._first, self._first.find(head) + 8)
        return match[0] if match else b""

    def _rest(self, found: DataSet, at: int, last: int) -> None:
        self._places.clear()
        while not self._is_over(at, last):
            begin = at
            last, at = self._element(found, at, self._end, self._encoding.implicit, 0)
            self._places.append((last, begin, at))
        self.at = at

    def _is_over(self, at: int, last: int) -> bool:
        """True where the group ends, the rest is padding of zeros, or lies behind the pixel data and is no element that could follow it."""
        head = self._peek(at, 8)
        if self._group is not None:
            return head[:2] != self._group
        if not head.strip(b"\0"):
            return at >= self._end or self._rest_is_zero(at)
        if last < _PIXEL_DATA:
            return False
        if len(head) < 8:  # noqa: PLR2004 - the shortest element
            return True
        high, low, vr, _ = self._explicit.unpack(head)
        return bool((high << 16 | low) <= last) or not (self._encoding.implicit or vr in _VRS)

    def _rest_is_zero(self, at: int) -> bool:
        self._stream.seek(at)
        while chunk := self._stream.read(WINDOW):
            if any(chunk):
                return False
        return True

    def _element(self, found: DataSet, at: int, limit: int, implicit: bool, depth: int) -> tuple[int, int]:  # noqa: FBT001 - as in the standard
        """Puts the element that begins at `at` into `found`; returns its tag and where it ends."""
        head = self._header(at, limit, implicit)
        tag, vr, kind, length, begin = head
        if tag in found:
            self._unreadable(f"{_shown(tag)} stands twice in one data set")
        self.elements += 1
        if self.elements > MAX_ELEMENTS:
            self._unreadable(f"more than {MAX_ELEMENTS} elements")
        end = begin + length
        if length == _UNDEFINED:
            found[tag], end = self._undefined(head, limit, implicit, depth)
        elif end > limit:
            self._beyond(tag)
        elif kind == "SQ" or (kind == "UN" and self._encoding.little and _kind(tag) == "SQ"):
            items, _ = self._items(tag, begin, end, implicit or kind == "UN", depth, delimited=False)
            found[tag] = Element(tag, vr, self._held(begin, end), items)
        else:
            found[tag] = Element(tag, vr, self._value(tag, begin, length))
        return tag, end

    def _header(self, at: int, limit: int, implicit: bool) -> _Head:  # noqa: FBT001 - as in the standard
        index = self._show(at, 8, limit)
        if implicit:
            high, low, length = self._implicit.unpack_from(self._window, index)
        else:
            high, low, code, length = self._explicit.unpack_from(self._window, index)
        tag = high << 16 | low
        if high == 0xFFFE:  # noqa: PLR2004 - the group of items and delimiters
            self._unreadable(f"{_shown(tag)} where an element should begin")
        if implicit:
            return tag, None, _kind(tag), length, at + 8
        vr = _VRS.get(code)
        if vr is None:
            self._unreadable(f"{_shown(tag)} has no VR of the standard")
        if vr in _SHORT:
            return tag, vr, vr, length, at + 8
        index = self._show(at + 8, 4, limit)
        return tag, vr, vr, self._long.unpack_from(self._window, index)[0], at + 12

    def _value(self, tag: int, begin: int, length: int) -> Value:
        if length > WINDOW or tag in PIXELS:
            return Bulk(self._stream, range(begin, begin + length))
        index = self._show(begin, length, self._end)
        return self._window[index : index + length]

    def _held(self, begin: int, end: int) -> Value:
        """The value of a sequence, which hardly anybody asks for."""
        index = begin - self._base
        if index < 0 or end - self._base > len(self._window):
            return Bulk(self._stream, range(begin, end))
        return self._window[index : end - self._base]

    def _undefined(self, head: _Head, limit: int, implicit: bool, depth: int) -> tuple[Element, int]:  # noqa: FBT001
        """An element without a length, and where it ends."""
        tag, vr, kind, _, begin = head
        if kind in _FRAGMENTED and tag == _PIXEL_DATA:
            if not self._encoding.encapsulated:
                self._unreadable(f"{_shown(tag)} has no length in a transfer syntax that wants one")
            end = self._fragments(tag, begin, limit)
            return Element(tag, vr, Bulk(self._stream, range(begin, end)), undefined=True), end + 8
        if kind not in {"SQ", "UN", ""}:
            self._unreadable(f"{_shown(tag)} has no length, and is no sequence")
        # UN without a length is a sequence of implicit VR, in every transfer syntax (PS3.5 6.2.2).
        items, end = self._items(tag, begin, limit, implicit, depth, delimited=True)
        return Element(tag, "SQ", b"", items, undefined=True), end

    def _items(self, tag: int, at: int, limit: int, implicit: bool, depth: int, *, delimited: bool) -> tuple[list[DataSet], int]:  # noqa: FBT001
        if depth >= MAX_DEPTH:
            self._unreadable(f"sequences nested deeper than {MAX_DEPTH}")
        found: list[DataSet] = []
        while delimited or at < limit:
            head, length = self._item_header(at, limit)
            at += 8
            if head == _SEQUENCE_END and delimited:
                break
            if head != _ITEM:
                self._unreadable(f"{_shown(tag)} holds something else where an item should begin")
            if length != _UNDEFINED and at + length > limit:
                self._beyond(tag)
            end = limit if length == _UNDEFINED else at + length
            item, at = self._item(at, end, implicit, depth, delimited=length == _UNDEFINED)
            found.append(item)
        return found, at

    def _item(self, at: int, limit: int, implicit: bool, depth: int, *, delimited: bool) -> tuple[DataSet, int]:  # noqa: FBT001
        implicit = implicit or self._turns_implicit(at, limit)
        found = DataSet()
        while delimited or at < limit:
            if delimited and self._item_header(at, limit)[0] == _ITEM_END:
                at += 8
                break
            _, at = self._element(found, at, limit, implicit, depth + 1)
        return _in_order(found), at

    def _turns_implicit(self, at: int, limit: int) -> bool:
        """True where an item in explicit VR holds implicit VR: in UN, and from some writers elsewhere."""
        head = self._peek(at, min(6, limit - at))
        if len(head) < 6 or self._short.unpack_from(head)[0] == 0xFFFE:  # noqa: PLR2004
            return False
        return not head[4:6].isalpha() or not head[4:6].isupper()

    def _fragments(self, tag: int, at: int, limit: int) -> int:
        """Where the last fragment ends, and the delimiter begins."""
        while True:
            head, length = self._item_header(at, limit)
            if head == _SEQUENCE_END:
                return at
            if head != _ITEM or length == _UNDEFINED:
                self._unreadable(f"{_shown(tag)} holds something else where a fragment should begin")
            at += 8 + length
            if at > limit:
                self._beyond(tag)

    def _item_header(self, at: int, limit: int) -> tuple[int, int]:
        index = self._show(at, 8, limit)
        high, low, length = self._implicit.unpack_from(self._window, index)
        return high << 16 | low, length

    def _show(self, at: int, count: int, limit: int) -> int:
        """Where in the window so many bytes of the stream begin, which must lie within `limit`."""
        index = at - self._base
        if at + count > limit:
            raise Reject("truncated", "the data set ends inside an element")
        if index < 0 or index + count > len(self._window):
            self._stream.seek(at)
            self._window, self._base, index = self._stream.read(max(WINDOW, count)), at, 0
            if len(self._window) < count:
                raise Reject("truncated", "the file has become shorter")
        return index

    def _peek(self, at: int, count: int) -> bytes:
        """So many bytes, or what is left."""
        if at + count > self._end:
            count = max(0, self._end - at)
        index = self._show(at, count, self._end)
        return self._window[index : index + count]

    @staticmethod
    def _beyond(tag: int) -> NoReturn:
        raise Reject("truncated", f"{_shown(tag)} is longer than what holds it")

    @staticmethod
    def _unreadable(detail: str) -> NoReturn:
        raise Reject("unreadable", detail)


def _shown(tag: int) -> str:
    """A tag for a message; one of no attribute may be bytes of a value, read out of step, and those are nobody's business."""
    return text_of(tag) if tag >> 16 == 0xFFFE or known_vr(tag) else "an unknown element"  # noqa: PLR2004


def _in_order(found: DataSet) -> DataSet:
    tags = list(found)
    return found if tags == sorted(tags) else DataSet(sorted(found.items()))


def _kind(tag: int) -> str:
    """The dictionary's VR for an element that comes without one; empty where it knows none."""
    return (known_vr(tag) or "")[:2]
