"""What becomes of a find: the dummy in its place, or no output; and how seldom an innocent word is one."""

import io
import random
import warnings
from collections import Counter

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from dicomrx.deid import BASIC, Instance, Profile, check, deidentify, look_again, named_profile, read, site_profile, survivors
from dicomrx.deid import needles as needles_of
from dicomrx.deid.encoding import Encoding
from dicomrx.deid.writing import raw
from dicomrx.errors import Reject
from tests import factories
from tests.unit.deid_files import CONTEXT, EXPLICIT, IMPLICIT, bundled, element, file_of, instance_of, item, joined, needed, seen, tag_of

ORIGINAL = {
    tag_of("PatientName"): ("PN", b"Quixano^Alonso"),
    tag_of("PatientID"): ("LO", b"HID-778899"),
    tag_of("PatientBirthDate"): ("DA", b"19470923"),
}


NAMED = [named_profile(name) for name in ("basic", "research")]


def looked_at(
    original: Instance, *, syntax: str = EXPLICIT, profile: Profile = BASIC, **slips: tuple[str, bytes]
) -> tuple[list[str], pydicom.Dataset]:
    """What a second look does where the first has let something slip."""
    output = deidentify(original, CONTEXT, profile)
    for keyword, (vr, value) in slips.items():
        output.dataset[tag_of(keyword)] = raw(tag_of(keyword), vr, value, Encoding.of(syntax))
    return look_again(original, output, CONTEXT.pseudonym, profile), seen(output)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_a_find_takes_the_dummy_of_its_vr(syntax: str) -> None:
    found, output = looked_at(
        instance_of(ORIGINAL, syntax), syntax=syntax, ImageComments=("LT", b"of Quixano"), AcquisitionDate=("DA", b"19470923")
    )
    assert found == ["AcquisitionDate", "ImageComments"]
    assert (output.ImageComments, output.AcquisitionDate) == ("ANON", "19000101")


def test_of_several_values_only_the_find_goes() -> None:
    _, output = looked_at(instance_of(ORIGINAL), SoftwareVersions=("LO", b"syngo\\alonso\\VB10"))
    assert list(output.SoftwareVersions) == ["syngo", "ANON", "VB10"]


def test_a_find_deep_inside_goes_too() -> None:
    meaning = joined({tag_of("CodeValue"): ("SH", b"T-1"), tag_of("CodeMeaning"): ("LO", b"Quixano")})
    original = instance_of(ORIGINAL | {tag_of("ViewCodeSequence"): ("SQ", item(meaning))})
    found, output = looked_at(original)
    assert found == ["CodeMeaning"]
    assert output.ViewCodeSequence[0].CodeMeaning == "ANON"
    assert output.ViewCodeSequence[0].CodeValue == "T-1"


@pytest.mark.parametrize("charset", ["", "ISO_IR 100", "ISO_IR 192", "ISO_IR 144"])
def test_a_name_is_found_in_whatever_set_it_is_written(charset: str) -> None:
    name = {tag_of("PatientName"): ("PN", "Müller^Jürgen".encode("latin-1")), 0x00080005: ("CS", b"ISO_IR 100")}
    for written in ("utf-8", "latin-1"):
        found, output = looked_at(
            instance_of(name), SpecificCharacterSet=("CS", charset.encode()), ImageComments=("LT", "von JÜRGEN".encode(written))
        )
        assert (found, output.ImageComments) == (["ImageComments"], "ANON")


def test_a_uid_cannot_be_replaced_so_the_instance_is_refused_by_its_element_alone() -> None:
    with pytest.raises(Reject, match="ReferencedSOPClassUID") as refused:
        looked_at(instance_of(ORIGINAL), ReferencedSOPClassUID=("UI", b"1.2.3.4.3"))
    assert refused.value.reason == "second-look"
    assert "1.2.3.4" not in str(refused.value)


@pytest.mark.parametrize("segment", [b"Quixano", "Quixano".encode("utf-16-le"), b"1947:09:23", b"id=HID-778899;"])
@pytest.mark.parametrize("marker", [b"\xff\xfe", b"\xff\xff\xe1", b"\xff\xef"])
def test_a_find_in_a_jpeg_segment_is_refused(marker: bytes, segment: bytes) -> None:
    jpeg = b"\xff\xd8" + marker + (len(segment) + 2).to_bytes(2, "big") + segment + b"\xff\xda\x00\x02"
    jpeg += b"\0" * (len(jpeg) & 1)
    pixels = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + item(b"") + item(jpeg) + b"\xfe\xff\xdd\xe0" + bytes(4)
    original = read(io.BytesIO(file_of(joined(needed() | ORIGINAL) + pixels, "1.2.840.10008.1.2.4.50")))
    with pytest.raises(Reject, match="PixelData"):
        looked_at(original)


def test_what_the_stamps_say_of_us_is_no_find() -> None:
    names = {tag_of("PatientName"): ("PN", b"Basic^Application^Profile"), tag_of("PatientID"): ("LO", b"sub-001")}
    found, output = looked_at(instance_of(names))
    assert found == []
    assert output.PatientID == "sub-001"
    assert "Basic" in output.DeidentificationMethodCodeSequence[0].CodeMeaning


def test_pixels_and_bulk_are_never_searched() -> None:
    pixels = {tag_of("PixelData"): ("OW", b"Quixano^Alonso HID-778899 ")}
    assert looked_at(instance_of(ORIGINAL | pixels))[0] == []


def test_a_date_or_uid_that_a_profile_keeps_is_no_find_and_a_name_in_text_that_it_keeps_is_one() -> None:
    parts = ORIGINAL | {
        tag_of("StudyDate"): ("DA", b"19470923"),
        tag_of("InstitutionName"): ("LO", b"Quixano Clinic"),
        tag_of("FrameOfReferenceUID"): ("UI", b"1.2.3.5"),
        tag_of("ImageComments"): ("LT", b"Quixano, 23.9.1947"),
    }
    keeping = site_profile('options = ["full-dates", "retain-institution"]\n[rules]\nFrameOfReferenceUID = "keep"', "a")
    found, output = looked_at(instance_of(parts), profile=keeping, SequenceName=("SH", b"Quixano"), AcquisitionTime=("TM", b"101112"))
    assert found == ["InstitutionName", "SequenceName"]
    assert (output.StudyDate, output.InstitutionName, output.FrameOfReferenceUID) == ("19470923", "ANON", "1.2.3.5")
    assert "ImageComments" not in output


@pytest.mark.parametrize(("code", "left"), [("778899", "ANON"), ("HID_778899", "ANON"), ("19470923", "ANON"), ("QUIXANO", "QUIXANO")])
def test_of_a_code_an_id_or_a_date_is_a_find_and_a_word_is_none(code: str, left: str) -> None:
    """Words of codes are everybody's: a patient may be called Head."""
    assert looked_at(instance_of(ORIGINAL | {tag_of("CodeValue"): ("SH", code.encode())}))[1].CodeValue == left


def test_a_date_that_did_not_move_is_a_find_and_one_that_met_another_by_chance_is_none() -> None:
    dates = {
        tag_of("StudyDate"): ("DA", b"20240517"),
        tag_of("SeriesDate"): ("DA", b"20270401"),
        tag_of("ContentDate"): ("DA", b"20240517"),
    }
    research = NAMED[1]
    met = looked_at(instance_of(ORIGINAL | dates), profile=research, SeriesDate=("DA", b"20240517"))
    assert (met[0], met[1].SeriesDate) == ([], "20240517")
    stayed = looked_at(instance_of(ORIGINAL | dates), profile=research, ContentDate=("DA", b"20240517"))
    assert (stayed[0], stayed[1].ContentDate) == (["ContentDate"], "19000101")
    told = looked_at(instance_of(ORIGINAL | dates), profile=research, ProtocolName=("LO", b"head of 17.05.2024"))
    assert told[0] == ["ProtocolName"]


def test_the_patients_own_words_stay_in_no_description_however_ordinary() -> None:
    parts = {
        tag_of("PatientName"): ("PN", b"Head^Li"),
        tag_of("PatientID"): ("LO", b"T1"),
        tag_of("StationName"): ("SH", b"Axial"),
        tag_of("StudyDescription"): ("LO", b"Head Chest T1 axial"),
    }
    assert looked_at(instance_of(parts), profile=NAMED[1])[1].StudyDescription == "Chest"
    keeping = named_profile("research+retain-device")
    assert looked_at(instance_of(parts), profile=keeping)[1].StudyDescription == "Chest axial"


FAMILY = (
    "Head",
    "May",
    "Long",
    "Li",
    "Philips",
    "Brown",
    "Chest",
    "White",
    "Siemens",
    "Axial",
    "Cross",
    "Best",
    "Ng",
    "Field",
    "Hand",
    "Ober",
)
GIVEN = ("May", "Li", "Rose", "Art", "Mark", "Bo", "Grace", "Long", "Al", "Iris", "Angel", "Summer")
MAKERS = (
    ("Philips Medical Systems", "Brilliance 64"),
    ("SIEMENS", "SOMATOM Force"),
    ("GE MEDICAL SYSTEMS", "Optima MR450w"),
    ("Brown", "X"),
)


def awkward(number: int, chance: random.Random) -> Dataset:
    """An ordinary image of somebody whose name or ID is an ordinary word or number."""
    made = factories.dataset(
        number,
        name=f"{chance.choice(FAMILY)}^{chance.choice(GIVEN)}",
        patient_id=chance.choice([str(chance.randrange(10)), str(chance.randrange(10**6)), "512", "12345", "113100", "M1", "1", "HEAD1"]),
        birth_date=chance.choice(["19000101", "20000101", "19470923", ""]),
    )
    made.Manufacturer, made.ManufacturerModelName = chance.choice(MAKERS)
    made.StudyID = chance.choice(["1", "001", "512", "CT1"])
    made.OperatorsName = chance.choice(FAMILY)
    made.SoftwareVersions, made.ConvolutionKernel, made.SequenceName = ["VB10", "2.0.5"], "B30f", "*tfl3d1_16"
    made.BodyPartExamined, made.ProtocolName, made.SeriesDescription = "HEAD", "Head Long Axial", "Chest May 2024"
    made.DeviceSerialNumber, made.StationName = "12345", "CT1"
    made.RescaleType, made.RescaleSlope, made.WindowCenterWidthExplanation = "HU", "1", ["BRAIN", "Head"]
    region = Dataset()
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "T-D1100", "SRT", chance.choice(["Head", "Chest", "Hand"])
    made.AnatomicRegionSequence = [region]
    return made


def encoded(made: Dataset) -> bytes:
    stream = io.BytesIO()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


@pytest.mark.parametrize("profile", NAMED, ids=lambda profile: profile.label)
def test_of_a_thousand_patients_with_awkward_names_hardly_one_is_refused_and_little_is_lost(profile: Profile) -> None:
    chance = random.Random(20241117)
    refused, lost = 0, Counter[str]()
    for number in range(1000):
        original = read(io.BytesIO(encoded(awkward(number, chance))))
        output = deidentify(original, CONTEXT, profile)
        try:
            lost.update(look_again(original, output, CONTEXT.pseudonym, profile))
        except Reject:
            refused += 1
            continue
        assert survivors(needles_of(original, profile), output.dataset, pseudonym=CONTEXT.pseudonym, profile=profile) == []
        assert seen(output).Manufacturer != "ANON"
    assert refused < 5, refused
    # A patient called Head costs the word Head; no identifier of the standard or of the machine is touched.
    assert set(lost) <= {"CodeMeaning", "WindowCenterWidthExplanation", "SoftwareVersions"}, lost


@pytest.mark.parametrize("profile", NAMED, ids=lambda profile: profile.label)
def test_bundled_files_without_burned_in_risk_are_accepted(profile: Profile) -> None:
    outcomes = Counter[str]()
    for path in bundled():
        with warnings.catch_warnings(), path.open("rb") as stream:
            warnings.simplefilter("error")
            try:
                instance = read(stream)
            except Reject:  # a directory, a fragment, a file cut short: there is nothing to accept
                outcomes["no instance"] += 1
                continue
            try:
                check(instance, "quarantine")
                output = deidentify(instance, CONTEXT, profile)
                assert look_again(instance, output, CONTEXT.pseudonym, profile) == [], path.name
            except Reject as refused:
                outcomes[refused.reason] += 1
                continue
            outcomes["accepted"] += 1
    assert outcomes["accepted"] >= 100
    assert outcomes["accepted"] >= 0.95 * (outcomes.total() - outcomes["burned-in"] - outcomes["no instance"]), outcomes


def test_a_find_in_a_name_that_is_sent_as_an_unknown_element_counts_as_one() -> None:
    hidden = element(tag_of("PatientComments"), "UN", b"HID-778899")
    original = read(io.BytesIO(file_of(joined(needed() | ORIGINAL) + hidden)))
    assert looked_at(original, ImageComments=("LT", b"hid-778899"))[0] == ["ImageComments"]
