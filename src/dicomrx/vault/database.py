"""SQLite as the state uses it, and what its errors mean to an operator."""

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from dicomrx.errors import ConfigError, Defer

_BUSY_S: Final = 60.0
_PRIMARY: Final = 0xFF
# A full or sick disk must defer the instance, and sqlite3 raises no OSError: without this it would look like a bug in the instance.
_ERRNOS: Final = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_CANTOPEN: errno.EIO,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_NOMEM: errno.ENOMEM,
}
_NO_DATABASE: Final = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)

Mode = Literal["ro", "rw", "rwc"]


def connect(path: Path, mode: Mode) -> sqlite3.Connection:
    """A connection whose commits survive a power cut; for one thread, and for this process alone.

    A rollback journal, as WAL gains nothing at one commit for each new patient. TRUNCATE, as its end is synced: a journal that was
    unlinked may be back after a power cut and take the last commit, whose number is in use, with it.
    """
    try:
        return _connect(path, mode)
    except sqlite3.DatabaseError as error:
        if _code(error) != sqlite3.SQLITE_NOTADB:
            raise
    return _connect(path, mode)  # seen once in 57 runs of many processes and never explained: a second look decides


def _connect(path: Path, mode: Mode) -> sqlite3.Connection:
    database = sqlite3.connect(f"{path.as_uri()}?mode={mode}", uri=True, timeout=_BUSY_S, isolation_level=None)
    try:
        if mode != "ro":
            database.execute("PRAGMA journal_mode=TRUNCATE")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("PRAGMA schema_version")
    except sqlite3.DatabaseError:
        database.close()
        raise
    return database


@contextlib.contextmanager
def explained(path: Path, remedy: str) -> Iterator[None]:
    """Turn errors of SQLite into ours: OSError for the machine, Defer for a lock held too long, ConfigError for a broken file."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = _code(error)
        if code in _ERRNOS:
            raise OSError(_ERRNOS[code], os.strerror(_ERRNOS[code]), str(path)) from error
        if code == sqlite3.SQLITE_BUSY:
            msg = f"{path} was locked by another process for {_BUSY_S:.0f} s"
            raise Defer(msg) from error
        if code in _NO_DATABASE:
            msg = f"{path} cannot be read as a database: {remedy}"
            raise ConfigError(msg) from error
        raise


def _code(error: sqlite3.Error) -> int:
    """The primary result code; 0 for an error of the module's own."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & _PRIMARY
