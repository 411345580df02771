"""A second pair of eyes: searches what goes out for the values that the profile took from the original.

It shares no rule with the engine but the table of what was to be kept, so a mistake in an action, a parser or a writer shows here.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from dicomrx.deid import extra_rules
from dicomrx.deid.comments import comment_segments
from dicomrx.deid.profile import BASIC, Profile
from dicomrx.deid.reading import Instance, bytes_of, charset_of, decode, element_at, items_of, quiet, raw_text
from dicomrx.deid.structure import text_of

NAME_LETTERS: Final = 4
ID_CHARACTERS: Final = 5

_TEXT: Final = frozenset({"AE", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "UC", "UI", "UN", "UR", "UT"})
_IDS: Final = frozenset({"LO", "SH"})
_NUMBERS: Final = frozenset({"AS", "AT", "CS", "DS", "FD", "FL", "IS", "SL", "SS", "SV", "TM", "UL", "US", "UV"})
_PIXELS: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_ID_KEYWORD: Final = re.compile(r"(?:ID|IDs|Number|Identifier)(?:IssuingAuthority|Trial)?$|^AccessionNumber")
# Codes and the maker's name share words with names; they are searched only on demand.
_INNOCENT: Final = frozenset({"Manufacturer", "ManufacturerModelName", *next(iter(extra_rules.CODES.values()))})
_DATE: Final = re.compile(r"(\d{4})(\d\d)(\d\d)")
_WORD: Final = re.compile(r"[^\W_]+")
# What may stand around a needle: anything but a letter, a digit, or a dot that goes on a UID or number.
_EDGE_BEFORE: Final = r"(?<![^\W_])(?<!\d\.)"
_EDGE_AFTER: Final = r"(?![^\W_])(?!\.\d)"


@dataclass(frozen=True, slots=True, repr=False)
class Needles:
    """What must not be found again, case-folded; in no order that tells anything."""

    values: frozenset[str]

    def found_in(self, text: str) -> bool:
        """True where any of them stands in the text as a whole token."""
        folded = text.casefold()
        return any(value in folded and _stands_alone(value, folded) for value in self.values)


def needles(instance: Instance, profile: Profile = BASIC) -> Needles:
    """What the profile removes of the original: name parts of 4 letters or more, IDs of 5 or more, dates in usual spellings, UIDs."""
    with quiet():
        values = {value.casefold() for value in _values(instance.dataset, (), profile)}
    return Needles(frozenset(values))


def survivors(sought: Needles, output: Dataset | str, *, everywhere: bool = False) -> list[str]:
    """The keywords of the elements of `output` in which a needle stands, at any depth; ["name"] where `output` is a file or folder name.

    Searched are text VRs, and the comment and application segments of JPEG and JPEG 2000 pixel data; never pixels. `everywhere`
    also searches coded strings, numbers, codes and the maker's name, where an innocent word is more often a name than a leak is.
    """
    if isinstance(output, str):
        return ["name"] if sought.found_in(output) else []
    with quiet():
        return [_label(tag) for tag, text in _texts(output, (), everywhere=everywhere) if sought.found_in(text)]


def _stands_alone(value: str, text: str) -> bool:
    return re.search(_EDGE_BEFORE + re.escape(value) + _EDGE_AFTER, text) is not None


def _label(tag: int) -> str:
    return keyword_for_tag(BaseTag(tag)) or text_of(tag)


def _elements(dataset: Dataset, charset: tuple[str, ...]) -> Iterator[tuple[BaseTag, str | None, bytes, tuple[str, ...]]]:
    """(tag, VR on the wire or of the dictionary, bytes, character set) of every value at every depth."""
    charset = charset_of(dataset, charset)
    for tag in sorted(dataset.keys()):
        element = element_at(dataset, tag)
        vr = element.VR or (dictionary_VR(tag) if dictionary_has_tag(tag) else None)
        items = items_of(element)
        if items is not None:
            for item in items:
                yield from _elements(item, charset)
        elif value := bytes_of(element):
            yield tag, vr, value, charset


def _values(dataset: Dataset, charset: tuple[str, ...], profile: Profile) -> Iterator[str]:
    for tag, vr, value, inner in _elements(dataset, charset):
        rule = profile.rule(tag, vr)
        if rule.code == "K" or vr in _NUMBERS or tag in _PIXELS:
            continue
        yield from _needles_of(tag, vr, decode(value, inner))


def _needles_of(tag: BaseTag, vr: str | None, text: str) -> Iterable[str]:
    known = dictionary_VR(tag) if dictionary_has_tag(tag) else vr
    if known == "PN":
        return [part for part in _WORD.findall(text) if len(part) >= NAME_LETTERS and part.isalpha()]
    if known in {"DA", "DT"}:
        return _spellings(text)
    if known == "UI":
        return [uid for uid in text.split("\\") if _names_instance(uid)]
    if known in _IDS and _ID_KEYWORD.search(keyword_for_tag(tag)):
        return [part.strip() for part in text.split("\\") if len(part.strip()) >= ID_CHARACTERS]
    return []


def _names_instance(uid: str) -> bool:
    standard = uid.startswith((extra_rules.STANDARD_ROOT.decode(), extra_rules.TERMINOLOGY_ROOT.decode()))
    return len(uid) >= ID_CHARACTERS and not standard


def _spellings(text: str) -> list[str]:
    found: list[str] = []
    for year, month, day in _DATE.findall(text):
        found += [year + month + day, f"{year}-{month}-{day}", f"{year}.{month}.{day}", f"{year}/{month}/{day}"]
        found += [f"{day}.{month}.{year}", f"{day}-{month}-{year}", f"{day}/{month}/{year}", f"{month}/{day}/{year}"]
    return found


def _texts(dataset: Dataset, charset: tuple[str, ...], *, everywhere: bool) -> Iterator[tuple[int, str]]:
    for tag, vr, value, inner in _elements(dataset, charset):
        if tag in _PIXELS:
            for segment in comment_segments(value):
                yield tag, segment
        elif everywhere or (vr in _TEXT and keyword_for_tag(tag) not in _INNOCENT):
            yield tag, decode(value, inner)
    meta = getattr(dataset, "file_meta", None)
    if meta is not None:
        for element in (0x00020003, 0x00020013, 0x00020016):
            yield element, raw_text(meta, element)
