"""Which rule the Basic Profile has for an element: PS3.15 Table E.1-1 first, then our own rules, and removal where neither speaks."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Any, Final

from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.tag import BaseTag

from dicomrx.deid import actions, extra_rules
from dicomrx.deid.actions import Action
from dicomrx.deid.dummies import BY_ITEMS, SEQUENCES

# Compound codes are decided once for every IOD: a dummy is legal for every Type, an empty value for Types 2 and 3.
_SIMPLE: Final = {"X/D": "D", "Z/D": "D", "X/Z/D": "D", "X/Z": "Z", "X/Z/U*": "R"}
_PSEUDONYMS: Final = frozenset({0x00100010, 0x00100020})
# Commands, file meta, directory records: no data set has them. 50xx and 60xx are curves and overlays.
FOREIGN_GROUPS: Final = frozenset({0x0000, 0x0002, 0x0004, 0x0006})
_GRAPHIC_GROUPS: Final = frozenset({0x5000, 0x6000})
# Sent as UN, these are what the dictionary says where size, grammar or nesting agree; text sent as UN could be anything.
_PROVEN: Final = frozenset({"AT", "CS", "DS", "FD", "FL", "IS", "SL", "SQ", "SS", "UI", "UL", "US"})
_GRAMMATICAL: Final = frozenset({"AS", "DA", "DT", "TM"})
_ESSENTIAL: Final = frozenset(tag_for_keyword(keyword) for keyword in extra_rules.ESSENTIAL)


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to an element.

    `code` is X, Z, D, U, K, C, or R for a sequence whose items are de-identified; `vr` is the VR it leaves with, None where it goes.
    `action` is for values; sequences go by code. `reason` is written for a person. `chosen`: an option or the site's own rule speaks.
    """

    code: str
    vr: str | None
    action: Action
    reason: str
    chosen: bool = False


def basic_rule(tag: int, wire_vr: str | None) -> Rule:
    """The rule without any option; `wire_vr` is None where the transfer syntax has no VRs, and empty for UN in big endian."""
    group = tag >> 16
    if group & 1:
        return gone("private")
    if group & 0xFF00 in _GRAPHIC_GROUPS:
        return gone("curves, overlays and what is said about them: a bitmap can show a name, and no program can clean it")
    if group in FOREIGN_GROUPS or not tag & 0xFFFF:
        return gone("a group of which nothing is kept: commands, meta, directories, group lengths")
    return _public_rule(tag, wire_vr)


def gone(reason: str) -> Rule:
    """X."""
    return Rule("X", None, actions.remove, reason)


@cache
def table() -> Mapping[str, Mapping[str, Any]]:
    """PS3.15 Table E.1-1: by tag (8 hex digits, x for any), with `basic`, `options`, and `kin` where the options are our reading."""
    text = resources.files(__package__).joinpath("table_e1_1.json").read_text("utf-8")
    rows: Mapping[str, Mapping[str, Any]] = json.loads(text)
    return rows


@cache
def named_rules() -> Mapping[int, tuple[str, Action, str]]:
    """Our own rules for single attributes, by tag: (code, action, reason)."""
    kinds: tuple[tuple[Mapping[str, tuple[str, ...]], str, Action], ...] = (
        (extra_rules.TECHNICAL, "K", actions.keep_technical),
        (extra_rules.CODES, "K", actions.keep_code),
        (extra_rules.CLASS_UIDS, "K", actions.keep_uid),
        (extra_rules.TERMINOLOGY_UIDS, "U", actions.terminology_uid),
        (extra_rules.BULK, "K", actions.keep_bulk),
        (extra_rules.CHARSET, "K", actions.keep_charset),
        (extra_rules.IDENTIFYING, "X", actions.remove),
    )
    return {
        _tag(keyword): (code, action, reason) for rules, code, action in kinds for reason, keywords in rules.items() for keyword in keywords
    }


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return tag


@lru_cache(maxsize=8192)
def _public_rule(tag: int, wire_vr: str | None) -> Rule:
    try:
        known = dictionary_VR(BaseTag(tag))
    except KeyError:
        known = ""
    row = table().get(f"{tag:08x}")
    if row is not None:
        return _table_rule(tag, row["basic"], known, wire_vr)
    if not known or keyword_for_tag(tag) == "":
        return gone("unknown to the dictionary")
    if wire_vr == "UN" and (_single(known) in _PROVEN or tag in _ESSENTIAL):
        return _extra_rule(tag, known)
    if wire_vr is not None and wire_vr not in known.split(" or "):
        return _mismatch_rule(known, wire_vr)
    return _extra_rule(tag, wire_vr or known)


def _mismatch_rule(known: str, wire_vr: str) -> Rule:
    """For a value that is not what the dictionary says: text keeps its place with a dummy, so that the object stays whole."""
    reason = f"sent as {wire_vr or 'UN'}, which is not its VR"
    if extra_rules.BY_VR.get(known, ("X",))[0] == "D":
        return Rule("D", known, actions.text_dummy, reason)
    return gone(reason)


def _table_rule(tag: int, code: str, known: str, wire_vr: str | None) -> Rule:
    reason = f"PS3.15 Table E.1-1: {code}"
    simple = _SIMPLE.get(code, code)
    if simple == "X" or not known:
        return gone(reason)
    vr = wire_vr if wire_vr in known.split(" or ") else _single(known)
    if known == "SQ":
        return _sequence_rule(tag, simple, reason) if wire_vr in {None, "SQ", "UN"} else gone(f"{reason}, and sent as {wire_vr}")
    if tag in _PSEUDONYMS:
        return Rule("D", vr, actions.pseudonym, f"{reason}: the pseudonym")
    if vr == "UI":
        simple = "U"
    return Rule(simple, vr, actions.BY_CODE[simple], reason)


def _sequence_rule(tag: int, code: str, reason: str) -> Rule:
    keyword = keyword_for_tag(tag)
    if code == "D" and keyword in BY_ITEMS:
        return Rule("R", "SQ", actions.remove, f"{reason}: {BY_ITEMS[keyword]}")
    if code == "D":
        return Rule("D", "SQ", actions.remove, f"{reason}: {SEQUENCES[keyword][1]}")
    return Rule(code, "SQ", actions.remove, reason)


def _extra_rule(tag: int, vr: str) -> Rule:
    single = _single(vr)
    if tag in named_rules():
        code, action, reason = named_rules()[tag]
        return gone(reason) if code == "X" else Rule(code, single, action, reason)
    code, reason = extra_rules.BY_VR.get(single, ("X", "a VR that no rule knows"))
    if code == "X":
        return gone(reason)
    return Rule(code, single, _extra_action(code, single), reason)


def _extra_action(code: str, vr: str) -> Action:
    if code == "D":
        return actions.text_dummy
    if vr == "CS":
        return actions.keep_coded
    return actions.BY_CODE.get(code, actions.remove)


def _single(vr: str) -> str:
    """One VR of those the dictionary allows, for elements whose transfer syntax names none: signed and unsigned are of one size."""
    return "OW" if "OW" in vr else vr.split(" or ", maxsplit=1)[0]


def agreed_vr(tag: int, wire_vr: str | None) -> str | None:
    """The VR under which an element of the dictionary may be kept or cleaned; None where it was sent as something else."""
    if not dictionary_has_tag(BaseTag(tag)):
        return None
    known = dictionary_VR(BaseTag(tag))
    if wire_vr in known.split(" or "):
        return wire_vr
    return _single(known) if wire_vr is None or (wire_vr == "UN" and _single(known) in _PROVEN | _GRAMMATICAL) else None
