"""A profile in full: what it does to each attribute of PS3.15 Table E.1-1, of our own rules, and to all others."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Final, NamedTuple

from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.tag import BaseTag

from dicomrx.deid import safe_private, subject
from dicomrx.deid.profile import Profile
from dicomrx.deid.rules import Rule, named_rules, table
from dicomrx.deid.tags import text_of

_FEW: Final = 3
# One attribute for all that a row of the table or of safe private attributes stands for.
_PRIVATE: Final = 0x00091001
_UNKNOWN: Final = 0x0008FFFE
_ANY_BLOCK: Final = "10"


class Described(NamedTuple):
    """What an attribute, or all of a kind, is called; its VRs; the code of its rule (`rules.Rule`) and the reason."""

    what: str
    vr: str
    code: str
    reason: str


def describe(profile: Profile) -> Iterator[Described]:
    """The table's rows, our own rules, the site's, then every other attribute of the dictionary by kind, private and unknown ones."""
    for key, row in table().items():
        if key == "private":
            yield _described(row["name"], profile.rule(_PRIVATE, None))
        else:
            tag = int(key.replace("x", "0"), 16)
            word = "" if "x" in key else keyword_for_tag(BaseTag(tag))  # as a site's own rules call it
            yield _described(f"{_tag_text(key)} {word or row['name']}".rstrip(), profile.rule(tag, None))
    own = {tag for tag, _ in profile.rules} | named_rules().keys()
    for tag in sorted(own - _listed()):
        yield _described(_name(tag), profile.rule(tag, None))
    yield from _others(profile, own)
    if "retain-safe-private" in profile.options:
        for creator, key, *_, meaning in safe_private.table():
            rule = profile.rule(int(key.replace("xx", _ANY_BLOCK), 16), None, creator)
            yield _described(f"{_tag_text(key)} {creator}: {meaning}", rule)
    yield Described(f"{subject.WHAT}, in content items", "", "D", "no option keeps or moves a birth date, or tells an age over 89")
    yield _described("all that the dictionary does not know", profile.rule(_UNKNOWN, None))


def _others(profile: Profile, own: set[int]) -> Iterator[Described]:
    """Attributes without a row, those to which the same happens together."""
    groups: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for tag in sorted(DicomDictionary.keys() - _listed() - own):
        rule = profile.rule(tag, None)
        groups[rule.reason, rule.code, dictionary_VR(BaseTag(tag)) if rule.vr else ""].append(tag)
    for (reason, code, vr), tags in sorted(groups.items(), key=lambda group: group[0][::-1]):
        what = ", ".join(map(_name, tags)) if len(tags) <= _FEW else f"{len(tags)} other attributes"
        yield Described(what, vr, code, reason)


def _described(what: str, rule: Rule) -> Described:
    return Described(what, rule.vr or "", rule.code, rule.reason)


def _listed() -> set[int]:
    return {int(key, 16) for key in table() if "x" not in key and key != "private"}


def _name(tag: int) -> str:
    return f"{text_of(tag)} {keyword_for_tag(BaseTag(tag))}".rstrip()


def _tag_text(key: str) -> str:
    return f"({key[:4].upper()},{key[4:].upper()})".replace("X", "x")
