"""The second look: what it seeks, where it finds it, and what it must not take for a find."""

import io
import warnings

import pytest

from dicomrx.deid import DataSet, Instance, deidentify, needles, proves, read, survivors, write
from dicomrx.deid.comments import comment_segments
from dicomrx.errors import Reject
from tests.unit.deid_files import CONTEXT, bundled, element, file_of, instance_of, item, joined, needed, tag_of

ORIGINAL = {
    tag_of("PatientName"): ("PN", b"Quixano^Alonso^de^la=El Bueno"),
    tag_of("PatientID"): ("LO", b"HID-778899"),
    tag_of("AccessionNumber"): ("SH", b"ACC5566778"),
    tag_of("PatientBirthDate"): ("DA", b"19470923"),
    tag_of("StudyID"): ("SH", b"S1"),
    tag_of("Manufacturer"): ("LO", b"Rocinante"),
}


def without_uids(instance: Instance) -> DataSet:
    """Every instance made here has the same UIDs, which would be found."""
    for tag in needed():
        del instance.dataset[tag]
    return instance.dataset


def found(text: str, tag: str = "ImageComments", vr: str = "LT", *, everywhere: bool = False) -> list[str]:
    output = without_uids(instance_of({tag_of(tag): (vr, text.encode())}))
    return survivors(needles(instance_of(ORIGINAL)), output, everywhere=everywhere)


def test_the_original_itself_is_full_of_finds() -> None:
    sought = needles(instance_of(ORIGINAL))
    hits = set(survivors(sought, instance_of(ORIGINAL).dataset))
    assert hits >= {"PatientName", "PatientID", "AccessionNumber", "PatientBirthDate", "StudyInstanceUID", "SOPInstanceUID"}
    assert "Manufacturer" not in hits


@pytest.mark.parametrize(
    "text",
    [
        "seen by QUIXANO.",
        "alonso_1",
        "id hid-778899!",
        "hid 778899",
        "HID778899_2",
        "no. 778899",
        "ACC-5566778",
        "23.9.47",
        "9/23/47",
        "23SEP1947",
        "23-sep-47",
        "ACC5566778",
        "born 23.09.1947",
        "born 1947-09-23",
        "09/23/1947",
        "on 9/23/1947",
        "1947:09:23 10:11:12",
        "23-Sep-1947",
        "September 23, 1947",
        "19470923101112.123",
        "1.Quixano",
        "HID-778899.1",
        "of 1.2.3.4.1, ok",
    ],
)
def test_a_removed_value_is_found_in_other_spellings(text: str) -> None:
    assert found(text) == ["ImageComments"]


@pytest.mark.parametrize(
    "text", ["Quixanos", "XACC5566778", "119470923", "S1 or so", "de la", "1.2.3.4.10", "1.2.3.4.1.7", "Rocinante", "sub-001"]
)
def test_a_part_of_a_word_or_a_short_one_is_no_find(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize("text", ["S1", " la ", "de", "Rosa\\S1", "Alonso de la Quixano"])
def test_a_short_value_is_found_where_it_is_the_whole_value(text: str) -> None:
    assert found(text, "SequenceName", "SH") == ["SequenceName"]


def test_a_name_is_found_without_its_accents_too() -> None:
    name = "Müller-Łukasz^Zoë".encode()
    sought = needles(instance_of({tag_of("SpecificCharacterSet"): ("CS", b"ISO_IR 192"), tag_of("PatientName"): ("PN", name)}))
    assert all(map(sought.found_in, ("Müller", "MUELLER", "muller", "Lukasz")))
    assert not sought.found_in("Miller")


def test_a_short_name_is_found_in_either_order() -> None:
    sought = needles(instance_of({tag_of("PatientName"): ("PN", b"Li^Na"), tag_of("StudyID"): ("SH", b"12")}))
    texts = {"Li Na": True, "NA, LI": True, "lina": True, "Li in water": False, "12": False}
    assert {text: sought.found_in(text) for text in texts} == texts


def test_a_uid_that_a_device_made_under_the_standards_root_is_a_needle_and_one_of_the_standard_is_none() -> None:
    uid = "1.2.840.10008.19470923.778899"
    sought = needles(instance_of({tag_of("FrameOfReferenceUID"): ("UI", b"1.2.840.10008.1.4.1.1"), 0x0020000D: ("UI", uid.encode())}))
    assert sought.found_in(uid)
    assert not sought.found_in("1.2.840.10008.1.4.1.1")


def test_what_was_a_dummy_before_is_no_needle() -> None:
    original = instance_of({tag_of("PatientName"): ("PN", b"ANON"), tag_of("PatientBirthDate"): ("DA", b"19000101")})
    assert not needles(original).found_in("ANON 19000101")


def test_a_search_that_does_not_find_the_original_in_itself_proves_nothing() -> None:
    original = instance_of(ORIGINAL)
    sought = needles(original)
    assert proves(sought, original.dataset)
    del original.dataset[tag_of("PatientID")]
    assert not proves(sought, original.dataset)
    assert not proves(needles(instance_of({})), DataSet())


def test_coded_strings_are_searched_on_demand_only() -> None:
    assert found("QUIXANO", "BodyPartExamined", "CS") == []
    assert found("QUIXANO", "BodyPartExamined", "CS", everywhere=True) == ["BodyPartExamined"]


def test_a_find_deep_inside_or_in_private_elements_is_named() -> None:
    sought = needles(instance_of(ORIGINAL))
    inner = element(0x00091001, "LO", b"Quixano") + element(tag_of("CodeMeaning"), "LO", b"Alonso")
    assert survivors(sought, without_uids(instance_of({0x00540016: ("SQ", item(inner))}))) == ["CodeMeaning", "(0009,1001)"]


def test_names_of_files_are_searched_too() -> None:
    sought = needles(instance_of(ORIGINAL))
    assert survivors(sought, "1.2.3.4.1/quixano.dcm") == ["name"]
    assert survivors(sought, "2.25.17/2.25.18.dcm") == []


def test_the_character_set_of_each_data_set_is_its_own() -> None:
    latin = {0x00080005: ("CS", b"ISO_IR 100"), tag_of("PatientName"): ("PN", "Müller".encode("latin-1"))}
    utf8 = {0x00080005: ("CS", b"ISO_IR 192"), tag_of("ImageComments"): ("LT", "Herr MÜLLER".encode())}
    assert survivors(needles(instance_of(latin)), without_uids(instance_of(utf8))) == ["ImageComments"]


def test_comments_inside_compressed_pixels_are_searched_and_pixels_are_not() -> None:
    comment = b"\xff\xd8\xff\xfe\x00\x12by Quixano today"
    jpeg = comment + b"\xff\xda\x00\x02Alonso"
    assert list(comment_segments(item(b"") + item(jpeg))) == [("by Quixano today",)]
    assert list(comment_segments(item(b"") + item(jpeg[:9]) + item(jpeg[9:]) + item(jpeg))) == [("by Quixano today",)] * 2
    fragments = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + item(b"") + item(jpeg) + b"\xfe\xff\xdd\xe0" + bytes(4)
    file = file_of(joined(needed()) + fragments, "1.2.840.10008.1.2.4.50")
    assert survivors(needles(instance_of(ORIGINAL)), without_uids(read(io.BytesIO(file)))) == ["PixelData"]


def test_damaged_compressed_pixels_end_the_search_quietly() -> None:
    assert list(comment_segments(item(b"\xff\xd8\xff\xfe\xff\xff" + b"cut"))) == [("cut",)]
    assert list(comment_segments(b"\xfe\xff\x00\xe0")) == []


def test_no_bundled_file_leaves_anything_of_itself_and_every_search_could_have_found_it() -> None:
    searched = 0
    for path in bundled():
        with warnings.catch_warnings(), path.open("rb") as stream:
            warnings.simplefilter("error")
            try:
                instance = read(stream)
                output = deidentify(instance, CONTEXT)
            except Reject:
                continue
            file = io.BytesIO()
            write(output, file)
            arrived = read(io.BytesIO(file.getvalue())).dataset
            assert proves(needles(instance), instance.dataset), path.name
            assert survivors(needles(instance), arrived) == survivors(needles(instance), output.dataset) == [], path.name
            searched += 1
    assert searched > 150


def test_needles_do_not_show_themselves() -> None:
    assert "quixano" not in repr(needles(instance_of(ORIGINAL))).casefold()
