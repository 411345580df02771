"""Whole instances in, whole instances out."""

import contextlib
import copy
import io
import shutil
import subprocess
import warnings
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.datadict import DicomDictionary, keyword_for_tag  # type: ignore[attr-defined]
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from dicomrx.deid import Context, check, deidentify, pseudonymous_uid, read
from dicomrx.deid.tags import text_of
from dicomrx.errors import Reject
from tests import factories
from tests.unit.deid_files import (
    BIG_ENDIAN,
    CONTEXT,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    after,
    bundled,
    element,
    file_of,
    instance_of,
    item,
    joined,
    needed,
    tag_of,
)

ACCEPTED = 156  # of pydicom 3.0.2's files, burned-in risks among them
GROUPS = (0x0008, 0x0009, 0x0010, 0x0018, 0x0020, 0x0028, 0x0040, 0x0054, 0x5000, 0x6000, 0x300A)
VRS = [
    *("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT"),
    *("OB", "OW", "PN", "SH", "SL", "SS", "ST", "TM", "UC", "UI", "UL", "UN"),
]
TEXT_SENT_AS_UN = ("Manufacturer", "rtdose_rle")
USEFUL = (
    *("Rows", "Columns", "ConvolutionKernel", "SliceThickness", "ImagePositionPatient", "ImageType", "Manufacturer", "Modality"),
    *("SmallestImagePixelValue", "PixelSpacing", "RescaleSlope", "EchoTime", "KVP", "PhotometricInterpretation"),
)


def decoded(file: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(file))


def accepted() -> list[Path]:
    paths = []
    for path in bundled():
        try:
            with path.open("rb") as stream:
                deidentify(read(stream), CONTEXT)
        except Reject:
            continue
        paths.append(path)
    return paths


def out_of(path: Path) -> bytes:
    with path.open("rb") as stream:
        return after(read(stream))


def test_every_bundled_file_is_taken_or_refused_with_a_reason() -> None:
    assert len(accepted()) == ACCEPTED
    refused = set(bundled()) - set(accepted())
    assert {path.name for path in refused if "DICOMDIR" not in path.name} == {
        *("chrSQEncoding.dcm", "chrSQEncoding1.dcm", "UN_sequence.dcm", "empty_charset_LEI.dcm"),  # no SOP class or UIDs
        *("nested_priv_SQ.dcm", "no_meta_group_length.dcm", "priv_SQ.dcm"),
        *("JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm", "SC_rgb_jls_lossy_line.dcm", "SC_rgb_jls_lossy_sample.dcm"),
        *("MR_truncated.dcm", "rtplan_truncated.dcm"),  # torn
        *("SC_rgb_jpeg.dcm", "badVR.dcm", "meta_missing_tsyntax.dcm"),  # not encoded as they say
    }


@pytest.mark.parametrize("path", accepted(), ids=lambda path: path.name)
def test_a_bundled_file_keeps_its_pixels_and_syntax_and_is_written_the_same_again(path: Path) -> None:
    out = out_of(path)
    assert out == out_of(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, result = pydicom.dcmread(path), decoded(out)
        assert result.file_meta.TransferSyntaxUID == before.file_meta.TransferSyntaxUID
        assert str(result.PatientName) == result.PatientID == "sub-001"
        assert result.PatientIdentityRemoved == "YES"
        assert result.LongitudinalTemporalInformationModified == "REMOVED"
        assert [(code.CodeValue, code.CodingSchemeDesignator) for code in result.DeidentificationMethodCodeSequence] == [("113100", "DCM")]
        assert result.SOPClassUID == before.SOPClassUID == result.file_meta.MediaStorageSOPClassUID
        assert result.SOPInstanceUID == result.file_meta.MediaStorageSOPInstanceUID
        assert result.get("BurnedInAnnotation") == before.get("BurnedInAnnotation")
        for keyword in USEFUL:
            assert result.get(keyword) == before.get(keyword) or (keyword, path.name[:10]) == TEXT_SENT_AS_UN, keyword
        if "PixelData" in before:
            assert result.get_item("PixelData").value == before.get_item("PixelData").value
        str(result)  # decodes everything


def test_a_file_de_identified_twice_changes_no_further_than_its_uids() -> None:
    once = after(instance_of({tag_of("PatientName"): ("PN", b"Quixano"), tag_of("KVP"): ("DS", b"120")}))
    twice = decoded(after(read(io.BytesIO(once))))
    for part in decoded(once):
        if part.VR != "UI":
            assert twice[part.tag].value == part.value


def test_the_instance_is_left_as_it_was() -> None:
    instance = instance_of({tag_of("PatientName"): ("PN", b"Quixano"), tag_of("ReferencedImageSequence"): ("SQ", item(b""))})
    kept = copy.copy(instance.dataset)
    after(instance)
    assert instance.dataset == kept


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, DEFLATED])
def test_what_image_and_research_need_is_the_same_afterwards(syntax: str, tmp_path: Path) -> None:
    made = factories.dataset()
    made.ConvolutionKernel, made.SliceThickness, made.ImagePositionPatient = "B30f", "1.25", ["1.5", "-2", "3"]
    made.SmallestImagePixelValue = 7
    path = factories.write(tmp_path / "in.dcm", made, syntax)
    result, before = decoded(out_of(path)), pydicom.dcmread(path)
    for keyword in USEFUL:
        assert result.get(keyword) == before.get(keyword), keyword
    assert result.PixelData == before.PixelData
    assert result.FrameOfReferenceUID == pseudonymous_uid(CONTEXT.uid_key, before.FrameOfReferenceUID)


def test_references_inside_a_study_still_meet() -> None:
    image = decoded(after(instance_of({})))
    reference = joined({0x00081150: ("UI", b"1.2.840.10008.5.1.4.1.1.2"), 0x00081155: ("UI", b"1.2.3.4.3")})
    other = decoded(after(instance_of({tag_of("SourceImageSequence"): ("SQ", item(reference)), 0x00080018: ("UI", b"1.2.3.4.9")})))
    assert other.SourceImageSequence[0].ReferencedSOPInstanceUID == image.SOPInstanceUID
    assert other.SourceImageSequence[0].ReferencedSOPClassUID == image.SOPClassUID
    assert other.StudyInstanceUID == image.StudyInstanceUID


def test_another_pseudonym_changes_no_uid_and_another_key_changes_all() -> None:
    first, second = decoded(after(instance_of({}))), decoded(after(instance_of({}), Context("sub-002", CONTEXT.uid_key, date_shift=1234)))
    third = decoded(after(instance_of({}), Context("sub-001", b"z" * 32, date_shift=1234)))
    assert first.StudyInstanceUID == second.StudyInstanceUID != third.StudyInstanceUID
    assert second.PatientID == "sub-002"


def test_preamble_and_old_file_meta_leave_nothing_behind() -> None:
    file = file_of(joined(needed()), preamble=b"Quixano".ljust(128, b"\0"), calling=b"LA_MANCHA")
    out = after(read(io.BytesIO(file)))
    assert out[:128] == bytes(128)
    assert b"Quixano" not in out
    assert b"LA_MANCHA" not in out
    assert decoded(out).file_meta.ImplementationVersionName == "DICOMRX"


def test_a_free_report_becomes_one_comment() -> None:
    text = joined({tag_of("ValueType"): ("CS", b"TEXT"), tag_of("TextValue"): ("UT", b"Quixano is ill")})
    result = decoded(after(instance_of({tag_of("ContentSequence"): ("SQ", item(text))})))
    assert [part.TextValue for part in result.ContentSequence] == ["ANON"]


def test_a_code_of_a_person_or_institution_is_replaced_by_one_of_nobody() -> None:
    code = joined({0x00080100: ("SH", b"DRSANSON"), 0x00080102: ("SH", b"99LAMANCHA"), 0x00080104: ("LO", b"Sanson")})
    for keyword in ("InstitutionCodeSequence", "PersonIdentificationCodeSequence", "OperatorIdentificationSequence"):
        out = after(instance_of({tag_of(keyword): ("SQ", item(code))}))
        assert b"SANSON" not in out.upper()
        assert b"MANCHA" not in out
        assert len(decoded(out)[keyword].value) == 1


def test_a_claim_about_burned_in_text_is_never_made_for_anyone() -> None:
    assert "BurnedInAnnotation" not in decoded(after(instance_of({})))
    assert decoded(after(instance_of({0x00280301: ("CS", b"YES")}))).BurnedInAnnotation == "YES"


def test_an_older_de_identification_is_overwritten_with_what_we_did() -> None:
    old = {0x00120062: ("CS", b"NO"), 0x00120063: ("LO", b"by Dr Sanson"), 0x00280303: ("CS", b"UNMODIFIED")}
    result = decoded(after(instance_of(old)))
    assert (result.PatientIdentityRemoved, result.LongitudinalTemporalInformationModified) == ("YES", "REMOVED")
    assert "Sanson" not in result.DeidentificationMethod


def test_an_image_whose_description_is_not_a_number_is_refused_and_not_broken() -> None:
    with pytest.raises(Reject) as caught:
        after(instance_of({tag_of("Rows"): ("LT", b"Quixano")}))
    assert caught.value.reason == "malformed"
    assert "(0028,0010)" in caught.value.detail
    assert "Quixano" not in str(caught.value)


def test_a_character_set_inside_an_item_holds_there_and_only_there() -> None:
    inner = joined({0x00080005: ("CS", b"ISO_IR 100"), 0x00080104: ("LO", "Gefäß".encode("latin-1"))})
    outer = joined({0x00080104: ("LO", "Gefäß".encode("latin-1"))})
    result = decoded(after(instance_of({tag_of("AnatomicRegionSequence"): ("SQ", item(inner) + item(outer))})))
    assert [code.CodeMeaning for code in result.AnatomicRegionSequence] == ["Gefäß", "ANON"]


def test_a_character_set_holds_in_the_items_below_it() -> None:
    code = joined({0x00080104: ("LO", "Gefäß".encode("latin-1"))})
    parts = {0x00080005: ("CS", b"ISO_IR 100"), tag_of("AnatomicRegionSequence"): ("SQ", item(code))}
    assert decoded(after(instance_of(parts))).AnatomicRegionSequence[0].CodeMeaning == "Gefäß"


def test_numbers_sent_as_un_in_a_big_endian_data_set_are_not_trusted() -> None:
    little = {tag_of("Rows"): ("UN", b"\0\1")}
    assert decoded(after(instance_of(little, EXPLICIT))).Rows == 256
    with pytest.raises(Reject) as caught:
        after(instance_of(little, BIG_ENDIAN))
    assert caught.value.reason == "malformed"


def test_values_of_odd_length_are_padded_as_their_vr_wants() -> None:
    dataset = deidentify(instance_of({0x00200052: ("UI", b"1.2.840.10008.1.4.1.1\0")}), CONTEXT).dataset
    assert dataset[0x00200052].value == b"1.2.840.10008.1.4.1.1\0"
    assert (dataset[0x00120064].items or [])[0][0x00080102].value == b"DCM "


def test_a_sequence_sent_as_un_is_de_identified_inside() -> None:
    reference = joined({0x00081155: ("UI", b"1.2.3.4.3"), 0x00100010: ("PN", b"Quixano")}, IMPLICIT)
    out = after(instance_of({tag_of("ReferencedImageSequence"): ("UN", item(reference))}))
    assert decoded(out).ReferencedImageSequence[0].ReferencedSOPInstanceUID == pseudonymous_uid(CONTEXT.uid_key, "1.2.3.4.3")
    assert b"Quixano" not in out


def test_compressed_pixels_stay_decodable(tmp_path: Path) -> None:
    path = next(path for path in bundled() if path.name == "MR_small_RLE.dcm")
    result = decoded(out_of(path))
    array, _ = get_decoder(UID(result.file_meta.TransferSyntaxUID)).as_array(result)
    assert array.shape == (64, 64)


def elements() -> st.SearchStrategy[tuple[int, str, bytes]]:
    """Elements of all kinds: right and wrong VRs, known and unknown tags, values of any bytes."""
    known = st.sampled_from(sorted(tag for tag in DicomDictionary if tag >> 16 in GROUPS and tag & 0xFFFF))
    any_tag = st.builds(lambda group, number: group << 16 | number, st.sampled_from(GROUPS), st.integers(1, 0xFFFF))
    right = known.map(lambda tag: (tag, DicomDictionary[tag][0][:2]))
    wrong = st.tuples(known | any_tag, st.sampled_from(VRS))
    values = st.binary(max_size=24) | st.sampled_from([b"Quixano^Alonso", b"19470923", b"1.2.3.4", b"12.5\\7", b""])
    return st.tuples(right | wrong, values).map(lambda made: (made[0][0], made[0][1] if made[0][1] != "SQ" else "UN", made[1]))


@st.composite
def datasets(draw: st.DrawFn, depth: int = 2) -> tuple[str, dict[int, tuple[str, bytes]]]:
    syntax = draw(st.sampled_from([EXPLICIT, IMPLICIT, BIG_ENDIAN]))

    def level(below: int) -> dict[int, tuple[str, bytes]]:
        made = {tag: (vr, value) for tag, vr, value in draw(st.lists(elements(), max_size=8)) if tag not in needed()}
        made = {tag: found for tag, found in made.items() if syntax != IMPLICIT or DicomDictionary.get(tag, ("",))[0] != "SQ"}
        if below:
            items = b"".join(item(joined(level(below - 1), syntax), syntax) for _ in range(draw(st.integers(0, 2))))
            made[draw(st.sampled_from([0x00540016, 0x00081140, 0x0040A730, 0x00091002]))] = ("SQ", items)
        return made

    return syntax, level(depth)


@given(datasets())
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_any_data_set_is_de_identified_to_a_fixed_point_or_refused_with_a_reason(made: tuple[str, dict[int, tuple[str, bytes]]]) -> None:
    syntax, parts = made
    try:
        out = after(instance_of(parts, syntax))
    except Reject as error:
        refusal = error
    else:
        assert_fixed_point(out)
        return
    assert refusal.reason in {"unreadable", "truncated", "malformed"}
    assert "Quixano" not in str(refusal)


def assert_fixed_point(out: bytes) -> None:
    assert b"Quixano" not in out
    result = read(io.BytesIO(out))
    assert not [tag for tag in result.dataset if tag >> 16 & 1 or not keyword_for_tag(tag)]
    assert set(map(text_of, deidentify(result, CONTEXT).dataset)) == set(map(text_of, result.dataset))


@given(st.data())
@settings(max_examples=100)
def test_random_damage_is_refused_or_survived_and_never_crashes(data: st.DataObject) -> None:
    nested = element(0x00540016, "SQ", item(element(0x00080104, "LO", b"word")))
    whole = bytearray(file_of(joined(needed()) + nested + element(0x7FE00010, "OW", bytes(16))))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(128, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Reject):
        check(read(io.BytesIO(whole)), "pass")
        after(read(io.BytesIO(whole)))


@pytest.mark.foreign
@pytest.mark.needs_tool("dciodvfy")
def test_dciodvfy_finds_no_kind_of_error_that_was_not_there_before(tmp_path: Path) -> None:
    for path in accepted():
        if path.name == "image_dfl.dcm":
            continue  # which dciodvfy cannot inflate
        out = tmp_path / path.name
        out.write_bytes(out_of(path))
        assert errors_of(out) - errors_of(path) == set(), path.name


def errors_of(path: Path) -> set[str]:
    """The kinds of error: lines without values and indices."""
    command = [shutil.which("dciodvfy") or "dciodvfy", "-new", str(path)]
    done = subprocess.run(command, capture_output=True, check=False)
    lines = (done.stdout + done.stderr).decode("latin-1").splitlines()
    return {line.split(" = <")[0].replace("[1]", "") for line in lines if line.startswith("Error")}
