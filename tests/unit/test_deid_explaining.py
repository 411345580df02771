"""Every element, at every depth, with what became of it; and a profile with every rule."""

import contextlib
import io
import re
from collections import Counter
from collections.abc import Iterator

import pytest
from pydicom._dicom_dict import DicomDictionary

from dicomrx.deid import DataSet, Instance, Profile, check, deidentify, describe, explain, look_again, named_profile, read, site_profile
from dicomrx.deid.explaining import Explanation, Row
from dicomrx.deid.rules import table
from dicomrx.errors import Reject
from tests.unit.deid_files import CONTEXT, EXPLICIT, IMPLICIT, bundled, file_of, instance_of, item, joined, needed, tag_of

NAMED = [named_profile(text) for text in ("basic", "research", "basic+clean-structured+clean-graphics+retain-uids")]
SITE = site_profile('base = "basic"\n[rules]\nStudyDescription = "keep"\n"(0020,4000)" = "clean"\nPatientPosition = "remove"\n', "site")
ORIGINAL = {
    tag_of("PatientName"): ("PN", b"Quixano^Alonso"),
    tag_of("PatientID"): ("LO", b"HID-778899"),
    tag_of("StudyDate"): ("DA", b"20240517"),
    tag_of("Rows"): ("US", b"\x40\0"),
}


def elements(dataset: DataSet, depth: int = 0) -> Iterator[tuple[int, int]]:
    """(depth, tag) of every element, walked apart from the code under test."""
    for tag in sorted(dataset):
        yield depth, tag
        for one in dataset[tag].items or ():
            yield from elements(one, depth + 1)


def explained(instance: Instance, profile: Profile = NAMED[0], burned_in: str = "pass") -> Explanation:
    return explain(instance, CONTEXT, profile, burned_in)


def readable() -> Iterator[Instance]:
    for path in bundled():
        with path.open("rb") as file, contextlib.suppress(Reject):
            yield read(file)


def outcome(instance: Instance, profile: Profile) -> DataSet | Reject:
    """What the stage makes of an instance."""
    try:
        check(instance, "pass")
        output = deidentify(instance, CONTEXT, profile)
        look_again(instance, output, CONTEXT.pseudonym, profile)
    except Reject as never:
        return never
    return output.dataset


def row_of(keyword: str, explanation: Explanation, depth: int = 0) -> Row:
    found = [row for row in explanation.rows if row.tag == tag_of(keyword) and row.depth == depth]
    assert len(found) == 1, keyword
    return found[0]


@pytest.mark.parametrize("profile", NAMED, ids=[profile.label for profile in NAMED])
def test_every_element_of_input_and_output_has_its_row_at_every_depth(profile: Profile) -> None:
    explanations = 0
    for instance in readable():
        output, explanation = outcome(instance, profile), explained(instance, profile)
        if isinstance(output, Reject):
            assert str(explanation.refusal) == str(output)
            continue
        assert explanation.refusal is None
        rows = [row for row in explanation.rows if row.tag >> 16 != 2]
        assert Counter((row.depth, row.tag) for row in rows if row.before is not None) == Counter(elements(instance.dataset))
        assert Counter((row.depth, row.tag) for row in rows if row.after is not None) == Counter(elements(output))
        assert {row.action for row in rows if row.after is None} <= {"removed", "second look"}
        assert {row.action for row in rows if row.before is None} == {"added"}
        explanations += 1
    assert explanations > 60


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_values_are_shown_as_people_read_them_before_and_after(syntax: str) -> None:
    explanation = explained(instance_of(ORIGINAL, syntax))
    assert (row_of("PatientName", explanation).before, row_of("PatientName", explanation).after) == ("Quixano^Alonso", "sub-001")
    rows = row_of("Rows", explanation)
    assert (rows.vr, rows.action, rows.before, rows.after) == ("US", "kept", "64", "64")
    date = row_of("StudyDate", explanation)
    assert (date.action, date.before, date.after, date.reason) == ("emptied", "20240517", "", "PS3.15 Table E.1-1: Z")
    assert row_of("SOPInstanceUID", explanation).action == "new UID"
    assert row_of("PatientIdentityRemoved", explanation).action == "added"
    assert row_of("MediaStorageSOPInstanceUID", explanation).after == row_of("SOPInstanceUID", explanation).after


def test_numbers_beyond_the_first_are_counted_and_bytes_are_sized() -> None:
    many = {tag_of("GridFrameOffsetVector"): ("DS", b"0"), tag_of("LUTData"): ("US", bytes(100)), tag_of("PixelData"): ("OW", bytes(512))}
    explanation = explained(instance_of(many))
    assert (row_of("LUTData", explanation).before or "").endswith("(50 values)")
    assert row_of("PixelData", explanation).before == "512 bytes"


def test_what_is_in_a_sequence_that_goes_is_shown_and_goes() -> None:
    inside = item(joined({tag_of("PatientID"): ("LO", b"OLD-1")})) + item(joined({tag_of("PatientID"): ("LO", b"OLD-2")}))
    explanation = explained(instance_of(ORIGINAL | {tag_of("OtherPatientIDsSequence"): ("SQ", inside)}))
    gone = [row for row in explanation.rows if row.depth == 1 and row.before is not None]
    assert [(row.item, row.action, row.before, row.after) for row in gone] == [(1, "removed", "OLD-1", None), (2, "removed", "OLD-2", None)]
    assert {row.reason for row in gone} == {"in a sequence that goes"}


def test_what_the_second_look_replaced_says_so() -> None:
    row = row_of("SoftwareVersions", explained(instance_of(ORIGINAL | {tag_of("SoftwareVersions"): ("LO", b"of Quixano")})))
    assert (row.action, row.before, row.after) == ("second look", "of Quixano", "ANON")


def test_an_instance_that_would_be_quarantined_is_explained_all_the_same() -> None:
    explanation = explained(instance_of(ORIGINAL | {tag_of("BurnedInAnnotation"): ("CS", b"YES")}), burned_in="quarantine")
    assert explanation.refusal is not None
    assert explanation.refusal.reason == "burned-in"
    assert row_of("PatientName", explanation).after == "sub-001"


def test_what_the_second_look_refuses_is_shown_and_said() -> None:
    segment = b"Quixano"
    jpeg = b"\xff\xd8\xff\xfe" + (len(segment) + 2).to_bytes(2, "big") + segment + b"\xff\xda\x00\x02"
    pixels = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + item(b"") + item(jpeg + b"\0") + b"\xfe\xff\xdd\xe0" + bytes(4)
    explanation = explained(read(io.BytesIO(file_of(joined(needed() | ORIGINAL) + pixels, "1.2.840.10008.1.2.4.50"))))
    assert explanation.refusal is not None
    assert explanation.refusal.reason == "second-look"
    assert row_of("PixelData", explanation).action == "kept"


def test_explaining_leaves_the_instance_as_it_was() -> None:
    instance = instance_of(ORIGINAL)
    explained(instance)
    assert dict(elements(instance.dataset)) == dict(elements(instance_of(ORIGINAL).dataset))
    assert explained(instance).rows == explained(instance_of(ORIGINAL)).rows


@pytest.mark.parametrize("profile", [*NAMED, SITE], ids=[profile.label for profile in [*NAMED, SITE]])
def test_a_profile_is_described_with_every_attribute_once(profile: Profile) -> None:
    rows = list(describe(profile))
    named = [found[1] for row in rows for found in re.finditer(r"\(([0-9A-F]{4},[0-9A-F]{4})\)", row.what)]
    assert len(named) == len(set(named))
    counted = sum(int(found[1]) for row in rows if (found := re.fullmatch(r"(\d+) other attributes", row.what)))
    listed = {key for key in table() if key.isalnum() and "x" not in key and key != "private"}
    assert counted + len(named) == len(DicomDictionary.keys() | {int(key, 16) for key in listed})


def test_a_description_tells_the_effective_action_and_why() -> None:
    def described(text: str, profile: Profile) -> tuple[str, str]:
        found = [(row.code, row.reason) for row in describe(profile) if text in row.what]
        assert len(found) == 1, found
        return found[0]

    assert described("(0008,1030) StudyDescription", NAMED[0]) == ("X", "PS3.15 Table E.1-1: X")
    assert described("(0008,1030)", NAMED[1]) == ("C", "PS3.15 Table E.1-1: X; clean-descriptors: C")
    assert described("(0008,1030)", SITE) == ("K", "the site's own rule")
    assert described("(0018,5100)", SITE) == ("X", "the site's own rule")
    assert described("(0018,1020)", NAMED[0])[0] == "K"
    assert described("SIEMENS MR HEADER: B Value", NAMED[1])[0] == "K"
    assert described("Private Attributes", NAMED[0]) == ("X", "private")
    assert described("the dictionary does not know", NAMED[0])[0] == "X"
    assert described("(60xx,3000)", NAMED[0])[0] == "X"
    assert not [row for row in describe(NAMED[0]) if "SIEMENS" in row.what]
