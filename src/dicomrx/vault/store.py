"""The vault: of every original what its de-identified file has not, encrypted under its patient's key, found by that file's UID."""

import errno
import os
import secrets
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from dicomrx.errors import PermissionRefused
from dicomrx.spool import durable, locks
from dicomrx.spool.runs import RunDirectory
from dicomrx.vault import opening
from dicomrx.vault.identities import Patient
from dicomrx.vault.index import Index
from dicomrx.vault.keys import Keys
from dicomrx.vault.segments import SUFFIX, Location, Writer, scan

_NAME_BYTES: Final = 8
_NUMBERS: Final = 1 << 63  # a patient's fits into SQLite


class Own(NamedTuple):
    """What a de-identified file has of its own, before and behind the pixels of its original; together a frame (1 MiB) at most."""

    before: bytes
    behind: bytes


@dataclass(frozen=True, kw_only=True)
class Original:
    """What a record says of an instance: pseudonymous UIDs, the patient, what was made of it and from which bytes (SHA-256, hex).

    `output` may be what it has of its own instead, which tells the same. `dataset` is where its data set begins, behind its head. `pixels`
    is the part of it that need not be kept, as what was made of it has the same bytes.
    """

    study: str
    series: str
    instance: str
    patient: Patient
    profile: str
    output: str | Own
    dataset_sha256: str
    transfer_syntax: str
    dataset: int
    pixels: range


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
        self.instance = location.instance
        self.patient: int = header["patient"]
        self.profile: str = header["profile"]
        self.same: str = header["same"]
        self.output_sha256: str | None = header["output_sha256"]
        self.order: int = header["order"]

    @classmethod
    def of(cls, location: Location) -> "Record | None":
        """The record, if its header says all of that: one that was tampered with is none."""
        try:
            record = cls(location)
        except KeyError:
            return None
        texts = record.study, record.series, record.profile, record.same, record.output_sha256 or ""
        numbers = record.patient, record.order
        is_sound = all(isinstance(text, str) for text in texts) and all(isinstance(number, int) for number in numbers)
        return record if is_sound and 0 <= record.patient < _NUMBERS else None

    @property
    def pixels_at(self) -> int:
        """Where in the data set of its original the pixels begin that it does not hold."""
        header = self.location.header
        return int(header["pixels"][0] - header["dataset"])

    @property
    def position(self) -> Position:
        """What the spool must have noted before it relies on this record."""
        return Position(self.location.segment, self.location.end)


class Vault:
    """Appends to a segment of its own, made at the first record; finds records of every process at once.

    The caller sees to it that one instance is looked up and appended by one process at a time (the study's lock).
    """

    def __init__(self, folder: Path, scratch: RunDirectory | None, keys: Keys, data_key: Callable[[int], bytes]) -> None:
        self._folder = folder
        self._scratch = scratch
        self._keys = keys
        self._data_key = data_key
        self._index = Index(folder, writable=scratch is not None)
        self._writer: Writer | None = None
        self._batch_lost = False
        self._appended: list[Location] = []  # since the last sync
        self._durable: dict[str, int] = {}  # how far segments are known to be synced

    def same(self, original: Original) -> str:
        """What tells, without telling what, that two images have the same data set bytes in the same transfer syntax."""
        return self._keys.mac(self._keys.same, f"{original.dataset_sha256} {original.transfer_syntax}")

    def append(self, original: Original, source: BinaryIO, order: int) -> Position:
        """Put an original in, durable after the next `sync`: so a batch of records is cheap. Raises OSError.

        `source` is read in little memory, all but its pixels. `order` is how many records of the instance there are.
        """
        own = original.output if isinstance(original.output, Own) else None
        output = {"output_sha256": original.output} if own is None else {"output_sha256": None, "before": len(own.before)}
        header = {
            "study": original.study,
            "series": original.series,
            "instance": original.instance,
            "patient": original.patient.number,
            "profile": original.profile,
            "same": self.same(original),
            **output,
            "order": order,
            "dataset": original.dataset,
            "pixels": [original.pixels.start, original.pixels.stop],
        }
        facts = {"dataset_sha256": original.dataset_sha256, "transfer_syntax": original.transfer_syntax}
        writer = self._open_segment()
        pending = writer.unsynced
        try:
            self._appended.append(writer.append(header, original.patient.data_key, source, facts, b"".join(own or ())))
        except BaseException:
            self._batch_lost = self._batch_lost or pending
            self._abandon_segment()
            raise
        return Position(writer.name, writer.end)

    def sync(self) -> None:
        """Make durable all that was appended; raises OSError where any of it is lost: append the batch again."""
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
        self._index.add(self._appended)
        self._appended.clear()

    def find(self, instance: str) -> list[Record]:
        """The records of one instance, oldest first; whoever may append can rely on them, they are durable."""
        return self.find_all([instance])[instance]

    def find_all(self, instances: Collection[str]) -> dict[str, list[Record]]:
        """The same for several, for little more than the cost of one."""
        found = {instance: list[Record]() for instance in instances}
        for location in self._index.find_all(instances):
            if self._scratch is not None:
                self._make_durable(location)
            record = Record.of(location)
            if record is not None:
                found[record.instance].append(record)
        for records in found.values():
            records.sort(key=lambda record: (record.order, record.position))
        return found

    @cached_property
    def is_whole(self) -> bool:
        """False where segments that grow no more hold anything but records as they were written: one that is missed may be among it.

        Found out once, as it reads the begin of every record.
        """
        return all(self._is_whole(path) for path in self._folder.glob(f"*{SUFFIX}") if not locks.is_locked(path))

    def _is_whole(self, path: Path) -> bool:
        end = 0
        for location in scan(path, 0, grows=False):
            if location.start != end or not self._is_sound(path, location):
                return False
            end = location.end
        return end == path.stat().st_size

    def _is_sound(self, path: Path, location: Location) -> bool:
        record = Record.of(location)
        if record is None:
            return False
        try:
            key = self._data_key(record.patient)
        except PermissionRefused:  # forgotten: nobody can tell any more
            return True
        return opening.is_sound(path, location, key)

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

    def restore(self, record: Record, out: BinaryIO, pixels: BinaryIO | None = None) -> None:
        """Write an original to `out`; what is there counts only once this returns.

        `pixels` is a de-identified file that stands where the value of its pixels begins. Raises PermissionRefused, and NoInputError
        where they are needed and not given.
        """
        opening.decrypt(self._folder / record.location.segment, record.location, self._data_key(record.patient), out, pixels)

    def output_sha256(self, record: Record, pixels: Callable[[], BinaryIO | None]) -> str | None:
        """SHA-256 of what was made of a record's original, in hex; None where nobody can tell: tampered with, or the patient was forgotten.

        `pixels` gives what `restore` takes, or the original where its pixels begin; it is asked only where they are needed. Empty
        where they are not the original's.
        """
        if record.output_sha256 is not None:
            return record.output_sha256
        path, location = self._folder / record.location.segment, record.location
        with suppress(PermissionRefused):
            return opening.output_sha256(path, location, self._data_key(record.patient), pixels)
        return None

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
        self._appended.clear()
        if writer is not None:
            writer.abandon()

    def close(self) -> None:
        """End this process's segment."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._index.close()
