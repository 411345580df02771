"""`.run/evidence/`: what each arrival told of its study, a line each; pseudonyms, codes and numbers only.

It may lengthen a wait, never shorten one: an instance of which no line tells counts as one of the slowest sender's. So the line of a
filed instance need not be durable, its file shows that it is lost; all other lines are synced.
"""

import contextlib
import os
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, Self

from dicomrx.spool import durable
from dicomrx.spool.layout import Spool
from dicomrx.spool.ledger import Fate, append
from dicomrx.spool.names import Arrival

_NONE: Final = "-"
_NUMBER: Final = re.compile(r"[+-]?\d{1,12}", re.ASCII)  # PS3.5 6.2, IS
_MODALITY: Final = re.compile(r"[A-Z0-9_]{1,16}", re.ASCII)  # PS3.5 6.2, CS, without spaces
_FIELDS: Final = 7
_DIGITS: Final = 16


@dataclass(frozen=True, slots=True)
class Sighting:
    """One arrival of a study: `run` and `association` brought it (association 0: adopted or requeued).

    `number` is its InstanceNumber, None where it has none; `modality` and `sender` are empty where it names none.
    """

    fate: Fate
    run: str
    association: int
    series: str
    instance: str
    number: int | None
    modality: str
    sender: str

    @classmethod
    def of(cls, arrival: Arrival, fate: Fate, names: tuple[str, str], told: tuple[str, str, str]) -> Self:
        """`names` are the pseudonymous UIDs of series and instance; `told` its number, modality and calling AE title as they came.

        What is not of the form that DICOM gives it counts as not told.
        """
        number, modality, calling = told
        return cls(
            fate,
            arrival.run,
            arrival.association,
            *names,
            number=int(number) if _NUMBER.fullmatch(number) else None,
            modality=modality if _MODALITY.fullmatch(modality) else "",
            sender=sender_of(calling),
        )

    @classmethod
    def parse(cls, line: str) -> Self | None:
        """The sighting in a line, or None for one that a crash or a full disk spoiled."""
        parts = line.split(" ", _FIELDS - 1)
        with contextlib.suppress(ValueError):
            fate, source, series, instance, number, modality, sender = parts
            run, _, association = source.partition("-")
            sequence = None if number == _NONE else int(number)
            return cls(Fate(fate), run, int(association), series, instance, sequence, "" if modality == _NONE else modality, sender)
        return None

    def __str__(self) -> str:
        number = _NONE if self.number is None else self.number
        source = f"{self.run}-{self.association}"
        return f"{self.fate} {source} {self.series} {self.instance} {number} {self.modality or _NONE} {self.sender}"


def sender_of(calling_ae: str) -> str:
    """What stands for a calling AE title: who knows the title finds it, and nobody reads it. Empty for none."""
    return sha256(calling_ae.encode()).hexdigest()[:_DIGITS] if calling_ae else ""


def note(spool: Spool, study: str, *sightings: Sighting) -> None:
    """Write down what arrivals told, before they are filed or go; the study's lock is held."""
    path = _path(spool, study)
    append(path, "".join(f"\n{sighting}" for sighting in sightings).encode())
    if any(sighting.fate is not Fate.FILED for sighting in sightings):
        durable.sync_file(path)


def read(spool: Spool, study: str) -> list[Sighting]:
    """All that is known of a study, in the order in which it was worked off."""
    try:
        lines = _path(spool, study).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return [sighting for sighting in map(Sighting.parse, lines) if sighting is not None]


def size(spool: Spool, study: str) -> int:
    """Bytes noted of a study: what has the same size says the same."""
    try:
        return os.stat(_path(spool, study)).st_size
    except FileNotFoundError:
        return 0


def _path(spool: Spool, study: str) -> Path:
    return spool.run_dir / "evidence" / study
