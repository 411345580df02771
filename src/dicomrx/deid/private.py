"""The rule for an element where it stands: private ones go by who created them (PS3.5 7.8.1)."""

from typing import Final

from dicomrx.deid import subject
from dicomrx.deid.dataset import DataSet
from dicomrx.deid.profile import Profile
from dicomrx.deid.reading import raw_text
from dicomrx.deid.rules import Rule
from dicomrx.deid.tags import creator_tag

_CREATOR_VRS: Final = frozenset({"LO", "UN", None})


def rule_in(holder: DataSet, tag: int, wire_vr: str | None, profile: Profile) -> Rule:
    """The profile's rule for an element of a data set or item; a private one goes by its creator there, a content item by its concept."""
    where = creator_tag(tag) if tag >> 16 & 1 else None
    return subject.hidden(profile.rule(tag, wire_vr, None if where is None else _creator(holder, where)), holder, tag)


def _creator(holder: DataSet, tag: int) -> str | None:
    if tag not in holder or holder[tag].vr not in _CREATOR_VRS:
        return None
    return raw_text(holder, tag) or None
