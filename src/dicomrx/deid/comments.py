"""The comment and application segments of JPEG family pixel data, in which programs write names and dates."""

from collections.abc import Iterator
from typing import Final

_ITEM: Final = b"\xfe\xff\x00\xe0"
# JPEG and JPEG-LS: APPn and COM; JPEG 2000: COM.
_COMMENTS: Final = frozenset({*range(0xE0, 0xF0), 0xFE, 0x64})
_STARTS: Final = frozenset({b"\xff\xd8", b"\xff\x4f"})
# Start of scan, of a tile part, end of image: behind these there are pixels.
_PIXELS_BEGIN: Final = frozenset({0xDA, 0x90, 0xD9})


def comment_segments(pixel_data: bytes) -> Iterator[str]:
    """The text of every such segment, fragment by fragment of an encapsulated value (PS3.5 A.4); nothing for other pixel data."""
    position = 0
    while pixel_data[position : position + 4] == _ITEM:
        length = int.from_bytes(pixel_data[position + 4 : position + 8], "little")
        begin, position = position + 8, position + 8 + length
        if pixel_data[begin : begin + 2] in _STARTS:
            yield from _segments(pixel_data, begin + 2, position)


def _segments(data: bytes, position: int, end: int) -> Iterator[str]:
    while position + 4 <= end and data[position] == 0xFF:  # noqa: PLR2004 - every marker begins so
        marker = data[position + 1]
        if marker in _PIXELS_BEGIN:
            return
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if marker in _COMMENTS:
            yield data[position + 4 : min(position + 2 + length, end)].decode("latin-1")
        position += 2 + length
