"""A second pair of eyes: searches what goes out for the values that the profile took from the original.

It shares no rule with the engine but the table of what was to be kept, so a mistake in an action, a parser or a writer shows here.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple

from pydicom._uid_dict import UID_dictionary
from pydicom.datadict import keyword_for_tag, tag_for_keyword

from dicomrx.deid import extra_rules, spellings
from dicomrx.deid.comments import comment_segments
from dicomrx.deid.dataset import DataSet, Value
from dicomrx.deid.dummies import DUMMIES
from dicomrx.deid.private import rule_in
from dicomrx.deid.profile import BASIC, Profile
from dicomrx.deid.reading import Instance, charset_of, decode, walk
from dicomrx.deid.tags import PIXELS, is_creator, known_vr, text_of

NAME_LETTERS: Final = 4
ID_CHARACTERS: Final = 5

_TEXT: Final = frozenset({"AE", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "UC", "UI", "UN", "UR", "UT"})
_IDS: Final = frozenset({"LO", "SH"})
_NUMBERS: Final = frozenset({"AS", "AT", "CS", "DS", "FD", "FL", "IS", "SL", "SS", "SV", "TM", "UL", "US", "UV"})
_DATES: Final = frozenset({"DA", "DT"})
_KEPT: Final = frozenset({*_DATES, "UI"})
# The maker's name, also where it says whose private elements follow, shares words with names; it is searched only on demand.
_INNOCENT: Final = frozenset(map(tag_for_keyword, ("Manufacturer", "ManufacturerModelName")))
# So do codes, but an ID or a date with its digits is none of them.
_CODES: Final = frozenset(tag_for_keyword(keyword) for keywords in extra_rules.CODES.values() for keyword in keywords)
_TERMINOLOGY: Final = tuple(root.decode("ascii") for root in extra_rules.TERMINOLOGY_ROOTS)
# What de-identification itself writes at the top level, in words that are somebody's name.
_OURS: Final = frozenset(
    tag_for_keyword(keyword)
    for keyword in ("DeidentificationMethod", "DeidentificationMethodCodeSequence", "LongitudinalTemporalInformationModified")
)
_DUMMY_WORDS: Final = frozenset(value.decode("ascii").casefold() for vr, (value, _) in DUMMIES.items() if vr in _TEXT and vr != "UN")
# A date and a time in one number, as in DT.
_DATE_LENGTH: Final = 8
_DATE_TIMES: Final = frozenset({10, 12, 14})


class Place(NamedTuple):
    """A value, by the data set or item that holds it; `texts` are the readings of it in the character sets in question.

    `is_code`: words in it are no names.
    """

    holder: DataSet
    tag: int
    vr: str | None
    value: Value
    texts: tuple[str, ...]
    is_code: bool = False


def _longest_word(value: str) -> str:
    """The one that is least likely to stand elsewhere."""
    return max(spellings.WORD.findall(value), key=len, default="")


def _dates_in(words: list[str]) -> Iterator[str]:
    return (word[:_DATE_LENGTH] for word in words if len(word) in _DATE_TIMES and word.isdecimal())


def _wholes_in(folded: str, words: list[str]) -> Iterator[str]:
    parts = map(spellings.WORD.findall, folded.split("\\")) if "\\" in folded else (words,)
    return map(" ".join, parts)


@dataclass(frozen=True, slots=True, repr=False)
class Needles:
    """What must not be found again, case-folded; in no order that tells anything.

    `values` are sought as whole tokens, `whole` as whole values only; `canonical` are those that stand in the original as they are.
    """

    values: frozenset[str]
    whole: frozenset[str] = frozenset()
    canonical: frozenset[str] = frozenset()
    dates: Mapping[int, frozenset[str]] = field(default_factory=dict)
    charsets: frozenset[tuple[str, ...]] = frozenset()
    _by_word: dict[str, list[tuple[int, str]]] = field(init=False, default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        """Index by longest word, so that a search costs as much as its text is long, however many are sought."""
        for value in self.values:
            word = _longest_word(value)
            if word:
                self._by_word[word].append((value.index(word), value))

    def matches(self, text: str, *, strict: bool = True) -> set[str]:
        """Those that stand in the text; not `strict`: also where dots and digits follow, as in names of files."""
        folded = text.casefold()
        words = spellings.WORD.findall(folded)
        found = set(self.values.intersection(_dates_in(words)))
        if not self._by_word.keys().isdisjoint(words):
            found.update(self._tokens(folded, strict=strict))
        if self.whole:
            found.update(self.whole.intersection(_wholes_in(folded, words)))
        return found

    def may_stand_among(self, words: frozenset[str]) -> bool:
        """False where none of them stands in any text of these words (`words_of`)."""
        likely = (value for word in self._by_word.keys() & words for _, value in self._by_word[word])
        return not self.whole.isdisjoint(words) or any(words.issuperset(spellings.WORD.findall(value)) for value in likely)

    def _tokens(self, folded: str, *, strict: bool) -> Iterator[str]:
        for word in spellings.WORD.finditer(folded):
            for lead, value in self._by_word.get(word[0], ()):
                begin = word.start() - lead
                if begin >= 0 and folded.startswith(value, begin) and spellings.stands_alone(value, folded, begin, strict=strict):
                    yield value

    def found_in(self, text: str) -> bool:
        """True where any of them stands in the text."""
        return bool(self.matches(text))


def needles(instance: Instance, profile: Profile = BASIC) -> Needles:
    """What the profile removes of the original.

    As tokens: name parts of 4 letters or more, IDs of 5 characters or more, also with other separators, and their numbers of 5 digits or
    more, dates in usual spellings, UIDs. As whole values only: shorter
    ones, but for numbers of one or two digits, which count stacks and segments everywhere.
    """
    return needles_of(instance.dataset, instance.dataset, profile)


def needles_of(dataset: DataSet, part: DataSet, profile: Profile) -> Needles:
    """The same of a part of a data set."""
    gathered = _Gathered()
    for holder, tag, vr, value, charset in walk(dataset, part=part):
        kind = _kind(tag, vr)
        if kind and vr not in _NUMBERS and rule_in(holder, tag, vr, profile).code != "K":
            gathered.add(tag, kind, decode(bytes(value), charset))
    return gathered.needles(frozenset({charset_of(dataset, ())}))


def words_of(texts: Iterable[str]) -> frozenset[str]:
    """Everything in them that a needle can be met by."""
    made: set[str] = set()
    for folded in map(str.casefold, texts):
        words = spellings.WORD.findall(folded)
        made.update(words, _dates_in(words), _wholes_in(folded, words))
    return frozenset(made)


def survivors(
    sought: Needles, output: DataSet | str, *, pseudonym: str = "", profile: Profile = BASIC, everywhere: bool = False
) -> list[str]:
    """The keywords of the elements of `output` in which a needle stands, at any depth; ["name"] where `output` is a file or folder name.

    Searched are text VRs, and the comment and application segments of JPEG and JPEG 2000 pixel data; never pixels. `everywhere`
    also searches coded strings, numbers, the maker's name, and codes for names, where an innocent word is more often a name than a leak is.
    A value that is `pseudonym` is none, whatever the original was called.
    """
    if isinstance(output, str):
        return (
            ["name"]
            if any(sought.matches(part, strict=False) for name in output.split("/") for part in (name, name.partition(".")[0]))
            else []
        )
    found = places(output, sought.charsets, profile, everywhere=everywhere)
    return [label(place.tag) for place in found if hit(sought, place, pseudonym, profile)]


def proves(sought: Needles, original: DataSet) -> bool:
    """True where the search finds every needle in the original itself: what cannot fail there proves nothing elsewhere."""
    found = {
        value for place in places(original, frozenset(), BASIC, everywhere=True) for text in place.texts for value in sought.matches(text)
    }
    return bool(sought.canonical) and sought.canonical <= found


def hit(sought: Needles, place: Place, pseudonym: str, profile: Profile) -> bool:
    """True where a needle stands in a value.

    A date or UID that an option or the site keeps is none, and one that was moved may by chance be another element's original, never
    its own. Text that is kept is searched all the same: a clinic may bear the patient's name.
    """
    found: set[str] = set()
    for text in place.texts:
        met = sought.matches(text)
        if met and text.casefold() != pseudonym.casefold():
            found |= met
    if found and place.is_code:
        found = {value for value in found if any(map(str.isdecimal, value))}
    rule = rule_in(place.holder, place.tag, place.vr, profile) if found else None
    if rule is not None and rule.chosen and place.vr in _DATES and rule.code == "C":
        return bool(found & sought.dates.get(place.tag, frozenset()))
    return rule is not None and not (rule.chosen and rule.code == "K" and place.vr in _KEPT)


def places(
    dataset: DataSet, charsets: frozenset[tuple[str, ...]], profile: Profile, *, everywhere: bool = False, part: DataSet | None = None
) -> Iterator[Place]:
    """What is searched of a data set, or of a part of it, at every depth; `everywhere`: what de-identification itself writes, too."""
    for holder, tag, wire_vr, value, charset in walk(dataset, skipped=frozenset() if everywhere else _OURS, part=part):
        vr = wire_vr or rule_in(holder, tag, wire_vr, profile).vr
        if tag in PIXELS:
            for segment in comment_segments(value):
                yield Place(holder, tag, vr, value, segment)
        elif everywhere or (vr in _TEXT and not _is_innocent(tag, profile)):
            yield Place(holder, tag, vr, value, _readings(bytes(value), charset, charsets), not everywhere and tag in _CODES)


def _is_innocent(tag: int, profile: Profile) -> bool:
    return tag in _INNOCENT or (tag >> 16 & 1 == 1 and is_creator(tag) and "retain-safe-private" in profile.options)


def label(tag: int) -> str:
    """What an element is called in a report: its keyword, or its tag."""
    return _keyword(tag) or text_of(tag)


@lru_cache(maxsize=8192)
def _keyword(tag: int) -> str:
    return keyword_for_tag(tag)


@lru_cache(maxsize=8192)
def _kind(tag: int, vr: str | None) -> str | None:
    """What kind of needle an element gives, as the VR of that kind, whatever VR it was sent under; None for no needle."""
    known = known_vr(tag) or vr
    if known in _IDS and spellings.ID_KEYWORD.search(_keyword(tag)):
        return "LO"
    return known if known in {"PN", "DA", "DT", "UI"} else None


def _readings(value: bytes, charset: tuple[str, ...], others: frozenset[tuple[str, ...]]) -> tuple[str, ...]:
    """As declared first; what is not ASCII also as UTF-8, Latin-1, and in the sets of the original."""
    declared = decode(value, charset)
    if value.isascii() and b"\x1b" not in value:
        return (declared,)
    more = {decode(value, other) for other in {("ISO_IR 192",), ("ISO_IR 100",), *others}}
    return (declared, *sorted(more - {declared}))


class _Gathered:
    """Needles in the making."""

    def __init__(self) -> None:
        self._values: set[str] = set()
        self._whole: set[str] = set()
        self._canonical: set[str] = set()
        self._dates: defaultdict[int, set[str]] = defaultdict(set)

    def needles(self, charsets: frozenset[tuple[str, ...]]) -> Needles:
        values = frozenset(self._values - _DUMMY_WORDS)
        dates = {tag: frozenset(found) for tag, found in self._dates.items()}
        return Needles(values, frozenset(self._whole - _DUMMY_WORDS), frozenset(self._canonical & values), dates, charsets)

    def add(self, tag: int, kind: str, text: str) -> None:
        """Take what a removed value gives."""
        folded = text.casefold()
        if kind == "PN":
            self._name(folded)
        elif kind in _DATES:
            self._date(tag, folded)
        elif kind == "UI":
            self._take(uid for uid in folded.split("\\") if _names_instance(uid))
        else:
            self._ids(folded)

    def _take(self, found: Iterator[str]) -> None:
        for value in found:
            self._values.add(value)
            self._canonical.add(value)

    def _name(self, text: str) -> None:
        for person in text.replace("=", "\\").split("\\"):
            words = [word for word in spellings.WORD.findall(person) if word.isalpha()]
            long = [word for word in words if len(word) >= NAME_LETTERS]
            self._take(iter(long))
            self._values.update(*map(spellings.of_word, long))
            self._whole |= {name for name in spellings.of_name(words) if len(name) > 1}

    def _date(self, tag: int, text: str) -> None:
        for match in spellings.DATE.finditer(text):
            spelled = spellings.of_date(*match.groups())
            self._values.update(spelled)
            self._canonical.add(match[0])
            self._dates[tag].update(spelled)

    def _ids(self, text: str) -> None:
        for value in (part.strip() for part in text.split("\\")):
            if len(value) >= ID_CHARACTERS and spellings.WORD.search(value):
                self._take(iter([value]))
                self._values.update(spelled for spelled in spellings.of_id(value) if len(spelled) >= ID_CHARACTERS)
            elif len(value) > 2 or (len(value) > 1 and not value.isdecimal()):  # noqa: PLR2004 - one or two digits count something
                self._whole.add(" ".join(spellings.WORD.findall(value)))


def _names_instance(uid: str) -> bool:
    public = uid in UID_dictionary or uid.startswith(_TERMINOLOGY)
    return len(uid) >= ID_CHARACTERS and not public
