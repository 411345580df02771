"""What became of every element of an instance, and by which rule: read off what the engine made, not worked out again."""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from dicomrx.deid.actions import Context
from dicomrx.deid.dataset import DataSet, Element, Output
from dicomrx.deid.encoding import Encoding
from dicomrx.deid.engine import deidentify
from dicomrx.deid.private import rule_in
from dicomrx.deid.profile import BASIC, Profile
from dicomrx.deid.reading import Instance, charset_of, decode
from dicomrx.deid.refusals import check
from dicomrx.deid.rules import Rule
from dicomrx.deid.second_look import look_again
from dicomrx.deid.tags import is_creator, known_vr
from dicomrx.errors import Reject

_TEXT: Final = frozenset("AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UR UT".split())  # noqa: SIM905 - as many as that read best so
_NUMBERS: Final = {"AT": "HH", "FD": "d", "FL": "f", "SL": "i", "SS": "h", "SV": "q", "UL": "I", "US": "H", "UV": "Q"}
_MOST_NUMBERS: Final = 16
_STAMP: Final = "written by the de-identification (PS3.15 E.1.1)"
_WORDS: Final = {"D": "dummy", "U": "new UID", "R": "items", "Z": "emptied"}


@dataclass(frozen=True, slots=True, repr=False)
class Row:
    """One element: the number of the item it is in (from 1; 0 at the top level), what was done and why, its value before and after.

    Values are text, as people read them; None where there is no element.
    """

    depth: int
    item: int
    tag: int
    vr: str
    action: str
    reason: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True, repr=False)
class Explanation:
    """Every element in the order of the data set; `refusal` is why the instance would be quarantined, or None."""

    rows: tuple[Row, ...]
    refusal: Reject | None


def explain(instance: Instance, context: Context, profile: Profile = BASIC, burned_in: str = "quarantine") -> Explanation:
    """What `check`, `deidentify` and `look_again` do to an instance; without rows where nothing can be made of it."""
    refusal = _refused_by(check, instance, burned_in)
    try:
        made, final = deidentify(instance, context, profile), deidentify(instance, context, profile)
        second = _refused_by(look_again, instance, final, context.pseudonym, profile)
        rows = _rows(instance, made, final, profile)
    except Reject as never:
        return Explanation((), refusal or never)
    return Explanation(rows, refusal or second)


def _refused_by(step: Callable[..., object], *arguments: object) -> Reject | None:
    try:
        step(*arguments)
    except Reject as never:
        return never
    return None


def _rows(instance: Instance, made: Output, final: Output, profile: Profile) -> tuple[Row, ...]:
    comparison = _Comparison(instance.encoding, profile)
    meta = comparison.rows(_Three(DataSet(), made.meta, final.meta), _Place())
    return (*meta, *comparison.rows(_Three(instance.dataset, made.dataset, final.dataset), _Place()))


@dataclass(frozen=True, slots=True, repr=False)
class _Three:
    """A data set or item as it came, as the engine made it, and as it is after the second look."""

    source: DataSet
    made: DataSet
    final: DataSet


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the instance: how deep, in which item, under which character sets before and after; `goes` with a sequence that goes."""

    depth: int = 0
    item: int = 0
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    goes: bool = False


class _Comparison:
    """Lays what was made beside what it was made of."""

    def __init__(self, encoding: Encoding, profile: Profile) -> None:
        self._encoding = encoding
        self._profile = profile

    def rows(self, three: _Three, place: _Place) -> Iterator[Row]:
        """Those of one data set or item, each sequence followed by its items'."""
        before, after = charset_of(three.source, place.before), charset_of(three.final, place.after)
        for tag in sorted({*three.source.keys(), *three.final.keys()}):
            old, made, new = (dataset.get(tag) for dataset in (three.source, three.made, three.final))
            rule = None if old is None else rule_in(three.source, tag, self._encoding.wire_vr(old.vr), self._profile)
            action, reason = ("removed", "in a sequence that goes") if place.goes else _outcome(rule, old, made, new)
            shown = self._text(old, _vr(tag, old), before), self._text(new, _vr(tag, new, old), after)
            yield Row(place.depth, place.item, tag, _vr(tag, old, new), action, reason, *shown)
            yield from self._items(rule, (old, made, new), _Place(place.depth + 1, 0, before, after))

    def _items(self, rule: Rule | None, elements: tuple[Element | None, ...], place: _Place) -> Iterator[Row]:
        old, made, new = map(_items, elements)
        if rule is not None and rule.code == "R" and len(old) == len(made) == len(new):
            threes = [_Three(*three) for three in zip(old, made, new, strict=True)]
        else:
            threes = [_Three(DataSet(), *two) for two in zip(made, new, strict=True)]
            for number, item in enumerate(old, 1):
                gone = _Place(place.depth, number, place.before, place.after, goes=True)
                yield from self.rows(_Three(item, DataSet(), DataSet()), gone)
        for number, three in enumerate(threes, 1):
            yield from self.rows(three, _Place(place.depth, number, place.before, place.after))

    def _text(self, element: Element | None, vr: str, charset: tuple[str, ...]) -> str | None:
        if element is None:
            return None
        if element.items is not None:
            return f"{len(element.items)} item{'s' * (len(element.items) != 1)}"
        return _value_text(element, vr, charset, little=self._encoding.little)


def _outcome(rule: Rule | None, old: Element | None, made: Element | None, new: Element | None) -> tuple[str, str]:
    """(action, reason): the rule's, unless what came out says more."""
    if rule is None or old is None:
        return "added", _STAMP
    if not _same(made, new):
        return "second look", f"{rule.reason}; but then it still held what was to be removed"
    if new is None:
        return "removed", rule.reason if rule.vr is None else f"{rule.reason}; but the value is not what its VR says"
    if rule.vr is None:
        return ("kept", "the creator of private elements that stay") if is_creator(new.tag) else ("replaced", _STAMP)
    return _action(rule, old, new), rule.reason


def _action(rule: Rule, old: Element, new: Element) -> str:
    if rule.vr == "SQ":
        return _WORDS.get(rule.code, "items")
    if _same(old, new):
        return "kept"
    return _WORDS.get(rule.code, "cleaned") if new.value else "emptied"


def _same(one: Element | None, other: Element | None) -> bool:
    if one is None or other is None or one.items is not None or other.items is not None:
        return (one is None) == (other is None)  # sequences: their items tell
    return one.value is other.value or bytes(one.value).rstrip(b" \0") == bytes(other.value).rstrip(b" \0")


def _items(element: Element | None) -> list[DataSet]:
    return (element.items if element is not None else None) or []


def _vr(tag: int, *elements: Element | None) -> str:
    """The VR that the first of them names, else the dictionary's."""
    named = next((element.vr for element in elements if element is not None and element.vr), None)
    return (named or known_vr(tag) or "UN").split(" or ", maxsplit=1)[0]


def _value_text(element: Element, vr: str, charset: tuple[str, ...], *, little: bool) -> str:
    value = bytes(element.value) if vr in _TEXT or vr in _NUMBERS else element.value
    if isinstance(value, bytes) and vr in _TEXT:
        return decode(value, charset)
    numbers = _NUMBERS.get(vr)
    order = "<" if little else ">"
    if numbers is None or not isinstance(value, bytes) or not value or len(value) % struct.calcsize(f"{order}{numbers}"):
        return f"{len(value)} bytes" if value else ""
    found = list(struct.iter_unpack(f"{order}{numbers}", value))
    shown = "\\".join(_number_text(vr, each) for each in found[:_MOST_NUMBERS])
    return shown if len(found) <= _MOST_NUMBERS else f"{shown}\\... ({len(found)} values)"


def _number_text(vr: str, number: tuple[Any, ...]) -> str:
    if vr == "AT":
        return f"({number[0]:04X},{number[1]:04X})"
    return f"{number[0]:.9g}" if vr in {"FD", "FL"} else str(number[0])
