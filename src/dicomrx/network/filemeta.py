"""The head of a DICOM file (PS3.10 7.1): preamble, prefix and file meta information."""

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO, Final

from dicomrx.network.wire import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION, even, uid_text

_PREAMBLE: Final = bytes(128)  # zeros: a preamble can make the file a program too (CVE-2019-11687)
_PREFIX: Final = b"DICM"
_SHORT: Final = struct.Struct("<HH2sH")
_LONG: Final = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_MAX_META: Final = 1 << 20


def file_head(*, sop_class: str, sop_instance: str, transfer_syntax: str, calling: str, called: str) -> bytes:
    """All of the file before the data set; AE titles that are empty are left out."""
    instance = _uid(0x0003, sop_instance)
    before, behind = _around(len(instance), sop_class, transfer_syntax, calling, called)
    return before + instance + behind


@lru_cache(maxsize=256)
def _around(length: int, sop_class: str, transfer_syntax: str, calling: str, called: str) -> tuple[bytes, bytes]:
    """What stands before and behind a SOP Instance UID, an element of `length` bytes: the same for all of a series."""
    behind = _uid(0x0010, transfer_syntax) + _uid(0x0012, IMPLEMENTATION_CLASS_UID)
    behind += _short(0x0013, b"SH", even(IMPLEMENTATION_VERSION.encode("ascii"), b" "))
    for element, title in ((0x0016, calling), (0x0017, calling), (0x0018, called)):
        if title:
            behind += _short(element, b"AE", even(title.encode("ascii"), b" "))
    before = _long(0x0001, b"OB", b"\0\1") + _uid(0x0002, sop_class)
    group_length = _short(0x0000, b"UL", struct.pack("<I", len(before) + length + len(behind)))
    return _PREAMBLE + _PREFIX + group_length + before, behind


def _uid(element: int, uid: str) -> bytes:
    return _short(element, b"UI", even(uid.encode("ascii"), b"\0"))


def _short(element: int, vr: bytes, value: bytes) -> bytes:
    return _SHORT.pack(2, element, vr, len(value)) + value


def _long(element: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sxxI", 2, element, vr, len(value)) + value


@dataclass(frozen=True, slots=True)
class FileMeta:
    """What a sender must know of a file; `offset` is where its data set begins."""

    sop_class: str
    sop_instance: str
    transfer_syntax: str
    offset: int


def read_meta(file: BinaryIO) -> FileMeta | None:
    """The file meta information of an open file; None where it has none, or not what sending takes."""
    head = file.read(_MAX_META)
    offset = 132 if head[128:132] == _PREFIX else 0
    found: dict[int, bytes] = {}
    while head[offset : offset + 2] == b"\2\0" and len(head) - offset >= 8:  # noqa: PLR2004 - the shortest element
        element, vr, length = struct.unpack_from("<H2sH", head, offset + 2)
        offset += 8
        if vr in _LONG:
            length = int.from_bytes(head[offset : offset + 4], "little")
            offset += 4
        if offset + length > len(head):
            return None
        found[element] = head[offset : offset + length]
        offset += length
    sop_class, sop_instance, syntax = (uid_text(found.get(element)) for element in (0x0002, 0x0003, 0x0010))
    if sop_class is None or sop_instance is None or syntax is None:
        return None
    return FileMeta(sop_class, sop_instance, syntax, offset)
