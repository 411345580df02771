"""The state directory: made once, with a key of its own, and never begun anew where there was one."""

import base64
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from threading import Barrier

import pytest

from dicomrx.errors import CannotCreateError, ConfigError, NoInputError, PermissionRefused
from dicomrx.vault import State
from tests.unit.vault_files import original, put, who


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A state with one patient and one original."""
    with State.open(tmp_path / "state", create=True) as state:
        put(state, original(state.patient(who("one"))), BytesIO(b"original"))
    return state.path


def test_a_new_state_is_the_owners_alone_and_names_its_key_once(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with State.open(tmp_path / "deep" / "state", create=True) as state:
            key = tmp_path / "deep" / "state" / "site.key"
            assert state.new_key_path == key
            put(state, original(state.patient(who("one"))), BytesIO(b"original"))
    finally:
        os.umask(before)
    assert key.stat().st_mode & 0o777 == 0o600
    assert state.path.stat().st_mode & 0o777 == 0o700
    assert len(base64.b64decode(key.read_bytes())) == 32
    with State.open(state.path, create=True) as again:
        assert again.new_key_path is None
        assert (again.id, again.uid_key) == (state.id, state.uid_key)


def test_each_state_has_its_own_key_and_each_use_of_it_too(tmp_path: Path) -> None:
    with State.open(tmp_path / "a", create=True) as one, State.open(tmp_path / "b", create=True) as two:
        assert one.id != two.id
        assert one.uid_key != two.uid_key
        assert one.uid_key != base64.b64decode((one.path / "site.key").read_bytes())


def test_the_key_a_site_brings_is_used(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    key = tmp_path / "state" / "site.key"
    key.write_bytes(base64.b64encode(bytes(32)))
    key.chmod(0o600)
    with State.open(tmp_path / "state", create=True):
        assert key.read_bytes() == base64.b64encode(bytes(32))


def test_many_that_start_at_once_make_one_state(tmp_path: Path) -> None:
    together = Barrier(8, timeout=20)

    def start(_: int) -> State:
        together.wait()
        with State.open(tmp_path / "state", create=True) as state:
            together.wait()
            return state

    with ThreadPoolExecutor(8) as pool:
        states = list(pool.map(start, range(8)))
    assert len({state.id for state in states}) == 1
    assert len({state.uid_key for state in states}) == 1
    assert sum(state.new_key_path is not None for state in states) == 1


def test_a_state_to_read_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="--state-dir"):
        State.open(tmp_path / "state", create=False)
    assert not (tmp_path / "state").exists()


def test_a_folder_with_other_things_is_not_made_a_state(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").touch()
    mode = tmp_path.stat().st_mode
    with pytest.raises(CannotCreateError, match="--state-dir"):
        State.open(tmp_path, create=True)
    assert tmp_path.stat().st_mode == mode
    assert [entry.name for entry in tmp_path.iterdir()] == ["letter.txt"]


def test_a_file_in_the_states_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(CannotCreateError, match="state"):
        State.open(tmp_path / "state", create=True)


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o700 | 0o001])
def test_a_key_open_to_others_is_refused(path: Path, create: bool, mode: int) -> None:
    (path / "site.key").chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        State.open(path, create=create)


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("text", [b"", b"not a key", base64.b64encode(bytes(31)), b"\xff" * 44, base64.b64encode(bytes(32))[:-1]])
def test_a_malformed_key_is_refused(path: Path, create: bool, text: bytes) -> None:
    (path / "site.key").write_bytes(text)
    with pytest.raises(ConfigError, match=r"site\.key"):
        State.open(path, create=create)


@pytest.mark.parametrize("create", [True, False])
def test_another_key_is_refused(path: Path, create: bool) -> None:
    (path / "site.key").write_bytes(base64.b64encode(bytes(32)))
    with pytest.raises(ConfigError, match="is not the key"):
        State.open(path, create=create)


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("part", ["site.key", "key-check", "identities.sqlite"])
def test_a_state_that_lost_a_part_is_refused_and_not_begun_anew(path: Path, create: bool, part: str) -> None:
    (path / part).unlink()
    with pytest.raises(ConfigError, match="backup"):
        State.open(path, create=create)
    assert not (path / part).exists()


@pytest.mark.parametrize("parts", [["id"], ["id", "site.key"]])
def test_a_state_that_lost_its_id_is_not_begun_anew(path: Path, parts: list[str]) -> None:
    for part in parts:
        (path / part).unlink()
    with pytest.raises(ConfigError, match="backup"):
        State.open(path, create=True)


@pytest.mark.parametrize("left", [["site.key"], ["site.key", "identities.sqlite"], ["site.key", "identities.sqlite", "key-check"]])
def test_a_state_that_a_crash_left_half_made_is_completed(tmp_path: Path, left: list[str]) -> None:
    with State.open(tmp_path / "whole", create=True) as whole:
        pass
    half = tmp_path / "half"
    half.mkdir()
    for name in left:
        shutil.copy2(whole.path / name, half / name)
    with State.open(half, create=True) as state:
        assert state.patient(who("one")).number == 1
        assert state.uid_key == whole.uid_key


def test_what_a_dead_process_left_is_swept(path: Path) -> None:
    dead = path / "tmp" / "00c0ffee"
    dead.mkdir()
    (dead / "1.part").touch()
    with State.open(path, create=True):
        assert not dead.exists()


@pytest.fixture
def others_folder() -> Iterator[Path]:
    """A folder that another user can reach."""
    with tempfile.TemporaryDirectory(dir=tempfile.gettempdir()) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


READ_AS_NOBODY = """
import io, os, sys
from pathlib import Path
from dicomrx.errors import DicomrxError
from dicomrx.vault import State
root = Path(sys.argv[1])
if os.geteuid() == 0:
    if sys.argv[2] == "own":
        for path in (root, *root.rglob("*")):
            os.chown(path, 65534, 65534)
    os.setgid(65534)
    os.setuid(65534)
try:
    with State.open(root, create=False) as state:
        (record,) = state.vault.find("2.25.3")
        state.vault.restore(record, io.FileIO(1, "w", closefd=False))
except DicomrxError as error:
    sys.exit(error.exit_code)
"""


def read_as_nobody(path: Path, whose: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-c", READ_AS_NOBODY, path, whose], capture_output=True, check=False)


@pytest.mark.parametrize("index", [True, False])
def test_originals_are_read_with_the_right_to_read_alone(others_folder: Path, index: bool) -> None:
    path = others_folder / "state"
    with State.open(path, create=True) as state:
        put(state, original(state.patient(who("one"))), BytesIO(b"original"))
    if not index:
        (path / "vault" / "index.sqlite").unlink()
    for entry in (*path.rglob("*"), path):
        entry.chmod(0o500 if entry.is_dir() else 0o400)
    before = sorted(entry.name for entry in path.rglob("*"))
    assert read_as_nobody(path, "own").stdout == b"original"
    assert sorted(entry.name for entry in path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_who_may_not_read_the_state_is_told_so(others_folder: Path) -> None:
    with State.open(others_folder / "state", create=True):
        pass
    assert read_as_nobody(others_folder / "state", "leave").returncode == 77


def test_a_state_keeps_its_first_format_of_pseudonyms_for_ever(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", create=True) as state:
        state.use_format("north-%04d")
        assert state.patient(who("one")).pseudonym == "north-0001"
    with State.open(tmp_path / "state", create=True) as state:
        state.use_format("north-%04d")
        with pytest.raises(ConfigError, match=r"north-%04d.*PSEUDONYM"):
            state.use_format("sub-%03d")
        assert state.patient(who("two")).pseudonym == "north-0002"
    with State.open(tmp_path / "state", create=False) as reader:
        assert reader.pseudonym(17) == "north-0017"


def test_a_state_whose_numbers_are_in_use_gets_no_other_format(tmp_path: Path) -> None:
    """As one that was made before there was the setting."""
    with State.open(tmp_path / "state", create=True) as state:
        assert state.patient(who("one")).pseudonym == "sub-001"
        with pytest.raises(ConfigError, match="sub-%03d"):
            state.use_format("north-%04d")
        state.use_format("sub-%03d")
        assert state.patient(who("one")).pseudonym == state.pseudonym(1) == "sub-001"


def test_of_many_that_start_with_different_formats_one_wins(tmp_path: Path) -> None:
    together = Barrier(6, timeout=20)

    def start(number: int) -> str:
        with State.open(tmp_path / "state", create=True) as state:
            together.wait()
            try:
                state.use_format(f"site{number}-%d")
            except ConfigError:
                return ""
            return state.patient(who("one")).pseudonym

    with ThreadPoolExecutor(6) as pool:
        (winner,) = filter(None, pool.map(start, range(6)))
    with State.open(tmp_path / "state", create=False) as reader:
        assert reader.pseudonym(1) == winner


def test_a_forgotten_patient_is_told_of_by_the_states_own_pseudonym(path: Path) -> None:
    database = sqlite3.connect(path / "identities.sqlite")
    with database:
        database.execute("INSERT INTO format VALUES (1, 'P%d')")
        database.execute("DELETE FROM patients")
    database.close()
    with State.open(path, create=False) as state, pytest.raises(PermissionRefused, match="P1 was forgotten"):
        state.vault.restore(state.vault.find("2.25.3")[0], BytesIO())
