"""Whether the bytes of a value are what its VR says (PS3.5 Table 6.2-1), so that no kept element carries something else."""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VM

# The size of one value of each binary VR.
SIZES: Final = {
    "AT": 4, "FD": 8, "FL": 4, "OD": 8, "OF": 4, "OL": 4, "OV": 8, "OW": 2,
    "SL": 4, "SS": 2, "SV": 8, "UL": 4, "US": 2, "UV": 8,
}  # fmt: skip
# Numbers whose bytes all look like text are text under a wrong VR. From so many bytes on: one double of that kind is beyond any
# physical value; four floats or four integers of that kind in a row come about by chance once in ten million.
_TEXT_FROM: Final = {"FL": 16, "OF": 16}
_TEXT_FROM_OTHERS: Final = 8
_ARRAYS: Final = frozenset({"OD", "OF", "OL", "OV", "OW"})
_TEXT_BYTES: Final = re.compile(rb"[A-Za-z0-9 ^=.,:;_@/\\-]+\0?")

_CODE_STRING: Final = re.compile(rb" *[A-Z0-9_ ]{0,16}[ \0]*")
# A run of 5 digits is a number, and no defined term has one.
_LONG_NUMBER: Final = re.compile(rb"[0-9]{5}")
_DECIMAL: Final = re.compile(rb" *(?:[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)?[ \0]*")
_INTEGER: Final = re.compile(rb" *(?:[+-]?[0-9]{1,12}(?:\.0*)?)?[ \0]*")  # some writers add the point of a decimal
_DECIMAL_LIMIT: Final = 32  # the standard allows 16; programs write every digit of a double
_UID: Final = re.compile(rb"(?:[0-9]+(?:\.[0-9]+)*)?[\0 ]*")
_UID_LIMIT: Final = 64

# What technical text looks like: words, numbers and their punctuation; no name (^, =), no address (@), no long number, no date.
_TECHNICAL: Final = re.compile(r"[\w .,:;/()\[\]+*<>%#&'\"|~µ°²³-]{0,64}")
_IDENTIFYING: Final = re.compile(r"\d{6}|(?:19|20)\d\d[-./]\d{1,2}[-./]\d|\d[-./]\d{1,2}[-./](?:19|20)\d\d")
_CODE: Final = re.compile(r"[A-Za-z0-9._:/+*%{}()\[\]-]{0,64} *")
_VM: Final = re.compile(r"(\d+)(?:-(\d*)(n?))?")


def decoded(value: bytes, charset: tuple[str, ...]) -> str | None:
    """The text under a Specific Character Set (0008,0005); None where it is not text of that set, or switches sets by escapes."""
    first = charset[0] if charset else ""
    codec = python_encoding.get(first) if first not in {"", "ISO_IR 6", "ISO 2022 IR 6"} else "ascii"
    if codec is None or b"\x1b" in value:
        return None
    try:
        return value.decode(codec)
    except UnicodeDecodeError:
        return None


def is_technical(value: bytes, charset: tuple[str, ...]) -> bool:
    """True for text such as a kernel, a mode or a maker's name: no name, date, address or long number."""
    text = decoded(value, charset)
    if text is None or _IDENTIFYING.search(text):
        return False
    return all(_TECHNICAL.fullmatch(part) for part in text.rstrip("\0").split("\\"))


def is_code(value: bytes) -> bool:
    """True for one code of a terminology."""
    return value.isascii() and _CODE.fullmatch(value.decode("ascii").rstrip("\0")) is not None


def is_uid(value: bytes) -> bool:
    """True for UIDs of PS3.5 9.1; leading zeros, which scanners in use write, are let pass."""
    return all(_UID.fullmatch(part) and len(part) <= _UID_LIMIT for part in value.split(b"\\"))


def is_single_uid(value: bytes) -> bool:
    """True for one UID, or none."""
    return b"\\" not in value and is_uid(value)


def is_charset(value: bytes) -> bool:
    """True where every term of a Specific Character Set (0008,0005) is known."""
    return all(term in python_encoding for term in charset_terms(value))


def charset_terms(value: bytes) -> tuple[str, ...]:
    """The terms of a Specific Character Set (0008,0005)."""
    return tuple(part.strip(b" \0").decode("latin-1") for part in value.split(b"\\"))


def _each(pattern: re.Pattern[bytes], limit: int | None = None) -> Callable[[bytes], bool]:
    def check(value: bytes) -> bool:
        return all(pattern.fullmatch(part) and (limit is None or len(part) <= limit) for part in value.split(b"\\"))

    return check


def is_code_string(value: bytes) -> bool:
    """True for one coded string (CS) such as a standard or a vendor defines."""
    return not _LONG_NUMBER.search(value) and _CODE_STRING.fullmatch(value) is not None


_STRINGS: Final[dict[str, Callable[[bytes], bool]]] = {
    "CS": lambda value: all(map(is_code_string, value.split(b"\\"))),
    "DS": _each(_DECIMAL, _DECIMAL_LIMIT),
    "IS": _each(_INTEGER),
    "UI": is_uid,
}


def is_number(tag: int, vr: str, value: bytes) -> bool:
    """True where the value of a CS, DS, IS, UI or binary VR is what VR and VM of the dictionary say."""
    if vr in _STRINGS:
        return _STRINGS[vr](value)
    count, rest = divmod(len(value), SIZES[vr])
    if rest or not (vr in _ARRAYS or _multiplicity_allows(tag, count)):
        return False
    return not looks_like_text(vr, value)


def looks_like_text(vr: str, value: bytes) -> bool:
    """True where every byte of a binary value is a letter, a digit or the punctuation between them."""
    return len(value) >= _TEXT_FROM.get(vr, _TEXT_FROM_OTHERS) and _TEXT_BYTES.fullmatch(value) is not None


@lru_cache(maxsize=4096)
def _multiplicity_allows(tag: int, count: int) -> bool:
    if count == 0:
        return True
    allowed = (_VM.fullmatch(part) for part in dictionary_VM(tag).split(" or "))
    return any(_one_multiplicity(match, count) for match in allowed if match)


def _one_multiplicity(match: re.Match[str], count: int) -> bool:
    least, most, repeats = int(match[1]), match[2], match[3]
    if repeats:
        step = int(most or 1)
        return count >= least and count % step == 0
    return least <= count <= int(most or least)
