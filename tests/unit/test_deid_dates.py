"""Dates that move: by the same days everywhere, at the same time of day, so that intervals stay."""

import datetime as dt
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomrx.deid import Context, deidentify, named_profile
from dicomrx.deid.dates import capped_age, is_placeholder, is_time, kept, moved
from tests.unit.deid_files import CONTEXT, instance_of, item, joined, seen, tag_of

RESEARCH = named_profile("research")
DAYS = st.dates(dt.date(1901, 1, 1), dt.date(2100, 12, 31))
SHIFTS = st.integers(366, 3650)
CLOCKS = st.sampled_from(("", "10", "1011", "101112", "235960", "101112.1", "101112.123456", "101112+0100", "101112.12-0330", "-0800"))
STRINGS = st.text(min_size=1, max_size=30) | st.from_regex(r"[0-9+.\-]{1,24}", fullmatch=True)


def written(day: dt.date, mark: str = "") -> str:
    return f"{day.year:04d}{mark}{day.month:02d}{mark}{day.day:02d}"


@given(DAYS, SHIFTS, CLOCKS, st.sampled_from(("", ".", "-")))
def test_a_date_moves_by_whole_days_and_keeps_its_time_of_day(day: dt.date, shift: int, clock: str, mark: str) -> None:
    earlier = written(day - dt.timedelta(days=shift))
    assert moved("DA", written(day, mark), shift) == earlier
    assert moved("DT", written(day) + clock, shift) == earlier + clock
    assert kept("DT", written(day, mark)) == written(day)


@given(DAYS, DAYS, SHIFTS)
def test_a_range_moves_as_its_ends_do(first: dt.date, last: dt.date, shift: int) -> None:
    ends = [str(moved("DA", written(day), shift)) for day in (first, last)]
    for vr in ("DA", "DT"):
        assert moved(vr, f"{written(first)}-{written(last)}", shift) == "-".join(ends)
        assert moved(vr, f"-{written(last)}", shift) == f"-{ends[1]}"


@given(STRINGS, SHIFTS)
def test_whatever_stands_for_a_date_moves_to_a_valid_one_or_not_at_all(text: str, shift: int) -> None:
    for vr in ("DA", "DT"):
        if is_placeholder(vr, text):
            continue
        made = moved(vr, text, shift)
        assert made is None or (made != text and kept(vr, made) == made)


@given(STRINGS)
def test_an_age_over_89_is_never_told(text: str) -> None:
    for unit in "DWMY":
        made = capped_age(text + unit)
        assert made is None or (len(made) == 4 and int(made[:3]) <= (90 if made[3] == "Y" else 999))
        assert made is None or capped_age(made) == made


@pytest.mark.parametrize("text", ["24", "2400", "1060", "101161", "10:11", "101112.1234567", " ", "1011-"])
def test_what_is_no_time_is_none(text: str) -> None:
    assert not is_time(text)


@given(st.lists(DAYS, min_size=2, max_size=6), SHIFTS)
def test_intervals_stay_within_and_across_studies_at_every_depth(days: list[dt.date], shift: int) -> None:
    context = Context("sub-001", CONTEXT.uid_key, date_shift=shift)
    outputs = []
    for day in days:
        if is_placeholder("DA", written(day)):
            return
        inner = joined({tag_of("StudyDate"): ("DA", written(day).encode())})
        parts = {tag_of("StudyDate"): ("DA", written(day).encode()), tag_of("ReferencedImageSequence"): ("SQ", item(inner))}
        output = seen(deidentify(instance_of(parts), context, RESEARCH))
        assert output.ReferencedImageSequence[0].StudyDate == output.StudyDate
        outputs.append(dt.datetime.strptime(output.StudyDate, "%Y%m%d").replace(tzinfo=dt.UTC).date())
    assert [b - a for a, b in pairwise(outputs)] == [b - a for a, b in pairwise(days)]


def test_two_patients_move_by_different_days() -> None:
    day = instance_of({tag_of("StudyDate"): ("DA", b"20240517")})
    moved_to = {
        seen(deidentify(day, Context("sub-001", CONTEXT.uid_key, date_shift=shift), RESEARCH)).StudyDate for shift in range(366, 3651, 100)
    }
    assert len(moved_to) == 33


@pytest.mark.parametrize("shift", [0, 1, 365, 3651, -400])
def test_a_shift_that_would_give_dates_away_is_refused(shift: int) -> None:
    with pytest.raises(ValueError, match="366 to 3650"):
        Context("sub-001", CONTEXT.uid_key, date_shift=shift)
