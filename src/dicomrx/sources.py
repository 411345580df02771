"""What a person names to be restored or verified, a file, a folder or a zip: each file of it, open, or why it cannot be read."""

import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path
from shutil import copyfileobj
from typing import BinaryIO, Final, cast

from dicomrx.errors import DicomrxError, NoInputError, PermissionRefused

Opened = BinaryIO | DicomrxError

# RuntimeError: encrypted, or packed in a way that is not known here.
_UNFIT: Final = (zipfile.BadZipFile, RuntimeError, EOFError, zlib.error, LZMAError)


def opened(path: Path) -> Iterator[tuple[Path, Opened]]:
    """One file, closed when the next is asked for; nothing for what is no file."""
    try:
        if path.is_file():
            with path.open("rb") as file:
                yield path, file
    except PermissionError:
        yield path, PermissionRefused("this user may not read it")


def in_folder(folder: Path) -> Iterator[tuple[Path, Opened]]:
    """Every file below a folder, sorted, links left out; then the folders that this user may not look into."""
    shut: list[OSError] = []
    found = [Path(top, name) for top, _, names in os.walk(folder, onerror=shut.append) for name in names]
    for path in sorted(found):
        if not os.path.islink(path):  # noqa: PTH114  Path's raises where this user may not look
            yield from opened(path)
    for error in shut:
        yield Path(error.filename), PermissionRefused("this user may not look into it")


@contextmanager
def opened_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip to read; raises NoInputError for one that is damaged as a whole."""
    try:
        bundle = zipfile.ZipFile(path)
    except _UNFIT as error:
        raise NoInputError(f"{path.name} is a damaged zip") from error
    with bundle:
        yield bundle


def in_zip(bundle: zipfile.ZipFile) -> Iterator[tuple[str, Opened]]:
    """Every file of a zip, sorted by its name, unpacked to a nameless one: nothing but originals ever gets a name."""
    for info in sorted(bundle.infolist(), key=lambda info: info.filename):
        if not info.is_dir():
            with tempfile.TemporaryFile() as file:
                yield info.filename, _unpacked(bundle, info, cast("BinaryIO", file))


def _unpacked(bundle: zipfile.ZipFile, info: zipfile.ZipInfo, file: BinaryIO) -> Opened:
    try:
        with bundle.open(info) as packed:
            copyfileobj(packed, file)
    except _UNFIT:
        return NoInputError("it cannot be unpacked: the zip is damaged, or encrypted")
    file.seek(0)
    return file
