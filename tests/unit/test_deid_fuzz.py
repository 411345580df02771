"""Data sets nobody would make on purpose: each is de-identified or refused with a reason, and none crashes anything.

DICOMRX_EXAMPLES sets how many are made (10,000 for a release; a few hundred here).
"""

import io
import os
import struct
import warnings
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.datadict import DicomDictionary  # type: ignore[attr-defined]

from dicomrx.deid import BASIC, Profile, check, deidentify, look_again, needles, read, safe_private, survivors, write
from dicomrx.deid.rules import table
from dicomrx.errors import Reject
from tests.unit.deid_files import (
    BIG_ENDIAN,
    CONTEXT,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    LONG,
    PROFILES,
    bundled,
    element,
    file_of,
    instance_of,
    item,
    needed,
    tag_of,
)

EXAMPLES = int(os.environ.get("DICOMRX_EXAMPLES", "300"))
REASONS = {"unreadable", "truncated", "no-uid", "malformed", "encapsulated-document", "burned-in", "second-look"}
SYNTAXES = (EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED)
SHORT = ("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "PN", "SH", "SL", "SS", "ST", "TM", "UI", "UL", "US")
VRS = st.sampled_from((*SHORT, *sorted(LONG - {"SQ"})))
PUBLIC = sorted(tag for tag in DicomDictionary if tag >> 16 not in {0, 2, 4, 0xFFFE} and tag < 0x7FE00000)
# What options keep or clean is drawn as often as what names somebody.
CHOSEN = tuple(int(tag, 16) for tag, row in table().items() if row.get("options") and "x" not in tag and tag != "private" and tag > "0008")
PRIVATE = tuple(int(tag.replace("xx", "10"), 16) for _, tag, *_ in safe_private.table())
CREATORS = st.sampled_from(safe_private.table()).map(lambda row: (int(row[1][:4] + "0010", 16), row[0].encode("ascii")))
LIKELY = tuple(
    tag_of(word) for word in ("PatientName", "PatientID", "StudyDate", "ImageComments", "CodeMeaning", "ConvolutionKernel", "Rows")
)
TAGS = st.one_of(
    st.sampled_from(LIKELY), st.sampled_from(CHOSEN), st.sampled_from(PRIVATE), st.sampled_from(PUBLIC), st.integers(0x00080000, 0x7FDFFFFF)
)
CHARSETS = st.sampled_from(
    (b"", b"ISO_IR 100", b"ISO_IR 192", b"\\ISO 2022 IR 87", b"GB18030", b"ISO_IR 13", b"ISO_IR 999", b"\xff", b"ISO_IR 166")
)
WORDS = st.sampled_from(
    (b"Quixano^Alonso", b"19470923", b"HID-778899", b"1.2.3.4.3", b"\x1b$B;3ED\x1b(B", b"\\", b"^^=", b"0" * 70, b"20241301")
)
VALUES = st.one_of(WORDS, st.binary(max_size=24), st.text(max_size=12).map(lambda text: text.encode("utf-8")))


@st.composite
def any_element(draw: st.DrawFn, syntax: str, depth: int) -> tuple[int, bytes]:
    tag = draw(TAGS)
    if depth and draw(st.integers(0, 3)) == 0:
        return tag, _sequence(draw, tag, syntax, depth)
    own = DicomDictionary[tag][0].split(" or ")[0] if tag in DicomDictionary and draw(st.booleans()) else draw(VRS)
    return tag, element(tag, own if own not in {"SQ", "NONE", ""} else "LO", draw(VALUES), syntax)


def _sequence(draw: st.DrawFn, tag: int, syntax: str, depth: int) -> bytes:
    """Items and sequence each with a length or without one; as SQ, or as UN, whose items are implicit VR little endian."""
    order, unknown = (">" if syntax == BIG_ENDIAN else "<"), draw(st.integers(0, 5)) == 0
    inner = IMPLICIT if unknown and syntax != BIG_ENDIAN else syntax
    content = b""
    for _ in range(draw(st.integers(0, 3))):
        body = _elements(draw, inner, depth - 1)
        if draw(st.booleans()):
            content += item(body, inner)
        else:
            content += struct.pack(f"{order}HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + body + struct.pack(f"{order}HHI", 0xFFFE, 0xE00D, 0)
    if draw(st.booleans()):
        return element(tag, "UN" if unknown else "SQ", content, syntax)
    end = struct.pack(f"{order}HHI", 0xFFFE, 0xE0DD, 0)
    head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    head += b"" if syntax == IMPLICIT else struct.pack(f"{order}2sxx", b"UN" if unknown else b"SQ")
    return head + struct.pack(f"{order}I", 0xFFFFFFFF) + content + end


def _elements(draw: st.DrawFn, syntax: str, depth: int, base: dict[int, bytes] | None = None) -> bytes:
    made = dict(base or {})
    made |= {tag: element(tag, "LO", creator, syntax) for tag, creator in draw(st.lists(CREATORS, max_size=2))}
    for tag, data in draw(st.lists(any_element(syntax, depth), max_size=6)):
        made.setdefault(tag, data)
    return b"".join(data for _, data in sorted(made.items()))


@st.composite
def files(draw: st.DrawFn) -> bytes:
    syntax = draw(st.sampled_from(SYNTAXES))
    encoded = EXPLICIT if syntax == DEFLATED else syntax
    base = {tag: element(tag, vr, value, encoded) for tag, (vr, value) in needed().items()}
    base[0x00080005] = element(0x00080005, "CS", draw(CHARSETS), encoded)
    dataset = _elements(draw, encoded, draw(st.integers(0, 4)), base)
    if draw(st.booleans()):
        dataset += element(0x7FE00010, "OW", draw(st.binary(max_size=16)) * draw(st.sampled_from((1, 400, 10_000))), encoded)
        if draw(st.booleans()):
            dataset += element(0xFFFCFFFC, "OB", draw(st.binary(max_size=16)), encoded)
    if draw(st.integers(0, 9)) == 0:
        dataset = dataset[: draw(st.integers(0, len(dataset)))]
    if syntax == DEFLATED:
        deflate = zlib.compressobj(wbits=-15)
        dataset = deflate.compress(dataset) + deflate.flush()
    return file_of(dataset, syntax)


def outcome(file: bytes, profile: Profile = BASIC) -> str:
    """What becomes of a file; checks whatever comes out."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            instance = read(io.BytesIO(file))
            check(instance, "quarantine")
            output = deidentify(instance, CONTEXT, profile)
            look_again(instance, output, CONTEXT.pseudonym, profile)
        except Reject as refused:
            assert refused.reason in REASONS, refused.reason  # noqa: PT017 - the reason is the result
            return refused.reason
        made = io.BytesIO()
        write(output, made)
        made.seek(0)
        again = read(made)
        assert survivors(needles(instance, profile), again.dataset, pseudonym=CONTEXT.pseudonym, profile=profile) == []
        assert again.transfer_syntax == instance.transfer_syntax
    return "accepted"


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
@given(files(), st.sampled_from(PROFILES))
def test_whatever_comes_is_deidentified_or_refused_with_a_reason(file: bytes, profile: Profile) -> None:
    assert outcome(file, profile)


@pytest.mark.parametrize("inner", [b"ISO_IR\x00X\x00", None], ids=["a zero in its name", "a sequence"])
def test_an_item_whose_character_set_pydicom_chokes_on_is_refused(inner: bytes | None) -> None:
    """Found by the property above: the structure is sound, and pydicom looks the set up while it parses the items."""
    charset = element(0x00080005, "CS", inner) if inner else element(0x00080005, "SQ", item(b""))
    private = element(0x00091001, "SQ", item(charset + element(0x00080104, "LO", b"x")))
    head, tail = sorted(needed().items())[:2], sorted(needed().items())[2:]
    file = b"".join(element(tag, *value) for tag, value in head) + private + b"".join(element(tag, *value) for tag, value in tail)
    assert outcome(file_of(file)) in {"unreadable", "accepted"}


def test_most_of_what_is_made_here_is_accepted_so_the_property_says_something() -> None:
    seen: list[str] = []

    @settings(max_examples=100, suppress_health_check=list(HealthCheck), deadline=None, database=None)
    @given(files(), st.sampled_from(PROFILES))
    def collect(file: bytes, profile: Profile) -> None:
        seen.append(outcome(file, profile))

    collect()
    assert seen.count("accepted") > len(seen) / 3, seen


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.label)
def test_every_bundled_file_is_deidentified_or_refused_with_a_reason(profile: Profile) -> None:
    results = [outcome(path.read_bytes(), profile) for path in bundled()]
    assert results.count("accepted") >= 100


def test_an_instance_that_has_only_what_it_needs_is_accepted() -> None:
    assert instance_of({}).dataset
    assert outcome(file_of(b"".join(element(tag, vr, value) for tag, (vr, value) in sorted(needed().items())))) == "accepted"
