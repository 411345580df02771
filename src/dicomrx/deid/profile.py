"""A profile: PS3.15's Basic Profile, the options that a site chose, and the rules that it wrote itself."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from pydicom.datadict import dictionary_VR
from pydicom.tag import BaseTag

from dicomrx.deid.choices import optional_rule, private_rule, site_rule
from dicomrx.deid.options import BASIC_METHOD, NAMED, OPTIONS
from dicomrx.deid.rules import Rule
from dicomrx.errors import ConfigError

_DATES: Final = frozenset({"DA", "DT"})
_LABEL: Final = "dicomrx {} 2026c"
_CLEANING: Final = frozenset({"clean-descriptors", "clean-graphics", "clean-structured", "retain-patient"})


@dataclass(frozen=True, slots=True)
class Profile:
    """A named set of options of PS3.15 Annex E, and a site's own rules: a word (`choices.SITE_WORDS`) for a tag."""

    name: str = "basic"
    options: frozenset[str] = frozenset()
    rules: frozenset[tuple[int, str]] = frozenset()
    _hash: int = field(init=False, repr=False, compare=False)

    def __hash__(self) -> int:
        """Computed once: every element asks for its rule."""
        return self._hash

    def __post_init__(self) -> None:
        """Raises ConfigError for dates that are to be kept and moved."""
        object.__setattr__(self, "_hash", hash((self.name, self.options, self.rules)))
        if {"full-dates", "modified-dates"} <= self.options:
            raise ConfigError("full-dates and modified-dates exclude each other: name one of them")

    def rule(self, tag: int, vr: str | None, creator: str | None = None) -> Rule:
        """The rule for an element; `vr` is the one on the wire, None where the transfer syntax has none; `creator` is for private ones."""
        return _rule(self, tag, vr, creator)

    @property
    def label(self) -> str:
        """For DeidentificationMethod (0012,0063), at most 64 characters: the name, the options beyond it, and the edition of the table."""
        more = (option.short for word, option in OPTIONS.items() if word in self.options - NAMED.get(self.name, self.options))
        return _LABEL.format("+".join((self.name, *more)))

    @property
    def methods(self) -> tuple[tuple[str, str], ...]:
        """Codes and meanings of CID 7050 for DeidentificationMethodCodeSequence (0012,0064)."""
        return (BASIC_METHOD, *((option.code, option.meaning) for word, option in OPTIONS.items() if word in self.options))

    @property
    def longitudinal(self) -> str:
        """For LongitudinalTemporalInformationModified (0028,0303); dates that a site keeps or moves by a rule of its own count."""
        own = {word for tag, word in self.rules if dictionary_VR(BaseTag(tag)) in _DATES}
        if "modified-dates" in self.options:
            return "MODIFIED"
        if "full-dates" in self.options:
            return "MODIFIED" if own - {"keep"} else "UNMODIFIED"
        return "MODIFIED" if own & {"keep", "shift"} else "REMOVED"

    @property
    def cleans(self) -> bool:
        """True where text is cleaned, so that the instance's own words must be known."""
        return bool(self.options & _CLEANING) or any(word == "clean" for _, word in self.rules)


BASIC: Final = Profile()


@lru_cache(maxsize=16384)
def _rule(profile: Profile, tag: int, wire_vr: str | None, creator: str | None) -> Rule:
    if tag >> 16 & 1:
        return private_rule(profile.options, tag, wire_vr, creator)
    own = dict(profile.rules).get(tag)
    return optional_rule(profile.options, tag, wire_vr) if own is None else site_rule(own, tag, wire_vr)


def named_profile(text: str) -> Profile:
    """The profile of a text such as `research` or `basic+retain-uids`; raises ConfigError, naming what is unknown."""
    name, *more = text.split("+")
    if name not in NAMED:
        raise ConfigError(f"no profile is called {name!r}: use {' or '.join(NAMED)}, +option..., or a file that ends in .toml")
    return Profile(name, NAMED[name] | known_options(more))


def labelled_profile(label: str) -> Profile | None:
    """The profile that has this label; None for a site's own, which only its file can tell."""
    begin, end = _LABEL.split("{}")
    name, *shorts = label.removeprefix(begin).removesuffix(end).split("+")
    words = {option.short: word for word, option in OPTIONS.items()}
    if name not in NAMED or not words.keys() >= set(shorts):
        return None
    return Profile(name, NAMED[name] | {words[short] for short in shorts})


def known_options(words: list[str]) -> frozenset[str]:
    """The options of these words; raises ConfigError for one that is none."""
    for word in words:
        if word not in OPTIONS:
            raise ConfigError(f"no option is called {word!r}: use {', '.join(OPTIONS)}")
    return frozenset(words)
