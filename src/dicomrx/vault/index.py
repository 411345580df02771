"""Where an instance's records lie: a cache beside the segments. Deleting it loses nothing, it is read again from them."""

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Final

from dicomrx.errors import ConfigError
from dicomrx.spool import locks
from dicomrx.vault import database
from dicomrx.vault.segments import SUFFIX, Location, is_there, scan

NAME: Final = "index.sqlite"
_FLUSH_AT: Final = 1000
_TICK_NS: Final = 2_000_000_000
_REMEDY: Final = "stop anonymize and delete it, it is made again from the segments"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS records (
    segment TEXT NOT NULL, start INTEGER NOT NULL, finish INTEGER NOT NULL, instance TEXT NOT NULL, header TEXT NOT NULL,
    PRIMARY KEY (segment, start)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_instance ON records (instance);
CREATE TABLE IF NOT EXISTS progress (segment TEXT PRIMARY KEY, finish INTEGER NOT NULL, sealed INTEGER NOT NULL) STRICT;
"""
# A header that was tampered with may be no JSON, and says nothing.
_STUDIES: Final = """
SELECT DISTINCT header ->> 'study' FROM (SELECT CASE WHEN json_valid(header) THEN header END AS header FROM records)
WHERE header ->> 'patient' = ? AND json_type(header, '$.study') = 'text'
"""


class Index:
    """Looks up records, having read what other processes appended since.

    The newest records are kept in memory and written to SQLite by the thousand; a reader keeps in memory all that SQLite lacks.
    Raises OSError, Defer and ConfigError as `database.explained` does.
    """

    def __init__(self, folder: Path, *, writable: bool) -> None:
        self._folder = folder
        self._path = folder / NAME
        self._writable = writable
        self._fresh: dict[str, list[Location]] = {}
        self._count = 0
        self._growing: dict[str, int] = {}  # segments that may have more to read, and how far they were read
        self._sealed: set[str] = set()
        self._unsaved: dict[str, int] = {}
        self._listed = -1
        self._database = self._open() if writable else self._open_to_read()
        self._read_progress()

    def _open(self) -> sqlite3.Connection:
        with database.explained(self._path, _REMEDY), locks.locked(self._folder / ".lock"):
            connection = database.connect(self._path, "rwc")
            self._path.chmod(0o600)
            connection.executescript(_SCHEMA)
        return connection

    def _open_to_read(self) -> sqlite3.Connection | None:
        """The index, if it is there and good: a reader repairs nothing, and can do without."""
        try:
            connection = database.connect(self._path, "ro")
        except sqlite3.DatabaseError:
            return None
        try:
            connection.execute("SELECT 1 FROM records, progress LIMIT 1")
        except sqlite3.DatabaseError:
            connection.close()
            return None
        return connection

    def _read_progress(self) -> None:
        if self._database is None:
            return
        with database.explained(self._path, _REMEDY):
            rows = self._database.execute("SELECT segment, finish, sealed FROM progress").fetchall()
        for segment, finish, sealed in rows:
            path = self._folder / segment
            if not path.exists() or path.stat().st_size < finish:
                continue  # put back from an older backup: read it anew
            if sealed:
                self._sealed.add(segment)
            else:
                self._growing[segment] = finish

    def find_all(self, instances: Collection[str]) -> list[Location]:
        """Every record of these instances, in no order."""
        self._catch_up()
        fresh = (location for instance in instances for location in self._fresh.get(instance, ()))
        found = {(location.segment, location.start): location for location in (*self._saved(instances), *fresh)}
        return [location for location in found.values() if is_there(self._folder / location.segment, location)]

    def add(self, locations: Iterable[Location]) -> None:
        """Take note of what this process appended: it need not be read to be found."""
        for location in locations:
            self._fresh.setdefault(location.instance, []).append(location)
            self._growing[location.segment] = self._unsaved[location.segment] = location.end
            self._count += 1

    def studies(self, patient: int) -> set[str]:
        """The pseudonymous UIDs of a patient's studies; every record is looked at."""
        self._catch_up()
        fresh = (one.header for each in self._fresh.values() for one in each)
        found = {says["study"] for says in fresh if says.get("patient") == patient and isinstance(says.get("study"), str)}
        if self._database is not None:
            with database.explained(self._path, _REMEDY):
                found.update(study for (study,) in self._database.execute(_STUDIES, (patient,)))
        return found

    def _saved(self, instances: Collection[str]) -> Iterator[Location]:
        if self._database is None:
            return
        query = "SELECT segment, start, finish, instance, header FROM records WHERE instance IN (SELECT value FROM json_each(?))"
        with database.explained(self._path, _REMEDY):
            rows = self._database.execute(query, (json.dumps(list(instances)),)).fetchall()
        yield from map(Location._make, rows)

    def _catch_up(self) -> None:
        """Read what was appended since, by whomever. Only segments that may still grow are looked at."""
        changed = self._folder.stat().st_mtime_ns
        if changed != self._listed:
            for name in os.listdir(self._folder):  # noqa: PTH208  names are wanted, maybe very many
                if name.endswith(SUFFIX) and name not in self._sealed:
                    self._growing.setdefault(name, 0)
            # A name that comes within the same tick of the file system's clock would not change the time again.
            self._listed = changed if abs(time.time_ns() - changed) > _TICK_NS else -1
        for segment in list(self._growing):
            self._read(segment)
        if self._writable and self._count >= _FLUSH_AT:
            self._flush()

    def _read(self, segment: str) -> None:
        path = self._folder / segment
        grows = locks.is_locked(path)  # asked before its size: what is not held now has its last size
        try:
            size = path.stat().st_size
        except FileNotFoundError as error:
            msg = f"the vault's segment {path} is gone: put the state back from its newest backup"
            raise ConfigError(msg) from error
        if size > self._growing[segment]:
            self.add(scan(path, self._growing[segment], grows=grows))
        if not grows:
            self._unsaved[segment] = self._growing.pop(segment)
            self._sealed.add(segment)

    def _flush(self) -> None:
        if self._database is None:
            return
        ends = [(segment, end, segment in self._sealed) for segment, end in self._unsaved.items()]
        with database.explained(self._path, _REMEDY), self._database as connection:
            connection.execute("BEGIN IMMEDIATE")
            saved = dict(connection.execute("SELECT segment, finish FROM progress"))  # others read the same records, and save them
            new = [one for found in self._fresh.values() for one in found if one.end > saved.get(one.segment, 0)]
            connection.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?)", new)
            connection.executemany(
                "INSERT INTO progress VALUES (?, ?, ?) ON CONFLICT (segment) DO UPDATE SET"
                " finish = max(finish, excluded.finish), sealed = max(sealed, excluded.sealed)",
                ends,
            )
        self._fresh.clear()
        self._unsaved.clear()
        self._count = 0

    def close(self) -> None:
        """Leave what was read to the next process."""
        if self._database is None:
            return
        with contextlib.closing(self._database):
            if self._writable and self._count:
                self._flush()
