"""`dicomrx verify`: searches files that left, or are about to, for what their originals had."""

import io
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from dicomrx import deid
from dicomrx.cli.restoring import records
from dicomrx.errors import DicomrxError, NoInputError, Reject
from dicomrx.profiles import Profiles
from dicomrx.restore import is_dicom_file
from dicomrx.settings import Settings
from dicomrx.sources import Opened, in_folder, in_zip, opened, opened_zip
from dicomrx.vault import Record, State

_TEXT_LIMIT: Final = 1 << 24
_TOO_LARGE: Final = "it is no DICOM file, and larger than 16 MiB: only its beginning was searched"
# What our own documents say in every study, and what may be somebody's name.
_WORDS: Final = (
    "aborted|ambiguous|answer|arrival|associations|attempts?|ceiling|complete|confidence|counts|destination|detail|error|evidence|failed|files|"
    "gaps|generation|hand|held|high|instances?|last_association|lost|name|newest_arrival|parent|profile|quarantined|quiet|quiet_s|reason|"
    "receiver_start|refused|released?|rule|sealed|sending|sent|sent_at|series|size|stage|status|step|study|unknown|version|watermark|whole"
)
# Besides, when something was sent or marked, often the day of the study and no date of it; sizes and counts, which are no IDs.
_OURS: Final = re.compile(rf'"(?:{_WORDS})"|\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?|(?<=[:,\[])\s*\d+(?=\s*[,\]}}])'.encode())


@dataclass
class Report:
    """What was found: (file, element or place) and (file, why); values are never named, nor files whose names hold one."""

    clean: int = 0
    survivors: list[tuple[str, str]] = field(default_factory=list)
    unproven: list[tuple[str, DicomrxError]] = field(default_factory=list)


def verify(settings: Settings, paths: Sequence[Path]) -> Report:
    """Search files, folders and zips; raises NoInputError where a path or the state is not there, ConfigError for a bad profile."""
    for path in paths:
        if not path.exists():
            msg = f"{path} is not there"
            raise NoInputError(msg)
    report = Report()
    own = {profile.label: profile for profile in Profiles.of(settings).all}
    with State.open(settings.state_dir, create=False) as state:
        state.audit.note("verify", {"paths": len(paths)})  # it decrypts, and its answers can confirm a guess
        for path in paths:
            _Search(state, report, own).path(path)
    return report


class _Search:
    """One PATH: its names and other files are searched for what any of its instances had."""

    def __init__(self, state: State, report: Report, own: Mapping[str, deid.Profile]) -> None:
        self._state = state
        self._own = own
        self._report = report
        self._names: list[str] = []
        self._others: list[tuple[int, bytes]] = []
        self._sought: list[deid.Needles] = []

    def path(self, path: Path) -> None:
        """Search a file, folder or zip."""
        for name, file in _files(path):
            self._names.append(name)
            if isinstance(file, DicomrxError):
                self._report.unproven.append((name, file))
            elif is_dicom_file(file):
                self._instance(name, file)
            else:
                file.seek(0)
                self._others.append((len(self._names) - 1, file.read(_TEXT_LIMIT)))
                if file.read(1):
                    self._report.unproven.append((name, NoInputError(_TOO_LARGE)))
        self._around()

    def _instance(self, name: str, file: BinaryIO) -> None:
        try:
            self._search(name, file)
        except Reject as never:
            self._report.unproven.append((name, NoInputError(f"not readable ({never.reason})")))
        except DicomrxError as error:
            self._report.unproven.append((name, error))

    def _search(self, name: str, file: BinaryIO) -> None:
        output = deid.read(file)
        behind = file.read()
        known = records(self._state, output.sop_uid, file)
        if not known:
            msg = "there is no original of it here"
            raise NoInputError(msg)
        record = known[0]
        profile = self._own.get(record.profile) or deid.labelled_profile(record.profile)
        if profile is None:
            msg = f"made by the profile {record.profile!r}: name its file with --profile"
            raise NoInputError(msg)
        original = self._original(record, file)
        sought = deid.needles(original, profile)
        if not deid.proves(sought, original.dataset):
            msg = "the search does not find the original's own values in the original"
            raise NoInputError(msg)
        self._sought.append(sought)
        found = deid.survivors(sought, output.dataset, pseudonym=self._state.pseudonym(record.patient), profile=profile)
        file.seek(0)  # last: big values are read from the file while they are searched
        outside = {"the preamble or file meta": file.read(output.dataset_offset), "behind the data set": behind}
        found += [where for where, data in outside.items() if _holds(sought, data)]
        self._report.survivors += [(name, where) for where in dict.fromkeys(found)]
        self._report.clean += not found

    def _original(self, record: Record, file: BinaryIO) -> deid.Instance:
        """In memory alone: an identity is not put on a disk to look for it."""
        buffer = io.BytesIO()
        self._state.vault.restore(record, buffer, deid.at_pixels(file))
        buffer.seek(0)
        return deid.read(buffer)

    def _around(self) -> None:
        """Names and other files last, for they are searched for every instance's values."""
        sought = deid.Needles(_union(each.values for each in self._sought), _union(each.whole for each in self._sought))
        for number, data in self._others:
            if _holds(sought, _OURS.sub(b"", data)):
                self._report.survivors.append((self._names[number], "its text"))
        for number, name in enumerate(self._names):
            if deid.survivors(sought, name):
                self._report.survivors.append((name, "its name"))
                self._hide(name, number)

    def _hide(self, name: str, number: int) -> None:
        position = f"file {number + 1} in order of names"
        report = self._report
        report.survivors = [(position if other == name else other, where) for other, where in report.survivors]
        report.unproven = [(position if other == name else other, error) for other, error in report.unproven]


def _union(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset().union(*sets)


def _holds(sought: deid.Needles, data: bytes) -> bool:
    plain = data.replace(b"\0", b" ")
    return any(sought.found_in(text) for text in {plain.decode("latin-1"), plain.decode("utf-8", "replace")})


def _files(path: Path) -> Iterator[tuple[str, Opened]]:
    """Every file, by its name from PATH's own last part on; zips are opened, also those in folders."""
    folder = path.is_dir()
    for each, file in in_folder(path) if folder else opened(path):
        name = str(Path(path.resolve().name) / each.relative_to(path)) if folder else path.name
        if zipfile.is_zipfile(each):
            yield from _entries(each, name)
        else:
            yield name, file


def _entries(path: Path, name: str) -> Iterator[tuple[str, Opened]]:
    try:
        with opened_zip(path) as bundle:
            yield name, io.BytesIO(bundle.comment)
            for entry, file in in_zip(bundle):
                yield f"{name}/{entry}", file
    except NoInputError as damaged:
        yield name, damaged
