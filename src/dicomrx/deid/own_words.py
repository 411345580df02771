"""The words of an instance's own identifiers, which no cleaned text may keep, however ordinary they are."""

import re
from functools import lru_cache
from typing import Final

from pydicom.datadict import keyword_for_tag
from pydicom.tag import BaseTag

from dicomrx.deid.dataset import DataSet
from dicomrx.deid.private import rule_in
from dicomrx.deid.profile import Profile
from dicomrx.deid.reading import decode, walk
from dicomrx.deid.spellings import ID_KEYWORD, WORD
from dicomrx.deid.tags import known_vr

_IDS: Final = frozenset({"LO", "SH"})
_PLACES: Final = re.compile(r"^InstitutionName$|StationName$")


def own_words(dataset: DataSet, profile: Profile) -> frozenset[str]:
    """The parts of every name, of whatever length, and the words of IDs, numbers, institutions and stations; not what the profile keeps."""
    if dataset.halves is None:
        return _words(dataset, dataset, profile)
    shared, own = dataset.halves
    common = shared.once("own words", profile, lambda: _words(shared.elements, shared.elements, profile))
    return common | _words(dataset, own, profile)


def _words(dataset: DataSet, part: DataSet, profile: Profile) -> frozenset[str]:
    found: set[str] = set()
    for holder, tag, vr, value, charset in walk(dataset, part=part):
        if _identifies(tag, vr) and rule_in(holder, tag, vr, profile).code != "K":
            found.update(WORD.findall(decode(bytes(value), charset).casefold()))
    return frozenset(found)


@lru_cache(maxsize=8192)
def _identifies(tag: int, vr: str | None) -> bool:
    known, keyword = known_vr(tag) or vr, keyword_for_tag(BaseTag(tag))
    return known == "PN" or (known in _IDS and bool(ID_KEYWORD.search(keyword) or _PLACES.search(keyword)))
