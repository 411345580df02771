"""Opens records of the vault: an original is given back as it was, or not at all."""

import contextlib
import json
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dicomrx.errors import NoInputError, PermissionRefused
from dicomrx.vault.keys import record_key
from dicomrx.vault.segments import VERSION, Location, chunks, header_of, nonce, read_header, read_length

# One SHA-256 of the whole original, which is read as one without a head.
_VERSION_2: Final = 2
# Always the SHA-256 of the output.
_VERSION_3: Final = 3


@dataclass(frozen=True)
class _Sealed:
    """What opens a record's frames and is authenticated along; where the data set begins, and the part that the record lacks.

    `before` is how many of the output's own bytes come before that part, None where the record has none of them.
    """

    version: int
    cipher: AESGCM
    clear: bytes
    dataset: int
    missing: range
    before: int | None


class _Original:
    """An original on its way out: the SHA-256 of its head, and of its data set."""

    def __init__(self, dataset: int, out: BinaryIO) -> None:
        self.size = 0
        self._dataset = dataset
        self._out = out
        self._digests = sha256(), sha256()

    def write(self, chunk: bytes) -> None:
        head = max(0, self._dataset - self.size)
        for digest, part in zip(self._digests, (chunk[:head], chunk[head:]), strict=True):
            digest.update(part)
        self.size += self._out.write(chunk)

    def is_proven(self, sealed: _Sealed, facts: dict[str, Any]) -> bool:
        """True where this is all of it, and as it was."""
        head, dataset = (digest.hexdigest() for digest in self._digests)
        if sealed.version == _VERSION_2:
            return bool((facts["size"], facts["sha256"]) == (self.size, dataset))
        return bool((facts["size"], facts["head_sha256"], facts["dataset_sha256"]) == (self.size, head, dataset))


def decrypt(path: Path, location: Location, key: bytes, out: BinaryIO, pixels: BinaryIO | None = None) -> None:
    """Write an original to `out`; `key` is the patient's, and `pixels` gives what the record does not hold, from where it stands.

    Raises PermissionRefused for anything not as it was written, NoInputError where `pixels` are needed and there are none.
    What is in `out` is proven only once this returns.
    """
    with path.open("rb") as file:
        sealed = _opened(file, location, key)
        kept = _kept(file, sealed)
        if sealed.before is not None:
            next(kept)
        if not _rejoin(kept, sealed, pixels, out):
            raise _other_pixels() if sealed.missing else _tampered()


def output_sha256(path: Path, location: Location, key: bytes, pixels: Callable[[], BinaryIO | None]) -> str:
    """SHA-256 of what was made of an original, in hex, by a record that has its own bytes; empty where `pixels` are not the original's.

    These are asked for twice. Raises PermissionRefused for anything not as it was written.
    """
    with path.open("rb") as file, Path(os.devnull).open("wb") as nowhere:
        sealed = _opened(file, location, key)
        kept = _kept(file, sealed)
        own, _ = next(kept)
        if not _rejoin(kept, sealed, pixels() or BytesIO(), nowhere):
            return ""
    digest = sha256(own[: sealed.before])
    for chunk in chunks(pixels() or BytesIO(), len(sealed.missing)):
        digest.update(chunk)
    digest.update(own[sealed.before :])
    return digest.hexdigest()


def is_sound(path: Path, location: Location, key: bytes) -> bool:
    """True where the record begins as it was written; `key` is the patient's."""
    with contextlib.suppress(PermissionRefused), path.open("rb") as file:
        _open_frame(file, _opened(file, location, key), 0)
        return True
    return False


def _opened(file: BinaryIO, location: Location, key: bytes) -> _Sealed:
    clear = read_header(file, location.start) or b""
    header = header_of(clear)
    if not header or header != location.header:
        raise _tampered()
    version = header.get("version")
    if version not in {VERSION, _VERSION_3, _VERSION_2}:
        msg = "the vault's record was written by another version of dicomrx: restore it with that one"
        raise PermissionRefused(msg)
    try:
        dataset = 0 if version == _VERSION_2 else int(header["dataset"])
        salt, missing = bytes.fromhex(header["salt"]), range(*header["pixels"])
    except (KeyError, TypeError, ValueError) as error:
        raise _tampered() from error
    return _Sealed(version, AESGCM(record_key(key, salt)), clear, dataset, missing, header.get("before"))


def _kept(file: BinaryIO, sealed: _Sealed) -> Iterator[tuple[bytes, bool]]:
    """The frames, opened: the output's own bytes if the record has them, parts of the original, at last the proof."""
    for counter in count():
        plain, last = _open_frame(file, sealed, counter)
        yield (plain, True) if last else (zlib.decompress(plain), False)
        if last:
            return


def _rejoin(kept: Iterator[tuple[bytes, bool]], sealed: _Sealed, pixels: BinaryIO | None, out: BinaryIO) -> bool:
    """Write an original to `out`; False where that is proven not to be it."""
    original, proof = _Original(sealed.dataset, out), b""
    for plain, last in kept:
        if sealed.missing and original.size == sealed.missing.start:
            for chunk in _given(pixels, len(sealed.missing)):
                original.write(chunk)
        if last:
            proof = plain
        else:
            original.write(plain)
    return original.is_proven(sealed, json.loads(proof))


def _given(pixels: BinaryIO | None, length: int) -> Iterator[bytes]:
    if pixels is None:
        msg = "the original's pixels are not in the vault, they are in its de-identified file, and this file has none: name one that has"
        raise NoInputError(msg)
    return chunks(pixels, length)


def _open_frame(file: BinaryIO, sealed: _Sealed, counter: int) -> tuple[bytes, bool]:
    frame = read_length(file)
    if frame is None:
        raise _tampered()
    length, last = frame
    data = file.read(length)
    try:
        return sealed.cipher.decrypt(nonce(counter, last=last), data, sealed.clear), last
    except (InvalidTag, ValueError) as error:
        raise _tampered() from error


def _tampered() -> PermissionRefused:
    return PermissionRefused("the vault's record was tampered with, or is another key's: restore nothing from it, look at its backup")


def _other_pixels() -> PermissionRefused:
    return PermissionRefused("the pixels of this file are not the original's, which are not in the vault: name the file as it was made")
