"""Where an instance's records lie: a cache beside the segments. Deleting it loses nothing, it is read again from them."""

import contextlib
import json
import os
import sqlite3
from pathlib import Path
from typing import Final

from dicomrx.errors import ConfigError
from dicomrx.spool import durable
from dicomrx.vault.segments import SUFFIX, Location, scan

NAME: Final = "index.sqlite"
_FLUSH_AT: Final = 2000
_BUSY_S: Final = 60.0
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS records (
    segment TEXT NOT NULL, start INTEGER NOT NULL, finish INTEGER NOT NULL, instance TEXT NOT NULL, header TEXT NOT NULL,
    PRIMARY KEY (segment, start)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_instance ON records (instance);
CREATE TABLE IF NOT EXISTS progress (segment TEXT PRIMARY KEY, finish INTEGER NOT NULL, sealed INTEGER NOT NULL) STRICT;
"""


class Index:
    """Looks up records, having read what other processes appended since.

    The newest records are kept in memory and written to SQLite by the thousand; a reader without the right to write keeps all
    of them in memory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / NAME
        self._fresh: dict[str, list[Location]] = {}
        self._count = 0
        self._ends: dict[str, int] = {}
        self._sealed: set[str] = set()
        self._listed = -1
        self._database = self._open()
        self._read_progress()

    def _open(self) -> sqlite3.Connection | None:
        writable = os.access(self._folder, os.W_OK)
        if not writable and not self._path.exists():
            return None
        uri = f"{self._path.as_uri()}?mode={'rwc' if writable else 'ro'}"
        database = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None)
        try:
            database.execute("PRAGMA synchronous=OFF")  # a cache: after a power cut it is checked against the segments
            if writable:
                database.executescript(_SCHEMA)
            database.execute("SELECT 1 FROM records LIMIT 1")
        except sqlite3.DatabaseError as error:
            database.close()
            raise self._broken() from error
        return database

    def _broken(self) -> ConfigError:
        return ConfigError(f"the vault's index {self._path} cannot be read: delete it, it is made again from the segments")

    def _read_progress(self) -> None:
        if self._database is None:
            return
        for segment, finish, sealed in self._database.execute("SELECT segment, finish, sealed FROM progress"):
            path = self._folder / segment
            if not path.exists() or path.stat().st_size < finish:
                continue
            self._ends[segment] = max(finish, self._ends.get(segment, 0))
            if sealed:
                self._sealed.add(segment)

    def find(self, instance: str) -> list[Location]:
        """Every record of an instance, in no order."""
        self._catch_up()
        found = {(location.segment, location.start): location for location in self._fresh.get(instance, ())}
        if self._database is not None:
            query = "SELECT segment, start, finish, header FROM records WHERE instance = ?"
            try:
                rows = self._database.execute(query, (instance,)).fetchall()
            except sqlite3.DatabaseError as error:
                raise self._broken() from error
            for segment, start, finish, header in rows:
                if finish <= self._ends.get(segment, 0):
                    found[segment, start] = Location(segment, start, finish, json.loads(header))
        return list(found.values())

    def _catch_up(self) -> None:
        """Read what was appended since, by whomever. Only segments that may still grow are looked at."""
        changed = self._folder.stat().st_mtime_ns
        if changed != self._listed:
            for path in self._folder.glob(f"*{SUFFIX}"):
                self._ends.setdefault(path.name, 0)
            self._listed = changed
        for segment in [name for name in self._ends if name not in self._sealed]:
            self._read(segment)
        if self._count >= _FLUSH_AT:
            self._flush()

    def _read(self, segment: str) -> None:
        path = self._folder / segment
        grows = durable.is_locked(path)  # asked before its size: what is not held now has its last size
        if path.stat().st_size > self._ends[segment]:
            for location in scan(path, self._ends[segment]):
                self._fresh.setdefault(location.header["instance"], []).append(location)
                self._ends[segment] = location.end
                self._count += 1
        if not grows:
            self._sealed.add(segment)

    def _flush(self) -> None:
        if self._database is None or not os.access(self._path, os.W_OK):
            return
        locations = [location for found in self._fresh.values() for location in found]
        rows = [(one.segment, one.start, one.end, one.header["instance"], json.dumps(one.header)) for one in locations]
        ends = [(segment, end, segment in self._sealed) for segment, end in self._ends.items()]
        with contextlib.closing(self._database.cursor()) as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            cursor.executemany("INSERT OR IGNORE INTO records VALUES (?, ?, ?, ?, ?)", rows)
            cursor.executemany(
                "INSERT INTO progress VALUES (?, ?, ?) ON CONFLICT (segment) DO UPDATE SET"
                " finish = max(finish, excluded.finish), sealed = max(sealed, excluded.sealed)",
                ends,
            )
            cursor.execute("COMMIT")
        self._fresh.clear()
        self._count = 0

    def close(self) -> None:
        """Leave what was read to the next process."""
        if self._database is not None:
            if self._count:
                self._flush()
            self._database.close()
