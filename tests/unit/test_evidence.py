import hypothesis.strategies as st
import pytest
from hypothesis import given

from dicomrx.spool import durable, evidence
from dicomrx.spool.completion import CEILING, QUIET, Rules, findings, wait
from dicomrx.spool.evidence import Sighting
from dicomrx.spool.intake import Intake
from dicomrx.spool.layout import Spool
from dicomrx.spool.ledger import Fate
from dicomrx.spool.names import Arrival
from dicomrx.spool.studies import Study
from tests.spool_rig import INSTANCE, SECOND, SERIES, STUDY, die, filed, open_spool, receive

SLOW = Rules(60, {"PACS": 600, "FAST": 5}, {"MR": 300, "CR": 10})


@pytest.fixture
def intake(spool: Spool) -> Iterator[Intake]:
    intake = Intake(spool)
    yield intake
    intake.stop(cut=False)


def see(  # noqa: PLR0913  what an arrival may tell
    spool: Spool,
    instance: str = INSTANCE,
    number: str = "1",
    *,
    modality: str = "CT",
    calling: str = "CT1",
    fate: Fate = Fate.FILED,
    arrival: Arrival | None = None,
) -> None:
    arrival = arrival or Arrival(1, 2, "0123abcd", 0, 1)
    with Study.locked(spool, STUDY):
        evidence.note(spool, STUDY, Sighting.of(arrival, fate, (SERIES, instance), (number, modality, calling)))


def told(spool: Spool, rules: Rules = SLOW) -> object:
    return findings(spool, STUDY, Study(spool, STUDY).entries(), rules)


pseudonyms = st.integers(0, 2**128 - 1).map("2.25.{}".format)


@given(
    st.builds(
        Sighting,
        fate=st.sampled_from(Fate),
        run=st.from_regex(r"[0-9a-f]{8}", fullmatch=True),
        association=st.integers(0, 10**9),
        series=pseudonyms,
        instance=pseudonyms,
        number=st.none() | st.integers(-(10**11), 10**11),
        modality=st.just("") | st.from_regex(r"[A-Z0-9_]{1,16}", fullmatch=True),
        calling_ae=st.from_regex(r"[ -\[\]-~]{0,16}", fullmatch=True),
    )
)
def test_a_sighting_survives_its_line(sighting: Sighting) -> None:
    assert Sighting.parse(str(sighting)) == sighting


@given(st.text(), st.text(), st.text())
def test_whatever_an_instance_tells_makes_one_line_of_known_form(number: str, modality: str, calling: str) -> None:
    sighting = Sighting.of(Arrival(1, 2, "0123abcd", 3, 4), Fate.FILED, (SERIES, INSTANCE), (number, modality, calling))
    assert len(str(sighting).splitlines()) == 1
    assert Sighting.parse(str(sighting)) == sighting
