"""Where `dicomrx restore` finds originals: the vault, or the map of the older tool."""

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from pydicom import FileDataset, dcmread
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomrx import deid
from dicomrx.errors import NoInputError, PermissionRefused, Reject
from dicomrx.legacy_map import LegacyMap
from dicomrx.restore import Kind, Originals, digest, is_dicom_file
from dicomrx.vault import Record, State

_NO_DATASET: Final = (ArithmeticError, AttributeError, EOFError, LookupError, TypeError, ValueError, struct.error, RecursionError)


@contextmanager
def from_vault(state_dir: Path, *, every: bool, kind: Kind) -> Iterator[Originals]:
    """Originals by SOP Instance UID, each noted in the audit log before it is decrypted; of several `records` the first, or all."""
    with State.open(state_dir, create=False) as state:

        def original(record: Record, file: BinaryIO, out: BinaryIO) -> None:
            state.audit.note("restore", _facts(state, record, kind))
            state.vault.restore(record, out, deid.at_pixels(file))

        def originals(file: BinaryIO) -> list[Callable[[BinaryIO], None]] | None:
            if not is_dicom_file(file):
                return None
            try:
                uid = deid.outline(file).sop_uid
            except Reject as error:
                msg = f"not a readable DICOM file ({error.reason})"
                raise NoInputError(msg) from error
            found = records(state, uid, file)
            return [partial(original, record, file) for record in (found if every else found[:1])]

        yield originals


def records(state: State, uid: str, file: BinaryIO) -> list[Record]:
    """What this file was made of; where it was changed since, all that the vault has of its instance. A profile may have kept the UID."""
    found = state.vault.find(uid) or state.vault.find(deid.pseudonymous_uid(state.uid_key, uid))
    if len(found) > 1:
        found = _of(file, found, state) or found
    if not found and not state.vault.is_whole:
        msg = (
            "there is no original of it here, but bytes in the vault that are no record as it was written: "
            "a crash cut one short, or it was tampered with; look at its backup"
        )
        raise PermissionRefused(msg)
    return found


def _of(file: BinaryIO, found: Sequence[Record], state: State) -> list[Record]:
    """What the file was made of, and what it may have been made of, as nobody can tell any more: no other is given in its place.

    For that, another data set of the same patient and profile is needed.
    """
    output = digest(file)
    made = [(record, state.vault.output_sha256(record, partial(deid.at_pixels, file))) for record in found]
    known = [record for record, sha256 in made if sha256 == output]
    same, kinds = {record.same for record in known}, {(record.patient, record.profile) for record in known}

    def may_be(record: Record) -> bool:
        return not known or (record.same not in same and (record.patient, record.profile) in kinds)

    return [record for record, sha256 in made if sha256 == output or (sha256 is None and may_be(record))]


@contextmanager
def from_map(map_file: Path) -> Iterator[Originals]:
    """The values that the older tool kept, put back into its files."""
    known = LegacyMap.load(map_file)

    def originals(file: BinaryIO) -> list[Callable[[BinaryIO], None]] | None:
        file.seek(0)
        try:
            dataset = dcmread(file, force=True)  # some of its versions wrote neither preamble nor file meta
        except _NO_DATASET:
            return None
        if "StudyInstanceUID" not in dataset:
            return None
        if "TransferSyntaxUID" not in dataset.file_meta:
            dataset.file_meta.TransferSyntaxUID = _syntax(*dataset.original_encoding)
        with _writable():
            return [partial(_save, dataset)] if known.restore(dataset) else []

    yield originals


def _save(dataset: FileDataset, out: BinaryIO) -> None:
    with _writable():
        dataset.save_as(out, enforce_file_format=True)


@contextmanager
def _writable() -> Iterator[None]:
    """Raise NoInputError for a data set that pydicom cannot write: it raises errors of every kind, whose messages quote values."""
    try:
        yield
    except _NO_DATASET as error:
        msg = f"its data set cannot be written again ({type(error).__name__})"
        raise NoInputError(msg) from error


def _facts(state: State, record: Record, kind: Kind) -> dict[str, str]:
    uids = {"study": record.study, "series": record.series, "instance": record.instance}
    return {"patient": state.pseudonym(record.patient), **uids, "source": kind.value}


def _syntax(implicit: bool | None, little: bool | None) -> UID:
    """The transfer syntax of a data set that was written without one."""
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian
