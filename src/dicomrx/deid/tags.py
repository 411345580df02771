"""What a tag alone tells."""

from functools import lru_cache
from typing import Final

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.tag import BaseTag

# In order of preference: where the pixels of an image are.
PIXELS: Final = (0x7FE00008, 0x7FE00009, 0x7FE00010)

# Those of private creators.
_FIRST_BLOCK: Final = 0x10
_LAST_BLOCK: Final = 0xFF


def text_of(tag: int) -> str:
    """A tag as the standard prints it."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


@lru_cache(maxsize=16384)
def known_vr(tag: int) -> str | None:
    """The VR of the dictionary, or None."""
    return dictionary_VR(BaseTag(tag)) if dictionary_has_tag(BaseTag(tag)) else None


def creator_tag(tag: int) -> int | None:
    """Where the creator of a private element stands in its data set or item; None for an element that belongs to no block."""
    block = tag >> 8 & 0xFF
    return tag & 0xFFFF0000 | block if tag >> 16 & 1 and block >= _FIRST_BLOCK else None


def is_creator(tag: int) -> bool:
    """True where a creator stands."""
    return bool(tag >> 16 & 1) and _FIRST_BLOCK <= tag & 0xFFFF <= _LAST_BLOCK
