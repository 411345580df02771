"""Who an instance says its patient is: one key for one patient, however it is written, and none for what says nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomrx.vault import Placeholders, Who, identify
from tests.unit.vault_files import OURS

NOTHING = [
    "", "  ", "0", "00000", "9999", "\uff10\uff10", "UNKNOWN", "anonymous", "Anonymized", "-", "?", "\0", "n/a", "N/A ", "None", "XXX",
    "No  Name", "Unbekannt", "Inconnu", "Ok\u00e4nd", "An\u00f3nimo", "TEST", "19000101",
]  # fmt: skip
QUIXANO = {"name": "Quixano^Alonso", "birth_date": "19470923"}


def claim(placeholders: Placeholders = OURS, /, **facts: str) -> Who:
    says = {"patient_id": "", "issuer": "", "name": "", "birth_date": "", "study_uid": "1.2.3", **facts}
    return identify(placeholders=placeholders, **says)


def key(placeholders: Placeholders = OURS, /, **facts: str) -> str:
    return claim(placeholders, **facts).key


def families(name: str) -> frozenset[str]:
    return claim(name=name).traits["family"]


@pytest.mark.parametrize("placeholder", NOTHING)
def test_a_placeholder_is_no_identity(placeholder: str) -> None:
    assert key(patient_id=placeholder, **QUIXANO) == key(**QUIXANO)
    assert key(patient_id=placeholder, name=placeholder, birth_date="19470923") == key()
    assert key(patient_id=placeholder, name=f"{placeholder}^{placeholder}", birth_date="19470923") == key()
    assert key(patient_id=placeholder, name="Quixano^Alonso", birth_date=placeholder) == key()


@pytest.mark.parametrize("said", ["12", "0012", "X1", "A", "Test 1", "UNKNOWN-17", "19470923", "NOTFALL", "Nadia"])
def test_what_only_looks_like_a_placeholder_is_an_id(said: str) -> None:
    assert key(patient_id=said) != key()


@pytest.mark.parametrize("said", ["NOTFALL", "notfall ", "Zentrale  Notaufnahme", "ZENTRALE^NOTAUFNAHME", "Zentrale^Notaufnahme^^^"])
def test_a_site_adds_placeholders_of_its_own_for_ids_and_names_alike(said: str) -> None:
    ours = Placeholders(("Notfall", "zentrale notaufnahme"))
    assert key(ours, patient_id=said, **QUIXANO) == key(**QUIXANO)
    assert key(ours, name=said, birth_date="19470923") == key()
    assert not claim(ours, name=said).traits["family"]
    assert key(ours, patient_id="unknown") == key()
    assert key(patient_id=said) != key()


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
        assert (issuer.casefold().split(), f"A{patient_id}".split()) == (other_issuer.casefold().split(), f"A{other_id}".split())


@pytest.mark.parametrize(
    "name", ["Quixano", "QUIXANO^Al", "Quixano^^^Don", "quix\u00e1no^A", " Quixano ^A", "Qui-xano", "Qui'xano^A", "\uff31uixano"]
)
def test_a_family_name_is_the_same_however_it_is_accented_cased_and_punctuated(name: str) -> None:
    assert families(name) == families("Quixano^Alonso") == {"quixano"}


def test_a_family_name_is_said_in_every_component_group() -> None:
    assert families("Yamada^Tarou=\u5c71\u7530^\u592a\u90ce=\u3084\u307e\u3060^\u305f\u308d\u3046") == {
        "yamada",
        "\u5c71\u7530",
        "\u3084\u307e\u305f",
    }
    assert families("=\u5c71\u7530^\u592a\u90ce") == {"\u5c71\u7530"}


@pytest.mark.parametrize("name", ["", "^Alonso", "Unknown^Alonso", "==", "-^A", "X^Y"])
def test_a_family_name_that_says_nothing_is_none(name: str) -> None:
    assert not families(name)


def test_vowel_signs_are_letters_not_accents() -> None:
    assert families("\u0930\u0940\u0924\u093e") != families("\u0930\u0941\u0924\u093f")


def test_a_birth_date_that_says_nothing_is_none() -> None:
    assert claim(birth_date="19470923").traits["born"] == {"19470923"}
    assert not claim(birth_date="00000000").traits["born"]


def test_only_the_study_speaks_for_who_says_nothing_else() -> None:
    assert claim(name="Quixano^Alonso").says_nobody
    assert claim(birth_date="19470923").says_nobody
    assert not claim(**QUIXANO).says_nobody
    assert not claim(patient_id="A1").says_nobody
    assert "A1" not in repr(claim(patient_id="A1"))
