"""The comment and application segments of JPEG family pixel data, in which programs write names and dates."""

import struct
import unicodedata
from collections.abc import Iterator
from typing import Final

from dicomrx.deid.dataset import Value

_MARKER: Final = struct.Struct(">BBH")
_ITEM: Final = b"\xfe\xff\x00\xe0"
# JPEG and JPEG-LS: APPn and COM; JPEG 2000: COM.
_COMMENTS: Final = frozenset({*range(0xE0, 0xF0), 0xFE, 0x64})
_STARTS: Final = frozenset({b"\xff\xd8", b"\xff\x4f"})
# Start of scan, of a tile part, end of image: behind these there are pixels.
_PIXELS_BEGIN: Final = frozenset({0xDA, 0x90, 0xD9})


def comment_segments(pixel_data: Value) -> Iterator[tuple[str, ...]]:
    """The readings of every such segment in the frames of an encapsulated value (PS3.5 A.4); nothing for other pixel data.

    No character set is declared in there: ASCII is read as it is, the rest as Latin-1, UTF-8, and without the zeros of UTF-16.
    """
    frame: list[range] = []
    for fragment in _fragments(pixel_data):
        if pixel_data[fragment.start : fragment.start + 2] in _STARTS:
            yield from _in_frame(pixel_data, frame)
            frame = [fragment]
        elif frame:
            frame.append(fragment)
    yield from _in_frame(pixel_data, frame)


def _fragments(pixel_data: Value) -> Iterator[range]:
    """Where the bytes of each are; the first is the offset table."""
    position = 0
    while pixel_data[position : position + 4] == _ITEM:
        length = int.from_bytes(pixel_data[position + 4 : position + 8], "little")
        begin, position = position + 8, position + 8 + length
        yield range(begin, position)


def _in_frame(pixel_data: Value, fragments: list[range]) -> Iterator[tuple[str, ...]]:
    """Of a frame that lies in one fragment, as nearly all do, nothing is copied."""
    if len(fragments) == 1:
        yield from _segments(pixel_data, fragments[0].start + 2, fragments[0].stop)
    elif fragments:
        whole = b"".join(pixel_data[fragment.start : fragment.stop] for fragment in fragments)
        yield from _segments(whole, 2, len(whole))


def _segments(data: Value, position: int, end: int) -> Iterator[tuple[str, ...]]:
    end = min(end, len(data))
    while position + 4 <= end:
        start, marker, length = _MARKER.unpack(data[position : position + 4])
        if start != 0xFF or marker in _PIXELS_BEGIN:  # noqa: PLR2004 - every marker begins so
            return
        if marker == 0xFF:  # noqa: PLR2004 - fill bytes may stand before any marker
            position += 1
            continue
        if marker in _COMMENTS:
            yield _readings(data[position + 4 : min(position + 2 + length, end)])
        position += 2 + length


def _readings(segment: bytes) -> tuple[str, ...]:
    plain = segment.replace(b"\0", b"")
    made = {segment.decode("latin-1"), plain.decode("latin-1"), plain.decode("utf-8", "replace")}
    return tuple(sorted(unicodedata.normalize("NFC", text) for text in made))
