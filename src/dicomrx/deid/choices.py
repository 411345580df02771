"""What options and a site's own rules make of an element, where the Basic Profile has another rule for it."""

from collections.abc import Callable, Mapping
from typing import Final

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.tag import BaseTag

from dicomrx.deid import actions, optional_actions, safe_private, values
from dicomrx.deid.actions import Action
from dicomrx.deid.dummies import DUMMIES, SEQUENCES
from dicomrx.deid.optional_actions import CLEAN, KEEP, otherwise
from dicomrx.deid.options import OPTIONS
from dicomrx.deid.rules import FOREIGN_GROUPS, Rule, agreed_vr, basic_rule, gone, table

_UTC_OFFSET: Final = tag_for_keyword("TimezoneOffsetFromUTC")
_TEXT_VALUE: Final = tag_for_keyword("TextValue")
# Published days, the same for everybody: moved, they would give the shift away.
_EDITIONS: Final = frozenset(
    tag_for_keyword(keyword) for keyword in ("ContextGroupVersion", "ContextGroupLocalVersion", "TemplateVersion", "TemplateLocalVersion")
)
_SEQUENCE_DUMMIES: Final = frozenset(tag_for_keyword(keyword) for keyword in SEQUENCES)
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
    action = None if vr is None or (letter == "C" and tag in _EDITIONS) else _action(letter, tag, vr)
    # Basic where it was sent as something else, is bytes that nothing can read, or would give the shift away.
    return basic if action is None else Rule(letter, vr, otherwise(action, basic.action), reason, chosen=True)


def _action(letter: str, tag: int, vr: str) -> Action | None:
    if tag == _UTC_OFFSET:
        return optional_actions.keep_utc_offset
    return None if vr in {"OB", "OW", "UN"} else (KEEP if letter == "K" else CLEAN).get(vr)


def _made(code: str, action: Action) -> Callable[[Rule, str], Rule]:
    return lambda basic, vr: Rule(code, vr, otherwise(action, basic.action), "the site's own rule", chosen=True)


def _by_vr(code: str, known: Mapping[str, Action]) -> Callable[[Rule, str], Rule]:
    def rule(basic: Rule, vr: str) -> Rule:
        if vr == "SQ":
            return Rule("R", vr, actions.remove, "the site's own rule: its items are de-identified", chosen=True)
        return _made(code, known[vr])(basic, vr)

    return rule


# A site's word -> the rule it makes, and the VRs it can be said of.
_SITE: Final[Mapping[str, tuple[Callable[[Rule, str], Rule], frozenset[str]]]] = {
    "remove": (lambda _basic, _vr: gone("the site's own rule"), frozenset({*KEEP, "SQ"})),
    "empty": (_made("Z", actions.empty), frozenset({*KEEP, "SQ"})),
    "dummy": (_made("D", actions.dummy), frozenset(DUMMIES)),
    "keep": (_by_vr("K", KEEP), frozenset({*KEEP, "SQ"})),
    "uid": (_made("U", actions.new_uid), frozenset({"UI"})),
    "clean": (_by_vr("C", CLEAN), frozenset({*values.TEXTS - {"PN", "UR"}, "CS", "SQ"})),
    "shift": (_made("C", optional_actions.shift_date), frozenset({"DA", "DT"})),
}
SITE_WORDS: Final = tuple(_SITE)


def allows(word: str, tag: int) -> bool:
    """True where a site's word can be said of an attribute, whichever VR of the dictionary it is sent with."""
    vrs = dictionary_VR(BaseTag(tag)).split(" or ")
    return set(vrs) <= _SITE[word][1] or (word == "dummy" and tag in _SEQUENCE_DUMMIES)


def site_rule(word: str, tag: int, wire_vr: str | None) -> Rule:
    """The rule that a site's word makes; the Basic Profile's where the element was sent as something else."""
    basic = basic_rule(tag, wire_vr)
    vr = agreed_vr(tag, wire_vr)
    if word == "remove":
        return gone("the site's own rule")
    return basic if vr is None else _SITE[word][0](basic, vr)


def private_rule(options: frozenset[str], tag: int, wire_vr: str | None, creator: str | None) -> Rule:
    """The rule for a private element; only what is known to be safe of its creator (PS3.15 E.3.10) can stay."""
    known = safe_private.vr_of(creator, tag) if creator is not None and "retain-safe-private" in options else None
    if known is None or wire_vr not in {*_WIRE_VRS_UNTOLD, known}:
        return gone("private")
    reason = f"private, and known to be safe: {creator}"
    if known == "SQ":
        return Rule("R", known, actions.remove, f"{reason}; its items are de-identified", chosen=True)
    code, action = _private_action(options, known)
    return (
        gone(f"{reason}, but its bytes are nothing that can be read") if action is None else Rule(code, known, action, reason, chosen=True)
    )


def _private_action(options: frozenset[str], vr: str) -> tuple[str, Action | None]:
    """What becomes of each VR; the standard lists no names, titles, dates and ages as safe, so none of these stays."""
    if vr == "UI":
        return ("K", KEEP[vr]) if "retain-uids" in options else ("U", actions.new_uid)
    if vr in _PRIVATE_TEXTS:
        return "C", actions.keep_technical
    return "K", KEEP[vr] if vr in _PRIVATE_NUMBERS else None
