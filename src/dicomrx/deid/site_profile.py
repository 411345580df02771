"""A site's own profile: the text of a TOML file."""

import re
import tomllib
from hashlib import sha256
from typing import Final

from pydicom.datadict import dictionary_has_tag, tag_for_keyword
from pydicom.tag import BaseTag

from dicomrx.deid import extra_rules
from dicomrx.deid.choices import SITE_WORDS, allows
from dicomrx.deid.profile import Profile, known_options, named_profile
from dicomrx.errors import ConfigError

_KEYS: Final = frozenset({"base", "options", "rules"})
_TAG: Final = re.compile(r"\(?([0-9A-Fa-f]{4}),?([0-9A-Fa-f]{4})\)?")
# What tells one instance and one patient from another, and what pixels and text cannot be read without.
_FIXED: Final = frozenset(
    tag_for_keyword(keyword)
    for keyword in (
        *("PatientID", "PatientName", "SOPInstanceUID", "SeriesInstanceUID", "SpecificCharacterSet", "StudyInstanceUID"),
        *("DeidentificationMethod", "DeidentificationMethodCodeSequence", "LongitudinalTemporalInformationModified"),
        "PatientIdentityRemoved",
        *extra_rules.ESSENTIAL,
    )
)
_CURVES_AND_OVERLAYS: Final = (0x50, 0x60)
_FIRST_GROUP: Final = 0x0008
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.-]")
_STEM: Final = 32
_DIGEST: Final = 8


def site_profile(text: str, stem: str) -> Profile:
    """The profile that the text of a site's file describes; `stem` is the file's name without its end.

    Its own name tells the file and, in 8 hex digits of SHA-256, its very text. Raises ConfigError, naming the key.
    """
    try:
        read = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}") from None
    unknown = sorted(read.keys() - _KEYS)
    if unknown:
        raise ConfigError(f"{unknown[0]}: no such key: use {', '.join(sorted(_KEYS))}")
    base, options, rules = read.get("base", "basic"), read.get("options", []), read.get("rules", {})
    if not isinstance(base, str):
        raise ConfigError("base: must be a profile's name, such as basic")
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise ConfigError('options: must be a list of names, such as ["retain-uids"]')
    if not isinstance(rules, dict):
        raise ConfigError("rules: must be a table of attributes")
    chosen = named_profile(base).options | known_options(options)
    own = dict(_rule(key, word) for key, word in rules.items())
    name = f"{_UNSAFE.sub('_', stem)[:_STEM]}-{sha256(text.encode()).hexdigest()[:_DIGEST]}"
    return Profile(name, chosen, frozenset(own.items()))


def _rule(key: str, word: object) -> tuple[int, str]:
    tag = _tag(key)
    if tag is None:
        raise ConfigError(f"rules: {key}: no attribute of the dictionary has this keyword or tag, or rules cannot reach it")
    if tag in _FIXED:
        raise ConfigError(f"rules: {key}: cannot be overruled: without it instances, patients or pixels could not be told apart or read")
    if not isinstance(word, str) or word not in SITE_WORDS:
        raise ConfigError(f"rules: {key}: must be one of {', '.join(SITE_WORDS)}")
    if not allows(word, tag):
        raise ConfigError(f"rules: {key}: {word} cannot be done to an attribute of this VR")
    return tag, word


def _tag(key: str) -> int | None:
    match = _TAG.fullmatch(key)
    tag = int(match[1] + match[2], 16) if match else tag_for_keyword(key)
    if tag is None or not dictionary_has_tag(BaseTag(tag)):
        return None
    beyond = tag >> 16 & 1 or tag >> 16 < _FIRST_GROUP or tag >> 24 in _CURVES_AND_OVERLAYS
    return None if beyond else int(tag)
