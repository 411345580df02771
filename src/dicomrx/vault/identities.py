"""Who is who: one number a patient, for ever, in SQLite."""

import contextlib
import json
import os
import re
import secrets
import sqlite3
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dicomrx.errors import ConfigError
from dicomrx.vault import database
from dicomrx.vault.keys import Keys

# AUTOINCREMENT remembers the highest number ever given, so that deleting a row, which forgets a patient, frees none.
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS patients (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    identity TEXT NOT NULL UNIQUE,
    data_key BLOB NOT NULL
) STRICT;
"""
_HIGHEST: Final = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'patients'"
_KEY_BYTES: Final = 32
_REMEDY: Final = "put the state back from its newest backup"
_PLACEHOLDERS: Final = frozenset({"unknown", "anonymous", "anonymized", "anonymised", "anon", "none", "unbekannt", "na", "n/a"})
_NAME_PARTS: Final = re.compile(r"[\s^=]+")


@dataclass(frozen=True)
class Patient:
    """A patient's number, the pseudonym made of it, and the key of the patient's records."""

    number: int
    data_key: bytes = field(repr=False)

    @property
    def pseudonym(self) -> str:
        """What stands for the patient from here on."""
        return f"sub-{self.number:03d}"


class Identities:
    """The store; safe for many processes. A number is durable before `patient` returns.

    Raises OSError, Defer and ConfigError as `database.explained` does.
    """

    def __init__(self, path: Path, keys: Keys, *, writable: bool) -> None:
        self._path = path
        self._keys = keys
        # Never made here: a store that went missing must be noticed, not begun anew at sub-001.
        if not path.is_file():
            msg = f"the store of identities {path} is missing: {_REMEDY}"
            raise ConfigError(msg)
        # A reader with the right to write uses it: only so can it roll back what a killed writer left half done.
        self._mode: database.Mode = "rw" if writable or os.access(path, os.W_OK) else "ro"

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

    def patient(self, key: str) -> Patient:
        """The patient of a canonical identity key, with a new number at the first call."""
        identity = self._keys.mac(self._keys.lookup, key)
        with self._open() as connection:
            number, wrapped = _row(connection, identity) or self._add(connection, identity)
        return Patient(number, self._keys.unwrap(wrapped, number))

    def known_patient(self, key: str) -> Patient | None:
        """The patient of a canonical identity key who has a number already, or None; nothing is given."""
        with self._open() as connection:
            row = _row(connection, self._keys.mac(self._keys.lookup, key))
        return None if row is None else Patient(row[0], self._keys.unwrap(row[1], row[0]))

    def _add(self, connection: sqlite3.Connection, identity: str) -> tuple[int, bytes]:
        """One transaction from look-up to durable number: of two processes the second finds the first one's."""
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            row = _row(connection, identity)
            if row is None:
                number = connection.execute(_HIGHEST).fetchone()[0] + 1
                row = number, self._keys.wrap(secrets.token_bytes(_KEY_BYTES), number)
                connection.execute("INSERT INTO patients (number, identity, data_key) VALUES (?, ?, ?)", (number, identity, row[1]))
        return row

    def data_key(self, number: int) -> bytes | None:
        """The key of a patient's records, or None where the patient was forgotten."""
        with self._open() as connection:
            row = connection.execute("SELECT data_key FROM patients WHERE number = ?", (number,)).fetchone()
        return self._keys.unwrap(row[0], number) if row else None

    def highest_number(self) -> int:
        """The highest number ever given."""
        with self._open() as connection:
            number: int = connection.execute(_HIGHEST).fetchone()[0]
        return number


def _row(connection: sqlite3.Connection, identity: str) -> tuple[int, bytes] | None:
    row: tuple[int, bytes] | None = connection.execute("SELECT number, data_key FROM patients WHERE identity = ?", (identity,)).fetchone()
    return row


def identity_key(*, patient_id: str, issuer: str, name: str, birth_date: str, study_uid: str) -> str:
    """What makes two images one patient's: PatientID and issuer; without an ID, name and birth date; else the study alone.

    Placeholders count as none: nothing but punctuation, UNKNOWN and its like, or one digit repeated. A name without a birth date is
    no identity: two patients may bear it, and two never share a number.
    """
    who = patient_id.strip(" \0\t\r\n")
    if not _says_nothing(who):
        return json.dumps(["id", issuer.strip(" \0\t\r\n").casefold(), who])
    called, born = _name(name), birth_date.strip(" \0")
    if not all(map(_says_nothing, _NAME_PARTS.split(called))) and not _says_nothing(born):
        return json.dumps(["name", called, born])
    return json.dumps(["study", study_uid.strip(" \0")])


def _name(name: str) -> str:
    """A person's name (PS3.5 6.2.1.2) however it is cased, spaced and padded with empty components."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    groups = ("^".join(" ".join(part.split()) for part in group.split("^")).rstrip("^") for group in folded.strip(" \0").split("="))
    return "=".join(groups).rstrip("=")


def _says_nothing(text: str) -> bool:
    folded = text.casefold()
    if folded in _PLACEHOLDERS or not any(map(str.isalnum, folded)):
        return True
    return folded.isdigit() and len(set(folded)) == 1
