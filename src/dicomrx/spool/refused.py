"""Whom the receiver turned away: the newest picture of it, for a person to look at; nothing is decided by it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from dicomrx.spool.layout import Spool, read_json

_SUFFIX: Final = ".json"


def note(spool: Spool, rows: Sequence[Mapping[str, Any]]) -> None:
    """Put a new picture in the place of the old one; the receiver's alone. Raises OSError."""
    old = _pictures(spool)
    last = int(old[-1].stem) if old else 0
    spool.write_json(spool.run_dir / "refused" / f"{last + 1}{_SUFFIX}", {"refused": rows})
    for picture in old:
        picture.unlink(missing_ok=True)


def read(spool: Spool) -> list[dict[str, Any]]:
    """The rows of the newest picture; none where nobody was turned away."""
    while pictures := _pictures(spool):
        document = read_json(pictures[-1])
        if document is not None:  # it may have been replaced this instant
            rows: list[dict[str, Any]] = document["refused"]
            return rows
    return []


def _pictures(spool: Spool) -> list[Path]:
    folder = spool.run_dir / "refused"
    found = folder.iterdir() if folder.is_dir() else ()  # a spool of an older version has none
    return sorted((path for path in found if path.stem.isdigit()), key=lambda path: int(path.stem))
