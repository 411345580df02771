"""Values planted in every attribute, VR and place that the profile does not keep: none of them comes out."""

import datetime as dt
import io
import re
import zlib
from collections.abc import Iterator

import pytest
from pydicom.datadict import DicomDictionary, dictionary_VR  # type: ignore[attr-defined]

from dicomrx.deid import BASIC, Profile, read
from dicomrx.deid import dates as dates_of
from tests.unit.deid_files import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    PROFILES,
    after,
    element,
    file_of,
    item,
    joined,
    needed,
    tag_of,
)

# Of values in four places each: what an option that keeps something keeps at the least.
LEAST_KEPT = {
    "retain-uids": 200,
    "retain-device": 100,
    "retain-institution": 30,
    "retain-patient": 8,
    "full-dates": 500,
    "modified-dates": 150,
}
# Kept sequences, so that what lies inside them is reached by recursion only.
CHAIN = ("RadiopharmaceuticalInformationSequence", "SharedFunctionalGroupsSequence", "ReferencedImageSequence")
TOKENS = frozenset({"AE", "LO", "LT", "OB", "OW", "PN", "SH", "ST", "UC", "UN", "UR", "UT"})


class Planter:
    """Makes values that are valid for their VR and stand nowhere else."""

    def __init__(self) -> None:
        self.planted: list[bytes] = []
        self._homes: dict[bytes, tuple[int, str]] = {}

    def value(self, vr: str, home: int | None = None) -> bytes | None:
        """One that is to stand in the attribute `home`, or in a code inside it where that is a sequence."""
        number = len(self.planted)
        made = self._made(vr, number)
        if made is not None:
            self.planted.append(made)
            if home is not None:
                self._homes[made] = (home, vr)
        return made

    def kept(self, profile: Profile, syntax: str) -> set[bytes]:
        """Those that the profile is to keep: by the table's letter, and where they are what their VR says."""
        return {value for value, (home, vr) in self._homes.items() if _keeps(profile, home, vr, value, syntax)}

    @staticmethod
    def _made(vr: str, number: int) -> bytes | None:
        if vr in TOKENS:
            return b"Cnry%05dQx" % number
        # Whole weeks apart: a shift that is none leaves no two of them alike.
        day = dt.date(1890, 1, 1) + dt.timedelta(weeks=number)
        return {
            "AS": b"%03dY" % (number % 1000) if number < 1000 else None,
            "CS": b"CNRY%05dQ" % number,
            "DA": day.strftime("%Y%m%d").encode(),
            "DS": b"7%06d.25" % number,
            "DT": day.strftime("%Y%m%d").encode() + b"101112.131415",
            "IS": b"77%06d" % number,
            "TM": b"2359%02d.%06d" % (number % 60, number),
            "UI": b"1.9.8877.1%05d" % number,
        }.get(vr)

    def moved(self, days: int) -> set[bytes]:
        """What the dates among them become, which by chance is another of them."""
        dates = ((vr, value) for value, (_, vr) in self._homes.items() if vr in {"DA", "DT"})
        return {str(dates_of.moved(vr, value.decode(), days)).encode() for vr, value in dates}


def _keeps(profile: Profile, tag: int, vr: str, value: bytes, syntax: str) -> bool:
    if dictionary_VR(tag) == "SQ":
        return profile.rule(tag, None if syntax == IMPLICIT else "SQ").code == "R"
    rule = profile.rule(tag, None if syntax == IMPLICIT else vr)
    if not rule.chosen or rule.code not in {"C", "K"} or vr in {"CS", "OB", "OW", "UN"} or tag == tag_of("TimezoneOffsetFromUTC"):
        return False
    return vr == "TM" or (rule.code == "K" and (vr != "AS" or int(value[:3]) < 90))


def attributes(planter: Planter, syntax: str) -> dict[int, tuple[str, bytes]]:
    """One canary in each attribute of the dictionary that the profile changes."""
    made: dict[int, tuple[str, bytes]] = {}
    for tag, (vrs, *_) in DicomDictionary.items():
        vr = vrs.split(" or ")[0]
        if tag >> 16 in {0, 2, 4, 0xFFFE} or BASIC.rule(tag, None).code in {"K", "R"}:
            continue
        if vr == "SQ":
            made[tag] = ("SQ", item(element(tag_of("CodeMeaning"), "LO", planter.value("LO", tag) or b"", syntax), syntax))
        elif value := planter.value(vr, tag):
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


def stands_in(value: bytes, everything: bytes) -> bool:
    """A number is found by chance in the long random ones that pseudonymous UIDs are, so it must stand alone."""
    if value not in everything:
        return False
    return not value.isdigit() or re.search(rb"(?<!\d)" + value + rb"(?!\d)", everything) is not None


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.label)
@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED])
def test_of_thousands_of_planted_values_none_survives_but_what_the_profile_keeps(syntax: str, profile: Profile) -> None:
    planter = Planter()
    file = stressed(planter, syntax)
    before, out = inflated(file, syntax), inflated(after(read(io.BytesIO(file)), profile=profile), syntax)
    planted = {value for value in planter.planted if value in before}
    assert len(planted) > 3000
    kept = planter.kept(profile, syntax) & planted
    assert {value for value in planted - kept if stands_in(value, out)} == set()
    assert {value for value in kept if value not in out} == set()
    assert len(kept) >= sum(LEAST_KEPT.get(option, 0) for option in profile.options)


def inflated(file: bytes, syntax: str) -> bytes:
    """All bytes of a file, whatever its transfer syntax."""
    if syntax != DEFLATED:
        return file
    offset = read(io.BytesIO(file)).dataset_offset
    return file[:offset] + zlib.decompressobj(-15).decompress(file[offset:])
