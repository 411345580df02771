"""One number a patient, for ever: look-ups by many processes, killed at any moment."""

import os
import random
import re
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
from dicomrx.vault import State
from dicomrx.vault.keys import Keys
from tests.unit.vault_files import who

ALLOCATE = """
import os, random, sys
from pathlib import Path
from dicomrx.vault import State
from tests.unit.vault_files import who

state = State.open(Path(sys.argv[1]), create=True)
names = [f"patient {number}" for number in range(int(sys.argv[2]))]
random.Random(int(sys.argv[3])).shuffle(names)
while True:
    for name in names:
        os.write(1, f"{name}={state.patient(who(name)).number}\\n".encode())
    if sys.argv[4] == "once":
        break
"""


def test_a_patient_keeps_number_and_key(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", create=True) as state:
        first, second = state.patient(who("one")), state.patient(who("two"))
    with State.open(tmp_path / "state", create=True) as state:
        assert (state.patient(who("one")), state.patient(who("two"))) == (first, second)
        assert state.highest_number() == 2
    assert (first.pseudonym, second.pseudonym) == ("sub-001", "sub-002")
    assert first.data_key != second.data_key
    assert first.data_key.hex() not in repr(first)


def test_the_thousandth_patient_has_four_digits(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", create=True) as state:
        state.patient(who("one"))
        change(state, "UPDATE sqlite_sequence SET seq = 999")
        assert state.patient(who("two")).pseudonym == "sub-1000"


def change(state: State, sql: str) -> None:
    database = sqlite3.connect(state.path / "identities.sqlite")
    with database:
        database.execute(sql)
    database.close()


def test_no_number_is_given_again_after_its_patient_was_forgotten(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", create=True) as state:
        for name in ("one", "two", "three"):
            state.patient(who(name))
        change(state, "DELETE FROM patients WHERE number >= 2")
        assert state.highest_number() == 3
        assert state.patient(who("three")).number == 4
        assert state.patient(who("one")).number == 1


def test_no_identity_and_no_key_lies_in_the_store(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", create=True) as state:
        patient = state.patient(who("HID-778899", issuer="Hospital", name="Quixano^Alonso", birth_date="19470923"))
    stored = b"".join(path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file() and path.name != "site.key")
    assert b"HID-778899" not in stored
    assert b"ospital" not in stored
    assert not re.search(b"(?i)quixano|19470923", stored)
    assert patient.data_key not in stored


def test_a_key_moved_to_another_patient_does_not_open(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", create=True) as state:
        state.patient(who("one"))
        state.patient(who("two"))
        change(state, "UPDATE patients SET data_key = (SELECT data_key FROM patients WHERE number = 1) WHERE number = 2")
        with pytest.raises(PermissionRefused):
            state.patient(who("two"))


def test_a_store_that_is_no_database_says_what_to_do(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", create=True) as state:
        (state.path / "identities.sqlite").write_bytes(b"x" * 8192)
        with pytest.raises(ConfigError, match="backup"):
            state.patient(who("one"))


def test_a_full_disk_is_the_machines_fault(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", create=True) as state:
        store = state.path / "identities.sqlite"
        script = (
            "import resource, sys; from pathlib import Path; from dicomrx.vault import State; from tests.unit.vault_files import who\n"
            "state = State.open(Path(sys.argv[1]), create=True)\n"
            "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
            "try:\n    state.patient(who('one'))\n"
            "except OSError as error:\n    sys.exit(100 if 'identities.sqlite' in error.filename else 1)\n"
        )
        done = subprocess.run([sys.executable, "-c", script, state.path], check=False)
        assert done.returncode == 100
        assert store.is_file()
        assert state.patient(who("one")).number == 1


@pytest.mark.crash
def test_processes_killed_at_random_give_no_number_twice_and_no_patient_two(tmp_path: Path) -> None:
    dice, processes, patients, lines = random.Random(7), 8, 480, []

    def start(path: Path, how: str) -> subprocess.Popen[str]:
        arguments = [sys.executable, "-c", ALLOCATE, str(path), str(patients), str(dice.randrange(1000)), how]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)

    with State.open(tmp_path / "state", create=True) as state:
        victims = [start(state.path, "for ever") for _ in range(processes)]
        survivors = []
        for victim in victims:
            assert victim.stdout is not None
            lines.append(victim.stdout.readline())  # it has begun
            time.sleep(dice.uniform(0, 0.1))
            victim.kill()
            lines += victim.communicate()[0].splitlines()
            assert victim.returncode == -signal.SIGKILL, "it did not die by itself"
            survivors.append(start(state.path, "once"))
        for survivor in survivors:
            lines += survivor.communicate()[0].splitlines()
            assert survivor.returncode == 0
        numbers = {f"patient {number}": state.patient(who(f"patient {number}")).number for number in range(patients)}
        assert state.highest_number() == max(numbers.values())
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
                found.append(state.patient(who(f"patient {number}")).number)
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
            ["strace", "-f", "--seccomp-bpf", "-y", "-e", calls, "-o", trace, sys.executable, "-c", ALLOCATE, state.path, "1", "0", "once"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    lines = trace.read_text().splitlines()
    (given,) = (number for number, line in enumerate(lines) if "patient 0=1" in line)
    journal = [line for line in lines[:given] if "identities.sqlite-journal" in line]
    assert "sync(" in journal[-1]
    assert any("ftruncate(" in line for line in journal)
    assert not any("unlink(" in line for line in journal)


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


def test_the_store_is_the_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with State.open(tmp_path / "state", create=True) as state:
            state.patient(who("one"))
    finally:
        os.umask(before)
    assert (state.path / "identities.sqlite").stat().st_mode & 0o077 == 0
