"""Private elements under Retain Safe Private: those that the standard knows, of the creator that it names, and nothing else."""

import io
import struct

import pytest

from dicomrx.deid import BASIC, DataSet, deidentify, look_again, named_profile, needles, pseudonymous_uid, read, survivors, write
from dicomrx.deid.reading import raw_value
from tests.unit.deid_files import BIG_ENDIAN, CONTEXT, EXPLICIT, IMPLICIT, element, instance_of, item, tag_of

SAFE = named_profile("basic+retain-safe-private")
PHILIPS = b"Philips Imaging DD 001"
GE = b"GEMS_PARM_01"


def left(parts: dict[int, tuple[str, bytes]], syntax: str = EXPLICIT, options: str = "retain-safe-private") -> dict[int, bytes]:
    """The private elements that come out, through a file."""
    output = deidentify(instance_of(parts, syntax), CONTEXT, named_profile(f"basic+{options}"))
    stream = io.BytesIO()
    write(output, stream)
    return private(read(io.BytesIO(stream.getvalue())).dataset)


def private(dataset: DataSet) -> dict[int, bytes]:
    return {tag: raw_value(dataset, tag) for tag in dataset if tag >> 16 & 1}


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN])
def test_what_the_standard_knows_stays_with_its_creator_and_the_rest_goes(syntax: str) -> None:
    slope = struct.pack(">f" if syntax == BIG_ENDIAN else "<f", 1.5)
    parts = {
        0x20010010: ("LO", PHILIPS),
        0x20011003: ("FL", slope),
        0x20011099: ("LO", b"Quixano"),
        0x20010011: ("LO", b"OTHER"),
        0x20011103: ("FL", slope),
        0x00430010: ("LO", GE),
        0x00431001: ("SS", b"\1\0"),
        0x00091001: ("LO", b"Quixano"),
    }
    assert left(parts, syntax) == {0x20010010: PHILIPS, 0x20011003: slope}
    assert private(deidentify(instance_of(parts, syntax), CONTEXT, BASIC).dataset) == {}


def test_a_block_belongs_to_its_creator_wherever_it_was_reserved() -> None:
    assert left({0x200100AB: ("LO", PHILIPS), 0x2001AB03: ("FL", bytes(4))}) == {0x200100AB: PHILIPS, 0x2001AB03: bytes(4)}


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({0x20011003: ("FL", bytes(4))}, "no creator"),
        ({0x20010010: ("LO", b""), 0x20011003: ("FL", bytes(4))}, "an empty creator"),
        ({0x20010010: ("LO", PHILIPS.lower()), 0x20011003: ("FL", bytes(4))}, "another creator"),
        ({0x00990010: ("SH", b"NQHeader"), 0x00991020: ("SH", b"mm")}, "a creator of another VR"),
        ({0x20010010: ("LO", PHILIPS), 0x20011003: ("LO", b"1.5 ")}, "another VR"),
        ({0x20010010: ("LO", PHILIPS), 0x20011003: ("FL", bytes(6))}, "another size"),
        ({0x20010010: ("LO", PHILIPS), 0x20011003: ("FL", b"Quixano Alonso, ")}, "text for numbers"),
        ({0x20010010: ("LO", PHILIPS), 0x20010003: ("FL", bytes(4))}, "no block"),
        ({0x20010010: ("LO", b"Philips Imaging DD 097"), 0x2001102F: ("OB", bytes(4))}, "bytes"),
        ({0x20010010: ("LO", PHILIPS), 0x2001106D: ("LO", b"Quixano^Alonso")}, "text that is not technical"),
        ({0x20010010: ("LO", PHILIPS), 0x2001106D: ("LO", b"19470923")}, "a date in text"),
    ],
)
def test_what_is_not_quite_known_goes_and_its_creator_too(parts: dict[int, tuple[str, bytes]], why: str) -> None:
    kept = left(parts)
    assert kept in ({}, {0x20010010: PHILIPS, 0x2001106D: b"ANON"}), why


def test_text_that_looks_technical_stays_and_is_searched_all_the_same_and_a_find_goes() -> None:
    parts = {0x20010010: ("LO", PHILIPS), 0x2001106D: ("LO", b"Arial "), 0x20011087: ("SH", b"Quixano ")}
    original = parts | {tag_of("PatientName"): ("PN", b"Quixano^Philips")}
    for syntax in (EXPLICIT, IMPLICIT):
        instance = instance_of(original, syntax)
        output = deidentify(instance, CONTEXT, SAFE)
        assert survivors(needles(instance, SAFE), output.dataset, pseudonym="sub-001", profile=SAFE) == ["(2001,1087)"]
        assert look_again(instance, output, "sub-001", SAFE) == ["(2001,1087)"]
        assert private(output.dataset) == {0x20010010: PHILIPS, 0x2001106D: b"Arial "}


def test_sent_as_un_it_is_held_to_the_vr_of_the_standard() -> None:
    assert left({0x20010010: ("UN", PHILIPS), 0x20011003: ("UN", bytes(4))}) == {0x20010010: PHILIPS, 0x20011003: bytes(4)}
    assert left({0x20010010: ("LO", PHILIPS), 0x20011003: ("UN", bytes(4))}, BIG_ENDIAN) == {}


def test_items_are_de_identified_and_have_creators_of_their_own() -> None:
    inner = element(tag_of("PatientName"), "PN", b"Quixano") + element(0x20010010, "LO", PHILIPS) + element(0x20011003, "FL", bytes(4))
    bare = element(0x20011003, "FL", bytes(4))
    parts = {0x20010010: ("LO", PHILIPS), 0x2001105F: ("SQ", item(inner) + item(bare))}
    output = deidentify(instance_of(parts), CONTEXT, SAFE)
    items = output.dataset[0x2001105F].items
    assert items is not None
    first, second = items
    assert private(first) == {0x20010010: PHILIPS, 0x20011003: bytes(4)}
    assert raw_value(first, tag_of("PatientName")) == b"sub-001 "
    assert private(second) == {}


def test_uids_in_private_elements_follow_the_option_for_uids() -> None:
    parts = {0x00990010: ("LO", b"NQHeader"), 0x00991002: ("UI", b"1.2.3.4.2\0")}
    assert left(parts)[0x00991002].strip(b"\0") == pseudonymous_uid(CONTEXT.uid_key, "1.2.3.4.2").encode()
    assert left(parts, options="retain-safe-private+retain-uids")[0x00991002] == b"1.2.3.4.2\0"
