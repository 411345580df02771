"""Where `dicomrx restore` finds originals: the vault, or the map of the older tool."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from pydicom import dcmread

from dicomrx.legacy_map import LegacyMap
from dicomrx.restore import Originals, digest, instance_uid
from dicomrx.vault import State


@contextmanager
def from_vault(state_dir: Path, *, every: bool) -> Iterator[Originals]:
    """Originals by SOP Instance UID; of several the one whose output this file is, else the first, or all of them."""
    with State.open(state_dir, create=False) as state:

        def originals(file: BinaryIO) -> list[Callable[[BinaryIO], None]]:
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

    def originals(file: BinaryIO) -> list[Callable[[BinaryIO], None]]:
        file.seek(0)
        dataset = dcmread(file)
        return [partial(dataset.save_as, enforce_file_format=True)] if known.restore(dataset) else []

    yield originals
