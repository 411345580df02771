"""Writes what `deidentify` gives: the bytes depend on nothing but the data set."""

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from dicomrx.deid.encoding import Encoding

# The same as the receiver's: one program, one UID (made from a random UUID, PS3.5 B.2).
IMPLEMENTATION_CLASS_UID: Final = "2.25.180359664797480045516660657176646159747"
IMPLEMENTATION_VERSION: Final = "DICOMRX"

_UNDEFINED: Final = 0xFFFFFFFF
_LONG: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_NUL_PADDED: Final = frozenset({"UI", "OB", "UN"})


def raw(tag: int, vr: str, value: bytes, encoding: Encoding, *, undefined: bool = False) -> RawDataElement:
    """An element from its bytes, padded to even length."""
    if len(value) & 1:
        value += b"\0" if vr in _NUL_PADDED else b" "
    length = _UNDEFINED if undefined else len(value)
    return RawDataElement(_base_tag(tag), vr, length, value, 0, encoding.implicit, encoding.little)
