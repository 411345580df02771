"""Values planted in every attribute, VR and place that the profile does not keep: none of them comes out."""

import datetime as dt
import io
import zlib
from collections.abc import Iterator

import pytest
from pydicom.datadict import DicomDictionary  # type: ignore[attr-defined]

from dicomrx.deid import BASIC, read
from tests.unit.deid_files import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    after,
    element,
    file_of,
    item,
    joined,
    needed,
    tag_of,
)

# Kept sequences, so that what lies inside them is reached by recursion only.
CHAIN = ("RadiopharmaceuticalInformationSequence", "SharedFunctionalGroupsSequence", "ReferencedImageSequence")
TOKENS = frozenset({"AE", "LO", "LT", "OB", "OW", "PN", "SH", "ST", "UC", "UN", "UR", "UT"})


class Planter:
    """Makes values that are valid for their VR and stand nowhere else."""

    def __init__(self) -> None:
        self.planted: list[bytes] = []

    def value(self, vr: str) -> bytes | None:
        number = len(self.planted)
        made = self._made(vr, number)
        if made is not None:
            self.planted.append(made)
        return made

    @staticmethod
    def _made(vr: str, number: int) -> bytes | None:
        if vr in TOKENS:
            return b"Cnry%05dQx" % number
        day = dt.date(1890, 1, 1) + dt.timedelta(days=number)
        return {
            "AS": b"%03dY" % (number % 1000) if number < 1000 else None,
            "CS": b"CNRY%05dQ" % number,
            "DA": day.strftime("%Y%m%d").encode(),
            "DS": b"7%06d.25" % number,
            "DT": day.strftime("%Y%m%d").encode() + b"101112.131415",
            "IS": b"77%06d" % number,
            "TM": b"2359%02d.%06d" % (number % 60, number),
            "UI": b"1.9.8877.%d" % number,
        }.get(vr)


def attributes(planter: Planter, syntax: str) -> dict[int, tuple[str, bytes]]:
    """One canary in each attribute of the dictionary that the profile changes."""
    made: dict[int, tuple[str, bytes]] = {}
    for tag, (vrs, *_) in DicomDictionary.items():
        vr = vrs.split(" or ")[0]
        if tag >> 16 in {0, 2, 4, 0xFFFE} or BASIC.rule(tag, None).code in {"K", "R"}:
            continue
        if vr == "SQ":
            made[tag] = ("SQ", item(element(tag_of("CodeMeaning"), "LO", planter.value("LO") or b"", syntax), syntax))
        elif value := planter.value(vr):
            made[tag] = (vr, value)
    return made


def oddities(planter: Planter, syntax: str) -> dict[int, tuple[str, bytes]]:
    """Canaries where no dictionary looks, and under VRs that are not theirs."""
    unknown = {0x00189FFE: "LO", 0x00209FFE: "UN", 0x50001001: "LT", 0x60001500: "LO", 0x60000022: "LO", 0x60003000: "OW", 0x000B0010: "LO"}
    unknown |= {0x000B1001: "UN", 0x000B1002: "PN", 0x000B1003: "ST", 0xFFFCFFFC: "OB"}
    wrong = {"SliceThickness": "LO", "KVP": "UN", "SmallestImagePixelValue": "OB", "ImagePositionPatient": "ST", "BodyPartExamined": "LO"}
    wrong |= {"FrameTimeVector": "OW"}
    if syntax != IMPLICIT:  # which cannot send text under another VR of text: there a kernel is a kernel
        wrong |= {"Manufacturer": "UT", "ConvolutionKernel": "UN"}
    places = unknown | {tag_of(keyword): vr for keyword, vr in wrong.items()}
    return {tag: (vr, planter.value("LO") or b"") for tag, vr in places.items()}


def smuggled(planter: Planter) -> dict[int, tuple[str, bytes]]:
    """Canaries under the right VR, in values of the kind that stays."""
    names = ("Manufacturer", "ConvolutionKernel", "CodeMeaning", "SegmentLabel", "SequenceName")
    values: dict[int, tuple[str, bytes]] = {}
    for keyword in names:
        planter.planted.append(b"Cnry^Last%05d" % len(planter.planted))
        values[tag_of(keyword)] = (DicomDictionary[tag_of(keyword)][0], planter.planted[-1])
    for keyword, vr in (("KVP", "DS"), ("EchoNumbers", "IS"), ("BodyPartExamined", "CS"), ("CodeValue", "SH"), ("SliceThickness", "DS")):
        planter.planted.append(b"cnry %05d of X" % len(planter.planted))
        values[tag_of(keyword)] = (vr, planter.planted[-1])
    for keyword, vr in (("DiffusionBValue", "FD"), ("MappedPixelValue", "US"), ("FrameIncrementPointer", "AT")):
        planter.planted.append(b"Cy%06d" % len(planter.planted))
        values[tag_of(keyword)] = (vr, planter.planted[-1])
    return values


def level(planter: Planter, syntax: str) -> Iterator[dict[int, tuple[str, bytes]]]:
    yield smuggled(planter)
    yield oddities(planter, syntax)
    yield attributes(planter, syntax)


def nested(planter: Planter, syntax: str) -> bytes:
    """Every kind of canary in items of items, three deep."""
    content = b""
    for keyword in CHAIN:
        items = b"".join(item(joined(elements, syntax), syntax) for elements in level(planter, syntax))
        content = element(tag_of(keyword), "SQ", items + (item(content, syntax) if content else b""), syntax)
    return content


def stressed(planter: Planter, syntax: str, without: frozenset[int] = frozenset()) -> bytes:
    """A whole file of them: top level, items, preamble, meta, behind the pixels; `without` some tags at the top level."""
    encoded = EXPLICIT if syntax == DEFLATED else syntax
    odd = {tag: found for tag, found in oddities(planter, encoded).items() if tag < 0x7FE00010}
    tops = odd | smuggled(planter) | attributes(planter, encoded) | {0x00080016: needed()[0x00080016]}
    inner = nested(planter, encoded)
    chain = tag_of(CHAIN[-1])
    tops = {tag: found for tag, found in tops.items() if tag not in without}
    before = {tag: found for tag, found in tops.items() if tag < chain}
    behind = {tag: found for tag, found in tops.items() if tag > chain} | {0x7FE00010: ("OW", b"\1\2\3\4")}
    trailing = element(0xFFFCFFFC, "OB", planter.value("OB") or b"", encoded) + b"\0\0" + (planter.value("OB") or b"")
    dataset = joined(before, encoded) + inner + joined(behind, encoded) + trailing
    if syntax == DEFLATED:
        deflate = zlib.compressobj(wbits=-15)
        dataset = deflate.compress(dataset) + deflate.flush()
    return file_of(dataset, syntax, preamble=(planter.value("OB") or b"").ljust(128, b"\0"), calling=planter.value("AE") or b"")


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED])
def test_of_thousands_of_planted_values_none_survives(syntax: str) -> None:
    planter = Planter()
    file = stressed(planter, syntax)
    before, out = inflated(file, syntax), inflated(after(read(io.BytesIO(file))), syntax)
    planted = [value for value in planter.planted if value in before]
    assert len(planted) > 3000
    assert [value for value in planted if value in out] == []


def inflated(file: bytes, syntax: str) -> bytes:
    """All bytes of a file, whatever its transfer syntax."""
    if syntax != DEFLATED:
        return file
    offset = read(io.BytesIO(file)).dataset_offset
    return file[:offset] + zlib.decompressobj(-15).decompress(file[offset:])
