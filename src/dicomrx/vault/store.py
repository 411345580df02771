"""The vault: every original, encrypted under its patient's key, found by the pseudonymous UID of what was made of it."""

import errno
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from dicomrx.errors import PermissionRefused
from dicomrx.spool import durable
from dicomrx.spool.durable import RunDirectory
from dicomrx.vault.identities import Patient
from dicomrx.vault.index import Index
from dicomrx.vault.keys import Keys
from dicomrx.vault.segments import SUFFIX, Location, Writer, decrypt

_NAME_BYTES: Final = 8


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
    """How far a segment has come, in bytes, with the record that ends there."""

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

    @property
    def position(self) -> Position:
        """What the spool must have noted before it relies on this record."""
        return Position(self.location.segment, self.location.end)


class Vault:
    """Appends to a segment of its own, made at the first record; finds records of every process at once.

    The caller sees to it that one instance is looked up and appended by one process at a time (the study's lock).
    """

    def __init__(self, folder: Path, scratch: RunDirectory | None, keys: Keys, data_key: Callable[[int], bytes | None]) -> None:
        self._folder = folder
        self._scratch = scratch
        self._keys = keys
        self._data_key = data_key
        self._index = Index(folder, writable=scratch is not None)
        self._writer: Writer | None = None
        self._batch_lost = False
        self._durable: dict[str, int] = {}  # how far segments are known to be synced

    def same(self, original: Original) -> str:
        """What tells, without telling what, that two images have the same data set bytes in the same transfer syntax."""
        return self._keys.mac(self._keys.same, f"{original.dataset_sha256} {original.transfer_syntax}")

    def append(self, original: Original, source: BinaryIO, *, flush: bool = True) -> Position:
        """Put an original in, durably; `source` is read to its end, in little memory. Raises OSError.

        Without `flush` it is durable after the next `sync`, which makes a batch of records cheap.
        """
        header = {
            "study": original.study,
            "series": original.series,
            "instance": original.instance,
            "patient": original.patient.number,
            "profile": original.profile,
            "same": self.same(original),
            "output_sha256": original.output_sha256,
            "order": len(self._index.find(original.instance)),
        }
        facts = {"dataset_sha256": original.dataset_sha256, "transfer_syntax": original.transfer_syntax}
        writer = self._open_segment()
        pending = writer.unsynced
        try:
            writer.append(header, original.patient.data_key, source, facts)
            if flush:
                writer.sync()
        except BaseException:
            self._batch_lost = self._batch_lost or pending
            self._abandon_segment()
            raise
        if flush:
            self._durable[writer.name] = writer.end
        return Position(writer.name, writer.end)

    def sync(self) -> None:
        """Make durable all that was appended without `flush`; raises OSError where any of it is lost: append the batch again."""
        if self._batch_lost:
            self._batch_lost = False
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self._folder))
        if self._writer is None or not self._writer.unsynced:
            return
        try:
            self._writer.sync()
        except BaseException:
            self._abandon_segment()
            raise
        self._durable[self._writer.name] = self._writer.end

    def find(self, instance: str) -> list[Record]:
        """The records of one instance, oldest first; whoever may append can rely on them, they are durable."""
        locations = self._index.find(instance)
        if self._scratch is not None:
            for location in locations:
                self._make_durable(location)
        return sorted(map(Record, locations), key=lambda record: (record.order, record.position))

    def studies(self, patient: int) -> set[str]:
        """The pseudonymous UIDs of the studies of the patient with this number."""
        return self._index.studies(patient)

    def _make_durable(self, location: Location) -> None:
        """A writer may have died between its record and its fsync."""
        if self._durable.get(location.segment, 0) >= location.end:
            return
        if self._writer is not None and location.segment == self._writer.name:
            self.sync()
            return
        with (self._folder / location.segment).open("rb") as file:
            durable.sync(file.fileno())
        self._durable[location.segment] = location.end

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
            self._writer = Writer(self._folder / f"{secrets.token_hex(_NAME_BYTES)}{SUFFIX}", self._scratch)
        return self._writer

    def _abandon_segment(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abandon()

    def close(self) -> None:
        """End this process's segment."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._index.close()
