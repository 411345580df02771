"""STUB until the table is merged: the same signature, and next to no attributes."""

from typing import Final

_SAFE: Final = {
    ("GEMS_PARM_01", 0x00430039): "IS",
    ("SIEMENS MR HEADER", 0x0019000C): "IS",
    ("SIEMENS MR HEADER", 0x00190008): "CS",
    ("Philips PET Private Group", 0x70530000): "DS",
    ("CTP", 0x00130010): "LO",
}


def vr_of(creator: str, tag: int) -> str | None:
    """The VR of a private attribute that PS3.15 Table E.3.10-1 calls safe; None for any other."""
    return _SAFE.get((creator, tag & 0xFFFF00FF))
