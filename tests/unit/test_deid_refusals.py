"""Whose pixels or documents are not trusted."""

import pytest

from dicomrx.deid import check
from dicomrx.errors import Reject
from tests.unit.deid_files import instance_of, tag_of

STORAGE = "1.2.840.10008.5.1.4.1.1."


def reason_for(values: dict[str, bytes], burned_in: str = "quarantine", sop_class: str | None = None) -> str | None:
    parts = {tag_of(keyword): ("LO" if keyword == "SeriesDescription" else "CS", value) for keyword, value in values.items()}
    if sop_class:
        parts[tag_of("SOPClassUID")] = ("UI", sop_class.encode())
    try:
        check(instance_of(parts), burned_in)
    except Reject as error:
        return error.reason if "Quixano" not in str(error) else "a reason that names the patient"
    return None


@pytest.mark.parametrize(
    "values",
    [
        {"BurnedInAnnotation": b"YES"},
        {"RecognizableVisualFeatures": b"YES "},
        {"Modality": b"US"},
        {"Modality": b"OT"},
        {"ConversionType": b"WSD"},
        {"ImageType": b"DERIVED\\SECONDARY\\SCREEN SAVE"},
        {"ImageType": b"DERIVED\\SECONDARY\\OTHER\\CT_SOM5 PROT"},
        {"ImageType": b"DERIVED\\PRIMARY\\DOSE_INFO"},
        {"SeriesDescription": b"Quixano Dose Report"},
    ],
)
def test_what_may_show_the_name_is_quarantined_unless_passed(values: dict[str, bytes]) -> None:
    assert reason_for(values) == "burned-in"
    assert reason_for(values, "pass") is None


@pytest.mark.parametrize("branch", ["3.1", "6.1", "6.2", "7", "7.1", "7.2", "7.3", "7.4"])
def test_ultrasound_and_secondary_capture_are_known_by_their_class(branch: str) -> None:
    assert reason_for({}, sop_class=STORAGE + branch) == "burned-in"
    assert reason_for({}, "pass", sop_class=STORAGE + branch) is None


@pytest.mark.parametrize("values", [{"BurnedInAnnotation": b"NO"}, {"Modality": b"CT", "ImageType": b"ORIGINAL\\PRIMARY\\LOCALIZER"}, {}])
def test_ordinary_images_pass(values: dict[str, bytes]) -> None:
    assert reason_for(values) is None


@pytest.mark.parametrize("branch", ["104.1", "104.2", "104.3", "104.4", "104.5"])
def test_documents_inside_instances_are_never_let_pass(branch: str) -> None:
    assert reason_for({}, "pass", sop_class=STORAGE + branch) == "encapsulated-document"


def test_a_document_in_an_instance_of_another_class_is_a_document() -> None:
    with pytest.raises(Reject) as caught:
        check(instance_of({tag_of("EncapsulatedDocument"): ("OB", b"%PDF")}), "pass")
    assert caught.value.reason == "encapsulated-document"
