"""Each option of PS3.15 Annex E: what the table's letter says of every row, and what becomes of values."""

import itertools

import pytest
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.sr.codedict import codes

from dicomrx.deid import BASIC, Context, Profile, named_profile, pseudonymous_uid
from dicomrx.deid.dummies import DUMMIES
from dicomrx.deid.options import BASIC_METHOD, OPTIONS
from dicomrx.deid.rules import table
from dicomrx.errors import ConfigError
from tests.unit.deid_files import CONTEXT, PROFILES, tag_of

PUBLISHED = {
    tag_of(keyword)
    for keyword in (
        *("ContextGroupVersion", "ContextGroupLocalVersion", "TemplateVersion", "TemplateLocalVersion", "HangingProtocolCreationDateTime"),
        *("EthicsCommitteeApprovalEffectivenessStartDate", "EthicsCommitteeApprovalEffectivenessEndDate"),
    )
}


def done(option: str, keyword: str, value: bytes, context: Context = CONTEXT, vr: str | None = None) -> bytes | None:
    tag = tag_of(keyword)
    rule = named_profile(f"basic+{option}").rule(tag, vr)
    made = rule.action(context, tag, rule.vr or "", value)
    return None if made is None else bytes(made)


@pytest.mark.parametrize("option", OPTIONS)
def test_of_every_row_an_option_makes_what_the_letter_in_its_column_says(option: str) -> None:
    profile, changed = named_profile(f"basic+{option}"), 0
    for tag, row in table().items():
        letter = row.get("options", {}).get(OPTIONS[option].column)
        if not all(digit in "0123456789abcdef" for digit in tag) or not dictionary_has_tag(int(tag, 16)):
            assert letter in {None, "K", "C"}
            continue
        number = int(tag, 16)
        rule, basic, vr = profile.rule(number, None), BASIC.rule(number, None), dictionary_VR(number)
        if letter is None or vr in {"OB", "OW"} or (letter == "C" and number in PUBLISHED) or number >> 16 in {0, 2, 4}:
            assert (rule.code, rule.vr, rule.chosen) == (basic.code, basic.vr, False), tag
        else:
            assert (rule.code, rule.vr, rule.chosen) == ("R" if vr == "SQ" else letter, vr, True), tag
            assert option in rule.reason
            changed += 1
    assert changed >= {"retain-safe-private": 0, "clean-graphics": 3, "clean-structured": 4}.get(option, 10)


def test_where_two_options_speak_the_stricter_one_counts() -> None:
    for first, second in itertools.permutations(sorted(OPTIONS.keys() - {"full-dates"}), 2):
        both = named_profile(f"basic+{first}+{second}")
        for row in (tag for tag, row in table().items() if len(row.get("options", {})) > 1):
            tag = int(row, 16)
            alone = {named_profile(f"basic+{option}").rule(tag, None).code for option in (first, second)}
            chosen = alone & {"C", "K", "R"}
            assert both.rule(tag, None).code == (min(chosen) if chosen else BASIC.rule(tag, None).code), row


def test_no_option_reaches_an_element_that_was_sent_under_another_vr() -> None:
    for keyword, vr in (("StudyDate", "LO"), ("PregnancyStatus", "LO"), ("InstitutionName", "UN"), ("StudyDescription", "OB")):
        everything = PROFILES[-1]
        assert everything.rule(tag_of(keyword), vr).code == BASIC.rule(tag_of(keyword), vr).code != "K", keyword


def test_full_and_modified_dates_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="exclude each other"):
        named_profile("research+full-dates")


@pytest.mark.parametrize("text", ["", "everything", "basic+", "basic+retain_uids", "retain-uids", "research+basic", "basic +full-dates"])
def test_a_profile_that_nobody_knows_is_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(ConfigError, match=r"use basic or research|use retain-uids"):
        named_profile(text)


def test_the_codes_are_those_of_cid_7050() -> None:
    known = {code.value: code.meaning for name in dir(codes.cid7050) if hasattr(code := getattr(codes.cid7050, name), "value")}
    ours = {BASIC_METHOD[0]: BASIC_METHOD[1], **{option.code: option.meaning for option in OPTIONS.values()}}
    assert ours.items() <= known.items()
    assert known.keys() - ours.keys() == {"113101", "113102"}  # pixels and faces are not cleaned


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.label)
def test_what_was_done_is_said_in_few_words_and_in_full(profile: Profile) -> None:
    assert len(profile.label) <= 64
    assert [code for code, _ in profile.methods] == ["113100", *(OPTIONS[word].code for word in OPTIONS if word in profile.options)]
    expected = {"full-dates": "UNMODIFIED", "modified-dates": "MODIFIED"}
    assert profile.longitudinal == next((expected[word] for word in expected if word in profile.options), "REMOVED")


def test_every_profile_has_a_label_of_its_own() -> None:
    assert len({profile.label for profile in PROFILES}) == len(PROFILES)
    assert named_profile("research+retain-uids").label == "dicomrx research+uid 2026c"


@pytest.mark.parametrize(
    ("option", "keyword", "value", "left"),
    [
        ("full-dates", "StudyDate", b"20240517", b"20240517"),
        ("full-dates", "StudyDate", b"2024.05.17", b"20240517"),
        ("full-dates", "StudyDate", b"20240231", b"19000101"),
        ("full-dates", "StudyDate", b"Quixano", b"19000101"),
        ("full-dates", "StudyDate", b"", b""),
        ("full-dates", "AcquisitionDateTime", b"202405", b"202405"),
        ("full-dates", "AcquisitionDateTime", b"20240517101112.123+0100", b"20240517101112.123+0100"),
        ("full-dates", "StudyTime", b"101112.5 ", b"101112.5"),
        ("full-dates", "StudyTime", b"10h", b"000000"),
        ("full-dates", "TimezoneOffsetFromUTC", b"-0330", b"-0330"),
        ("full-dates", "TimezoneOffsetFromUTC", b"Quixano", None),
        ("full-dates", "FrameOriginTimestamp", b"Quixano ", DUMMIES["OB"][0]),
        ("full-dates", "ContextGroupVersion", b"20121129", b"20121129"),
        ("full-dates", "PatientBirthDate", b"19470923", b""),
        ("full-dates", "DateOfDocumentOrVerbalTransactionTrial", b"20240517", b"20240517"),
        ("modified-dates", "StudyDate", b"20240517", b"20201230"),
        ("modified-dates", "StudyDate", b"2024.05.17 ", b"20201230"),
        ("modified-dates", "StudyDate", b"2024-05-17", b"20201230"),
        ("modified-dates", "StudyDate", b"17.05.2024", b"19000101"),
        ("modified-dates", "StudyDate", b"2024-05.17", b"19000101"),
        ("modified-dates", "DateOfLastCalibration", b"20240517\\20240518", b"20201230\\20201231"),
        ("modified-dates", "StudyDate", b"20240517-20240518", b"20201230-20201231"),
        ("modified-dates", "StudyDate", b"20240517-", b"20201230-"),
        ("modified-dates", "StudyDate", b"-", b"19000101"),
        ("modified-dates", "AcquisitionDateTime", b"20240517101112.123+0100", b"20201230101112.123+0100"),
        ("modified-dates", "AcquisitionDateTime", b"20240517-0800", b"20201230-0800"),
        ("modified-dates", "AcquisitionDateTime", b"20240517-20240518", b"20201230-20201231"),
        ("modified-dates", "AcquisitionDateTime", b"202405", b"19000101000000"),
        ("modified-dates", "AcquisitionDateTime", b"20240517999999", b"19000101000000"),
        ("modified-dates", "StudyTime", b"101112.123456", b"101112.123456"),
        ("modified-dates", "StudyTime", b"Quixano", b"000000"),
        ("modified-dates", "TimezoneOffsetFromUTC", b"+0100", b"+0100"),
        # What is the same for everybody takes the basic action: it would tell by how much the others moved.
        ("modified-dates", "StudyDate", b"19700101", b""),
        ("modified-dates", "StudyDate", b"00010101", b""),
        ("modified-dates", "StudyDate", b"19691231", b""),
        ("modified-dates", "StudyDate", b"19800101", b""),
        ("modified-dates", "StudyDate", b"20991231", b""),
        ("modified-dates", "EthicsCommitteeApprovalEffectivenessStartDate", b"20240517", None),
        ("modified-dates", "StudyDate", b"18991231", b""),
        ("modified-dates", "StudyDate", b"99991231", b""),
        ("modified-dates", "ContentDate", b"19000101", b"19000101"),
        ("modified-dates", "ContextGroupVersion", b"20121129", b"19000101000000"),
        ("modified-dates", "TemplateVersion", b"20121129", None),
        ("modified-dates", "FrameOriginTimestamp", b"20240517", DUMMIES["OB"][0]),
        ("modified-dates", "DateOfSecondaryCapture", b"20240517", b"20201230"),
        ("modified-dates", "PatientBirthDate", b"19470923", b""),
        ("retain-device", "DateOfLastCalibration", b"20240517", b"20240517"),
        ("retain-device", "StationName", b"CT1", b"CT1"),
        ("retain-device", "StationName", b"a name of far more than sixteen characters", b"ANON"),
        ("retain-device", "StationName", b"CT\x01", b"ANON"),
        ("retain-device", "DeviceSerialNumber", b"T\xf6shiba 1", b"ANON"),
        ("retain-device", "ModifyingDeviceID", b"QUIXANO", b"QUIXANO"),
        ("retain-device", "ModifyingDeviceID", b"not coded", None),
        ("retain-device", "StationAETitle", b"", b""),
        ("retain-device", "DeviceUID", b"1.2.3", b"1.2.3"),
        ("retain-device", "LensSpecification", b"1.5\\2", b"1.5\\2"),
        ("retain-device", "LensSpecification", b"Quixano", None),
        ("retain-institution", "InstitutionName", b"Hospital of La Mancha", b"Hospital of La Mancha"),
        ("retain-institution", "InstitutionAddress", b"1 Mill Lane\r\nToboso", b"1 Mill Lane\r\nToboso"),
        ("retain-institution", "InstitutionName", b"two\r\nlines", b"ANON"),
        ("retain-uids", "StudyInstanceUID", b"1.2.3.4.1\0", b"1.2.3.4.1\0"),
        ("retain-uids", "FailedSOPInstanceUIDList", b"1.2\\1.3", b"1.2\\1.3"),
        ("retain-patient", "PatientSex", b"F", b"F"),
        ("retain-patient", "PatientSex", b"female", b""),
        ("retain-patient", "PatientWeight", b"70.5", b"70.5"),
        ("retain-patient", "PatientWeight", b"Quixano", None),
        ("retain-patient", "PregnancyStatus", b"\4\0", b"\4\0"),
        ("retain-patient", "SmokingStatus", b"NO", b"NO"),
        ("retain-patient", "PatientAge", b"089Y", b"089Y"),
        ("retain-patient", "PatientAge", b"090Y", b"090Y"),
        ("retain-patient", "PatientAge", b"091Y", b"090Y"),
        ("retain-patient", "PatientAge", b"103Y", b"090Y"),
        ("retain-patient", "PatientAge", b"45Y ", b"045Y"),
        ("retain-patient", "PatientAge", b"008M", b"008M"),
        ("retain-patient", "PatientAge", b"1099M", b"090Y"),
        ("retain-patient", "PatientAge", b"1000M", b"083Y"),
        ("retain-patient", "PatientAge", b"9999W", b"090Y"),
        ("retain-patient", "PatientAge", b"old", b"000Y"),
        ("retain-patient", "PatientAge", b"", b""),
        ("clean-descriptors", "StudyDescription", b"Head of Quixano", b"Head"),
        ("clean-descriptors", "StudyDescription", b"Quixano", None),
        ("clean-descriptors", "ProtocolName", b"Quixano", b"ANON"),
        ("clean-descriptors", "ROIName", b"Quixano", b""),
        ("clean-descriptors", "StudyDescription", b"T\xf6shiba head", None),
        ("clean-descriptors", "MakerNote", b"head", None),
        ("retain-patient", "Allergies", b"Quixano\\head", b"\\head"),
        ("retain-patient", "PatientState", b"Quixano", None),
        ("clean-structured", "TextValue", b"Head of Quixano", b"Head"),
        ("clean-structured", "TextValue", b"Quixano", b"ANON"),
        ("clean-graphics", "UnformattedTextValue", b"Head of Quixano", b"Head"),
    ],
)
def test_what_an_option_makes_of_a_value(option: str, keyword: str, value: bytes, left: bytes | None) -> None:
    assert done(option, keyword, value) == left


def test_dates_outside_the_table_stay_under_no_option() -> None:
    for keyword in ("ExpiryDate", "DateOfGainCalibration"):
        assert f"{tag_of(keyword):08x}" not in table()
        assert {done(option, keyword, b"20240517") for option in ("full-dates", "modified-dates")} == {b"19000101"}


def test_a_title_gets_a_pseudonym_of_its_own_that_is_the_same_for_ever() -> None:
    first = done("retain-device", "StationAETitle", b"LA_MANCHA ")
    assert first == done("retain-device", "RetrieveAETitle", b"LA_MANCHA") == done("retain-device", "StationAETitle", b"LA_MANCHA\0")
    assert first is not None
    assert len(first) == 14
    assert first.startswith(b"AE")
    several = done("retain-device", "RetrieveAETitle", b"LA_MANCHA\\TOBOSO")
    assert several is not None
    assert several.split(b"\\")[0] == first != several.split(b"\\")[1]
    assert first != done("retain-device", "StationAETitle", b"LA_MANCHA", Context("sub-001", b"z" * 32, date_shift=1234))


def test_text_is_kept_in_the_character_set_in_which_it_is_text() -> None:
    name = "山田病院".encode("iso2022_jp")
    japanese = Context("sub-001", CONTEXT.uid_key, ("", "ISO 2022 IR 87"), date_shift=1234)
    assert done("retain-institution", "InstitutionName", name, japanese) == name
    utf8 = Context("sub-001", CONTEXT.uid_key, ("ISO_IR 192",), date_shift=1234)
    assert done("retain-institution", "InstitutionName", "Spital Zürich".encode(), utf8) == "Spital Zürich".encode()
    assert done("retain-institution", "InstitutionName", "Spital Zürich".encode("latin-1"), utf8) == b"ANON"


def test_uids_outside_the_table_stay_too_and_what_is_no_uid_does_not() -> None:
    for keyword in ("CreatorVersionUID", "TargetFrameOfReferenceUID"):
        assert f"{tag_of(keyword):08x}" not in table()
        assert done("retain-uids", keyword, b"1.2.3.9") == b"1.2.3.9"
    assert done("retain-uids", "StudyInstanceUID", b"Quixano") == pseudonymous_uid(CONTEXT.uid_key, "Quixano").encode()
