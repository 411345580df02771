"""Vault segments: append-only files of encrypted records, each written by one process that holds its flock.

A record is `DXR1`, the length of its header (4 bytes, big endian), the header (JSON, pseudonyms only), then frames: length (4 bytes,
the top bit set on the last), and AES-256-GCM of up to 1 MiB under the patient's key. The nonce is a random prefix from the
header, a counter and the last-flag (the STREAM construction, so that frames can be neither cut, swapped nor dropped); the
header is authenticated with each. The last frame holds what proves the rest: sizes and SHA-256.
"""

import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dicomrx.errors import PermissionRefused
from dicomrx.spool import durable
from dicomrx.spool.durable import RunDirectory

SUFFIX: Final = ".seg"
FRAME: Final = 1 << 20
_MAGIC: Final = b"DXR1"
_U32: Final = struct.Struct(">I")
_LAST: Final = 1 << 31
_TAG: Final = 16
_HEADER_MAX: Final = 1 << 16


@dataclass(frozen=True)
class Location:
    """Where a record lies, and its clear header."""

    segment: str
    start: int
    end: int
    header: Mapping[str, Any]


def nonce(prefix: bytes, counter: int, *, last: bool) -> bytes:
    """12 bytes: 7 of the record, 4 of the frame, 1 that says whether it is the last."""
    return prefix + _U32.pack(counter) + bytes([last])


class Writer:
    """Appends to one new segment; the flock on it tells readers that it may still grow."""

    def __init__(self, path: Path, scratch: RunDirectory) -> None:
        self.name = path.name
        self._fd = durable.create_locked(path, scratch)
        self._end = 0

    def append(self, header: Mapping[str, Any], prefix: bytes, key: bytes, source: BinaryIO, facts: Mapping[str, Any]) -> Location:
        """Write one record and sync it. After an error the segment is as it was before, or is to be given up.

        `facts` go encrypted into the last frame, beside the size and SHA-256 of `source`.
        """
        start = self._end
        try:
            self._record(header, prefix, key, source, facts)
            durable.sync(self._fd)
        except BaseException:
            os.ftruncate(self._fd, start)
            os.lseek(self._fd, start, os.SEEK_SET)
            raise
        self._end = os.lseek(self._fd, 0, os.SEEK_CUR)
        return Location(self.name, start, self._end, header)

    def _record(self, header: Mapping[str, Any], prefix: bytes, key: bytes, source: BinaryIO, facts: Mapping[str, Any]) -> None:
        clear = json.dumps(header, sort_keys=True).encode()
        durable.write_all(self._fd, _MAGIC + _U32.pack(len(clear)) + clear)
        cipher, digest = AESGCM(key), sha256()
        size = counter = 0
        while chunk := source.read(FRAME):
            digest.update(chunk)
            size += len(chunk)
            self._frame(cipher.encrypt(nonce(prefix, counter, last=False), chunk, clear), 0)
            counter += 1
        proof = json.dumps({**facts, "size": size, "sha256": digest.hexdigest()}, sort_keys=True).encode()
        self._frame(cipher.encrypt(nonce(prefix, counter, last=True), proof, clear), _LAST)

    def _frame(self, sealed: bytes, flag: int) -> None:
        durable.write_all(self._fd, _U32.pack(len(sealed) | flag))
        durable.write_all(self._fd, sealed)

    def close(self) -> None:
        """Give the flock back: the segment grows no more."""
        os.close(self._fd)


def scan(path: Path, start: int) -> Iterator[Location]:
    """The whole records of a segment from `start` on; a torn or unfinished one ends it."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while True:
            header = _read_header(file, start)
            if header is None:
                return
            end = _skip_frames(file, size)
            if end is None:
                return
            yield Location(path.name, start, end, header[0])
            start = end


def _read_header(file: BinaryIO, start: int) -> tuple[dict[str, Any], bytes] | None:
    file.seek(start)
    head = file.read(len(_MAGIC) + _U32.size)
    if len(head) < len(_MAGIC) + _U32.size or not head.startswith(_MAGIC):
        return None
    (length,) = _U32.unpack(head[len(_MAGIC) :])
    clear = file.read(length) if length <= _HEADER_MAX else b""
    try:
        return json.loads(clear), clear
    except ValueError:
        return None


def _skip_frames(file: BinaryIO, size: int) -> int | None:
    while True:
        word = file.read(_U32.size)
        if len(word) < _U32.size:
            return None
        length: int = _U32.unpack(word)[0]
        end = file.tell() + (length & ~_LAST)
        if not _TAG <= length & ~_LAST <= FRAME + _TAG or end > size:
            return None
        if length & _LAST:
            return end
        file.seek(end)


def decrypt(path: Path, location: Location, key: bytes, out: BinaryIO) -> dict[str, Any]:
    """Write a record's content to `out`; returns its proven facts. Raises PermissionRefused for anything not as it was written."""
    with path.open("rb") as file:
        found = _read_header(file, location.start)
        if found is None or found[0] != location.header:
            raise _tampered()
        clear = found[1]
        try:
            return _content(file, bytes.fromhex(found[0]["nonce"]), AESGCM(key), clear, out)
        except (InvalidTag, struct.error, ValueError, KeyError) as error:
            raise _tampered() from error


def _content(file: BinaryIO, prefix: bytes, cipher: AESGCM, clear: bytes, out: BinaryIO) -> dict[str, Any]:
    digest = sha256()
    counter = 0
    while True:
        (length,) = _U32.unpack(file.read(_U32.size))
        last = bool(length & _LAST)
        plain = cipher.decrypt(nonce(prefix, counter, last=last), file.read(length & ~_LAST), clear)
        if last:
            facts: dict[str, Any] = json.loads(plain)
            if facts["sha256"] != digest.hexdigest():
                raise _tampered()
            return facts
        digest.update(plain)
        out.write(plain)
        counter += 1


def _tampered() -> PermissionRefused:
    return PermissionRefused("the vault's record was tampered with, or is another key's: restore nothing from it, look at its backup")
