"""Private attributes that are kept: the standard's list and nothing beside it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom._private_dict import private_dictionaries
from pydicom.valuerep import VR

from dicomrx.deid.safe_private import table, vr_of

# Where pydicom's dictionary, which is from conformance statements, says otherwise than the standard.
OTHERWISE = {("HOLOGIC, Inc.", "7e01xx02"): "LO", ("Philips Imaging DD 001", "2001xx55"): "CS"}


def test_the_table_is_the_standards_whole_list_of_edition_2026d() -> None:
    assert len(table()) == 479
    assert len({(creator, tag) for creator, tag, *_ in table()}) == 479
    assert len({creator for creator, *_ in table()}) == 20
    assert list(table()) == sorted(table())


def test_every_row_that_has_a_vr_is_found_by_creator_group_and_low_byte() -> None:
    for creator, tag, vr, _, _ in table():
        for block in ("10", "42", "ff"):
            assert vr_of(creator, int(tag.replace("xx", block), 16)) == (vr.partition("/")[0] or None)


def test_every_vr_is_one_of_dicom() -> None:
    assert {part for _, _, vr, _, _ in table() if vr for part in vr.split("/")} <= {vr.value for vr in VR}


def test_vrs_agree_with_pydicoms_private_dictionary_but_where_the_standard_overrules_it() -> None:
    known = 0
    for creator, tag, vr, _, _ in table():
        row = private_dictionaries.get(creator, {}).get(tag)
        if row is not None and vr:
            known += 1
            assert OTHERWISE.get((creator, tag), vr) == row[0], (creator, tag)
    assert known > 90


def test_rows_to_which_the_standard_gives_no_vr_are_not_kept() -> None:
    bare = [(creator, tag) for creator, tag, vr, _, _ in table() if not vr]
    assert len(bare) == 5
    assert {vr_of(creator, int(tag.replace("xx", "10"), 16)) for creator, tag in bare} == {None}


@pytest.mark.parametrize("padded", ["SIEMENS MR HEADER", "SIEMENS MR HEADER ", " SIEMENS MR HEADER", "SIEMENS MR HEADER\0"])
def test_padding_around_a_creator_does_not_matter(padded: str) -> None:
    assert vr_of(padded, 0x0019_100C) == "IS"


@pytest.mark.parametrize(
    ("creator", "tag"),
    [
        ("siemens mr header", 0x0019_100C),
        ("SIEMENS MR  HEADER", 0x0019_100C),
        ("SIEMENS MR HEADER", 0x0021_100C),
        ("SIEMENS MR HEADER", 0x0019_100A),
        ("SIEMENS CSA HEADER", 0x0029_1010),
        ("GEMS_ACQU_01", 0x0019_100C),
        ("", 0x0019_100C),
    ],
)
def test_another_creator_group_or_element_is_not_safe(creator: str, tag: int) -> None:
    assert vr_of(creator, tag) is None


@given(st.text(max_size=64), st.integers(0, 0xFFFFFFFF))
def test_no_made_up_attribute_is_safe(creator: str, tag: int) -> None:
    listed = {(row[0], row[1]) for row in table()}
    if (creator.strip(" \0"), f"{tag >> 16:04x}xx{tag & 0xFF:02x}") not in listed:
        assert vr_of(creator, tag) is None
