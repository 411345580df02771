"""Equal by two ways, byte for byte: what this program parses, holds and writes itself, and what pydicom reads of the same file."""

import io
import struct
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomrx.deid import Profile, deidentify, read, write
from dicomrx.deid.own_words import own_words
from dicomrx.errors import Reject
from tests.unit import deid_oracle
from tests.unit.deid_files import CONTEXT, EXPLICIT, IMPLICIT, LONG, PROFILES, bundled, element, file_of, item, joined, needed, tag_of
from tests.unit.test_deid_fuzz import EXAMPLES, files

END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


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
    try:
        wanted = deid_oracle.deidentified(file, end, replace(CONTEXT, own_words=words), profile)
    except deid_oracle.NoOracleError:
        return False
    assert made.getvalue() == wanted
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


# What real files hold that the makers of `files` never make: (keyword, VR, value), among what the Basic Profile keeps.
ODD = (
    ("SOPClassUID", "UI", b"1.2.840.10008.5.1.4.1.1.4"),
    ("KVP", "DS", b"120"),
    ("ConvolutionKernel", "SH", b"B30"),
    ("LUTData", "OW", b"\1\2\3"),
    ("PixelData", "OW", b"\1\2\3"),
    ("PixelData", "OB", bytes(70_001)),
)


def unpadded(tag: int, vr: str, value: bytes, syntax: str) -> bytes:
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if syntax == IMPLICIT:
        return head + struct.pack("<I", len(value)) + value
    return head + vr.encode() + struct.pack("<xxI" if vr in LONG else "<H", len(value)) + value


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
@pytest.mark.parametrize(("keyword", "vr", "value"), ODD, ids=lambda part: str(part)[:20])
def test_values_of_odd_length_come_out_the_same_by_both_ways(keyword: str, vr: str, value: bytes, syntax: str) -> None:
    parts = {tag: unpadded(tag, *found, syntax) for tag, found in needed().items()} | {
        tag_of(keyword): unpadded(tag_of(keyword), vr, value, syntax)
    }
    assert is_equal(file_of(b"".join(part for _, part in sorted(parts.items())), syntax), PROFILES[0])


@pytest.mark.parametrize("delimited", [False, True])
@pytest.mark.parametrize("vr", [b"UN", b"SQ"])
def test_items_of_implicit_vr_in_explicit_vr_come_out_the_same_by_both_ways(vr: bytes, delimited: bool) -> None:
    """As the standard wants them in UN, and as some writers leave them elsewhere."""
    inner = item(joined({tag_of("KVP"): ("DS", b"120"), tag_of("PatientName"): ("PN", b"Quixano")}, IMPLICIT))
    tag = struct.pack("<HH", tag_of("CTExposureSequence") >> 16, tag_of("CTExposureSequence") & 0xFFFF)
    sequence = tag + vr + (struct.pack("<xxI", 0xFFFFFFFF) + inner + END if delimited else struct.pack("<xxI", len(inner)) + inner)
    parts = {tag: unpadded(tag, *found, EXPLICIT) for tag, found in needed().items()} | {tag_of("CTExposureSequence"): sequence}
    assert is_equal(file_of(b"".join(part for _, part in sorted(parts.items()))), PROFILES[0])


def test_a_safe_private_element_without_a_length_is_no_value_by_both_ways() -> None:
    """Found among ten thousand by the property above: what the standard lists as a number came as an empty sequence."""
    parts = {tag: element(tag, *found, IMPLICIT) for tag, found in needed().items()}
    parts |= {0x00E10010: element(0x00E10010, "LO", b"ELSCINT1", IMPLICIT), 0x00E11021: struct.pack("<HHI", 0xE1, 0x1021, 0xFFFFFFFF) + END}
    file = file_of(b"".join(part for _, part in sorted(parts.items())), IMPLICIT)
    assert is_equal(file, PROFILES[1])
    assert 0x00E11021 not in deidentify(read(io.BytesIO(file)), CONTEXT, PROFILES[1]).dataset
