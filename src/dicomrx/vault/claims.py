"""What an instance says of its patient against what the store knows: whose it is, what is new, and what cannot be."""

import json
import sqlite3
from collections.abc import Mapping
from typing import Final, NamedTuple, Self

from dicomrx.errors import Reject
from dicomrx.vault.keys import Keys
from dicomrx.vault.who import BORN, FAMILY, Who

_BY_IDENTITY: Final = "SELECT number, identity, data_key FROM patients WHERE identity = ?"
_BY_STUDY: Final = """
SELECT number, identity, data_key FROM patients WHERE number =
    coalesce((SELECT number FROM studies WHERE study = :study), (SELECT number FROM patients WHERE identity = :study))
"""
_CONFLICT: Final = (
    "this PatientID was seen with another family name and another birth date: find out which of the two patients it is, correct that "
    "at the sender and send the images again"
)
_TWO_PATIENTS: Final = (
    "this study has images of another patient: correct the patient at the sender, or give these images a study of their own, and send "
    "them again"
)

_Traits = Mapping[str, set[str]]


class Row(NamedTuple):
    """A patient as stored."""

    number: int
    identity: str
    data_key: bytes

    @classmethod
    def of(cls, connection: sqlite3.Connection, identity: str) -> Self | None:
        """The patient of an identity."""
        row = connection.execute(_BY_IDENTITY, (identity,)).fetchone()
        return cls(*row) if row else None

    @classmethod
    def of_study(cls, connection: sqlite3.Connection, study: str) -> Self | None:
        """The patient of a study, by its first instance; the study may be the patient's identity itself."""
        row = connection.execute(_BY_STUDY, {"study": study}).fetchone()
        return cls(*row) if row else None


class Claim:
    """What an instance says of its patient, as the store keeps it: every value is an HMAC."""

    def __init__(self, who: Who, keys: Keys) -> None:
        self._who = who
        self._keys = keys
        self.identity = keys.mac(keys.lookup, who.key)
        self._study = keys.mac(keys.lookup, who.study)

    def known(self, connection: sqlite3.Connection) -> Row | None:
        """The patient, where the instance says nothing that is not known. What is known never changes: no transaction is needed."""
        row = Row.of_study(connection, self._study)
        if row is None or (row.identity != self.identity and not self._who.says_nobody) or self._new_traits(connection, row):
            return None
        return row

    def settle(self, connection: sqlite3.Connection) -> Row | None:
        """The patient that the instance belongs to, None for a new one; in one transaction with `remember`. Raises Reject.

        A study belongs to the patient of its first instance. A patient of whom only the study was known is, once an instance of the
        study tells, the one it tells of: in whatever order they come, all get one number.
        """
        own, bound = Row.of(connection, self.identity), Row.of_study(connection, self._study)
        row = bound or own
        if row is None:
            return None
        by_study = self._who.says_nobody or (own is None and row.identity == self._study)
        if not by_study and own != row:
            raise Reject("two-patients", _TWO_PATIENTS)
        said, known = self._traits(row), _known_traits(connection, row)
        if _differ(said, known, FAMILY):
            if by_study:
                raise Reject("two-patients", _TWO_PATIENTS)
            if _differ(said, known, BORN):
                raise Reject("identity-conflict", _CONFLICT)
        return row

    def remember(self, connection: sqlite3.Connection, row: Row) -> None:
        """Note what is new: the study's patient, the patient's key, family names and birth date."""
        connection.execute("INSERT OR IGNORE INTO studies VALUES (?, ?)", (self._study, row.number))
        if not self._who.says_nobody:
            connection.execute("UPDATE patients SET identity = ? WHERE number = ?", (self.identity, row.number))
        connection.executemany("INSERT INTO traits VALUES (?, ?, ?)", [(row.number, *new) for new in self._new_traits(connection, row)])

    def _new_traits(self, connection: sqlite3.Connection, row: Row) -> list[tuple[str, str]]:
        known = _known_traits(connection, row)
        return [(kind, trait) for kind, traits in self._traits(row).items() for trait in traits - known[kind]]

    def _traits(self, row: Row) -> _Traits:
        """With the number in them: of two patients nobody sees that they share a name or a birthday."""
        return {
            kind: {self._keys.mac(self._keys.traits, json.dumps([row.number, kind, value])) for value in values}
            for kind, values in self._who.traits.items()
        }


def _known_traits(connection: sqlite3.Connection, row: Row) -> _Traits:
    known: dict[str, set[str]] = {kind: set() for kind in (FAMILY, BORN)}
    for kind, trait in connection.execute("SELECT kind, trait FROM traits WHERE number = ?", (row.number,)):
        known[kind].add(trait)
    return known


def _differ(said: _Traits, known: _Traits, kind: str) -> bool:
    """True where both say something and nothing is the same."""
    return bool(said[kind] and known[kind] and said[kind].isdisjoint(known[kind]))
