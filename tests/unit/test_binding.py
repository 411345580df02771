"""Spool and state belong together, and a state that is older than its spool is found out before a number is given twice."""

import base64
import io
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomrx.errors import ConfigError
from dicomrx.spool.binding import Binding
from dicomrx.spool.layout import Spool
from dicomrx.vault import State, open_bound
from tests.unit.vault_files import child, original, put, who


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool.open(tmp_path / "spool", tmp_path / "zips", make=True) as spool:
        yield spool


@pytest.fixture
def binding(tmp_path: Path) -> Binding:
    made = Binding(tmp_path / "run")
    made.create()
    return made


def use(spool: Spool, path: Path, *names: str) -> None:
    """As anonymize does: patients, then an original, each noted before its use."""
    with open_bound(path, spool) as state:
        for name in names:
            patient = state.patient(who(name))
            spool.binding.note_number(patient.number)
            spool.binding.note_position(*put(state, original(patient, f"2.25.{patient.number}"), io.BytesIO(b"original")))


def test_a_spool_keeps_the_id_it_was_given(binding: Binding, tmp_path: Path) -> None:
    first = binding.spool_id
    again = Binding(tmp_path / "run")
    again.create()
    assert again.spool_id == first
    assert binding.state_id is None


@given(st.lists(st.integers(1, 50), min_size=1, max_size=10))
def test_the_highest_number_never_goes_back(tmp_path_factory: pytest.TempPathFactory, numbers: list[int]) -> None:
    run = tmp_path_factory.mktemp("run")
    Binding(run).create()
    for count, number in enumerate(numbers, 1):
        Binding(run).note_number(number)
        assert Binding(run).highest_number() == max(numbers[:count])
    assert len(list((run / "numbers").iterdir())) == 1


def test_the_highest_number_of_many_processes_is_the_highest(binding: Binding, tmp_path: Path) -> None:
    def note(first: int) -> list[int]:
        mine, seen = Binding(tmp_path / "run"), []
        for number in range(first, 200, 4):
            mine.note_number(number)
            seen.append(mine.highest_number())
        return seen

    with ThreadPoolExecutor(4) as pool:
        for seen in pool.map(note, range(1, 5)):
            assert seen == sorted(seen)
    assert binding.highest_number() == 199


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=6))
def test_a_position_never_goes_back(tmp_path_factory: pytest.TempPathFactory, ends: list[int]) -> None:
    binding = Binding(tmp_path_factory.mktemp("run"))
    binding.create()
    for end in ends:
        binding.note_position("a.seg", end)
    binding.note_position("b.seg", 7)
    assert dict(binding.positions()) == {"a.seg": max(ends), "b.seg": 7}


def test_a_note_that_a_crash_left_empty_says_nothing(binding: Binding, tmp_path: Path) -> None:
    (tmp_path / "run" / "positions" / "a.seg").touch()
    assert dict(binding.positions()) == {"a.seg": 0}
    binding.note_position("a.seg", 3)
    assert dict(binding.positions()) == {"a.seg": 3}


@pytest.mark.needs_tool("strace")
def test_notes_are_on_disk_before_they_return(binding: Binding, tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from dicomrx.spool.binding import Binding\n"
        "binding = Binding(Path(sys.argv[1]))\n"
        "binding.note_number(5); os.write(1, b'noted number')\n"
        "binding.note_number(4); os.write(1, b'noted lower')\n"
        "binding.note_position('a.seg', 9); os.write(1, b'noted position')\n"
    )
    trace = tmp_path / "trace"
    command = [
        "strace",
        "-y",
        "-e",
        "trace=openat,write,pwrite64,fsync",
        "-o",
        str(trace),
        sys.executable,
        "-c",
        script,
        str(tmp_path / "run"),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    number, _, position = (part.splitlines() for part in trace.read_text().split('"noted')[:3])
    assert any("fsync(" in line and "/numbers>" in line for line in number)
    calls = [line for line in position if "/positions" in line]
    assert ["pwrite64" in line for line in calls].index(True) < ["fsync(" in line and "a.seg>" in line for line in calls].index(True)
    assert any("fsync(" in line and "/positions>" in line for line in calls)


def test_what_another_process_noted_is_synced_before_a_lower_number_is_used(binding: Binding, tmp_path: Path) -> None:
    """The higher note covers the lower number, but may not be on disk yet."""
    (tmp_path / "run" / "numbers" / "9").touch()
    binding.note_number(3)
    assert [path.name for path in (tmp_path / "run" / "numbers").iterdir()] == ["9"]


def test_a_new_spool_and_a_new_state_are_bound_both_ways(spool: Spool, tmp_path: Path) -> None:
    with open_bound(tmp_path / "state", spool) as state:
        assert state.spool_id == spool.binding.spool_id
        assert spool.binding.state_id == state.id
    with open_bound(tmp_path / "state", spool) as again:
        assert again.id == state.id


def test_a_crash_between_the_two_halves_is_completed(spool: Spool, tmp_path: Path) -> None:
    with State.open(tmp_path / "state", create=True) as state:
        state.bind(spool.binding.spool_id)
    with open_bound(tmp_path / "state", spool):
        assert spool.binding.state_id == state.id


def test_many_that_start_at_once_bind_one_state(spool: Spool, tmp_path: Path) -> None:
    together = Barrier(6, timeout=20)

    def bind(_: int) -> str:
        together.wait()
        with open_bound(tmp_path / "state", spool) as state:
            together.wait()
            return state.id

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(bind, range(6))) == {spool.binding.state_id}


@pytest.mark.parametrize("_try", range(5))
def test_two_states_that_come_for_one_spool_never_both_get_it(spool: Spool, tmp_path: Path, _try: int) -> None:
    together, count = Barrier(6, timeout=20), 6
    for number in range(count):
        State.open(tmp_path / f"state {number}", create=True).close()

    def bind(number: int) -> bool:
        together.wait()
        try:
            open_bound(tmp_path / f"state {number}", spool).close()
        except ConfigError:
            return False
        return True

    with ThreadPoolExecutor(count) as pool:
        assert sum(pool.map(bind, range(count))) == 1
    assert sum((tmp_path / f"state {number}" / "spool").exists() for number in range(count)) == 1


def assert_refused(spool: Spool, path: Path, *words: str) -> None:
    before = {entry: entry.read_bytes() for entry in spool.run_dir.rglob("*") if entry.is_file()}
    with pytest.raises(ConfigError) as refused:
        open_bound(path, spool)
    for word in (str(spool.root), str(path), *words):
        assert word in str(refused.value)
    after = {entry: entry.read_bytes() for entry in spool.run_dir.rglob("*") if entry.is_file() and entry.name != "binding.lock"}
    assert after == {entry: held for entry, held in before.items() if entry.name != "binding.lock"}, "nothing was noted"


def test_a_bound_spool_without_its_state_is_refused_and_none_is_made(spool: Spool, tmp_path: Path) -> None:
    use(spool, tmp_path / "state", "one")
    shutil.rmtree(tmp_path / "state")
    assert_refused(spool, tmp_path / "state", "backup", "--state-dir")
    assert not (tmp_path / "state").exists()


def test_another_spools_state_is_refused(spool: Spool, tmp_path: Path) -> None:
    with Spool.open(tmp_path / "other", tmp_path / "other zips", make=True) as other:
        use(other, tmp_path / "state", "one")
    assert_refused(spool, tmp_path / "state", "--storage", "empty spool")
    assert spool.binding.state_id is None


def test_another_state_of_a_bound_spool_is_refused(spool: Spool, tmp_path: Path) -> None:
    use(spool, tmp_path / "state", "one")
    with State.open(tmp_path / "other", create=True):
        pass
    assert_refused(spool, tmp_path / "other", "--state-dir")
    with State.open(tmp_path / "other", create=True) as other:
        assert other.spool_id is None


def test_a_state_without_its_half_is_refused(spool: Spool, tmp_path: Path) -> None:
    use(spool, tmp_path / "state", "one")
    (tmp_path / "state" / "spool").unlink()
    assert_refused(spool, tmp_path / "state")


def test_a_state_that_lacks_a_number_in_use_is_refused(spool: Spool, tmp_path: Path) -> None:
    with open_bound(tmp_path / "state", spool) as state:
        state.patient(who("one"))
        shutil.copy2(state.path / "identities.sqlite", tmp_path / "older.sqlite")
        spool.binding.note_number(state.patient(who("two")).number)
    shutil.copy2(tmp_path / "older.sqlite", state.path / "identities.sqlite")
    assert_refused(spool, state.path, "older", "backup")


@pytest.mark.parametrize("how", ["shorter", "missing"])
def test_a_state_that_lacks_an_original_in_use_is_refused(spool: Spool, tmp_path: Path, how: str) -> None:
    use(spool, tmp_path / "state", "one", "two")
    (segment,) = (tmp_path / "state" / "vault").glob("*.seg")
    whole = segment.read_bytes()
    segment.unlink()
    if how == "shorter":
        segment.write_bytes(whole[:-1])
    assert_refused(spool, tmp_path / "state", "older", "backup")
    segment.write_bytes(whole)
    open_bound(tmp_path / "state", spool).close()


def test_a_state_that_was_only_ahead_goes_on(spool: Spool, tmp_path: Path) -> None:
    """A crash between the state's commit and the spool's note."""
    with open_bound(tmp_path / "state", spool) as state:
        put(state, original(state.patient(who("one"))), io.BytesIO(b"original"))
    with open_bound(tmp_path / "state", spool) as state:
        assert state.patient(who("two")).number == 2


def test_a_wrong_key_leaves_no_lock_behind(spool: Spool, tmp_path: Path) -> None:
    use(spool, tmp_path / "state", "one")
    key = tmp_path / "state" / "site.key"
    right = key.read_bytes()
    key.write_bytes(base64.b64encode(bytes(32)))
    with pytest.raises(ConfigError, match="is not the key"):
        open_bound(tmp_path / "state", spool)
    assert not list((tmp_path / "state" / "tmp").iterdir())
    key.write_bytes(right)
    open_bound(tmp_path / "state", spool).close()


WORK = """
import io, itertools, sys
from pathlib import Path
from dicomrx.spool.layout import Spool
from dicomrx.vault import open_bound
from tests.unit.vault_files import original, put, who
spool = Spool.open(Path(sys.argv[1]), Path(sys.argv[2]), make=True)
with open_bound(Path(sys.argv[3]), spool) as state:
    print("bound", flush=True)
    for number in itertools.count():
        patient = state.patient(who(f"{sys.argv[4]} {number}"))
        spool.binding.note_number(patient.number)
        spool.binding.note_position(*put(state, original(patient, f"2.25.{number}"), io.BytesIO(b"original")))
"""


def test_a_process_that_starts_beside_busy_ones_is_not_told_that_the_state_is_older(spool: Spool, tmp_path: Path) -> None:
    arguments = spool.root, spool.zips, tmp_path / "state"
    with child(WORK, *arguments, "a") as one, child(WORK, *arguments, "b") as two:
        for process in (one, two):
            assert process.stdout is not None
            assert process.stdout.readline() == "bound\n"
        for _ in range(100):
            open_bound(tmp_path / "state", spool).close()
        assert one.poll() is None
        assert two.poll() is None
    open_bound(tmp_path / "state", spool).close()
