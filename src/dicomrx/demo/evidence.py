"""What a run of the demo left behind, read from its folder: answers, uploads, originals that came back, quarantine, and what was said."""

import json
import zipfile
from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final, Self

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from dicomrx.demo.samples import content_key, key_of

API: Final = "api"
SPOOL: Final = "spool"
STATE: Final = "state"
ZIPS: Final = "zips"
RESTORED: Final = "restored"
LOG: Final = "all.log"
ANSWERS: Final = "answers.json"
STATUS: Final = "status.json"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file in a zip that the API accepted; `originals` are the keys of what `restore` gave for it, None for what has no file meta."""

    bundle: str
    name: str
    data: bytes
    originals: tuple[str | None, ...]

    @property
    def study(self) -> str:
        """The pseudonymous Study UID, as its name says."""
        return self.name.partition("/")[0]

    @property
    def patient(self) -> str:
        """The pseudonym inside; empty where it cannot be read."""
        try:
            return str(dcmread(BytesIO(self.data), specific_tags=["PatientID"], stop_before_pixels=True).get("PatientID", ""))
        except InvalidDicomError:
            return ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that the checks look at.

    `answers` are (number of the instance, status of its C-STORE or None), `quarantined` counts (reason, key),
    `strays` counts files among the restored ones that belong to no entry.
    """

    answers: list[tuple[int, int | None]]
    entries: list[Entry]
    quarantined: Counter[tuple[str, str]]
    strays: int
    fates: dict[str, int]
    said: str

    @classmethod
    def read(cls, root: Path) -> Self:
        """Read the folder of a run that is over."""
        restored = {path for path in (root / RESTORED).rglob("*") if path.is_file()}
        entries = [entry for bundle in sorted((root / API).glob("*.zip")) for entry in _entries(bundle, root / RESTORED / bundle.stem)]
        known = {path for entry in entries for path in _originals(root / RESTORED / entry.bundle, entry.name)}
        status = json.loads((root / STATUS).read_text())
        return cls(
            answers=[(number, answer) for number, answer in json.loads((root / ANSWERS).read_text())],
            entries=entries,
            quarantined=Counter((path.parent.name, content_key(path)) for path in (root / SPOOL / "quarantine").glob("*/*/*.dcm")),
            strays=len(restored - known),
            fates=status["fates"],
            said=(root / LOG).read_text() + json.dumps(status),
        )

    @property
    def acknowledged(self) -> int:
        """How many C-STORE requests were answered with success."""
        return sum(answer == 0 for _, answer in self.answers)

    @property
    def reasons(self) -> Counter[str]:
        """How many are in quarantine for each reason."""
        total: Counter[str] = Counter()
        for (reason, _), count in self.quarantined.items():
            total[reason] += count
        return total


def _entries(bundle: Path, restored: Path) -> list[Entry]:
    with zipfile.ZipFile(bundle) as opened:
        return [
            Entry(bundle.stem, info.filename, opened.read(info), tuple(_key(path) for path in _originals(restored, info.filename)))
            for info in opened.infolist()
        ]


def _originals(restored: Path, name: str) -> list[Path]:
    """The original of an entry, and behind it the others that became the same output: x.dcm, x.2.dcm, ..."""
    path = restored / name
    return [found for found in (path, *sorted(path.parent.glob(f"{path.stem}.[0-9]{path.suffix}"))) if found.is_file()]


def _key(path: Path) -> str | None:
    try:
        return key_of(BytesIO(path.read_bytes()))
    except ValueError:
        return None
