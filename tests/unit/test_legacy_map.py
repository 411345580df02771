"""The older tool is played here by its own steps: note `str(value)` by keyword, write sub-NNN or ANON, keep the UIDs."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

from dicomrx.errors import ConfigError, NoInputError
from dicomrx.legacy_map import LegacyMap

TAGS = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientAddress",
    "PatientTelephoneNumbers",
    "OtherPatientIDs",
    "OtherPatientNames",
)
STUDY = "1.2.3.4"


class OlderTool:
    """What its anonymizer did to a dataset and to its map."""

    def __init__(self) -> None:
        self.info: dict[str, dict[str, str]] = {}
        self.names: dict[str, str] = {}

    def anonymize(self, dataset: Dataset, tags: tuple[str, ...] = TAGS) -> None:
        noted = self.info.setdefault(str(dataset.StudyInstanceUID), {})
        for tag in tags:
            if not getattr(dataset, tag, None):
                continue
            text = str(getattr(dataset, tag))
            noted.setdefault(tag, text)
            if tag == "PatientName":
                dataset.PatientName = self.names.setdefault(text, f"sub-{len(self.names) + 1:03d}")
            elif tag != "PatientID":
                setattr(dataset, tag, "ANON")

    def map(self, folder: Path) -> LegacyMap:
        studies = {info["PatientID"]: [study] for study, info in self.info.items() if "PatientID" in info}
        combined = {"patient_info": self.info, "patient_name_map": self.names, "patient_study_map": studies}
        return load(folder, combined)


def load(folder: Path, content: Any) -> LegacyMap:  # noqa: ANN401  any JSON
    path = folder / "patient_info_map.json"
    path.write_text(json.dumps(content, indent=2))
    return LegacyMap.load(path)


def image(name: str = "HUBER^ANNA", **values: Any) -> Dataset:  # noqa: ANN401  any element's
    dataset = Dataset()
    dataset.StudyInstanceUID = STUDY
    dataset.SOPInstanceUID = generate_uid()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.PatientName = name
    dataset.PatientID = "7654321"
    dataset.StudyDescription = "Knie"
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def written(dataset: Dataset, *, implicit: bool = False) -> bytes:
    buffer = BytesIO()
    copy = Dataset(dataset)
    copy.file_meta = FileMetaDataset()
    copy.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    copy.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def read(content: bytes) -> Dataset:
    return dcmread(BytesIO(content))


def through_the_older_tool(original: Dataset, folder: Path, tags: tuple[str, ...] = TAGS) -> tuple[bytes, bytes]:
    """The original as bytes, and what the older map makes of its anonymized copy."""
    before = written(original)
    tool = OlderTool()
    dataset = read(before)
    tool.anonymize(dataset, tags)
    anonymized = read(written(dataset))
    assert str(anonymized.PatientName) == "sub-001"
    assert tool.map(folder).restore(anonymized)
    return before, written(anonymized)


@pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")
def test_every_value_comes_back_byte_for_byte(tmp_path: Path) -> None:
    original = image(
        PatientBirthDate="19700131",
        PatientAddress="Ring 5, Wien",
        PatientTelephoneNumbers=["+43 1 234", "+43 1 235"],
        OtherPatientNames=["AKA^ONE", "AKA^TWO"],
    )
    before, after = through_the_older_tool(original, tmp_path)
    assert after == before


@pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")
@pytest.mark.parametrize("file", ["CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm"])
def test_a_file_of_the_older_tool_is_restored_as_a_file(tmp_path: Path, file: str) -> None:
    path = get_testdata_file(file)
    assert isinstance(path, str)
    dataset = dcmread(path)
    tool = OlderTool()
    tool.anonymize(dataset)
    dataset.save_as(tmp_path / "anonymized.dcm")
    anonymized = dcmread(tmp_path / "anonymized.dcm")
    assert tool.map(tmp_path).restore(anonymized)
    anonymized.save_as(tmp_path / "restored.dcm")
    assert dcmread(tmp_path / "restored.dcm") == dcmread(path)


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        (None, "HUBER^ANNA"),
        ("ISO_IR 100", "Müller^Jörg"),
        ("ISO_IR 144", "Иванов^Пётр"),
        ("ISO_IR 192", "Wang^XiaoDong=王^小东"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    ],
)
def test_names_of_any_script_come_back_in_the_character_set_they_had(tmp_path: Path, charset: Any, name: str) -> None:  # noqa: ANN401
    original = image()
    if charset:
        original.SpecificCharacterSet = charset
    original.PatientName = name
    before, after = through_the_older_tool(original, tmp_path)
    assert after == before


def test_a_file_whose_character_set_cannot_hold_the_name_turns_to_utf8_and_keeps_its_other_texts(tmp_path: Path) -> None:
    dataset = image("sub-001", SpecificCharacterSet="ISO_IR 100", StudyDescription="Schädel")
    item = Dataset()
    item.CodeMeaning = "Größe"
    dataset.ProcedureCodeSequence = [item]
    anonymized = read(written(dataset))
    assert load(tmp_path, {STUDY: {"PatientName": "山田^太郎", "PatientAddress": "東京"}}).restore(anonymized)
    restored = read(written(anonymized))
    assert restored.SpecificCharacterSet == "ISO_IR 192"
    assert (restored.PatientName, restored.PatientAddress) == ("山田^太郎", "東京")
    assert (restored.StudyDescription, restored.ProcedureCodeSequence[0].CodeMeaning) == ("Schädel", "Größe")


def test_what_the_older_tool_wrote_with_a_caret_is_found(tmp_path: Path) -> None:
    anonymized = image("sub-001^", StudyInstanceUID="9.9")
    names = {"HUBER^ANNA": "sub-001", "MAIER^EVA": "sub-002"}
    assert load(tmp_path, {"patient_info": {}, "patient_name_map": names}).restore(anonymized)
    assert anonymized.PatientName == "HUBER^ANNA"


def test_the_flat_form_is_read(tmp_path: Path) -> None:
    anonymized = image("sub-001", PatientBirthDate="20000101")
    assert load(tmp_path, {STUDY: {"PatientName": "HUBER^ANNA", "PatientBirthDate": "19700131"}}).restore(anonymized)
    assert (anonymized.PatientName, anonymized.PatientBirthDate) == ("HUBER^ANNA", "19700131")


def test_an_element_removed_since_comes_back(tmp_path: Path) -> None:
    anonymized = image("sub-001")
    assert load(tmp_path, {STUDY: {"OtherPatientIDs": "['A1', 'B2']"}}).restore(anonymized)
    assert anonymized.OtherPatientIDs == ["A1", "B2"]


@pytest.mark.parametrize(
    ("keyword", "text", "expected"),
    [
        ("OtherPatientNames", "[AKA^ONE, AKA^TWO]", ["AKA^ONE", "AKA^TWO"]),
        ("OtherPatientIDs", "['A', 'B']", ["A", "B"]),
        ("OtherPatientIDs", "[\"O'Brien\", 'B']", ["O'Brien", "B"]),
        ("OtherPatientIDs", "['O'Brien', 'B']", ["O'Brien", "B"]),
        ("PatientWeight", "70.50", "70.50"),
        ("PatientBirthDate", "1970.01.31", "1970.01.31"),
        ("PatientBirthDate", "unknown", "unknown"),
        ("PatientComments", "[one, two]", "[one, two]"),
        ("PatientName", "[HUBER]", "[HUBER]"),
    ],
)
def test_the_text_of_a_list_becomes_values_again_and_odd_values_stay(tmp_path: Path, keyword: str, text: str, expected: Any) -> None:  # noqa: ANN401
    anonymized = image("sub-001")
    assert load(tmp_path, {STUDY: {keyword: text}}).restore(anonymized)
    restored = read(written(anonymized))[keyword]
    shown = [str(value) for value in restored.value] if restored.VM > 1 else str(restored.value)
    assert shown == expected


def test_a_study_that_the_map_does_not_know_is_left_alone(tmp_path: Path) -> None:
    known = load(tmp_path, {"patient_info": {STUDY: {"PatientName": "HUBER^ANNA"}}, "patient_name_map": {"HUBER^ANNA": "sub-001"}})
    for dataset in (image("sub-007", StudyInstanceUID="9.9"), Dataset()):
        before = str(dataset)
        assert not known.restore(dataset)
        assert str(dataset) == before


def test_a_pseudonym_of_two_names_restores_neither(tmp_path: Path) -> None:
    names = {"HUBER^ANNA": "sub-001", "MAIER^EVA": "sub-001"}
    assert not load(tmp_path, {"patient_info": {}, "patient_name_map": names}).restore(image("sub-001"))


def test_a_second_patient_in_one_study_does_not_get_the_first_ones_identity(tmp_path: Path) -> None:
    tool = OlderTool()
    mother, child = image("MOTHER^M", PatientID="M1"), image("CHILD^C", PatientID="C1")
    tool.anonymize(mother)
    tool.anonymize(child)
    older_map = tool.map(tmp_path)
    assert older_map.restore(mother)
    assert older_map.restore(child)
    assert (mother.PatientName, mother.PatientID) == ("MOTHER^M", "M1")
    assert (child.PatientName, child.PatientID) == ("CHILD^C", "C1")


def test_restoring_twice_changes_nothing_more(tmp_path: Path) -> None:
    tool = OlderTool()
    dataset = image()
    tool.anonymize(dataset)
    older_map = tool.map(tmp_path)
    assert older_map.restore(dataset)
    once = written(dataset)
    assert older_map.restore(dataset)
    assert written(dataset) == once


def test_a_map_that_is_missing_is_no_input(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.json", tmp_path):
        with pytest.raises(NoInputError, match="cannot be read") as caught:
            LegacyMap.load(path)
        assert path.name in str(caught.value)


@pytest.mark.parametrize("content", [b"", b'{"patient_info": {"1.2', b"\xff\xfe\x00", b"[" * 100_000])
def test_a_damaged_map_is_said_to_be_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "map.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"map\.json is damaged"):
        LegacyMap.load(tmp_path / "map.json")


@pytest.mark.parametrize(
    "content",
    [
        [],
        "HUBER",
        {"1.2": "HUBER"},
        {"1.2": {"PatientName": ["HUBER"]}},
        {"patient_info": []},
        {"patient_info": {}, "patient_name_map": 1},
        {"1.2": {"PatientName": "HUBER\ud800"}},
    ],
)
def test_another_json_file_is_refused_without_quoting_it(tmp_path: Path, content: object) -> None:
    with pytest.raises(ConfigError, match=r"is not a patient_info_map\.json") as caught:
        load(tmp_path, content)
    assert "HUBER" not in str(caught.value)


@pytest.mark.parametrize("values", [{"PatientWeight": "heavy"}, {"PatientBirthDate": "昭和五年"}])
def test_a_value_that_no_file_can_hold_is_refused_without_quoting_it(tmp_path: Path, values: dict[str, str]) -> None:
    dataset = image("sub-001")
    with pytest.raises(ConfigError, match="a file cannot hold") as caught:
        load(tmp_path, {STUDY: values}).restore(dataset)
    assert not set(values.values()) & {str(caught.value)}
    assert dataset.PatientName == "sub-001"


def test_a_map_shows_no_value_of_its_own(tmp_path: Path) -> None:
    assert "HUBER" not in repr(load(tmp_path, {STUDY: {"PatientName": "HUBER^ANNA"}}))
