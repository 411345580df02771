"""Who an instance says its patient is: the key that patients are numbered by, and the traits that give a wrong key away."""

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

FAMILY: Final = "family"
BORN: Final = "born"

# What consoles, exports and people write where they know nothing. Words that are also names do little harm: a name with another part
# in it is still a name.
_PLACEHOLDERS: Final = frozenset(
    {
        "anon", "anonim", "anonimo", "anonym", "anonyme", "anonymised", "anonymized", "anonymous", "desconocida", "desconocido", "inconnu",
        "inconnue", "keine", "n/a", "na", "namenlos", "neznamy", "nieznany", "nil", "no id", "no name", "noid", "noname", "none",
        "not available", "not known", "null", "okand", "onbekend", "sconosciuta", "sconosciuto", "test", "ukendt", "ukjent", "unbekannt",
        "unk", "unknown", "unnamed",
        "18000101", "19000101", "99991231",  # birth dates of nobody
    }
)  # fmt: skip
_BETWEEN_PARTS: Final = re.compile(r"[\s\0^=]+")
_COMPONENTS: Final = re.compile(r"[\^=]")  # PS3.5 6.2.1.2
_IGNORED_IN_FAMILY_NAMES: Final = frozenset("CPSZ")  # general categories: controls, punctuation, symbols, spaces


class Placeholders:
    """What says nothing where an ID, a name or a birth date should stand: punctuation, one digit or X repeated, our words, the site's."""

    def __init__(self, more: Iterable[str] = ()) -> None:
        self._words = _PLACEHOLDERS | {_folded(word) for word in more}

    def cover(self, text: str) -> bool:
        """True where the text as a whole says nothing, however it is cased and spaced."""
        folded = _folded(text)
        if folded in self._words or not any(map(str.isalnum, folded)):
            return True
        return len(set(folded)) == 1 and (folded.isdigit() or folded[0] == "x")

    def cover_name(self, name: str) -> bool:
        """True where a name says nothing: as a whole, or each of its components, or each word in these."""
        return self.cover(name) or all(self.cover(part) or all(map(self.cover, part.split())) for part in _COMPONENTS.split(name))


@dataclass(frozen=True, slots=True, repr=False)
class Who:
    """An instance's claim: the canonical key of its patient, that of its study, and its family names and birth date, by kind.

    The two keys are one where the instance says nothing else of its patient.
    """

    key: str
    study: str
    traits: Mapping[str, frozenset[str]]

    @property
    def says_nobody(self) -> bool:
        """True where only the study tells whose the instance is."""
        return self.key == self.study


def identify(*, patient_id: str, issuer: str, name: str, birth_date: str, study_uid: str, placeholders: Placeholders) -> Who:
    """Read the claim: the key is PatientID and issuer; without an ID, name and birth date; else the study alone.

    A name without a birth date is no key: two patients may bear it, and two never share a number.
    """
    study = json.dumps(["study", study_uid.strip(" \0")])
    born = "" if placeholders.cover(birth_date) else birth_date.strip(" \0")
    if not placeholders.cover(patient_id):
        key = id_key(patient_id, issuer)
    elif born and not placeholders.cover_name(name):
        key = json.dumps(["name", _name(name), born])
    else:
        key = study
    return Who(key, study, {FAMILY: _families(name, placeholders), BORN: frozenset({born} if born else ())})


def id_key(patient_id: str, issuer: str) -> str:
    """The key of a PatientID and its issuer, however they are padded and spaced."""
    return json.dumps(["id", _plain(issuer).casefold(), _plain(patient_id)])


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).strip("\0 ").split())


def _folded(text: str) -> str:
    return " ".join(_BETWEEN_PARTS.split(_without_accents(text))).strip()


def _without_accents(text: str) -> str:
    return "".join(letter for letter in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(letter))


def _name(name: str) -> str:
    """A person's name (PS3.5 6.2.1.2) however it is cased, spaced and padded with empty components."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    groups = ("^".join(" ".join(part.split()) for part in group.split("^")).rstrip("^") for group in folded.strip(" \0").split("="))
    return "=".join(groups).rstrip("=")


def _families(name: str, placeholders: Placeholders) -> frozenset[str]:
    """The family name of each component group: alphabetic, ideographic, phonetic."""
    if placeholders.cover_name(name):
        return frozenset()
    families = (group.split("^")[0] for group in name.split("="))
    return frozenset(_family(family) for family in families if not placeholders.cover_name(family))


def _family(name: str) -> str:
    """A family name without accents, case, spaces and punctuation."""
    return "".join(letter for letter in _without_accents(name) if unicodedata.category(letter)[0] not in _IGNORED_IN_FAMILY_NAMES)
