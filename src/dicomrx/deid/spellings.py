"""How one value is written by different people: dates, names, and what stands alone in a text."""

import re
import unicodedata
from functools import lru_cache
from typing import Final

WORD: Final = re.compile(r"[^\W_]+")
# Attributes whose text is an ID or a number of somebody or something.
ID_KEYWORD: Final = re.compile(r"(?:ID|IDs|Number|Identifier)(?:IssuingAuthority|Trial)?$|^AccessionNumber")
DATE: Final = re.compile(r"(\d{4})[-./]?(\d\d)[-./]?(\d\d)")
_MONTHS: Final = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december",
)  # fmt: skip
_NUMBER_OR_UID: Final = re.compile(r"[\d.]+")
_PLAIN: Final = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "æ": "ae", "ø": "oe", "œ": "oe", "ł": "l", "đ": "d"})
_PIECE: Final = re.compile(r"\d+|[^\W\d_]+")


@lru_cache(maxsize=1024)
def of_date(year: str, month: str, day: str) -> tuple[str, ...]:
    """A date as DICOM, ISO, and people on either side of the Atlantic write it, folded; nothing for what no calendar has."""
    if not (1 <= int(month) <= len(_MONTHS) and 1 <= int(day) <= 31):  # noqa: PLR2004 - days of a month
        return (year + month + day,)
    made = {year + month + day, day + month + year}
    for m, d in {(month, day), (month.lstrip("0"), day.lstrip("0"))}:
        for s in "-./: ":
            made |= {f"{year}{s}{m}{s}{d}", f"{d}{s}{m}{s}{year}", f"{m}{s}{d}{s}{year}"}
        for s in "-./":
            made |= {f"{year[2:]}{s}{m}{s}{d}", f"{d}{s}{m}{s}{year[2:]}", f"{m}{s}{d}{s}{year[2:]}"}
        for name in (_MONTHS[int(month) - 1], _MONTHS[int(month) - 1][:3]):
            made |= {f"{d}{s}{name}{s}{y}" for s in ("", " ", "-") for y in (year, year[2:])}
            made |= {f"{d}. {name} {year}", f"{name} {d} {year}", f"{name} {d}, {year}"}
    return tuple(sorted(made))


def of_id(value: str) -> set[str]:
    """An ID with other separators and with none, and each number in it, without its leading zeros too."""
    pieces = _PIECE.findall(value)
    numbers = {piece for piece in pieces if piece.isdecimal()}
    return {value, *(s.join(pieces) for s in ("", *" -_./")), *numbers, *(number.lstrip("0") for number in numbers)}


def of_word(word: str) -> set[str]:
    """A part of a name, folded, also as a keyboard without its letters writes it."""
    bare = "".join(letter for letter in unicodedata.normalize("NFKD", word) if not unicodedata.combining(letter))
    return {word, word.translate(_PLAIN), bare.translate(_PLAIN)}


def of_name(words: list[str]) -> set[str]:
    """A whole name, first name first or last, with and without spaces; short names are sought so, and names without spaces."""
    made = set(words)
    for order in (words, words[::-1]):
        made |= {" ".join(order), "".join(order)}
    return made


def stands_alone(value: str, text: str, begin: int, *, strict: bool) -> bool:
    """True where what stands at `begin` is no part of a longer word, nor (`strict`) of a longer UID or decimal number."""
    end = begin + len(value)
    before, after = text[max(0, begin - 2) : begin], text[end : end + 2]
    if _joins(before[-1:], value[0]) or _joins(after[:1], value[-1]):
        return False
    if not strict or not _NUMBER_OR_UID.fullmatch(value):
        return True
    return not ((before[-1:] == "." and before[:1].isdigit()) or (after[:1] == "." and after[1:].isdigit()))


def _joins(neighbour: str, edge: str) -> bool:
    return neighbour.isalnum() and edge.isalnum()
