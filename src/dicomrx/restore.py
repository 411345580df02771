"""Originals back, byte for byte, from the vault; or, for the older tool's files, the values of its map put back."""

import contextlib
import errno
import logging
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from dicomrx.errors import CannotCreateError, DicomrxError, NoInputError
from dicomrx.sources import Opened, in_folder, in_zip, opened, opened_zip
from dicomrx.spool import durable, locks

_PREAMBLE: Final = 128
_MAGIC: Final = b"DICM"
_CHUNK: Final = 1 << 20
_BEGIN: Final = ".dicomrx-"
_END: Final = ".part"
_PARTS: Final = f"{_BEGIN}*{_END}"
_OURS: Final = (".run/id", "key-check")

log = logging.getLogger(__name__)

Originals = Callable[[BinaryIO], "list[Callable[[BinaryIO], None]] | None"]
"""Finds what belongs to an anonymized file: for each original a writer of it, an empty list where it has none, None for no DICOM file."""


@dataclass
class Report:
    """What became of the files of one call; names are those of the anonymized files."""

    restored: int = 0
    failed: list[tuple[str, DicomrxError]] = field(default_factory=list)
    skipped: int = 0


class Kind(StrEnum):
    """What can be restored from."""

    FILE = "file"
    FOLDER = "folder"
    ZIP = "zip"

    @classmethod
    def of(cls, source: Path) -> "Kind":
        """By the content; raises NoInputError where there is nothing to read."""
        if not source.exists():
            msg = f"{source} is not there"
            raise NoInputError(msg)
        if source.is_dir():
            return cls.FOLDER
        if not source.is_file():  # to open a FIFO is to wait for its writer
            msg = f"{source} is no file, folder or zip"
            raise NoInputError(msg)
        return cls.ZIP if zipfile.is_zipfile(source) else cls.FILE


def restore(source: Path, out: Path, originals: Originals) -> Report:
    """Restore a file, a folder tree or a zip to `out`, which gets originals and nothing else; nothing is overwritten.

    What is no DICOM file is skipped. Raises NoInputError or CannotCreateError for the two paths themselves.
    """
    kind = Kind.of(source)
    target = out / source.name if out.is_dir() else out
    _sweep(target.parent.glob(_PARTS) if kind is Kind.FILE else out.rglob(_PARTS))
    report = Report()
    if kind is Kind.FOLDER:
        for path, file in in_folder(source):
            relative = path.relative_to(source)
            if not any(part.startswith(".") for part in relative.parts):
                _one(file, str(relative), out / relative, originals, report)
    elif kind is Kind.ZIP:
        with opened_zip(source) as bundle:
            for name, file in in_zip(bundle):
                _one(_inside(name) or file, name, out / name, originals, report)
    else:
        for _, file in opened(source):
            _one(file, source.name, target, originals, report)
    return report


def _inside(name: str) -> NoInputError | None:
    """What is wrong with a name in a zip; None where it stays below the place that is written to."""
    path = PurePosixPath(name)
    stays = path.name and not path.is_absolute() and ".." not in path.parts
    return None if stays else NoInputError("its name leads out of the zip")


def _one(file: Opened, name: str, target: Path, originals: Originals, report: Report) -> None:
    try:
        if isinstance(file, DicomrxError):
            raise file
        writers = originals(file)
        if writers is None:
            report.skipped += 1
            return
        if not writers:
            report.failed.append((name, NoInputError("there is no original of it here")))
            return
        for number, write in enumerate(writers, 1):
            _write(target if number == 1 else target.with_suffix(f".{number}{target.suffix}"), write)
    except CannotCreateError:
        raise
    except DicomrxError as error:
        report.failed.append((name, error))
        return
    report.restored += 1


def is_dicom_file(file: BinaryIO) -> bool:
    """True for a file of the DICOM file format (PS3.10 7.1)."""
    file.seek(_PREAMBLE)
    magic = file.read(len(_MAGIC))
    file.seek(0)
    return magic == _MAGIC


def _write(target: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write beside the target under a hidden name, and link it only when all of it is proven."""
    try:
        _refuse_ours(target)
        with _part(target.parent) as part:
            with part.open("r+b") as out:
                write(out)
                out.flush()
                durable.sync(out.fileno())
            durable.link(part, target)
    except FileExistsError as error:
        msg = f"{target} exists: name an empty or new place, nothing is overwritten"
        raise CannotCreateError(msg) from error
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        msg = "its name is too long for where the originals go"
        raise NoInputError(msg) from error


@contextlib.contextmanager
def _part(folder: Path) -> Iterator[Path]:
    """An empty file in `folder` that lasts as long as the block; claimed, so that `_sweep` knows it from what a dead process left."""
    claim = None
    while claim is None:  # a sweeper was faster than our claim
        try:
            folder.mkdir(parents=True, exist_ok=True)
            fd, name = tempfile.mkstemp(_END, _BEGIN, folder)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise
            msg = f"cannot write below {folder}: {error.strerror}"
            raise CannotCreateError(msg) from error
        os.close(fd)
        try:
            claim = locks.claim(Path(name))
        except OSError:  # a file system without locks: no sweeper can claim it either
            break
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
        if claim is not None:
            os.close(claim)


def _sweep(parts: Iterable[Path]) -> None:
    """Remove what a killed restore left unfinished: it holds an identity, under a name that nobody sees."""
    for part in list(parts):
        with contextlib.suppress(OSError):  # another user's, or on a file system without locks
            claim = locks.claim(part)
            if claim is not None:
                durable.remove(part)
                os.close(claim)
                log.warning("removed what an earlier restore, killed, had left unfinished in %s", part.parent)


def _refuse_ours(target: Path) -> None:
    """Originals never go into a spool or a state: from there they could be sent."""
    for folder in target.resolve().parents:
        if any((folder / sign).exists() for sign in _OURS):
            msg = f"{folder} belongs to dicomrx: restore to a place outside the spool, the zips and the state"
            raise CannotCreateError(msg)


def digest(file: BinaryIO) -> str:
    """SHA-256 of an open file, from its start."""
    file.seek(0)
    hashed = sha256()
    while chunk := file.read(_CHUNK):
        hashed.update(chunk)
    return hashed.hexdigest()
