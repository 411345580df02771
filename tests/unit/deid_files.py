"""DICOM files made byte by byte, as no library would write them."""

import io
import struct
from pathlib import Path

import pydicom
from pydicom.data.data_manager import DATA_ROOT
from pydicom.datadict import tag_for_keyword

from dicomrx.deid import BASIC, Context, Instance, Output, Profile, deidentify, named_profile, read, write
from dicomrx.deid.options import OPTIONS

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
CT = "1.2.840.10008.5.1.4.1.1.2"
LONG = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
CONTEXT = Context("sub-001", b"a key of the site, 32 bytes long.", date_shift=1234)


# The named ones, each option alone, and all that go together.
ALL_OPTIONS = [frozenset(OPTIONS) - {dates} for dates in ("full-dates", "modified-dates")]
PROFILES = [
    *map(named_profile, ("basic", "research")),
    *(named_profile(f"basic+{option}") for option in OPTIONS),
    *(named_profile("+".join(["basic", *sorted(options)])) for options in ALL_OPTIONS),
]


def tag_of(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return int(tag)


def element(tag: int, vr: str, value: bytes, syntax: str = EXPLICIT) -> bytes:
    order = ">" if syntax == BIG_ENDIAN else "<"
    value += b" " * (len(value) & 1)
    head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    if syntax == IMPLICIT:
        return head + struct.pack(f"{order}I", len(value)) + value
    if vr in LONG:
        return head + struct.pack(f"{order}2sxxI", vr.encode(), len(value)) + value
    return head + struct.pack(f"{order}2sH", vr.encode(), len(value)) + value


def item(content: bytes, syntax: str = EXPLICIT) -> bytes:
    return struct.pack(">HHI" if syntax == BIG_ENDIAN else "<HHI", 0xFFFE, 0xE000, len(content)) + content


def joined(elements: dict[int, tuple[str, bytes]], syntax: str = EXPLICIT) -> bytes:
    return b"".join(element(tag, vr, value, syntax) for tag, (vr, value) in sorted(elements.items()))


def needed() -> dict[int, tuple[str, bytes]]:
    """The least that makes an instance."""
    return {
        0x00080016: ("UI", CT.encode()),
        0x00080018: ("UI", b"1.2.3.4.3"),
        0x0020000D: ("UI", b"1.2.3.4.1"),
        0x0020000E: ("UI", b"1.2.3.4.2"),
    }


def file_of(dataset: bytes, syntax: str = EXPLICIT, preamble: bytes = bytes(128), calling: bytes = b"") -> bytes:
    meta = element(0x00020001, "OB", b"\0\1") + element(0x00020002, "UI", CT.encode()) + element(0x00020010, "UI", syntax.encode() + b"\0")
    if calling:
        meta += element(0x00020016, "AE", calling)
    return preamble + b"DICM" + element(0x00020000, "UL", struct.pack("<I", len(meta))) + meta + dataset


def instance_of(elements: dict[int, tuple[str, bytes]], syntax: str = EXPLICIT) -> Instance:
    return read(io.BytesIO(file_of(joined(needed() | elements, syntax), syntax)))


def after(instance: Instance, context: Context = CONTEXT, profile: Profile = BASIC) -> bytes:
    """The file that comes out."""
    stream = io.BytesIO()
    write(deidentify(instance, context, profile), stream)
    return stream.getvalue()


def seen(output: Output) -> pydicom.FileDataset:
    """What pydicom reads of an output."""
    stream = io.BytesIO()
    write(output, stream)
    return pydicom.dcmread(io.BytesIO(stream.getvalue()))


def bundled() -> list[Path]:
    """Every DICOM file that pydicom's wheel carries."""
    paths = sorted(Path(DATA_ROOT).glob("*_files/**/*"))
    return [path for path in paths if path.is_file() and path.read_bytes()[128:132] == b"DICM"]
