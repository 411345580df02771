"""Never two patients with one number, never one with two: what an instance says against what is known."""

import itertools
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dicomrx.errors import ConfigError, Reject
from dicomrx.vault import Assignment, State, Who, id_key
from tests.unit.vault_files import who


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State.open(tmp_path / "state", create=True) as state:
        yield state


def dump(state: State) -> list[str]:
    """All that the store holds, the highest number included."""
    database = sqlite3.connect(state.path / "identities.sqlite")
    try:
        return list(database.iterdump())
    finally:
        database.close()


def number(state: State, patient_id: str = "", study: str = "", /, **facts: str) -> int:
    return state.patient(who(patient_id, study, **facts)).number


def rejected(state: State, patient_id: str = "", study: str = "", /, **facts: str) -> str:
    """The reason; nothing was left behind, and nothing is told of whom it is."""
    before = dump(state)
    with pytest.raises(Reject) as caught:
        state.patient(who(patient_id, study, **facts))
    assert dump(state) == before
    for value in (patient_id, study, *facts.values()):
        assert not value or value not in str(caught.value)
    return caught.value.reason


SMITH = {"name": "Smith^John", "birth_date": "19500101"}
JONES = {"name": "Jones^John", "birth_date": "19600202"}


def test_one_id_with_another_family_name_and_another_birth_date_is_a_conflict(state: State) -> None:
    assert number(state, "A1", **SMITH) == 1
    assert rejected(state, "A1", **JONES) == "identity-conflict"
    assert rejected(state, "A1", "1.3", **JONES) == "identity-conflict"
    assert number(state, "A1", **SMITH) == 1
    assert number(state, "A2", **JONES) == 2


@pytest.mark.parametrize(
    "facts",
    [
        {"name": "Jones^John", "birth_date": "19500101"},
        {"name": "Smith^John", "birth_date": "19600202"},
        {"name": "Jones^John"},
        {"birth_date": "19600202"},
        {"name": "SMITH", "birth_date": "19600202"},
        {"name": "=Smith", "birth_date": "19600202"},
        {"name": "Jones=Smith", "birth_date": "19600202"},
        {"name": "Unknown", "birth_date": "19600202"},
        {"name": "Jones", "birth_date": "00000000"},
        {},
    ],
)
def test_one_of_the_two_may_differ_or_be_left_out(state: State, facts: dict[str, str]) -> None:
    assert number(state, "A1", **SMITH) == number(state, "A1", **facts) == 1


def test_after_a_marriage_the_new_name_is_known_too(state: State) -> None:
    number(state, "A1", **SMITH)
    number(state, "A1", name="Jones", birth_date="19500101")
    assert number(state, "A1", name="Jones", birth_date="19600202") == 1
    assert rejected(state, "A1", name="Brown", birth_date="19700303") == "identity-conflict"


def test_name_and_birth_date_may_become_known_one_after_the_other(state: State) -> None:
    number(state, "A1", "1.5")
    number(state, "A1", "1.6", name="Smith^John")
    number(state, "A1", "1.7", birth_date="19500101")
    assert rejected(state, "A1", "1.8", **JONES) == "identity-conflict"


def test_the_first_who_tells_of_an_imported_patient_is_believed(state: State) -> None:
    state.assign([Assignment("line 2", id_key("A1", ""), 17)])
    assert number(state, "A1", **SMITH) == 17
    assert rejected(state, "A1", **JONES) == "identity-conflict"


def test_one_study_with_two_patients_is_rejected_whether_the_second_is_known_or_new(state: State) -> None:
    assert number(state, "A1", "1.2") == 1
    assert rejected(state, "A2", "1.2") == "two-patients"
    assert number(state, "A2", "1.3") == 2
    assert rejected(state, "A2", "1.2") == "two-patients"
    assert rejected(state, "A1", "1.3") == "two-patients"
    assert rejected(state, "", "1.2", **SMITH) == "two-patients"
    assert rejected(state, "A1", "1.2", issuer="north") == "two-patients"
    assert number(state, "A1", "1.2") == 1
    assert state.highest_number() == 2


def test_an_instance_that_says_nobody_belongs_to_its_study(state: State) -> None:
    number(state, "A1", "1.2", **SMITH)
    assert number(state, "", "1.2") == number(state, "unknown", "1.2", birth_date="19600202") == 1
    assert number(state, "", "1.3") == 2


def test_a_name_alone_belongs_to_its_study_unless_it_is_another_name(state: State) -> None:
    number(state, "A1", "1.2", **SMITH)
    assert number(state, "", "1.2", name="SMITH^J") == 1
    assert rejected(state, "", "1.2", name="Jones") == "two-patients"


def test_in_whatever_order_a_studys_instances_come_they_are_one_patients(state: State) -> None:
    nothing: dict[str, str] = {}
    claims = (("", nothing), ("A0", nothing), ("", {"name": "Smith"}), ("A0", SMITH))
    orders = list(itertools.permutations(claims))
    for order_number, order in enumerate(orders, 1):
        for patient_id, facts in order:
            assert number(state, patient_id and f"{patient_id}{order_number}", f"study {order_number}", **facts) == order_number
    assert state.highest_number() == len(orders)


def test_a_patient_first_known_by_the_study_is_known_by_the_id_in_other_studies_too(state: State) -> None:
    assert number(state, "", "1.2") == 1
    assert number(state, "A1", "1.2", **SMITH) == 1
    assert number(state, "A1", "1.3") == 1
    assert number(state, "", "1.2") == 1
    assert rejected(state, "A2", "1.2") == "two-patients"


def test_a_study_filed_as_nobodys_is_not_a_known_patients_later(state: State) -> None:
    assert number(state, "A1", "1.5") == 1
    assert number(state, "", "1.2") == 2
    assert rejected(state, "A1", "1.2") == "two-patients"


def test_a_study_filed_under_one_name_is_not_given_to_another_by_an_id(state: State) -> None:
    assert number(state, "", "1.2", name="Jones") == 1
    assert rejected(state, "A1", "1.2", **SMITH) == "two-patients"
    assert number(state, "A1", "1.2", name="Jones^J") == 1


def test_the_store_does_not_tell_that_two_patients_share_a_name_and_a_birthday(state: State) -> None:
    for patient_id in ("A1", "A2"):
        number(state, patient_id, **SMITH)
    database = sqlite3.connect(state.path / "identities.sqlite")
    traits = database.execute("SELECT trait FROM traits").fetchall()
    database.close()
    assert len(set(traits)) == len(traits) == 4


def test_who_claim_one_study_at_once_leave_one_patient_and_burn_no_number(state: State) -> None:
    together = threading.Barrier(4, timeout=20)

    def claim(me: int) -> list[int]:
        won = []
        for study in range(30):
            together.wait()
            try:
                won.append(number(state, f"A{me}-{study}", f"study {study}"))
            except Reject:
                continue
        return won

    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(claim, range(4)))
    assert sorted(itertools.chain(*won)) == list(range(1, 31))
    assert state.highest_number() == 30


def test_a_store_of_an_earlier_version_goes_on_with_its_numbers(tmp_path: Path) -> None:
    with State.open(tmp_path / "state", create=True) as state:
        key = state.patient(who("A1", "1.2")).data_key
        number(state, "", "1.4")
    database = sqlite3.connect(state.path / "identities.sqlite")
    database.executescript("DROP TRIGGER forget; DROP TABLE studies; DROP TABLE traits; DROP TABLE forgotten; DROP TABLE format")
    database.close()
    with State.open(state.path, create=False) as reader:
        assert (reader.highest_number(), reader.pseudonym(1)) == (2, "sub-001")
    with State.open(state.path, create=True) as again:
        assert again.patient(who("A1", "1.2", **SMITH)).data_key == key
        assert number(again, "A2", "1.4") == 2
        assert rejected(again, "A2", "1.2") == "two-patients"
        assert number(again, "A3") == 3


MEMORY = Path("/dev/shm")  # where a disk is not waited for
KEYS = st.sampled_from(["", "A1", "A2", "A3"])
NUMBERS = st.integers(1, 9)


class WhoIsWho(RuleBasedStateMachine):
    """Arrivals, imports and people who are forgotten, in any order; `owner` is whom a number was given to."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.state = State.open(self.folder / "state", create=True)
        self.owner: dict[int, str] = {}
        self.number: dict[str, int] = {}
        self.bound: dict[str, int] = {}
        self.retired: set[int] = set()

    def teardown(self) -> None:
        self.state.close()
        shutil.rmtree(self.folder)

    @rule(
        patient_id=KEYS,
        study=st.sampled_from(["1.1", "1.2", "1.3", "1.4"]),
        name=st.sampled_from(["", "Smith", "Jones"]),
        birth_date=st.sampled_from(["", "19500101", "19600202"]),
    )
    def arrive(self, patient_id: str, study: str, name: str, birth_date: str) -> None:
        claim = who(patient_id, study, name=name, birth_date=birth_date)
        before, highest = dump(self.state), self.state.highest_number()
        try:
            given = self.state.patient(claim).number
        except Reject as never:
            self.reject(never, claim, study)
            assert dump(self.state) == before
            return
        assert given == highest + 1 or given in self.owner
        assert self.bound.setdefault(study, given) == given, "one study, two patients"
        if claim.says_nobody:
            self.owner.setdefault(given, claim.key)
            return
        assert self.number.setdefault(claim.key, given) == given, "one patient, two numbers"
        if self.owner.get(given) == claim.study:  # known by the study alone so far
            del self.owner[given]
        assert self.owner.setdefault(given, claim.key) == claim.key, "one number, two patients"

    def reject(self, never: Reject, claim: Who, study: str) -> None:
        if never.reason == "two-patients":
            assert study in self.bound
        else:
            assert never.reason == "identity-conflict"
            assert claim.key in self.number

    @rule(rows=st.lists(st.tuples(KEYS.filter(bool), NUMBERS), max_size=4))
    def bring(self, rows: list[tuple[str, int]]) -> None:
        before = dump(self.state)
        number, owner = dict(self.number), dict(self.owner)
        fits = True
        for patient_id, wanted in rows:
            key = id_key(patient_id, "")
            fits = fits and wanted not in self.retired
            fits = fits and number.setdefault(key, wanted) == wanted and owner.setdefault(wanted, key) == key
        try:
            self.state.assign(Assignment("here", id_key(patient_id, ""), wanted) for patient_id, wanted in rows)
        except ConfigError:
            assert not fits
            assert dump(self.state) == before
        else:
            assert fits
            self.number, self.owner = number, owner

    @rule(which=NUMBERS)
    def forget(self, which: int) -> None:
        if which not in self.owner:
            return
        database = sqlite3.connect(self.state.path / "identities.sqlite")
        with database:
            database.execute("DELETE FROM patients WHERE number = ?", (which,))
        database.close()
        self.retired.add(which)
        del self.owner[which]
        self.number = {key: number for key, number in self.number.items() if number != which}
        self.bound = {study: number for study, number in self.bound.items() if number != which}

    @invariant()
    def nothing_is_left_of_the_forgotten(self) -> None:
        database = sqlite3.connect(self.state.path / "identities.sqlite")
        for table in ("patients", "studies", "traits"):
            assert self.retired.isdisjoint(number for (number,) in database.execute(f"SELECT number FROM {table}"))
        database.close()


WhoIsWho.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
test_over_every_history_no_number_has_two_patients_and_no_patient_two = WhoIsWho.TestCase
