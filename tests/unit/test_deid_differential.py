"""Equal by two ways, byte for byte: what this program parses, holds and writes itself, and what pydicom reads of the same file."""

import io
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomrx.deid import Profile, deidentify, read, write
from dicomrx.deid.own_words import own_words
from dicomrx.errors import Reject
from tests.unit import deid_oracle
from tests.unit.deid_files import CONTEXT, PROFILES, bundled
from tests.unit.test_deid_fuzz import EXAMPLES, files


def is_equal(file: bytes, profile: Profile) -> bool:
    """True where both ways give the same; False where there is nothing to compare."""
    stream = io.BytesIO(file)
    try:
        instance = read(stream)
        end = stream.tell()
        output = deidentify(instance, CONTEXT, profile)
    except Reject:
        return False
    made = io.BytesIO()
    write(output, made)
    words = own_words(instance.dataset, profile) if profile.cleans else frozenset[str]()
    assert made.getvalue() == deid_oracle.deidentified(file, end, replace(CONTEXT, own_words=words), profile)
    return True


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.label)
def test_every_bundled_file_comes_out_the_same_by_both_ways(profile: Profile) -> None:
    assert sum(is_equal(path.read_bytes(), profile) for path in bundled()) > 150


@pytest.mark.parametrize("window", [16, 1 << 16], ids=["small window", "window"])
def test_whatever_comes_comes_out_the_same_by_both_ways(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window of 16 bytes ends inside everything, and leaves all longer values in the file."""
    monkeypatch.setattr("dicomrx.deid.structure.WINDOW", window)
    compared = []

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
    @given(files(), st.sampled_from(PROFILES))
    def compare(file: bytes, profile: Profile) -> None:
        compared.append(is_equal(file, profile))

    compare()
    assert sum(compared) > len(compared) / 3
