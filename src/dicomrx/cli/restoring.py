"""Where `dicomrx restore` finds originals: the vault, or the map of the older tool."""

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from pydicom import dcmread
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomrx.legacy_map import LegacyMap
from dicomrx.restore import Originals, digest, instance_uid, is_dicom_file
from dicomrx.vault import State

_NO_DATASET: Final = (ArithmeticError, AttributeError, EOFError, LookupError, TypeError, ValueError, struct.error, RecursionError)


@contextmanager
def from_vault(state_dir: Path, *, every: bool) -> Iterator[Originals]:
    """Originals by SOP Instance UID; of several the one whose output this file is, else the first, or all of them."""
    with State.open(state_dir, create=False) as state:

        def originals(file: BinaryIO) -> list[Callable[[BinaryIO], None]] | None:
            if not is_dicom_file(file):
                return None
            records = state.vault.find(instance_uid(file))
            if not every and len(records) > 1:
                made = digest(file)
                records = ([record for record in records if record.output_sha256 == made] or records)[:1]
            return [partial(state.vault.restore, record) for record in records]

        yield originals


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
        return [partial(dataset.save_as, enforce_file_format=True)] if known.restore(dataset) else []

    yield originals


def _syntax(implicit: bool | None, little: bool | None) -> UID:
    """The transfer syntax of a data set that was written without one."""
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian
