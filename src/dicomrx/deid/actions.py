"""What is done to one value: functions of (context, tag, VR, bytes) that give bytes, or None where the element goes.

They know nothing of files or parsers, so that any engine can share them. Codes of PS3.15 Table E.1-1: D dummy, Z empty,
X remove, U a new UID, K keep. Bytes are given without the padding to even length.
"""

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from pydicom._uid_dict import UID_dictionary

from dicomrx.deid import extra_rules, values
from dicomrx.deid.dataset import Value
from dicomrx.deid.dummies import DUMMIES

# One component of a PN, one value of an LO, the same in every character set.
_PSEUDONYM: Final = re.compile(r"[!-<>-\[\]_-~][ -<>-\[\]_-~]{0,63}")
_KEY_BYTES: Final = 32
_SHIFTS: Final = range(366, 3651)
_PIXEL_GROUP: Final = 0x7FE0


@dataclass(frozen=True, slots=True, repr=False)
class Context:
    """All that an action may know of an instance: the patient's pseudonym, the site's UID key, and the character set around the value.

    `date_shift` is how many days the patient's dates move back; `own_words` are the words of the instance's own identifiers, case-folded.
    """

    pseudonym: str
    uid_key: bytes
    charset: tuple[str, ...] = ()
    date_shift: int = field(kw_only=True)
    own_words: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Raises ValueError for a pseudonym that is no valid LO in every character set, a short key, or a shift out of range."""
        if not _PSEUDONYM.fullmatch(self.pseudonym):
            raise ValueError("a pseudonym has 1 to 64 printable ASCII characters and no backslash, caret or equals sign")
        if len(self.uid_key) < _KEY_BYTES:
            raise ValueError("a UID key has at least 32 bytes")
        if self.date_shift not in _SHIFTS:
            raise ValueError("dates move back by 366 to 3650 days")


Action = Callable[[Context, int, str, bytes], Value | None]


def pseudonymous_uid(uid_key: bytes, uid: str) -> str:
    """The UID that stands for `uid` wherever that is referred to: the same for one key, in every run and every process.

    A UUID-derived UID (PS3.5 B.2) of the first 128 bits of HMAC-SHA256; padding around `uid` does not matter.
    """
    return _uid(uid_key, uid.encode("utf-8")).decode("ascii")


def _uid(uid_key: bytes, uid: bytes) -> bytes:
    digest = hmac.digest(uid_key, uid.strip(b" \0"), hashlib.sha256)
    return b"2.25.%d" % int.from_bytes(digest[:16], "big")


def remove(_context: Context, _tag: int, _vr: str, _value: bytes) -> bytes | None:
    """X."""
    return None


def empty(_context: Context, _tag: int, _vr: str, _value: bytes) -> bytes | None:
    """Z."""
    return b""


def dummy(_context: Context, _tag: int, vr: str, _value: bytes) -> bytes | None:
    """D, also where the value was empty."""
    return DUMMIES[vr][0]


def text_dummy(_context: Context, _tag: int, vr: str, value: bytes) -> bytes | None:
    """D for attributes outside the table: what was empty stays empty."""
    return DUMMIES[vr][0] if value.strip(b" \0") else b""


def pseudonym(context: Context, _tag: int, _vr: str, _value: bytes) -> bytes | None:
    """The patient's pseudonym, for names and IDs alike."""
    return context.pseudonym.encode("ascii")


def new_uid(context: Context, _tag: int, _vr: str, value: bytes) -> bytes | None:
    """U: each UID of the value by HMAC; those that PS3.6 registers stay, empty ones too.

    Not all that begins as these do: some devices make their instances' UIDs so.
    """
    return b"\\".join(_mapped(context, part, ()) for part in value.split(b"\\"))


def terminology_uid(context: Context, _tag: int, _vr: str, value: bytes) -> bytes | None:
    """U, but what the registry of code systems holds stays as well."""
    return b"\\".join(_mapped(context, part, extra_rules.TERMINOLOGY_ROOTS) for part in value.split(b"\\"))


def keep_uid(context: Context, tag: int, vr: str, value: bytes) -> bytes | None:
    """K; what is no UID is treated as an instance's."""
    return value if values.is_uid(value) else new_uid(context, tag, vr, value)


def _mapped(context: Context, uid: bytes, kept: tuple[bytes, ...]) -> bytes:
    bare = uid.strip(b" \0")
    if not bare or bare.decode("latin-1") in UID_dictionary or (bare.startswith(kept) and values.is_uid(bare)):
        return bare
    return _uid(context.uid_key, bare)


def keep_number(_context: Context, tag: int, vr: str, value: bytes) -> bytes | None:
    """K where the bytes are what the VR says; else the element goes."""
    return value if values.is_number(tag, vr, value) else None


def keep_coded(context: Context, tag: int, vr: str, value: bytes) -> bytes | None:
    """K for coded strings; among several, as in Image Type (0008,0008), only the one that is none takes the dummy."""
    parts = value.split(b"\\")
    if len(parts) == 1 or not any(part.strip(b" \0") and values.is_code_string(part) for part in parts):
        return keep_number(context, tag, vr, value)
    return b"\\".join(part if values.is_code_string(part) else DUMMIES[vr][0] for part in parts)


def keep_technical(context: Context, tag: int, vr: str, value: bytes) -> bytes | None:
    """K for technical text; anything else takes the dummy."""
    return value if values.is_technical(value, context.charset) else text_dummy(context, tag, vr, value)


def keep_code(context: Context, tag: int, vr: str, value: bytes) -> bytes | None:
    """K for a code; anything else takes the dummy."""
    return value if values.is_code(value) else text_dummy(context, tag, vr, value)


def keep_charset(_context: Context, _tag: int, _vr: str, value: bytes) -> bytes | None:
    """K where every term is known; else the element goes, and with it all text beyond ASCII."""
    return value if values.is_charset(value) else None


def keep_bulk(_context: Context, tag: int, vr: str, value: Value) -> Value | None:
    """K, unread for pixels; a table or waveform that is text from end to end goes."""
    return None if tag >> 16 != _PIXEL_GROUP and values.looks_like_text(vr, bytes(value)) else value


# The code of a rule -> the action on a value that has no rule of its own.
BY_CODE: Final[dict[str, Action]] = {"X": remove, "Z": empty, "D": dummy, "U": new_uid, "K": keep_number}
