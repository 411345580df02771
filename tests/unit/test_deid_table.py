"""The rules as data: held against the standard's table as others read it, and against the dictionary."""

from collections import Counter
from collections.abc import Mapping

import pytest
from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as edition
from pydicom.datadict import DicomDictionary, dictionary_VR, keyword_for_tag  # type: ignore[attr-defined]

from dicomrx.deid import BASIC, extra_rules, values
from dicomrx.deid.dummies import BY_ITEMS, DUMMIES, SEQUENCES
from dicomrx.deid.rules import table
from tests.unit.deid_files import tag_of

CODES = {"X_D": "X/D", "X_Z": "X/Z", "Z_D": "Z/D", "X_Z_D": "X/Z/D", "X_Z_U_STAR": "X/Z/U*"}
# Counted in edition 2024b by others than the generator.
OPTION_COUNTS = {
    "retain_uids": {"K": 59},
    "retain_device": {"K": 46, "C": 11},
    "retain_institution": {"K": 10},
    "retain_patient": {"K": 9, "C": 4},
    "full_dates": {"K": 165},
    "modified_dates": {"C": 165},
    "clean_descriptors": {"C": 125},
    "clean_structured": {"C": 3},
    "clean_graphics": {"C": 4},
    "safe_private": {"C": 1},
}
NAMED: list[Mapping[str, tuple[str, ...]]] = [
    extra_rules.TECHNICAL,
    extra_rules.CODES,
    extra_rules.CLASS_UIDS,
    extra_rules.TERMINOLOGY_UIDS,
    extra_rules.BULK,
    extra_rules.CHARSET,
]


def test_every_basic_action_is_that_of_edition_2026c() -> None:
    theirs = {}
    for name in ("X", "Z", "D", "U", "X_D", "X_Z", "Z_D", "X_Z_D", "X_Z_U_STAR"):
        for tag in getattr(edition, f"{name}_TAGS"):
            theirs["{:04x}{:04x}".format(*tag) if len(tag) == 2 else tag] = CODES.get(name, name)
    for mask, ours in (((0x5000, 0, 0xFF00, 0), "50xxxxxx"), ((0x6000, 0x3000, 0xFF00, 0xFFFF), "60xx3000")):
        theirs[ours] = theirs.pop(mask)
    theirs["60xx4000"] = theirs.pop((0x6000, 0x4000, 0xFF00, 0xFFFF))
    assert len(theirs) == len(edition.ALL_TAGS) == 655
    assert {tag: row["basic"] for tag, row in table().items()} == theirs | {"private": "X"}


def test_the_option_columns_are_those_of_edition_2024b_and_ours_are_marked() -> None:
    counted: dict[str, Counter[str]] = {}
    for row in table().values():
        if "kin" not in row:
            for option, code in row.get("options", {}).items():
                counted.setdefault(option, Counter())[code] += 1
    assert counted == OPTION_COUNTS
    newer = [row for row in table().values() if "kin" in row]
    assert len(newer) == 35
    assert all(row.get("options", {}) == table()[row["kin"]].get("options", {}) for row in newer if row["kin"])


def test_every_rule_of_our_own_names_attributes_that_exist_and_that_the_table_leaves_open() -> None:
    keywords = [keyword for rules in NAMED for names in rules.values() for keyword in names]
    assert len(keywords) == len(set(keywords))
    assert not [keyword for keyword in keywords if f"{tag_of(keyword):08x}" in table()]


def test_every_attribute_of_the_dictionary_meets_a_rule_with_a_reason() -> None:
    for tag in DicomDictionary:
        rule = BASIC.rule(tag, None)
        assert rule.reason
        assert (rule.vr is None) == (rule.code == "X"), keyword_for_tag(tag)
        assert rule.vr is None or rule.vr in dictionary_VR(tag), keyword_for_tag(tag)


def test_no_text_without_a_rule_of_its_own_is_kept() -> None:
    named = {tag_of(keyword) for rules in NAMED for names in rules.values() for keyword in names}
    texts = {"AE", "AS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UN", "UR", "UT"}
    kept = {tag for tag, (vr, *_) in DicomDictionary.items() if vr in texts and BASIC.rule(tag, None).code == "K"}
    assert kept <= named


def test_every_sequence_that_the_table_wants_a_dummy_of_has_one() -> None:
    wanted = {
        keyword_for_tag(int(tag, 16))
        for tag, row in table().items()
        if row["basic"] in {"D", "X/D", "Z/D", "X/Z/D"} and dictionary_VR(int(tag, 16)) == "SQ"
    }
    assert wanted == set(SEQUENCES) | set(BY_ITEMS)


@pytest.mark.parametrize("vr", sorted(DUMMIES))
def test_a_dummy_is_a_valid_value_of_its_vr(vr: str) -> None:
    value, reason = DUMMIES[vr]
    assert reason
    if vr in values.SIZES:
        assert len(value) == values.SIZES[vr]
    if vr in {"CS", "DS", "IS", "UI"}:
        assert values.is_number(0, vr, value)


@pytest.mark.parametrize(
    ("tag", "reason"),
    [(0x00091001, "private"), (0x60000010, "overlays"), (0x50000010, "curves"), (0x00020010, "meta"), (0x00080000, "lengths")],
)
def test_groups_without_rows_have_a_rule_too(tag: int, reason: str) -> None:
    rule = BASIC.rule(tag, "LO")
    assert rule.code == "X"
    assert reason in rule.reason


def test_an_attribute_that_no_dictionary_knows_is_removed() -> None:
    assert BASIC.rule(0x00189FFF, "LO").code == "X"
