"""Each action on one value."""

import hashlib
import hmac
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomrx.deid import BASIC, Context, pseudonymous_uid, values
from tests.unit.deid_files import CONTEXT, tag_of

KEY = CONTEXT.uid_key


def done(keyword: str, value: bytes, vr: str | None = None, context: Context = CONTEXT) -> bytes | None:
    tag = tag_of(keyword)
    rule = BASIC.rule(tag, vr)
    made = rule.action(context, tag, rule.vr or "", value)
    return None if made is None else bytes(made)


def test_a_uid_becomes_the_hmac_of_itself_in_the_uuid_arc() -> None:
    digest = hmac.new(KEY, b"1.2.3", hashlib.sha256).digest()
    assert pseudonymous_uid(KEY, "1.2.3") == f"2.25.{int.from_bytes(digest[:16], 'big')}"


@given(st.from_regex(r"[0-9]{1,5}(\.[0-9]{1,5}){1,9}", fullmatch=True))
def test_every_pseudonymous_uid_is_valid_and_the_same_again_and_another_under_another_key(uid: str) -> None:
    made = pseudonymous_uid(KEY, uid)
    assert len(made) <= 64
    assert values.is_uid(made.encode())
    assert made == pseudonymous_uid(KEY, uid + "\0") == pseudonymous_uid(KEY, f" {uid}")
    assert made != pseudonymous_uid(b"x" * 32, uid)


def test_references_follow_the_uid_they_refer_to() -> None:
    expected = pseudonymous_uid(KEY, "1.2.3").encode()
    for keyword in ("SOPInstanceUID", "ReferencedSOPInstanceUID", "FrameOfReferenceUID", "RelatedFrameOfReferenceUID", "CreatorVersionUID"):
        assert done(keyword, b"1.2.3\0") == expected, keyword
    assert done("FailedSOPInstanceUIDList", b"1.2.3\\\\1.2.3") == expected + b"\\\\" + expected


def test_a_value_that_is_no_uid_is_replaced_all_the_same() -> None:
    assert done("StudyInstanceUID", b"Quixano") == pseudonymous_uid(KEY, "Quixano").encode()


@pytest.mark.parametrize("keyword", ["SOPClassUID", "ReferencedSOPClassUID", "AvailableTransferSyntaxUID", "PertinentSOPClassesInStudy"])
def test_class_and_transfer_syntax_uids_stay_private_ones_too(keyword: str) -> None:
    assert done(keyword, b"1.2.840.113619.4.26") == b"1.2.840.113619.4.26"
    assert done(keyword, b"Quixano") == pseudonymous_uid(KEY, "Quixano").encode()


def test_uids_of_the_standard_stay_everywhere() -> None:
    assert done("FrameOfReferenceUID", b"1.2.840.10008.1.4.1.1\0") == b"1.2.840.10008.1.4.1.1"
    assert done("FrameOfReferenceUID", b"1.2.840.10008.Quixano") == pseudonymous_uid(KEY, "1.2.840.10008.Quixano").encode()
    assert done("FrameOfReferenceUID", b"1.2.840.100080.1") != b"1.2.840.100080.1"


def test_a_uid_that_a_device_made_under_the_standards_root_is_replaced_as_any_other() -> None:
    uid = b"1.2.840.10008.19470923.778899"
    assert done("StudyInstanceUID", uid) == pseudonymous_uid(KEY, uid.decode()).encode()
    assert done("CodingSchemeUID", uid) == pseudonymous_uid(KEY, uid.decode()).encode()
    assert done("ContextUID", b"1.2.840.10008.6.1.1234") == b"1.2.840.10008.6.1.1234"


def test_of_terminologies_only_what_a_registry_holds_stays() -> None:
    assert done("CodingSchemeUID", b"2.16.840.1.113883.6.96") == b"2.16.840.1.113883.6.96"
    assert done("CodingSchemeUID", b"1.2.276.0.1") == pseudonymous_uid(KEY, "1.2.276.0.1").encode()


def test_names_and_ids_become_the_pseudonym_and_other_names_the_dummy() -> None:
    assert done("PatientName", b"Quixano^Alonso") == done("PatientID", b"") == b"sub-001"
    assert done("PersonName", b"Quixano") == b"ANON"
    assert done("ReferringPhysicianName", b"Carrasco") == b""
    assert done("OtherPatientNames", b"Quixote") is None


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ContentDate", b"19000101"),
        ("ContentTime", b"000000"),
        ("AcquisitionDateTime", b"19000101000000"),
        ("StationName", b"ANON"),
        ("ProtocolName", b"ANON"),
        ("EncapsulatedDocument", b"\0\0"),
        ("AcquisitionDate", b""),
        ("StudyDate", b""),
        ("PatientAge", None),
    ],
)
def test_a_compound_code_takes_the_dummy_where_it_may_and_else_goes_empty(keyword: str, value: bytes | None) -> None:
    assert done(keyword, b"20240517") == value


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ConvolutionKernel", b"B30f\\Br40"),
        ("ManufacturerModelName", b"SOMATOM Definition AS+"),
        ("SoftwareVersions", b"27\\LX\\MR Software release:15.0_M4_0910.a"),
        ("SliceThickness", b" 1.25 "),
        ("SliceThickness", b"0.12345678901234567"),
        ("ImageType", b"ORIGINAL\\PRIMARY\\M_FFE\\CT_SOM5"),
        ("CodeValue", b"T-A0100"),
        ("CodeValue", b"123037004"),
        ("SpecificCharacterSet", b"\\ISO 2022 IR 87"),
        ("KVP", b""),
    ],
)
def test_what_physics_needs_stays_as_it_is(keyword: str, value: bytes) -> None:
    assert done(keyword, value) == value


@pytest.mark.parametrize(
    ("keyword", "value", "left"),
    [
        ("ConvolutionKernel", b"Quixano^Alonso", b"ANON"),
        ("ManufacturerModelName", b"born 1947-09-23", b"ANON"),
        ("ManufacturerModelName", b"patient 778899", b"ANON"),
        ("ManufacturerModelName", b"call me@example.org", b"ANON"),
        ("ManufacturerModelName", b"T\xf6shiba", b"ANON"),
        ("ManufacturerModelName", b"\x1b$B;3ED\x1b(B", b"ANON"),
        ("CodeValue", b"Quixano^Alonso", b"ANON"),
        ("SliceThickness", b"Quixano", None),
        ("SliceThickness", b"1" * 40, None),
        ("SeriesNumber", b"1.5", None),
        ("Modality", b"Quixano", None),
        ("ImageType", b"Quixano\\Alonso", None),
        ("ImageType", b"ORIGINAL\\Quixano\\HID778899\\", b"ORIGINAL\\ANON\\ANON\\"),
        ("Modality", b"HID778899", None),
        ("Modality", b"A CODE STRING TOO LONG", None),
        ("SpecificCharacterSet", b"QUIXANO", None),
        ("Rows", b"Quixan", None),
        ("DiffusionBValue", b"19470923", None),
        ("MappedPixelValue", b"Quixano ", None),
        ("PrivateDataElementName", b"Quixano", b"ANON"),
        ("RecordKey", b"Quixano", None),
        ("RedPaletteColorLookupTableData", b"Quixano Alonso", None),
        ("PointCoordinatesData", b"Quixano Alonso, Hidalgo.", None),
        ("RetrieveURL", b"https://quixano.example", b"urn:anon"),
        ("OtherStudyNumbers", b"778899", None),
    ],
)
def test_what_is_not_what_its_vr_says_does_not_stay(keyword: str, value: bytes, left: bytes | None) -> None:
    assert done(keyword, value) == left


def test_text_is_judged_in_its_own_character_set() -> None:
    german = Context("sub-001", KEY, ("ISO_IR 100",), date_shift=1234)
    assert done("CodeMeaning", "Gefäß".encode("latin-1"), context=german) == "Gefäß".encode("latin-1")
    assert done("CodeMeaning", "Gefäß".encode("latin-1")) == b"ANON"


@pytest.mark.parametrize(("keyword", "vr"), [("Rows", "LT"), ("SliceThickness", "LO"), ("PixelData", "UN"), ("KVP", "OB")])
def test_a_number_under_another_vr_is_as_good_as_unknown(keyword: str, vr: str) -> None:
    rule = BASIC.rule(tag_of(keyword), vr)
    assert rule.code == ("K" if vr == "UN" else "X")


def test_numbers_sent_as_un_are_held_to_the_vr_of_the_dictionary() -> None:
    assert done("SliceThickness", b"1.25", "UN") == b"1.25"
    assert done("SliceThickness", b"Quixano", "UN") is None
    assert done("ConvolutionKernel", b"B30f", "UN") == b"ANON"


@given(st.lists(st.floats(width=32), min_size=1, max_size=40))
def test_measured_numbers_are_not_taken_for_text(numbers: list[float]) -> None:
    rounded = [float(f"{number:.3g}") for number in numbers]
    data = struct.pack(f"<{len(rounded)}d", *rounded)
    assert values.is_number(tag_of("RealWorldValueLUTData"), "FD", data)


@pytest.mark.parametrize("pseudonym", ["", "sub\\001", "sub^001", "sub=001", "süb-001", "sub\n001", " sub", "x" * 65])
def test_a_pseudonym_that_is_no_name_in_every_character_set_is_refused(pseudonym: str) -> None:
    with pytest.raises(ValueError, match="pseudonym"):
        Context(pseudonym, KEY, date_shift=1234)


def test_a_short_key_is_refused_and_no_context_shows_itself() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Context("sub-001", b"short", date_shift=1234)
    assert "site" not in repr(CONTEXT)
