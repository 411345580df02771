"""The site's key and what is derived from it: one key a use, so that no use can tell of another."""

import base64
import binascii
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from dicomrx.errors import ConfigError, PermissionRefused
from dicomrx.spool import durable
from dicomrx.spool.runs import RunDirectory

_LENGTH: Final = 32
_NONCE: Final = 12
_OTHERS: Final = 0o077
_SHIFTS: Final = range(366, 3651)


@dataclass(frozen=True)
class Keys:
    """Derived keys; `repr` shows none of them."""

    uid: bytes = field(repr=False)
    lookup: bytes = field(repr=False)
    wrapping: bytes = field(repr=False)
    same: bytes = field(repr=False)
    check: bytes = field(repr=False)
    traits: bytes = field(repr=False)
    dates: bytes = field(repr=False)

    @classmethod
    def derive(cls, site_key: bytes) -> "Keys":
        """One key a use, by HKDF (RFC 5869)."""
        uses = (b"uid", b"identity look-up", b"patient keys", b"same instance", b"check", b"traits of patients", b"dates")
        return cls(*(_hkdf(site_key, use) for use in uses))

    def mac(self, key: bytes, text: str) -> str:
        """HMAC-SHA256 of a text, in hex."""
        return hmac.new(key, text.encode(), "sha256").hexdigest()

    def date_shift(self, patient: int) -> int:
        """Whole days from 366 to 3650 by which a patient's dates move back: so many that no season is told, the same in every run."""
        digest = hmac.digest(self.dates, str(patient).encode(), "sha256")
        return _SHIFTS[int.from_bytes(digest[:8], "big") % len(_SHIFTS)]

    def wrap(self, data_key: bytes, patient: int) -> bytes:
        """A patient's key, encrypted for the patient's number alone."""
        nonce = secrets.token_bytes(_NONCE)
        return nonce + AESGCM(self.wrapping).encrypt(nonce, data_key, str(patient).encode())

    def unwrap(self, wrapped: bytes, patient: int) -> bytes:
        """A patient's key again; raises PermissionRefused where it is not ours or was tampered with."""
        try:
            return AESGCM(self.wrapping).decrypt(wrapped[:_NONCE], wrapped[_NONCE:], str(patient).encode())
        except (InvalidTag, ValueError) as error:
            msg = f"the key of patient number {patient} does not open: the site's key is another, or the store was tampered with"
            raise PermissionRefused(msg) from error


def record_key(data_key: bytes, salt: bytes) -> bytes:
    """The key of one record: as no two records share one, a frame's nonce may be its number."""
    return _hkdf(data_key, b"record", salt)


def _hkdf(secret: bytes, use: bytes, salt: bytes | None = None) -> bytes:
    return HKDF(algorithm=SHA256(), length=_LENGTH, salt=salt, info=b"dicomrx v1 " + use).derive(secret)


def make_site_key(path: Path, scratch: RunDirectory) -> None:
    """Make a key file of 32 random bytes, base64; raises FileExistsError where there is one."""
    part = scratch.new_path()
    # Not by `publish`, whose files a group may read where the spool has one.
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        durable.write_all(fd, base64.b64encode(secrets.token_bytes(_LENGTH)) + b"\n")
        durable.sync(fd)
    finally:
        os.close(fd)
    durable.link(part, path)
    part.unlink()


def read_site_key(path: Path) -> bytes:
    """The site's key; raises ConfigError for one that is missing, malformed, or readable by others."""
    try:
        mode = path.stat().st_mode
        text = path.read_bytes()
    except FileNotFoundError as error:
        msg = f"the site's key {path} is missing: put it back from its backup, without it nothing can be restored"
        raise ConfigError(msg) from error
    if mode & _OTHERS:
        msg = f"the site's key {path} is open to others (mode {mode & 0o777:o}): chmod 600 it"
        raise ConfigError(msg)
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != _LENGTH:
        msg = f"{path} holds no site key (32 bytes in base64): put it back from its backup"
        raise ConfigError(msg)
    return key
