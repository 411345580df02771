"""Writes src/dicomrx/deid/table_e1_1.json, the package's own copy of PS3.15 Table E.1-1.

    python scripts/make_profile_table.py OPTIONS.json > src/dicomrx/deid/table_e1_1.json

The Basic actions are those of edition 2026c, out of dicom-anonymizer (a test dependency). The ten option columns are those
of edition 2024b: OPTIONS.json is `confidentiality_profile_attributes.json` of the dicom-standard project in that edition. An
attribute that is newer than 2024b takes the options of the attribute it is most like (`KIN`), and its row says so: those are
our reading, not the standard's words.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any, Final

from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as edition
from pydicom.datadict import dictionary_description, dictionary_has_tag

OPTIONS: Final = {
    "rtnUIDsOpt": "retain_uids",
    "rtnDevIdOpt": "retain_device",
    "rtnInstIdOpt": "retain_institution",
    "rtnPatCharsOpt": "retain_patient",
    "rtnLongFullDatesOpt": "full_dates",
    "rtnLongModifDatesOpt": "modified_dates",
    "cleanDescOpt": "clean_descriptors",
    "cleanStructContOpt": "clean_structured",
    "cleanGraphOpt": "clean_graphics",
    "rtnSafePrivOpt": "safe_private",
}
MASKS: Final = {
    (0x5000, 0x0000, 0xFF00, 0x0000): "50xxxxxx",
    (0x6000, 0x3000, 0xFF00, 0xFFFF): "60xx3000",
    (0x6000, 0x4000, 0xFF00, 0xFFFF): "60xx4000",
}
# The row for private attributes, which the anonymizer's lists leave to their caller.
PRIVATE: Final = ("ggggeeee-where-gggg-is-odd", "private")
# Newer than 2024b, and the older attribute whose options it takes; "" where no option keeps or cleans such a value.
KIN: Final = {
    "00081301": "00081084", "00081302": "00081084", "00081303": "00081084", "00081304": "00081084",
    "00100011": "", "00100012": "", "00100013": "", "00100014": "", "00100015": "", "00100016": "",
    "00100041": "00100040", "00100042": "00100040", "00100043": "00100040", "00100044": "00100040",
    "00100045": "00100040", "00100046": "00100040", "00100047": "00100040",
    "00102161": "00102160", "00102162": "00102160",
    "00181010": "00181000", "00181011": "00181000",
    "003a0020": "00400254", "003a0203": "00400254", "003a020c": "00400254",
    "00400556": "00400555",
    "0040a034": "", "0040a035": "",
    "0040b020": "00700001", "0040b034": "", "0040b036": "", "0040b03b": "", "0040b03f": "",
    "0040e012": "",
    "00700006": "00700001",
    "300a0054": "300a0013",
}  # fmt: skip


def basic_actions() -> Iterator[tuple[str, str]]:
    """(tag, Basic action) of every row of edition 2026c."""
    for name in dir(edition):
        if not name.endswith("_TAGS") or name == "ALL_TAGS":
            continue
        code = name.removesuffix("_TAGS").replace("U_STAR", "U*").replace("_", "/")
        for tag in getattr(edition, name):
            yield (f"{tag[0]:04x}{tag[1]:04x}" if len(tag) == 2 else MASKS[tag]), code  # noqa: PLR2004


def row_name(tag: str, old: dict[str, Any]) -> str:
    """The attribute's name, from the older edition or pydicom's dictionary; empty where neither knows it yet."""
    if tag in old:
        return str(old[tag]["name"])
    if tag == PRIVATE[1]:
        return str(old[PRIVATE[0]]["name"])
    number = int(tag, 16)
    return dictionary_description(number) if dictionary_has_tag(number) else ""


def options(row: dict[str, Any]) -> dict[str, str]:
    """The option columns of one row of the older edition."""
    return {ours: row[theirs] for theirs, ours in OPTIONS.items() if theirs in row}


def table(old: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every row, by tag."""
    rows: dict[str, dict[str, Any]] = {}
    for tag, code in sorted([*basic_actions(), (PRIVATE[1], old[PRIVATE[0]]["basicProfile"])]):
        row: dict[str, Any] = {"name": row_name(tag, old), "basic": code}
        source = PRIVATE[0] if tag == PRIVATE[1] else tag
        if source not in old:
            row["kin"] = source = KIN[tag]
        if source and options(old[source]):
            row["options"] = options(old[source])
        rows[tag] = row
    return rows


def main() -> None:
    """Print the table, a row a line, so that a change of edition reads well in a diff."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("options", type=argparse.FileType(encoding="utf-8"), help="the table of edition 2024b with its option columns")
    old = {row["id"].lower(): row for row in json.load(parser.parse_args().options)}
    lines = [f'"{tag}": {json.dumps(row)}' for tag, row in table(old).items()]
    sys.stdout.write("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
