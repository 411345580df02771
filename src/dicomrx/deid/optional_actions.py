"""What the options do to one value: functions like those of `actions`, but None means that the basic action is to be done instead."""

import hashlib
import hmac
from typing import Final

from dicomrx.deid import dates, descriptors, values
from dicomrx.deid.actions import Action, Context, keep_bulk, keep_coded, keep_number, keep_uid
from dicomrx.deid.dataset import Value
from dicomrx.deid.dummies import DUMMIES

_TITLE_DIGITS: Final = 12


def otherwise(action: Action, basic: Action) -> Action:
    """The action, or `basic` where it gives nothing."""

    def either(context: Context, tag: int, vr: str, value: bytes) -> Value | None:
        made = action(context, tag, vr, value)
        return basic(context, tag, vr, value) if made is None else made

    return either


def keep_date(_context: Context, _tag: int, vr: str, value: bytes) -> bytes | None:
    """K for dates; what is none takes the dummy."""
    return b"\\".join(_or_dummy(vr, dates.kept(vr, part)) if part else b"" for part in _parts(value))


def shift_date(context: Context, _tag: int, vr: str, value: bytes) -> bytes | None:
    """C: full dates move back by the patient's shift, what is none takes the dummy; nothing where a date stands for none."""
    parts = _parts(value)
    if any(dates.is_placeholder(vr, part) for part in parts):
        return None
    return b"\\".join(_or_dummy(vr, dates.moved(vr, part, context.date_shift)) if part else b"" for part in parts)


def keep_time(_context: Context, _tag: int, vr: str, value: bytes) -> bytes | None:
    """K and C alike: whole days leave the time of day as it is; what is none takes the dummy."""
    return b"\\".join(_or_dummy(vr, part if not part or dates.is_time(part) else None) for part in _parts(value))


def keep_utc_offset(_context: Context, _tag: int, _vr: str, value: bytes) -> bytes | None:
    """K for a Timezone Offset From UTC (0008,0201)."""
    return value if all(not part or dates.is_utc_offset(part) for part in _parts(value)) else None


def keep_age(_context: Context, _tag: int, vr: str, value: bytes) -> bytes | None:
    """K, but for ages over 89 years; what is no age takes the dummy."""
    return b"\\".join(_or_dummy(vr, dates.capped_age(part)) if part else b"" for part in _parts(value))


def keep_text(context: Context, _tag: int, vr: str, value: bytes) -> bytes | None:
    """K where it is text of its VR and character set; anything else takes the dummy."""
    text = values.decoded_with_escapes(value, context.charset)
    return value if text is not None and values.is_text(vr, text.rstrip("\0")) else DUMMIES[vr][0]


def clean_text(context: Context, _tag: int, vr: str, value: bytes) -> bytes | None:
    """C for text: its known-safe words; nothing where none is left."""
    text = values.decoded_with_escapes(value, context.charset)
    if text is None:
        return None
    parts = [descriptors.clean(part, context.own_words) for part in values.each_value(vr, text.strip("\0 "))]
    cleaned = "\\".join(parts)
    return values.encoded(cleaned, context.charset) if any(parts) and values.is_text(vr, cleaned) else None


def clean_coded(context: Context, tag: int, vr: str, value: bytes) -> bytes | None:
    """C for a coded string: its known-safe words, where they still are one."""
    cleaned = clean_text(context, tag, "LO", value)
    return cleaned if cleaned is not None and values.is_number(tag, vr, cleaned) else None


def pseudonymous_title(context: Context, _tag: int, _vr: str, value: bytes) -> bytes | None:
    """C for AE titles: the same for the same title, for ever, and nothing of it."""
    titles = (part.strip(b"\0 ") for part in value.split(b"\\"))
    return b"\\".join(_title(context.uid_key, title) if title else b"" for title in titles)


def _title(uid_key: bytes, title: bytes) -> bytes:
    # What no UID begins with, so that no title shares its digest with one.
    return b"AE" + hmac.new(uid_key, b"AE title " + title, hashlib.sha256).hexdigest()[:_TITLE_DIGITS].upper().encode("ascii")


def _parts(value: bytes) -> list[str]:
    """The values of a string of the default repertoire; a byte that is none spoils the part it stands in."""
    return [part.strip("\0 ") for part in value.decode("ascii", "replace").split("\\")]


def _or_dummy(vr: str, text: str | None) -> bytes:
    return DUMMIES[vr][0] if text is None else text.encode("ascii")


# VR -> what K does to a value of it, for options and for a site's own rules.
KEEP: Final[dict[str, Action]] = {
    **dict.fromkeys(values.TEXTS, keep_text),
    **dict.fromkeys((*values.SIZES, "DS", "IS"), keep_number),
    **dict.fromkeys(("OB", "OW"), keep_bulk),
    "AS": keep_age,
    "CS": keep_coded,
    "DA": keep_date,
    "DT": keep_date,
    "TM": keep_time,
    "UI": keep_uid,
}
# VR -> what C does to a value of it; what is not here cannot be cleaned.
CLEAN: Final[dict[str, Action]] = {
    **dict.fromkeys(values.TEXTS - {"AE", "PN", "UR"}, clean_text),
    "AE": pseudonymous_title,
    "CS": clean_coded,
    "DA": shift_date,
    "DT": shift_date,
    "TM": keep_time,
}
