"""One number a patient, for ever: look-ups by many processes, killed at any moment."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomrx.errors import ConfigError, PermissionRefused
from dicomrx.vault import State, identity_key
from dicomrx.vault.keys import Keys

ALLOCATE = """
import os, random, sys
from pathlib import Path
from dicomrx.vault import State

state = State.open(Path(sys.argv[1]), create=True)
names = [f"patient {number}" for number in range(int(sys.argv[2]))]
random.Random(int(sys.argv[3])).shuffle(names)
while True:
    for name in names:
        os.write(1, f"{name}={state.patient(name).number}\\n".encode())
    if sys.argv[4] == "once":
        break
"""


def key(**facts: str) -> str:
    return identity_key(**{"patient_id": "", "issuer": "", "name": "", "birth_date": "", "study_uid": "1.2.3", **facts})


def test_a_patient_keeps_number_and_key(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", create=True) as state:
        first, second = state.patient("one"), state.patient("two")
    with State.open(tmp_path / "state", create=True) as state:
        assert (state.patient("one"), state.patient("two")) == (first, second)
        assert state.highest_number() == 2
    assert (first.pseudonym, second.pseudonym) == ("sub-001", "sub-002")
    assert first.data_key != second.data_key
    assert first.data_key.hex() not in repr(first)


def test_the_thousandth_patient_has_four_digits(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", create=True) as state:
        state.patient("one")
        change(state, "UPDATE sqlite_sequence SET seq = 999")
        assert state.patient("two").pseudonym == "sub-1000"


def change(state: State, sql: str) -> None:
    database = sqlite3.connect(state.path / "identities.sqlite")
    with database:
        database.execute(sql)
    database.close()


def test_no_number_is_given_again_after_its_patient_was_forgotten(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", create=True) as state:
        for name in ("one", "two", "three"):
            state.patient(name)
        change(state, "DELETE FROM patients WHERE number >= 2")
        assert state.highest_number() == 3
        assert state.patient("three").number == 4
        assert state.patient("one").number == 1


def test_no_identity_and_no_key_lies_in_the_store(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", create=True) as state:
        patient = state.patient(key(patient_id="HID-778899", issuer="Hospital"))
    stored = b"".join(path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file() and path.name != "site.key")
    assert b"HID-778899" not in stored
    assert b"ospital" not in stored
    assert patient.data_key not in stored


def test_a_key_moved_to_another_patient_does_not_open(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", create=True) as state:
        state.patient("one")
        state.patient("two")
        change(state, "UPDATE patients SET data_key = (SELECT data_key FROM patients WHERE number = 1) WHERE number = 2")
        with pytest.raises(PermissionRefused):
            state.patient("two")


def test_a_store_that_is_no_database_says_what_to_do(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", create=True) as state:
        (state.path / "identities.sqlite").write_bytes(b"x" * 8192)
        with pytest.raises(ConfigError, match="backup"):
            state.patient("one")


def test_a_full_disk_is_the_machines_fault(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", create=True) as state:
        store = state.path / "identities.sqlite"
        script = (
            "import resource, sys; from pathlib import Path; from dicomrx.vault import State\n"
            "state = State.open(Path(sys.argv[1]), create=True)\n"
            "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
            "try:\n    state.patient('one')\n"
            "except OSError as error:\n    sys.exit(100 if 'identities.sqlite' in error.filename else 1)\n"
        )
        done = subprocess.run([sys.executable, "-c", script, state.path], check=False)
        assert done.returncode == 100
        assert store.is_file()
        assert state.patient("one").number == 1


@pytest.mark.crash
def test_processes_killed_at_random_give_no_number_twice_and_no_patient_two(tmp_path: Path) -> None:
    dice, patients, lines = random.Random(7), 400, []

    def start(path: Path, how: str) -> subprocess.Popen[str]:
        arguments = [sys.executable, "-c", ALLOCATE, str(path), str(patients), str(dice.randrange(1000)), how]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)

    with State.open(tmp_path / "state", create=True) as state:
        victims = [start(state.path, "for ever") for _ in range(3)]
        for more in (True, True, True, False, False, False):
            victim = victims.pop(0)
            assert victim.stdout is not None
            lines.append(victim.stdout.readline())
            time.sleep(dice.uniform(0, 0.1))
            victim.kill()
            lines += victim.communicate()[0].splitlines()
            assert victim.returncode == -signal.SIGKILL, "it did not die by itself"
            if more:
                victims.append(start(state.path, "for ever"))
        last = start(state.path, "once")
        lines += last.communicate()[0].splitlines()
        assert last.returncode == 0
        numbers = {f"patient {number}": state.patient(f"patient {number}").number for number in range(patients)}
    assert len(set(numbers.values())) == patients
    told = {line.strip() for line in lines if line}
    assert told == {f"{name}={number}" for name, number in numbers.items()}


def test_who_ask_for_one_patient_at_once_get_one_number(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", create=True) as state:
        together = threading.Barrier(4, timeout=20)

        def ask(_: int) -> list[int]:
            found = []
            for number in range(30):
                together.wait()
                found.append(state.patient(f"patient {number}").number)
            return found

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(ask, range(4))) == [list(range(1, 31))] * 4


@pytest.mark.needs_tool("strace")
def test_a_number_is_on_disk_before_it_is_given(tmp_path: Path) -> None:
    """A journal that is unlinked, not synced empty, may be back after a power cut and take the number with it."""
    with State.open(tmp_path / "state", create=True) as state:
        trace = tmp_path / "trace"
        calls = "trace=write,ftruncate,unlink,fsync,fdatasync"
        subprocess.run(
            ["strace", "-f", "-y", "-e", calls, "-o", trace, sys.executable, "-c", ALLOCATE, state.path, "1", "0", "once"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    lines = trace.read_text().splitlines()
    (given,) = (number for number, line in enumerate(lines) if "patient 0=1" in line)
    journal = [line for line in lines[:given] if "identities.sqlite-journal" in line]
    assert "sync(" in journal[-1]
    assert any("ftruncate(" in line for line in journal)
    assert not any("unlink(" in line for line in journal)


@pytest.mark.parametrize("placeholder", ["", "  ", "0", "00000", "9999", "UNKNOWN", "anonymous", "Anonymized", "-", "?", "\0"])
def test_a_placeholder_is_no_identity(placeholder: str) -> None:
    named = {"name": "Quixano^Alonso", "birth_date": "19470923"}
    assert key(patient_id=placeholder, **named) == key(**named)
    assert key(patient_id=placeholder, name=placeholder, birth_date="19470923") == key()
    assert key(patient_id=placeholder, name=f"{placeholder}^{placeholder}", birth_date="19470923") == key()
    assert key(patient_id=placeholder, name="Quixano^Alonso", birth_date=placeholder) == key()


@given(st.lists(st.integers(1, 10**6), min_size=400, max_size=400, unique=True), st.binary(min_size=32, max_size=32))
def test_a_patients_dates_always_move_back_by_the_same_one_to_ten_years_and_nobody_can_tell_which(
    numbers: list[int], secret: bytes
) -> None:
    keys, others = Keys.derive(secret), Keys.derive(secret[::-1] + b"x")
    shifts = [keys.date_shift(number) for number in numbers]
    assert shifts == [Keys.derive(secret).date_shift(number) for number in numbers]
    assert all(366 <= shift <= 3650 for shift in shifts)
    assert len(set(shifts)) > 300
    assert min(shifts) < 800
    assert max(shifts) > 3200
    assert shifts != [others.date_shift(number) for number in numbers]


def test_one_id_of_two_issuers_is_two_patients() -> None:
    assert key(patient_id="A1", issuer="north") != key(patient_id="A1", issuer="south")
    assert key(patient_id="A1", issuer=" North ") == key(patient_id="A1 ", issuer="north")


def test_an_id_outweighs_name_birth_date_and_study() -> None:
    assert key(patient_id="A1", name="Smith^John", birth_date="19500101") == key(patient_id="A1", study_uid="1.2.4")
    assert key(patient_id="A1", name="Smith^John") != key(patient_id="A2", name="Smith^John")


@pytest.mark.parametrize(
    "name", ["SMITH^JOHN", "smith^john^", "Smith^John^^^", " Smith ^ John ", "Smith^John==", "\uff33\uff2d\uff29\uff34\uff28^John"]
)
def test_a_name_is_the_same_however_it_is_cased_and_padded(name: str) -> None:
    assert key(name=name, birth_date="19500101") == key(name="Smith^John", birth_date="19500101")


def test_without_an_id_name_and_birth_date_tell_patients_apart() -> None:
    assert key(name="Smith^John", birth_date="19500101") != key(name="Smith^John", birth_date="19500102")
    assert key(name="Smith^John", birth_date="19500101") != key(name="Smith^Jane", birth_date="19500101")
    assert key(name="Smith^John", birth_date="19500101") == key(name="Smith^John", birth_date="19500101", study_uid="1.2.4")


def test_with_neither_id_nor_name_each_study_is_one_patient() -> None:
    assert key(study_uid="1.2.3") == key(study_uid="1.2.3\0")
    assert key(study_uid="1.2.3") != key(study_uid="1.2.4")


def test_a_name_without_a_birth_date_is_two_patients_in_two_studies() -> None:
    assert key(name="Smith^John", study_uid="1.2.3") != key(name="Smith^John", study_uid="1.2.4")


@given(st.tuples(*[st.text(st.sampled_from('AB\x1f",[]'), max_size=4)] * 4))
def test_no_value_can_pose_as_two(values: tuple[str, str, str, str]) -> None:
    issuer, patient_id, other_issuer, other_id = values
    if key(patient_id=f"A{patient_id}", issuer=issuer) == key(patient_id=f"A{other_id}", issuer=other_issuer):
        assert (issuer.strip().casefold(), patient_id.strip()) == (other_issuer.strip().casefold(), other_id.strip())


def test_the_store_is_the_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with State.open(tmp_path / "state", create=True) as state:
            state.patient("one")
    finally:
        os.umask(before)
    assert (state.path / "identities.sqlite").stat().st_mode & 0o077 == 0
