"""Who is who: one number a patient, for ever, in SQLite."""

import contextlib
import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from dicomrx.errors import ConfigError, PermissionRefused
from dicomrx.vault import database
from dicomrx.vault.claims import Claim, Row
from dicomrx.vault.keys import Keys
from dicomrx.vault.pseudonyms import Format
from dicomrx.vault.who import Who

# AUTOINCREMENT remembers the highest number ever given, `forgotten` those that an import could give again; so deleting a patient's
# row, which forgets the patient, frees no number. Where a patient of a study alone is known by a better key later, only `studies`
# still leads from the study to the number.
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS patients (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    identity TEXT NOT NULL UNIQUE,
    data_key BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS studies (study TEXT PRIMARY KEY, number INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS traits (
    number INTEGER NOT NULL, kind TEXT NOT NULL, trait TEXT NOT NULL,
    PRIMARY KEY (number, kind, trait)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS format (only INTEGER PRIMARY KEY CHECK (only = 1), text TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS forgotten (number INTEGER PRIMARY KEY) STRICT;
CREATE TRIGGER IF NOT EXISTS forget AFTER DELETE ON patients BEGIN
    INSERT INTO forgotten VALUES (old.number);
    DELETE FROM studies WHERE number = old.number;
    DELETE FROM traits WHERE number = old.number;
END;
"""
_HIGHEST: Final = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'patients'"
_TAKEN: Final = "SELECT 1 FROM patients WHERE number = :number UNION ALL SELECT 1 FROM forgotten WHERE number = :number"
_INSERT: Final = "INSERT INTO patients (number, identity, data_key) VALUES (?, ?, ?)"
_KEY_BYTES: Final = 32
_REMEDY: Final = "put the state back from its newest backup"


@dataclass(frozen=True)
class Patient:
    """A patient's number, the pseudonym made of it, and the key of the patient's records."""

    number: int
    pseudonym: str
    data_key: bytes = field(repr=False)


class Assignment(NamedTuple):
    """A number that a site gave to the patient of an identity key; `place` is where the site says so."""

    place: str
    key: str
    number: int


class Identities:
    """The store; safe for many processes. A number is durable before `patient` returns.

    Raises OSError, Defer and ConfigError as `database.explained` does.
    """

    def __init__(self, path: Path, keys: Keys, *, writable: bool) -> None:
        self._path = path
        self._keys = keys
        # Never made here: a store that went missing must be noticed, not begun anew at number 1.
        if not path.is_file():
            msg = f"the store of identities {path} is missing: {_REMEDY}"
            raise ConfigError(msg)
        # A reader with the right to write uses it: only so can it roll back what a killed writer left half done.
        self._mode: database.Mode = "rw" if writable or os.access(path, os.W_OK) else "ro"
        with self._open() as connection:
            if writable:
                connection.executescript(_SCHEMA)  # a store of an earlier version lacks tables
            self._format = _bound_format(connection) or Format.FIRST

    @staticmethod
    def create(path: Path) -> None:
        """Make the store where there is none; for one process at a time."""
        with database.explained(path, _REMEDY), contextlib.closing(database.connect(path, "rwc")) as connection:
            connection.executescript(_SCHEMA)
        path.chmod(0o600)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with database.explained(self._path, _REMEDY), contextlib.closing(database.connect(self._path, self._mode)) as connection:
            yield connection

    def bind_format(self, text: str) -> str:
        """Make pseudonyms by this format, if none was bound and no number was given yet; returns the one that is bound now."""
        with self._open() as connection, _changing(connection):
            bound = _bound_format(connection)
            if bound is None:
                bound = Format.FIRST if _highest(connection) else Format(text)
                connection.execute("INSERT INTO format VALUES (1, ?)", (bound.text,))
        self._format = bound
        return bound.text

    def pseudonym(self, number: int) -> str:
        """What stands for the patient of a number."""
        return self._format.pseudonym(number)

    def number(self, pseudonym: str) -> int | None:
        """The number that a pseudonym was made of; None where it is none."""
        return self._format.number(pseudonym)

    def known_patient(self, who: Who) -> Patient | None:
        """The patient of an instance who has a number already, or None; nothing is given or remembered. Raises Reject as `patient` does."""
        with self._open() as connection:
            row = Claim(who, self._keys).settle(connection)
        return None if row is None else self._patient(row)

    def patient(self, who: Who) -> Patient:
        """The patient of an instance, with a new number for a new one; what the instance says is known from now on.

        Raises Reject "identity-conflict" or "two-patients", and then nothing has changed.
        """
        claim = Claim(who, self._keys)
        with self._open() as connection:
            row = claim.known(connection)
            if row is None:
                with _changing(connection):
                    row = claim.settle(connection) or self._add(connection, claim.identity, _highest(connection) + 1)
                    claim.remember(connection, row)
        return self._patient(row)

    def _patient(self, row: Row) -> Patient:
        return Patient(row.number, self.pseudonym(row.number), self._keys.unwrap(row.data_key, row.number))

    def assign(self, numbering: Iterable[Assignment]) -> int:
        """Give patients the numbers that their site gave them, all or none; returns how many were not known yet.

        Raises ConfigError, with the place, for a patient with another number and a number of another patient.
        """
        with self._open() as connection, _changing(connection):
            return sum(self._assign(connection, *one) for one in numbering)

    def _assign(self, connection: sqlite3.Connection, place: str, key: str, number: int) -> bool:
        identity = self._keys.mac(self._keys.lookup, key)
        row = Row.of(connection, identity)
        if row is not None and row.number == number:
            return False
        if row is not None:
            msg = f"{place}: this patient has another number already, here or in a line above"
            raise ConfigError(msg)
        if connection.execute(_TAKEN, {"number": number}).fetchone():
            msg = f"{place}: this number is, or was, another patient's, here or in a line above"
            raise ConfigError(msg)
        self._add(connection, identity, number)
        return True

    def _add(self, connection: sqlite3.Connection, identity: str, number: int) -> Row:
        row = Row(number, identity, self._keys.wrap(secrets.token_bytes(_KEY_BYTES), number))
        connection.execute(_INSERT, row)
        return row

    def data_key(self, number: int) -> bytes:
        """The key of a patient's records; raises PermissionRefused where the patient was forgotten."""
        with self._open() as connection:
            row = connection.execute("SELECT data_key FROM patients WHERE number = ?", (number,)).fetchone()
        if row is None:
            msg = f"{self.pseudonym(number)} was forgotten: its originals cannot be restored"
            raise PermissionRefused(msg)
        return self._keys.unwrap(row[0], number)

    def highest_number(self) -> int:
        """The highest number ever given."""
        with self._open() as connection:
            return _highest(connection)


@contextlib.contextmanager
def _changing(connection: sqlite3.Connection) -> Iterator[None]:
    """One transaction: no other process changes anything in it, and an error leaves nothing of it."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


def _bound_format(connection: sqlite3.Connection) -> Format | None:
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'format'").fetchone():
        return None
    row = connection.execute("SELECT text FROM format").fetchone()
    return Format(row[0]) if row else None


def _highest(connection: sqlite3.Connection) -> int:
    number: int = connection.execute(_HIGHEST).fetchone()[0]
    return number
