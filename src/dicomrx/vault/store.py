"""The vault: every original, encrypted under its patient's key, found by the pseudonymous UID of what was made of it."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from dicomrx.errors import PermissionRefused
from dicomrx.spool.durable import RunDirectory
from dicomrx.vault.identities import Patient
from dicomrx.vault.index import Index
from dicomrx.vault.keys import Keys
from dicomrx.vault.segments import SUFFIX, Location, Writer, decrypt

_PREFIX: Final = 7
_VERSION: Final = 1


@dataclass(frozen=True, kw_only=True)
class Original:
    """What a record says of an instance: pseudonymous UIDs, the patient, what was made of it and from which bytes (SHA-256, hex)."""

    study: str
    series: str
    instance: str
    patient: Patient
    profile: str
    output_sha256: str
    dataset_sha256: str
    transfer_syntax: str


class Position(NamedTuple):
    """How far a segment has come, in bytes, once a record is durable."""

    segment: str
    end: int


class Record:
    """A record found, by its clear header."""

    def __init__(self, location: Location) -> None:
        self.location = location
        header = location.header
        self.study: str = header["study"]
        self.series: str = header["series"]
        self.instance: str = header["instance"]
        self.patient: int = header["patient"]
        self.profile: str = header["profile"]
        self.same: str = header["same"]
        self.output_sha256: str = header["output_sha256"]
        self.order: int = header["order"]


class Vault:
    """Appends to a segment of its own, made at the first record; finds records of every process at once."""

    def __init__(self, folder: Path, scratch: RunDirectory | None, keys: Keys, data_key: Callable[[int], bytes | None]) -> None:
        self._folder = folder
        self._scratch = scratch
        self._keys = keys
        self._data_key = data_key
        self._index = Index(folder)
        self._writer: Writer | None = None
        self._segments = 0

    def same(self, original: Original) -> str:
        """What tells, without telling what, that two images have the same data set bytes in the same transfer syntax."""
        return self._keys.mac(self._keys.same, f"{original.dataset_sha256} {original.transfer_syntax}")

    def append(self, original: Original, source: BinaryIO) -> Position:
        """Put an original in, durably; `source` is read to its end, in little memory. Raises OSError."""
        prefix = secrets.token_bytes(_PREFIX)
        header = {
            "version": _VERSION,
            "study": original.study,
            "series": original.series,
            "instance": original.instance,
            "patient": original.patient.number,
            "profile": original.profile,
            "same": self.same(original),
            "output_sha256": original.output_sha256,
            "order": len(self.find(original.instance)),
            "nonce": prefix.hex(),
        }
        facts = {"dataset_sha256": original.dataset_sha256, "transfer_syntax": original.transfer_syntax}
        writer = self._open_segment()
        try:
            location = writer.append(header, prefix, original.patient.data_key, source, facts)
        except OSError:
            self._close_segment()
            raise
        return Position(location.segment, location.end)

    def find(self, instance: str) -> list[Record]:
        """The records of one instance, oldest first."""
        return sorted((Record(location) for location in self._index.find(instance)), key=lambda record: record.order)

    def restore(self, record: Record, out: BinaryIO) -> None:
        """Write an original to `out`; what is there counts only once this returns. Raises PermissionRefused."""
        key = self._data_key(record.patient)
        if key is None:
            msg = f"sub-{record.patient:03d} was forgotten: its originals cannot be restored"
            raise PermissionRefused(msg)
        decrypt(self._folder / record.location.segment, record.location, key, out)

    def positions(self) -> dict[str, int]:
        """Every segment and its size in bytes."""
        return {path.name: path.stat().st_size for path in self._folder.glob(f"*{SUFFIX}")}

    def _open_segment(self) -> Writer:
        if self._scratch is None:
            msg = "the state was opened to read"
            raise RuntimeError(msg)
        if self._writer is None:
            self._segments += 1
            self._writer = Writer(self._folder / f"{self._scratch.run}-{self._segments}{SUFFIX}", self._scratch)
        return self._writer

    def _close_segment(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def close(self) -> None:
        """End this process's segment."""
        self._close_segment()
        self._index.close()
