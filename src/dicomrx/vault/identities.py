"""Who is who: one number a patient, for ever, in SQLite."""

import contextlib
import secrets
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dicomrx.vault.keys import Keys

# Rollback journal, not WAL: one commit for each new patient gains nothing from it, and old SQLite lost data by it.
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS patients (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    identity TEXT NOT NULL UNIQUE,
    data_key BLOB
) STRICT;
"""
_KEY_BYTES: Final = 32
_BUSY_S: Final = 60.0
_PLACEHOLDERS: Final = frozenset({"", "unknown", "anonymous", "anon", "none", "unbekannt", "na", "n/a"})


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
    """The store; safe for many processes. A number is durable before `patient` returns."""

    def __init__(self, path: Path, keys: Keys) -> None:
        self._path = path
        self._keys = keys
        with self._open() as database:
            database.executescript(_SCHEMA)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None)
        try:
            database.execute("PRAGMA journal_mode=DELETE")
            database.execute("PRAGMA synchronous=FULL")
            yield database
        finally:
            database.close()

    def patient(self, key: str) -> Patient:
        """The patient of a canonical identity key, with a new number at the first call."""
        identity = self._keys.mac(self._keys.lookup, key)
        with self._open() as database:
            row = database.execute("SELECT number, data_key FROM patients WHERE identity = ?", (identity,)).fetchone()
            if row is None:
                row = self._add(database, identity)
        return Patient(row[0], self._keys.unwrap(row[1], row[0]))

    def _add(self, database: sqlite3.Connection, identity: str) -> tuple[int, bytes]:
        database.execute("BEGIN IMMEDIATE")
        row = database.execute("SELECT number, data_key FROM patients WHERE identity = ?", (identity,)).fetchone()
        if row is None:
            number = database.execute("INSERT INTO patients (identity) VALUES (?)", (identity,)).lastrowid or 0
            row = (number, self._keys.wrap(secrets.token_bytes(_KEY_BYTES), number))
            database.execute("UPDATE patients SET data_key = ? WHERE number = ?", (row[1], number))
        database.execute("COMMIT")
        return row[0], row[1]

    def data_key(self, number: int) -> bytes | None:
        """The key of a patient's records, or None where the patient was forgotten."""
        with self._open() as database:
            row = database.execute("SELECT data_key FROM patients WHERE number = ?", (number,)).fetchone()
        return self._keys.unwrap(row[0], number) if row and row[0] else None

    def highest_number(self) -> int:
        """The highest number ever given."""
        with self._open() as database:
            row = database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'patients'").fetchone()
        return row[0] if row else 0


def identity_key(*, patient_id: str, issuer: str, name: str, birth_date: str, study_uid: str) -> str:
    """What makes two images one patient's: PatientID and issuer; without an ID, name and birth date; else the study alone.

    Placeholders count as none: empty, UNKNOWN and its like, or one digit repeated.
    """
    who = patient_id.strip()
    if not _is_placeholder(who):
        return f"id\x1f{issuer.strip().casefold()}\x1f{who}"
    called = name.strip().rstrip("^").strip().casefold()
    if not _is_placeholder(called.replace("^", " ").strip()):
        return f"name\x1f{called}\x1f{birth_date.strip()}"
    return f"study\x1f{study_uid}"


def _is_placeholder(text: str) -> bool:
    return text.casefold() in _PLACEHOLDERS or (text.isdigit() and len(set(text)) == 1)
