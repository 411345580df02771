"""The zip of one frozen study: the same instances always give the same bytes, in little memory at any size."""

import hashlib
import struct
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

# Fast rather than small: level 6 is four times slower on CT images and saves 4 % (level 1 leaves 32 %, level 6 31 %).
_LEVEL: Final = 1
_CHUNK: Final = 1 << 20
# zipfile must be told before it writes an entry; deflate can make noise a little larger, hence the margin below 2 GiB.
_ZIP64_FROM: Final = 0x7000_0000
_META_PEEK: Final = 4096
_TRANSFER_SYNTAX: Final = (0x0002, 0x0010)
_LONG_VRS: Final = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_STANDARD_SYNTAXES: Final = b"1.2.840.10008.1.2."
_NATIVE_SYNTAXES: Final = frozenset(
    {
        b"1.2.840.10008.1.2.1",  # explicit VR little endian; the implicit one has no number here
        b"1.2.840.10008.1.2.1.98",  # encapsulated, but not compressed
        b"1.2.840.10008.1.2.2",  # explicit VR big endian
    }
)


@dataclass(frozen=True)
class Entry:
    """One instance as it lies in the zip: `size` in bytes and SHA-256 of the file, before compression."""

    series: str
    instance: str
    size: int
    sha256: str


def pack(folder: Path, study: str, files: Iterable[tuple[str, str]], out: BinaryIO) -> list[Entry]:
    """Zip `files`, pairs of series and instance, from `folder`/<series>/<instance>.dcm into the empty, seekable file `out`.

    Entries are <study>/<series>/<instance>.dcm, sorted, with fixed times and attributes; what is compressed already is
    stored. Making it durable and naming it are the caller's. Raises OSError.
    """
    with zipfile.ZipFile(out, "w", compresslevel=_LEVEL) as archive:
        return [_add(archive, folder, study, series, instance) for series, instance in sorted(files)]


def add(out: BinaryIO, name: str, document: bytes) -> None:
    """Add a document behind the instances of a zip that `pack` has made; `out` must be readable too. Raises OSError."""
    with zipfile.ZipFile(out, "a", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive, archive.open(name, "w") as target:
        target.write(document)


def digest(path: Path) -> tuple[str, int]:
    """SHA-256 in hex, and size in bytes, of a finished zip.

    Not taken while packing: zipfile goes back to fill in each entry's header, so that hash would be of other bytes.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()


def _add(archive: zipfile.ZipFile, folder: Path, study: str, series: str, instance: str) -> Entry:
    path = folder / series / f"{instance}.dcm"
    hashed = hashlib.sha256()
    size = 0
    with path.open("rb") as source:
        archive.compression = zipfile.ZIP_STORED if is_compressed(source.read(_META_PEEK)) else zipfile.ZIP_DEFLATED
        large = source.seek(0, 2) >= _ZIP64_FROM
        source.seek(0)
        # By its name, not by a ZipInfo: that is how zipfile takes the level of the archive, and 1980-01-01 as time.
        with archive.open(f"{study}/{series}/{instance}.dcm", "w", force_zip64=large) as target:
            while chunk := source.read(_CHUNK):
                hashed.update(chunk)
                size += target.write(chunk)
    return Entry(series, instance, size, hashed.hexdigest())


def is_compressed(head: bytes) -> bool:
    """True where the file that begins with `head` has a standard transfer syntax that compresses (PS3.5 Annex A).

    A file whose syntax is private, or lies beyond `head`, counts as not compressed: that costs time, never correctness.
    """
    uid = _transfer_syntax(head)
    return uid.startswith(_STANDARD_SYNTAXES) and uid not in _NATIVE_SYNTAXES


def _transfer_syntax(head: bytes) -> bytes:
    """The value of (0002,0010), or nothing; file meta information is always explicit VR little endian (PS3.10 7.1)."""
    position = 132
    if head[128:position] != b"DICM":
        return b""
    while position + 12 <= len(head):
        group, element, vr, length = struct.unpack_from("<HH2sH", head, position)
        position += 8
        if vr in _LONG_VRS:
            (length,) = struct.unpack_from("<I", head, position)
            position += 4
        end = position + length
        if (group, element) == _TRANSFER_SYNTAX and end <= len(head):
            return head[position:end].rstrip(b"\0 ")
        position = end
    return b""
