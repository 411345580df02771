"""Dates, times and ages as text: what is one, and what is left of it when it moves or is capped."""

import re
from collections.abc import Callable
from datetime import date, timedelta
from typing import Final

# PS3.5 Table 6.2-1. Dots as of ACR-NEMA and hyphens as of ISO 8601 are understood, and never written.
_DATE: Final = r"(?P<year>\d{4})(?P<mark>[.-]?)(?P<month>\d\d)(?P=mark)(?P<day>\d\d)"
_CLOCK: Final = r"(?:[01]\d|2[0-3])(?:[0-5]\d(?:(?:[0-5]\d|60)(?:\.\d{1,6})?)?)?"
_OFFSET: Final = r"[+-](?:0\d|1[0-4])[0-5]\d"
_DA: Final = re.compile(_DATE)
_DT: Final = re.compile(rf"{_DATE}(?P<rest>(?:{_CLOCK})?(?:{_OFFSET})?)")
_PARTIAL: Final = re.compile(rf"\d{{4}}(?:0[1-9]|1[0-2])?(?:{_OFFSET})?")
_TM: Final = re.compile(_CLOCK)
_UTC_OFFSET: Final = re.compile(_OFFSET)
# Two of them, or one that is open to one side; a hyphen also begins an offset, which has four digits and no more.
_RANGE: Final = re.compile(r"(?P<begin>(?:\d{8,14}(?:\.\d{1,6})?(?:[+-]\d{4})?)?)-(?P<end>(?:\d{8,14}(?:\.\d{1,6})?(?:[+-]\d{4})?)?)")

# What programs write for no date, and clocks begin with that were never set (the zero of Unix also as it is west of Greenwich): the same
# for everybody, so that a moved one would give the shift away.
_EARLIEST: Final = date(1901, 1, 1)
_LATEST: Final = date(2099, 12, 30)
_PLACEHOLDERS: Final = frozenset({date(1904, 1, 1), date(1969, 12, 31), date(1970, 1, 1), date(1980, 1, 1), date(2000, 1, 1)})

_AGE: Final = re.compile(r"(\d{1,4})([DWMY])")
_A_YEAR: Final = {"D": 365, "W": 52, "M": 12, "Y": 1}
_OLDEST: Final = 90
_AGE_LIMIT: Final = 999

_Part = Callable[[str], str | None]


def _day(match: re.Match[str]) -> date | None:
    try:
        return date(int(match["year"]), int(match["month"]), int(match["day"]))
    except ValueError:
        return None


def _parsed(vr: str, text: str) -> tuple[date, str] | None:
    """The day and what follows it in a DT; None for what is no full date."""
    match = (_DA if vr == "DA" else _DT).fullmatch(text)
    day = _day(match) if match else None
    return None if day is None or match is None else (day, match["rest"] if vr == "DT" else "")


def _ends(text: str) -> list[str]:
    match = _RANGE.fullmatch(text)
    return [match["begin"], match["end"]] if match and any(match.groups()) else [text]


def moved(vr: str, text: str, days: int) -> str | None:
    """A DA or DT, or a range of them, `days` earlier at the same time of day; None for what is no full date."""
    return _each_end(text, lambda end: _moved(vr, end, days))


def kept(vr: str, text: str) -> str | None:
    """A DA or DT, or a range of them, as it is, in DICOM's own spelling; None for what is none."""
    return _each_end(text, lambda end: end if vr == "DT" and _PARTIAL.fullmatch(end) else _moved(vr, end, 0))


def _each_end(text: str, change: _Part) -> str | None:
    ends = [change(end) if end else "" for end in _ends(text)]
    known = [end for end in ends if end is not None]
    return "-".join(known) if len(known) == len(ends) else None


def _moved(vr: str, text: str, days: int) -> str | None:
    found = _parsed(vr, text)
    if found is None:
        return None
    day, rest = found
    earlier = day - timedelta(days=days)
    return f"{earlier.year:04d}{earlier.month:02d}{earlier.day:02d}{rest}"


def is_placeholder(vr: str, text: str) -> bool:
    """True for a date that stands for none."""
    days = [found[0] for end in _ends(text) if (found := _parsed(vr, end))]
    return any(not _EARLIEST <= day <= _LATEST or day in _PLACEHOLDERS for day in days)


def is_time(text: str) -> bool:
    """True for a TM."""
    return _TM.fullmatch(text) is not None


def is_utc_offset(text: str) -> bool:
    """True for a Timezone Offset From UTC (0008,0201)."""
    return _UTC_OFFSET.fullmatch(text) is not None


def capped_age(text: str) -> str | None:
    """An AS with every age over 89 years as 090Y, in whatever unit it is given; None for what is no age."""
    match = _AGE.fullmatch(text)
    if match is None:
        return None
    number, unit = int(match[1]), match[2]
    years = number // _A_YEAR[unit]
    if years >= _OLDEST:
        return f"{_OLDEST:03d}Y"
    return f"{number:03d}{unit}" if number <= _AGE_LIMIT else f"{years:03d}Y"
