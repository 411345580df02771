"""A site's own numbering: taken over whole or not at all, and what is wrong is named by its line, never by its value."""

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomrx.cli.numbering import read
from dicomrx.errors import ConfigError, NoInputError
from dicomrx.vault import Format, State
from tests.unit.vault_files import OURS, who

SUB = Format("sub-%03d")
HEADER = "patient_id,issuer,pseudonym\n"


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State.open(tmp_path / "state", create=True) as state:
        yield state


def bring(state: State, text: str | bytes, form: Format = SUB) -> int:
    path = state.path.parent / "ours.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return state.assign(read(path, form, OURS).assignments)


def numbers(state: State, *patient_ids: str) -> list[int]:
    return [state.patient(who(patient_id)).number for patient_id in patient_ids]


def refusal(state: State, text: str | bytes, form: Format = SUB) -> str:
    """What is said; nothing was taken over."""
    rows = "SELECT count(*) FROM patients"
    database = sqlite3.connect(state.path / "identities.sqlite")
    before = database.execute(rows).fetchone(), state.highest_number()
    with pytest.raises(ConfigError) as caught:
        bring(state, text, form)
    assert (database.execute(rows).fetchone(), state.highest_number()) == before
    database.close()
    assert "HID" not in str(caught.value)
    return str(caught.value)


def test_imported_patients_have_their_numbers_and_new_ones_go_on_above_the_highest(state: State) -> None:
    assert bring(state, HEADER + "A1,,sub-017\nA2,,40\nA3,north,sub-005\n") == 3
    assert numbers(state, "A1", "A2", "A9", "A3") == [17, 40, 41, 42]  # A3 without its issuer is somebody else
    assert state.patient(who("A3", "1.2", issuer="NORTH")).number == 5
    assert numbers(state, "A10") == [43]


def test_the_same_file_again_changes_nothing_and_a_longer_one_adds(state: State) -> None:
    assert bring(state, HEADER + "A1,,17\n") == 1
    assert bring(state, HEADER + "A1,,17\n") == 0
    assert bring(state, HEADER + "A1,,17\nA1,,sub-017\nA2,,3\n") == 1
    assert numbers(state, "A1", "A2") == [17, 3]


def test_a_patient_who_came_before_is_imported_under_the_same_number_only(state: State) -> None:
    assert numbers(state, "A1") == [1]
    assert bring(state, HEADER + "A1,,sub-001\n") == 0
    assert "line 2: this patient" in refusal(state, HEADER + "A1,,2\n")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("HID1,,1\nHID1,,2\n", "line 3: this patient"),
        ("HID1,,1\nHID2,,1\n", "line 3: this number"),
        ("HID1,,1\nHID2,,7\n", "line 3: this number"),
        ("HID1,,1\nHID7,,8\n", "line 3: this patient"),
        (",,1\n", "line 2: the patient_id"),
        ("HID1,,1\n\nunknown,,2\n", "line 4: the patient_id"),
        ("0000,HID,1\n", "line 2: the patient_id"),
        ("HID1,,0\n", "line 2: the pseudonym"),
        ("HID1,,-1\n", "line 2: the pseudonym"),
        ("HID1,,\n", "line 2: the pseudonym"),
        ("HID1,,sub-17\n", "line 2: the pseudonym"),
        ("HID1,,sub-HID\n", "line 2: the pseudonym"),
        ("HID1,,1234567890\n", "line 2: the pseudonym"),
        ("HID1,,\u0661\n", "line 2: the pseudonym"),
        ("HID1,1\n", "line 2: 2 cells under 3 columns"),
        ("HID1,,1,HID\n", "line 2: 4 cells"),
        ('HID1,,"1\n', "line 2: not CSV"),
        ('HID1,,"1"HID\n', "line 2: not CSV"),
    ],
)
def test_a_file_with_anything_wrong_in_it_is_refused_whole(state: State, lines: str, said: str) -> None:
    bring(state, HEADER + "HID7,,7\n")
    assert said in refusal(state, HEADER + lines)
    assert numbers(state, "HID7", "HID1") == [7, 8]


@pytest.mark.parametrize(
    "header", ["", "\n", "patient_id\n", "A1,,1\n", "patient_id;issuer;pseudonym\n", "patient_id,patient_id,pseudonym\n"]
)
def test_a_file_without_its_header_is_refused(state: State, header: str) -> None:
    assert "patient_id,issuer,pseudonym" in refusal(state, header)


def test_columns_may_be_ordered_and_spelled_and_ended_as_a_spreadsheet_does(state: State) -> None:
    assert bring(state, '\ufeffPseudonym, Patient_ID\r\n sub-017 ," A1 "\r\n\r\n18,A2\r\n'.encode()) == 2
    assert numbers(state, "A1", "A2") == [17, 18]


def test_a_file_in_another_encoding_is_refused(state: State) -> None:
    assert "UTF-8" in refusal(state, (HEADER + "Müller1,,1\n").encode("latin-1"))


def test_no_file_or_one_that_is_not_ours_to_read_is_said(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(NoInputError):
            read(path, SUB, OURS)


def test_the_number_of_someone_forgotten_is_nobodys_again(state: State) -> None:
    bring(state, HEADER + "A1,,17\nA2,,20\n")
    database = sqlite3.connect(state.path / "identities.sqlite")
    with database:
        database.execute("DELETE FROM patients WHERE number = 17")
    database.close()
    assert "line 2: this number" in refusal(state, HEADER + "A3,,17\n")
    assert "line 2: this number" in refusal(state, HEADER + "A1,,17\n")
    assert numbers(state, "A1") == [21]


def test_pseudonyms_are_read_by_the_sites_format(state: State) -> None:
    form = Format("2024-%04d-x")
    assert bring(state, HEADER + "A1,,2024-0017-x\nA2,,18\n", form) == 2
    assert numbers(state, "A1", "A2") == [17, 18]
    assert "2024-%04d-x" in refusal(state, HEADER + "A3,,sub-019\n", form)


@given(st.from_regex(r"\A[A-Z0-9.+*()-]{0,6}%(0[1-9])?d[A-Z0-9.+*()-]{0,6}\Z"), st.integers(1, 999_999_999))
def test_every_pseudonym_leads_back_to_its_number(text: str, number: int) -> None:
    form = Format(text)
    assert form.number(form.pseudonym(number)) == number


def older_map(path: Path, studies: dict[str, dict[str, str]]) -> Path:
    names = {"HUBER^ANNA": "sub-001", "MAIER^EVA": "sub-007"}
    path.write_text(json.dumps({"patient_info": studies, "patient_name_map": names, "patient_study_map": {}}))
    return path


def test_the_older_tools_map_is_taken_over_where_it_tells_the_id(state: State, tmp_path: Path) -> None:
    studies = {
        "1.1": {"PatientName": "HUBER^ANNA", "PatientID": "A1"},
        "1.2": {"PatientName": "HUBER^ANNA", "PatientID": "A1", "PatientBirthDate": "19500101"},
        "1.3": {"PatientName": "MAIER^EVA", "PatientID": "A7", "IssuerOfPatientID": "north"},
        "1.4": {"PatientName": "MAIER^EVA"},
        "1.5": {"PatientName": "MAIER^EVA", "PatientID": "0000"},
        "1.6": {"PatientID": "A9"},
    }
    found = read(older_map(tmp_path / "map.json", studies), Format("P%d"), OURS)
    assert found.left_out == 3
    assert state.assign(found.assignments) == 2
    assert numbers(state, "A1", "A9") == [1, 8]
    assert state.patient(who("A7", "1.3", issuer="north")).number == 7


def test_a_map_that_gave_two_patients_of_one_name_one_number_is_refused_whole(state: State, tmp_path: Path) -> None:
    studies = {"1.1": {"PatientName": "HUBER^ANNA", "PatientID": "A1"}, "1.2": {"PatientName": "HUBER^ANNA", "PatientID": "A2"}}
    found = read(older_map(tmp_path / "map.json", studies), SUB, OURS)
    with pytest.raises(ConfigError, match="study 2: this number"):
        state.assign(found.assignments)
    assert state.highest_number() == 0


IMPORT = """
import sys
from pathlib import Path
from dicomrx.vault import Assignment, State, id_key

def rows():
    for number in range(1, 20_001):
        if number == 15_000:
            print("begun", flush=True)
            sys.stdin.readline()
        yield Assignment("here", id_key(f"patient {number}", ""), number + 100)

with State.open(Path(sys.argv[1]), create=True) as state:
    state.assign(rows())
"""


@pytest.mark.crash
@pytest.mark.parametrize("killed", [True, False])
def test_an_import_that_is_killed_leaves_nothing_and_numbers_given_before_it_stay(state: State, killed: bool) -> None:
    """So many rows that SQLite has written some of them to the store when the import is killed."""
    before = numbers(state, "before")
    size = (state.path / "identities.sqlite").stat().st_size
    with subprocess.Popen([sys.executable, "-c", IMPORT, state.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        assert (state.path / "identities.sqlite").stat().st_size > size
        if killed:
            process.kill()
    assert process.returncode == (-signal.SIGKILL if killed else 0)
    assert numbers(state, "before", "patient 1", "patient 20000") == [*before, *((2, 3) if killed else (101, 20_100))]
