"""Whether the bytes of a value are what its VR says (PS3.5 Table 6.2-1), so that no kept element carries something else."""

import logging
import re
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from pydicom.charset import convert_encodings, decode_bytes, python_encoding
from pydicom.datadict import dictionary_VM

# pydicom quotes values in what it logs and warns of; none of them may reach a log (PS3.15 says nothing here, design promise 10 does).
logging.getLogger("pydicom").disabled = True

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
# Characters of one value (PS3.5 Table 6.2-1; of a PN, of one component group); None: as many as one likes.
_TEXT_LIMITS: Final = {"AE": 16, "LO": 64, "LT": 10240, "PN": 64, "SH": 16, "ST": 1024, "UC": None, "UR": None, "UT": None}
TEXTS: Final = frozenset(_TEXT_LIMITS)
_MULTIPLE: Final = frozenset({"AE", "LO", "PN", "SH", "UC"})
_DELIMITERS: Final = frozenset(b"\n\r\f\t^=\\")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_UNPRINTABLE_IN_PROSE: Final = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]")
_PROSE: Final = frozenset({"LT", "ST", "UT"})
_VM: Final = re.compile(r"(\d+)(?:-(\d*)(n?))?")


def _codec(charset: tuple[str, ...]) -> str | None:
    first = charset[0] if charset else ""
    return python_encoding.get(first) if first not in {"", "ISO_IR 6", "ISO 2022 IR 6"} else "ascii"


def decoded(value: bytes, charset: tuple[str, ...]) -> str | None:
    """The text under a Specific Character Set (0008,0005); None where it is not text of that set, or switches sets by escapes."""
    codec = _codec(charset)
    if codec is None or b"\x1b" in value:
        return None
    try:
        return value.decode(codec)
    except UnicodeDecodeError:
        return None


def decoded_with_escapes(value: bytes, charset: tuple[str, ...]) -> str | None:
    """As `decoded`, and also where the text switches sets (PS3.5 6.1.2.5)."""
    text = decoded(value, charset)
    if text is None and b"\x1b" in value:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            text = decode_bytes(value, convert_encodings(list(charset)), set(_DELIMITERS))
    return None if text is None or "\N{REPLACEMENT CHARACTER}" in text else text


def encoded(text: str, charset: tuple[str, ...]) -> bytes | None:
    """The bytes of a text in the first set of a Specific Character Set (0008,0005); None where it cannot be written so."""
    try:
        return text.encode(_codec(charset) or "ascii")
    except UnicodeEncodeError:
        return None


def each_value(vr: str, text: str) -> list[str]:
    """The values of a text: several where its VR has a backslash between them."""
    return text.split("\\") if vr in _MULTIPLE else [text]


def is_text(vr: str, text: str) -> bool:
    """True where a text has the length and the characters of its VR."""
    limit = _TEXT_LIMITS[vr]
    if (_UNPRINTABLE_IN_PROSE if vr in _PROSE else _UNPRINTABLE).search(text):
        return False
    parts = [group for part in each_value(vr, text) for group in (part.split("=") if vr == "PN" else [part])]
    return limit is None or all(len(part) <= limit for part in parts)


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
    parts = value.split(b"\\")
    return all(map(_UID.fullmatch, parts)) and max(map(len, parts)) <= _UID_LIMIT


def is_single_uid(value: bytes) -> bool:
    """True for one UID, or none."""
    return b"\\" not in value and is_uid(value)


def is_charset(value: bytes) -> bool:
    """True where every term of a Specific Character Set (0008,0005) is known."""
    return all(term in python_encoding for term in charset_terms(value))


@lru_cache(maxsize=64)
def known_terms(value: bytes) -> tuple[str, ...]:
    """The terms of a Specific Character Set (0008,0005); none where one of them is not known."""
    return charset_terms(value) if is_charset(value) else ()


def charset_terms(value: bytes) -> tuple[str, ...]:
    """The terms of a Specific Character Set (0008,0005)."""
    return tuple(part.strip(b" \0").decode("latin-1") for part in value.split(b"\\"))


def _each(pattern: re.Pattern[bytes], limit: int | None = None) -> Callable[[bytes], bool]:
    def check(value: bytes) -> bool:
        parts = value.split(b"\\")
        return all(map(pattern.fullmatch, parts)) and (limit is None or max(map(len, parts)) <= limit)

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
    if rest or not (vr in _ARRAYS or tag >> 16 & 1 or _multiplicity_allows(tag, count)):
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
