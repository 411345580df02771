"""`dicomrx map import`: a site's own numbering of its patients, from a table or from the older tool's map."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dicomrx.errors import ConfigError, NoInputError, PermissionRefused
from dicomrx.legacy_map import LegacyMap
from dicomrx.text import safe
from dicomrx.vault import Assignment, Format, Placeholders, id_key

_COLUMNS: Final = frozenset({"patient_id", "issuer", "pseudonym"})
_REQUIRED: Final = _COLUMNS - {"issuer"}
_HEADER: Final = "the first line must be patient_id,issuer,pseudonym, or patient_id,pseudonym"


@dataclass
class Numbering:
    """Patients and their numbers; `left_out` counts entries of the older map that tell none."""

    assignments: list[Assignment] = field(default_factory=list)
    left_out: int = 0


def read(path: Path, form: Format, placeholders: Placeholders) -> Numbering:
    """Read a table (CSV, UTF-8) or a `patient_info_map.json`, whose pseudonyms are `sub-NNN` whatever the state's are.

    Raises NoInputError, PermissionRefused, and ConfigError that names the line of what is wrong, never a value.
    """
    text = _text(path)
    if text.lstrip().startswith("{"):
        return _from_map(path, placeholders)
    return Numbering([_assignment(place, cells, form, placeholders) for place, cells in _rows(path, text)])


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except PermissionError:
        raise PermissionRefused(f"{safe(path)} may not be read by this user") from None
    except OSError as error:
        raise NoInputError(f"{safe(path)} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{safe(path)} is not UTF-8: save it as CSV in UTF-8") from None


def _rows(path: Path, text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Each line that is not empty, by its column names."""
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    try:
        for cells in lines:
            place = f"{safe(path)}, line {lines.line_num}"
            if not header:
                header = _header(place, cells)
            elif len(cells) == len(header):
                yield place, dict(zip(header, cells, strict=True))
            elif cells:
                raise ConfigError(f"{place}: {len(cells)} cells under {len(header)} columns")
    except csv.Error:
        raise ConfigError(f"{safe(path)}, line {lines.line_num}: not CSV (an open quote, or text behind one)") from None
    if not header:
        raise ConfigError(f"{safe(path)}: it is empty; {_HEADER}")


def _header(place: str, cells: list[str]) -> list[str]:
    names = [cell.strip().casefold() for cell in cells]
    if len(set(names)) != len(names) or not _REQUIRED <= set(names) <= _COLUMNS:
        raise ConfigError(f"{place}: {_HEADER}")
    return names


def _assignment(place: str, cells: dict[str, str], form: Format, placeholders: Placeholders) -> Assignment:
    if placeholders.cover(cells["patient_id"]):
        raise ConfigError(f"{place}: the patient_id is empty or a placeholder, so it stands for no patient")
    number = form.number(cells["pseudonym"].strip())
    if number is None:
        raise ConfigError(f"{place}: the pseudonym must be of the form {form.text}, or a number from 1 to 999999999")
    return Assignment(place, id_key(cells["patient_id"], cells.get("issuer", "")), number)


def _from_map(path: Path, placeholders: Placeholders) -> Numbering:
    found = Numbering()
    for entry, (patient_id, issuer, pseudonym) in enumerate(LegacyMap.load(path).numbering(), 1):
        number = Format.FIRST.number(pseudonym)
        if number is None or placeholders.cover(patient_id):
            found.left_out += 1
        else:
            found.assignments.append(Assignment(f"{safe(path)}, study {entry}", id_key(patient_id, issuer), number))
    return found
