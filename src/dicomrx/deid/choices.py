"""What options and a site's own rules make of an element, where the Basic Profile has another rule for it."""

from collections.abc import Mapping
from typing import Final

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.tag import BaseTag

from dicomrx.deid import actions, optional_actions, safe_private, values
from dicomrx.deid.actions import Action
from dicomrx.deid.dummies import DUMMIES
from dicomrx.deid.optional_actions import CLEAN, KEEP, otherwise
from dicomrx.deid.options import OPTIONS
from dicomrx.deid.rules import FOREIGN_GROUPS, Rule, agreed_vr, basic_rule, gone, table

_UTC_OFFSET: Final = tag_for_keyword("TimezoneOffsetFromUTC")
_TEXT_VALUE: Final = tag_for_keyword("TextValue")
# Published days, the same for everybody or for all of a trial: moved, they would give the shift away.
_PUBLISHED: Final = frozenset(
    tag_for_keyword(keyword)
    for keyword in (
        *("ContextGroupVersion", "ContextGroupLocalVersion", "TemplateVersion", "TemplateLocalVersion", "HangingProtocolCreationDateTime"),
        *("EthicsCommitteeApprovalEffectivenessStartDate", "EthicsCommitteeApprovalEffectivenessEndDate"),
    )
)
_PRIVATE_TEXTS: Final = frozenset({"LO", "LT", "SH", "ST", "UC", "UT"})
_PRIVATE_NUMBERS: Final = frozenset({*values.SIZES, "CS", "DS", "IS"}) - {"OW"}
_WIRE_VRS_UNTOLD: Final = frozenset({None, "UN"})


def optional_rule(options: frozenset[str], tag: int, wire_vr: str | None) -> Rule:
    """The rule under some options; where several speak, the strictest: C before K."""
    basic = basic_rule(tag, wire_vr)
    letters = _letters(options, tag, basic)
    if not letters:
        return basic
    strictest = min(letters.values())
    why = ", ".join(f"{option}: {letter}" for option, letter in letters.items() if letter == strictest)
    return _chosen(strictest, basic, tag, wire_vr, f"{basic.reason}; {why}")


def _letters(options: frozenset[str], tag: int, basic: Rule) -> dict[str, str]:
    """What each of the options says of an element: the table's column; of what the table leaves open, UIDs and the text of reports."""
    row = table().get(f"{tag:08x}") if tag >> 16 not in FOREIGN_GROUPS else {}
    if row is not None:
        columns = row.get("options", {})
        return {option: columns[OPTIONS[option].column] for option in sorted(options) if OPTIONS[option].column in columns}
    if "retain-uids" in options and basic.action is actions.new_uid:
        return {"retain-uids": "K"}
    return {"clean-structured": "C"} if "clean-structured" in options and tag == _TEXT_VALUE else {}


def _chosen(letter: str, basic: Rule, tag: int, wire_vr: str | None, reason: str) -> Rule:
    vr = agreed_vr(tag, wire_vr)
    if vr == "SQ":
        return Rule("R", vr, actions.remove, f"{reason}: its items are de-identified", chosen=True)
    action = None if vr is None or (letter == "C" and tag in _PUBLISHED) else _action(letter, tag, vr)
    # Basic where it was sent as something else, is bytes that nothing can read, or would give the shift away.
    return basic if action is None else Rule(letter, vr, otherwise(action, basic.action), reason, chosen=True)


def _action(letter: str, tag: int, vr: str) -> Action | None:
    if tag == _UTC_OFFSET:
        return optional_actions.keep_utc_offset
    return None if vr in {"OB", "OW", "UN"} else (KEEP if letter == "K" else CLEAN).get(vr)


# A site's word -> the code of its rule, and what is done to a value of each VR that it can be said of.
_SITE: Final[Mapping[str, tuple[str, Mapping[str, Action]]]] = {
    "remove": ("X", dict.fromkeys(KEEP, actions.remove)),
    "empty": ("Z", dict.fromkeys(KEEP, actions.empty)),
    "dummy": ("D", dict.fromkeys(DUMMIES, actions.dummy)),
    "keep": ("K", KEEP),
    "uid": ("U", {"UI": actions.new_uid}),
    "clean": ("C", {vr: action for vr, action in CLEAN.items() if vr not in {"DA", "DT", "TM"}}),
    "shift": ("C", dict.fromkeys(("DA", "DT"), CLEAN["DA"])),
}
SITE_WORDS: Final = tuple(_SITE)
# Of sequences: kept or cleaned means that the items are de-identified.
_SITE_OF_SEQUENCES: Final = {"remove": "X", "empty": "Z", "keep": "R", "clean": "R"}


def allows(word: str, tag: int) -> bool:
    """True where a site's word can be said of an attribute, whichever VR of the dictionary it is sent with."""
    vrs = dictionary_VR(BaseTag(tag)).split(" or ")
    return _SITE[word][1].keys() >= set(vrs) or (vrs == ["SQ"] and word in _SITE_OF_SEQUENCES)


def site_rule(word: str, tag: int, wire_vr: str | None) -> Rule:
    """The rule that a site's word makes; the Basic Profile's where the element was sent as something else."""
    basic, vr, reason = basic_rule(tag, wire_vr), agreed_vr(tag, wire_vr), "the site's own rule"
    if word == "remove":
        return gone(reason)
    if vr is None:
        return basic
    if vr == "SQ":
        return Rule(_SITE_OF_SEQUENCES[word], vr, actions.remove, reason, chosen=True)
    code, by_vr = _SITE[word]
    return Rule(code, vr, otherwise(by_vr[vr], basic.action), reason, chosen=True)


def private_rule(options: frozenset[str], tag: int, wire_vr: str | None, creator: str | None) -> Rule:
    """The rule for a private element; only what is known to be safe of its creator (PS3.15 E.3.10) can stay."""
    known = safe_private.vr_of(creator, tag) if creator is not None and "retain-safe-private" in options else None
    if known is None or wire_vr not in {*_WIRE_VRS_UNTOLD, known}:
        return gone("private")
    reason = f"private, and known to be safe: {creator}"
    if known == "SQ":
        return Rule("R", known, actions.remove, f"{reason}; its items are de-identified", chosen=True)
    code, action = _private_action(options, known)
    if action is None:
        return gone(f"{reason}, but its bytes are nothing that can be read")
    return Rule(code, known, action, reason, chosen=True)


def _private_action(options: frozenset[str], vr: str) -> tuple[str, Action | None]:
    """What becomes of each VR; the standard lists no names, titles, dates and ages as safe, so none of these stays."""
    if vr == "UI":
        return ("K", KEEP[vr]) if "retain-uids" in options else ("U", actions.new_uid)
    if vr in _PRIVATE_TEXTS:
        return "C", actions.keep_technical
    return "K", KEEP[vr] if vr in _PRIVATE_NUMBERS else None
