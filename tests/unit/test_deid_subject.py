"""Reports tell a birth date and an age in content items: no option keeps, moves or tells these."""

import pytest
from pydicom.dataset import Dataset

from dicomrx.deid import Profile, deidentify, describe, look_again, named_profile
from tests.unit.deid_files import CONTEXT, instance_of, item, joined, seen, tag_of

PROFILES = [named_profile(f"{name}+clean-structured") for name in ("research", "basic+full-dates", "basic+modified-dates+retain-patient")]


def left(profile: Profile, concept: bytes, **values: tuple[str, bytes]) -> Dataset:
    """What is left of a content item about a concept; `values` are keyword=(VR, value)."""
    code = item(joined({tag_of("CodeValue"): ("SH", concept)}))
    parts = {tag_of("ConceptNameCodeSequence"): ("SQ", code)} | {tag_of(keyword): value for keyword, value in values.items()}
    instance = instance_of({tag_of("ContentSequence"): ("SQ", item(joined(parts)))})
    output = deidentify(instance, CONTEXT, profile)
    assert look_again(instance, output, CONTEXT.pseudonym, profile) == []
    made: Dataset = seen(output).ContentSequence[0]
    return made


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.label)
def test_a_birth_date_in_a_report_stays_and_moves_under_no_option(profile: Profile) -> None:
    for concept in (b"121031", b"21112-8"):
        assert left(profile, concept, Date=("DA", b"19280917")).Date == "19000101"
        assert left(profile, concept, DateTime=("DT", b"19280917")).DateTime == "19000101000000"
    assert left(profile, b"111526", DateTime=("DT", b"20240517")).DateTime != "19000101000000"


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.label)
def test_an_age_in_a_report_is_told_under_no_option(profile: Profile) -> None:
    number = item(joined({tag_of("NumericValue"): ("DS", b"97")}))
    assert not left(profile, b"121033", MeasuredValueSequence=("SQ", number)).MeasuredValueSequence
    assert left(profile, b"121033", NumericValue=("DS", b"97")).NumericValue == 0
    assert left(profile, b"121033", TextValue=("UT", b"97")).TextValue == "ANON"
    assert left(profile, b"121206", MeasuredValueSequence=("SQ", number)).MeasuredValueSequence[0].NumericValue == 97


def test_what_a_profile_says_of_itself_tells_this_rule() -> None:
    assert any("report's subject" in row.what for row in describe(PROFILES[0]))
