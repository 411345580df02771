"""Writes what `deidentify` gives: the bytes depend on nothing but the data set."""

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final

from pydicom.charset import default_encoding
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_file_meta_info
from pydicom.tag import BaseTag
from pydicom.uid import UID

from dicomrx.deid.encoding import Encoding
from dicomrx.deid.reading import element_at, quiet, raw_text

# The same as the receiver's: one program, one UID (made from a random UUID, PS3.5 B.2).
IMPLEMENTATION_CLASS_UID: Final = "2.25.180359664797480045516660657176646159747"
IMPLEMENTATION_VERSION: Final = "DICOMRX"

_UNDEFINED: Final = 0xFFFFFFFF
_LONG: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_NUL_PADDED: Final = frozenset({"UI", "OB", "UN"})
_DEFLATE_LEVEL: Final = 6


def raw(tag: int, vr: str, value: bytes, encoding: Encoding, *, undefined: bool = False) -> RawDataElement:
    """An element from its bytes, padded to even length; `undefined` keeps encapsulated pixel data without a length."""
    if len(value) & 1:
        value += b"\0" if vr in _NUL_PADDED else b" "
    length = _UNDEFINED if undefined else len(value)
    return RawDataElement(BaseTag(tag), None if encoding.implicit else vr, length, value, 0, encoding.implicit, encoding.little)


def file_meta(dataset: Dataset, transfer_syntax: str) -> FileMetaDataset:
    """New file meta information: nothing of the old one but the transfer syntax."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = UID(raw_text(dataset, 0x00080016))
    meta.MediaStorageSOPInstanceUID = UID(raw_text(dataset, 0x00080018))
    meta.TransferSyntaxUID = UID(transfer_syntax)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION
    return meta


def write(dataset: Dataset, stream: BinaryIO) -> None:
    """The file of a data set from `deidentify`: an empty preamble, its file meta, and the data set in its own transfer syntax."""
    encoding = Encoding.of(str(dataset.file_meta.TransferSyntaxUID))
    head = DicomBytesIO()
    with quiet():
        write_file_meta_info(head, dataset.file_meta)
    stream.write(bytes(128) + b"DICM" + head.getvalue())
    chunks = encoded(dataset, encoding)
    stream.writelines(_deflated(chunks) if encoding.deflated else chunks)


def encoded(dataset: Dataset, encoding: Encoding) -> Iterator[bytes]:
    """The bytes of a data set or item, in pieces; big values are not copied."""
    for tag in sorted(dataset.keys()):
        element = element_at(dataset, tag)
        if isinstance(element, RawDataElement):
            yield from _raw_element(element, encoding)
        elif element.VR == "SQ":
            yield from _sequence(element, encoding)
        else:
            yield _decoded_element(element, encoding)


def _raw_element(element: RawDataElement, encoding: Encoding) -> Iterator[bytes]:
    value = element.value or b""
    yield _header(element.tag, element.VR or "", element.length, encoding)
    yield value
    if element.length == _UNDEFINED:
        yield _item_header(0xE0DD, 0, encoding)


def _sequence(element: DataElement, encoding: Encoding) -> Iterator[bytes]:
    items = [b"".join(encoded(item, encoding)) for item in element.value]
    yield _header(element.tag, "SQ", sum(8 + len(item) for item in items), encoding)
    for item in items:
        yield _item_header(0xE000, len(item), encoding)
        yield item


def _decoded_element(element: DataElement, encoding: Encoding) -> bytes:
    """An element that somebody looked at through pydicom after de-identification."""
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = encoding.implicit, encoding.little
    write_data_element(buffer, element, default_encoding)
    return buffer.getvalue()


def _header(tag: int, vr: str, length: int, encoding: Encoding) -> bytes:
    order = "<" if encoding.little else ">"
    group, element = tag >> 16, tag & 0xFFFF
    if encoding.implicit:
        return struct.pack(f"{order}HHI", group, element, length)
    if vr in _LONG:
        return struct.pack(f"{order}HH2sxxI", group, element, vr.encode("ascii"), length)
    return struct.pack(f"{order}HH2sH", group, element, vr.encode("ascii"), length)


def _item_header(element: int, length: int, encoding: Encoding) -> bytes:
    return struct.pack("<HHI" if encoding.little else ">HHI", 0xFFFE, element, length)


def _deflated(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """PS3.5 A.5: a raw deflate stream, of even length."""
    deflate = zlib.compressobj(_DEFLATE_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    length = 0
    for chunk in chunks:
        piece = deflate.compress(chunk)
        length += len(piece)
        yield piece
    rest = deflate.flush()
    yield rest + b"\0" * ((length + len(rest)) & 1)
