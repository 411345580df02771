"""A site's own file: what it can say, and how it is told what it cannot."""

from hashlib import sha256

import pytest

from dicomrx.deid import BASIC, deidentify, named_profile, pseudonymous_uid, site_profile
from dicomrx.errors import ConfigError
from tests.unit.deid_files import CONTEXT, instance_of, item, joined, seen, tag_of

TEXT = """
base = "research"
options = ["retain-device"]

[rules]
PatientComments = "clean"
EthnicGroup = "remove"
StudyID = "empty"
"(0008,1030)" = "dummy"
00324000 = "keep"
PatientBirthDate = "shift"
OperatorsName = "keep"
PatientSexNeutered = "keep"
ReferencedSOPInstanceUID = "uid"
RequestAttributesSequence = "keep"
ContentSequence = "empty"
"""


def test_a_site_adds_options_and_rules_to_a_profile() -> None:
    profile = site_profile(TEXT, "heart study/2")
    assert profile.options == named_profile("research+retain-device").options
    codes = {
        keyword: profile.rule(tag_of(keyword), None).code
        for keyword in (
            "PatientComments",
            "EthnicGroup",
            "StudyID",
            "StudyDescription",
            "StudyComments",
            "PatientBirthDate",
            "SOPInstanceUID",
        )
    }
    assert codes == {
        "PatientComments": "C",
        "EthnicGroup": "X",
        "StudyID": "Z",
        "StudyDescription": "D",
        "StudyComments": "K",
        "PatientBirthDate": "C",
        "SOPInstanceUID": "U",
    }


def test_its_label_tells_the_file_and_its_very_text() -> None:
    profile = site_profile(TEXT, "heart study/2" + "x" * 99)
    assert profile.label == f"dicomrx heart_study_2{'x' * 19}-{sha256(TEXT.encode()).hexdigest()[:8]} 2026c"
    assert len(profile.label) <= 64
    assert site_profile(TEXT + "\n", "a").label != site_profile(TEXT, "a").label


def test_its_rules_hold_at_every_depth_and_keep_only_what_its_vr_can_hold() -> None:
    profile = site_profile('[rules]\nOperatorsName = "keep"\nPatientBirthDate = "shift"\nPatientSize = "keep"\nSeriesDate = "keep"', "a")
    parts = {
        tag_of("OperatorsName"): ("PN", b"Sancho^Panza"),
        tag_of("PatientBirthDate"): ("DA", b"19470923"),
        tag_of("PatientSize"): ("DS", b"Quixano"),
        tag_of("SeriesDate"): ("DA", b"Quixano"),
    }
    output = seen(deidentify(instance_of(parts | {tag_of("ReferencedImageSequence"): ("SQ", item(joined(parts)))}), CONTEXT, profile))
    for place in (output, output.ReferencedImageSequence[0]):
        assert (place.OperatorsName, place.PatientBirthDate, place.SeriesDate) == ("Sancho^Panza", "19440507", "19000101")
        assert "PatientSize" not in place


def test_a_uid_that_a_site_wants_replaced_is_so_beside_kept_ones() -> None:
    profile = site_profile('options = ["retain-uids"]\n[rules]\nFrameOfReferenceUID = "uid"', "a")
    output = seen(deidentify(instance_of({tag_of("FrameOfReferenceUID"): ("UI", b"1.2.3.5")}), CONTEXT, profile))
    assert output.FrameOfReferenceUID == pseudonymous_uid(CONTEXT.uid_key, "1.2.3.5")
    assert output.StudyInstanceUID == "1.2.3.4.1"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("base = ", "not TOML"),
        ('bases = "basic"', "bases: no such key"),
        ('base = "everything"', "'everything'"),
        ("base = 1", "base: must be"),
        ('options = "retain-uids"', "options: must be"),
        ("options = [1]", "options: must be"),
        ('options = ["uids"]', "'uids'"),
        ('base = "research"\noptions = ["full-dates"]', "exclude each other"),
        ("rules = 1", "rules: must be"),
        ('[rules]\nNoSuchAttribute = "keep"', "rules: NoSuchAttribute"),
        ('[rules]\n"(0009,1001)" = "keep"', r"rules: \(0009,1001\)"),
        ('[rules]\n60003000 = "keep"', "rules: 60003000"),
        ('[rules]\nTransferSyntaxUID = "keep"', "rules: TransferSyntaxUID"),
        ('[rules]\nStudyDate = "move"', "rules: StudyDate: must be one of"),
        ("[rules]\nStudyDate = 1", "rules: StudyDate: must be one of"),
        ('[rules]\nStudyDate = "uid"', "rules: StudyDate: uid cannot"),
        ('[rules]\nStudyDate = "clean"', "rules: StudyDate: clean cannot"),
        ('[rules]\nStudyTime = "shift"', "rules: StudyTime: shift cannot"),
        ('[rules]\nStudyDescription = "shift"', "rules: StudyDescription: shift cannot"),
        ('[rules]\nReferencedImageSequence = "dummy"', "rules: ReferencedImageSequence: dummy cannot"),
        *((f'[rules]\n{word} = "keep"', f"rules: {word}: cannot be overruled") for word in ("PatientName", "PatientID", "SOPInstanceUID")),
        *(
            (f'[rules]\n{word} = "remove"', f"rules: {word}: cannot be overruled")
            for word in ("StudyInstanceUID", "SeriesInstanceUID", "Rows")
        ),
    ],
)
def test_what_a_site_cannot_say_is_refused_by_the_name_of_its_key(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        site_profile(text, "a")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "REMOVED"),
        ('[rules]\nStudyDate = "remove"', "REMOVED"),
        ('[rules]\nStudyDate = "keep"', "MODIFIED"),
        ('[rules]\nStudyDate = "shift"', "MODIFIED"),
        ('options = ["full-dates"]\n[rules]\nPatientBirthDate = "keep"', "UNMODIFIED"),
        ('options = ["full-dates"]\n[rules]\nPatientBirthDate = "shift"', "MODIFIED"),
        ('options = ["modified-dates"]', "MODIFIED"),
    ],
)
def test_dates_are_said_to_be_what_the_rules_make_of_them(text: str, says: str) -> None:
    assert site_profile(text, "a").longitudinal == says


def test_an_empty_file_is_the_basic_profile_by_another_name() -> None:
    profile = site_profile("", "a")
    assert (profile.options, profile.rules, profile.methods) == (BASIC.options, BASIC.rules, BASIC.methods)
