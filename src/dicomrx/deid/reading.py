"""Reads an instance wholly or not at all."""

import logging
import struct
import unicodedata
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, Final, NamedTuple, cast

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.values import convert_SQ

from dicomrx.deid import values
from dicomrx.deid.encoding import Encoding
from dicomrx.deid.structure import end_of_dataset, text_of
from dicomrx.errors import Reject

MAX_INFLATED: Final = 1 << 29

_PREAMBLE: Final = 128
_PREFIX: Final = b"DICM"
_SYNTAX, _CALLING = 0x00020010, 0x00020016
_SOP_CLASS, _SOP, _STUDY, _SERIES = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
_MODALITY, _NUMBER = 0x00080060, 0x00200013
_CHARSET, _NAME, _ID, _ISSUER, _BIRTH = 0x00080005, 0x00100010, 0x00100020, 0x00100021, 0x00100030
PIXELS: Final = (0x7FE00008, 0x7FE00009, 0x7FE00010)
# All that pydicom is known to raise on bytes that are no data set.
_MALFORMED: Final = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, NotImplementedError, OSError, RecursionError, TypeError,
    ValueError, struct.error,
)  # fmt: skip

# pydicom quotes values in what it logs and warns of; none of them may reach a log (PS3.15 says nothing here, design promise 10 does).
logging.getLogger("pydicom").disabled = True

Element = DataElement | RawDataElement


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """Whose instance it is, decoded, in Unicode NFC and without padding; empty where it is not sent."""

    patient_id: str
    issuer: str
    name: str
    birth_date: str


@dataclass(frozen=True, slots=True, repr=False)
class Instance:
    """An instance as it came; the UIDs are the originals. `dataset_offset` is where the bytes of the data set begin in the file."""

    dataset: Dataset
    transfer_syntax: str
    sop_class: str
    study_uid: str
    series_uid: str
    sop_uid: str
    identity: Identity
    calling_ae: str | None
    dataset_offset: int

    @property
    def modality(self) -> str:
        """Its modality as it came; empty where it names none."""
        return raw_text(self.dataset, _MODALITY)

    @property
    def number(self) -> str:
        """Its InstanceNumber as it came; empty where it has none."""
        return raw_text(self.dataset, _NUMBER)

    @property
    def encoding(self) -> Encoding:
        """How the data set was encoded, and will be."""
        return Encoding.of(self.transfer_syntax)


def read(stream: BinaryIO) -> Instance:
    """Everything up to the end of the stream, which must be seekable.

    Raises Reject: "unreadable" (no DICOM file, or broken), "truncated", "no-uid" (the SOP class, or a Study, Series or SOP Instance UID is
    missing or malformed).
    The details name tags, never values. Errors of the machine pass through as OSError.
    """
    if stream.read(_PREAMBLE + len(_PREFIX))[_PREAMBLE:] != _PREFIX:
        raise Reject("unreadable", "not a DICOM file: no DICM behind the preamble")
    with quiet():
        meta = _parse_meta(stream)
        transfer_syntax = raw_text(meta, _SYNTAX)
        if not transfer_syntax or not values.is_single_uid(transfer_syntax.encode("latin-1")):
            raise Reject("unreadable", "the file meta names no transfer syntax (0002,0010)")
        offset = stream.tell()
        dataset = _parse(stream, Encoding.of(transfer_syntax))
    return Instance(
        dataset=dataset,
        transfer_syntax=transfer_syntax,
        sop_class=_uid(dataset, _SOP_CLASS),
        study_uid=_uid(dataset, _STUDY),
        series_uid=_uid(dataset, _SERIES),
        sop_uid=_uid(dataset, _SOP),
        identity=_identity(dataset),
        calling_ae=raw_text(meta, _CALLING) or None,
        dataset_offset=offset,
    )


class Outline(NamedTuple):
    """A file up to its pixels; `pixels` is where in it their value begins, None where it has none, or only in a deflated data set."""

    sop_uid: str
    pixels: int | None


def outline(stream: BinaryIO) -> Outline:
    """Read a file up to its pixels, however long they are; raises Reject "unreadable"."""
    pixels: list[int] = []

    def at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        if tag in PIXELS:
            pixels.append(source.tell())
        return int(tag) >= PIXELS[0]

    stream.seek(_PREAMBLE + len(_PREFIX))
    with quiet():
        encoding = Encoding.of(raw_text(_parse_meta(stream), _SYNTAX))
        source = BytesIO(_inflated(stream)) if encoding.deflated else stream
        try:
            head = read_dataset(source, encoding.implicit, encoding.little, stop_when=at_pixels, specific_tags=[_SOP])
        except _MALFORMED as error:
            raise _refusal(error, "the data set") from error
        uid = raw_text(head, _SOP)
    return Outline(uid, pixels[0] if pixels and not encoding.deflated else None)


def element_at(dataset: Dataset, tag: int) -> Element:
    """The element as it was read: bytes, or items where the sequence had no length. The data set must have it."""
    return cast("Element", dataset.get_item(BaseTag(tag), keep_deferred=True))  # pydicom takes empty values for deferred ones


def bytes_of(element: Element) -> bytes | None:
    """The bytes of a value; None where the element holds items."""
    return element.value or b"" if isinstance(element, RawDataElement) else None


def raw_value(dataset: Dataset, tag: int) -> bytes:
    """The bytes of an element that was read and not touched since; empty where there is none, or a sequence."""
    return (bytes_of(element_at(dataset, tag)) or b"") if BaseTag(tag) in dataset else b""


def raw_text(dataset: Dataset, tag: int) -> str:
    """The value of a string of the default repertoire, without padding."""
    return raw_value(dataset, tag).decode("latin-1").strip(" \0")


def items_of(element: Element) -> Sequence | None:
    """The items of a sequence, parsed without a trace in the data set that holds it; None for an element that is none.

    pydicom's own access would decode the data set's Pixel Representation on the way, and no element here may change under our hands.
    A sequence sent as UN is of implicit VR little endian (PS3.5 6.2.2). Raises Reject "unreadable" where the items cannot be parsed:
    what is sound to walk over can still hold a character set or a nested sequence that pydicom chokes on.
    """
    if not isinstance(element, RawDataElement):
        return element.value if isinstance(element.value, Sequence) else None
    unknown = element.VR == "UN"
    if element.VR == "SQ" or (_is_known_sequence(element.tag) and (element.VR is None or (unknown and element.is_little_endian))):
        try:
            return convert_SQ(element.value or b"", element.is_implicit_VR or unknown, element.is_little_endian)
        except _MALFORMED as error:
            raise _refusal(error, f"the sequence {text_of(element.tag)}") from error
    return None


def _is_known_sequence(tag: BaseTag) -> bool:
    return dictionary_has_tag(tag) and dictionary_VR(tag) == "SQ"


def charset_of(dataset: Dataset, inherited: tuple[str, ...]) -> tuple[str, ...]:
    """The character set that holds in a data set or item; an unknown one counts as ASCII."""
    if BaseTag(_CHARSET) not in dataset:
        return inherited
    value = raw_value(dataset, _CHARSET)
    return values.charset_terms(value) if values.is_charset(value) else ()


def decode(value: bytes, charset: tuple[str, ...]) -> str:
    """The text of a value; where the declared set does not fit, as Latin-1, so that no two values ever become one."""
    plain = values.decoded(value, charset)
    if plain is None and b"\x1b" in value:
        with quiet():
            plain = values.decoded_with_escapes(value, charset)
    if plain is None:
        plain = value.decode("latin-1")
    return " ".join(unicodedata.normalize("NFC", plain).strip("\0 ").split())


def _identity(dataset: Dataset) -> Identity:
    charset = charset_of(dataset, ())
    birth_date = decode(raw_value(dataset, _BIRTH), charset)
    digits = "".join(character for character in birth_date if character in "0123456789")
    return Identity(
        patient_id=decode(raw_value(dataset, _ID), charset),
        issuer=decode(raw_value(dataset, _ISSUER), charset),
        name=decode(raw_value(dataset, _NAME), charset).rstrip("^= "),
        birth_date=digits or birth_date,
    )


def _uid(dataset: Dataset, tag: int) -> str:
    value = raw_value(dataset, tag).strip(b" \0")
    if not value or not values.is_single_uid(value):
        raise Reject("no-uid", f"({tag >> 16:04X},{tag & 0xFFFF:04X}) is missing, or is no UID")
    return value.decode("ascii")


class Found(NamedTuple):
    """A value and the data set or item that holds it, with its character set; `vr` is the dictionary's where the wire has none."""

    holder: Dataset
    tag: BaseTag
    vr: str | None
    value: bytes
    charset: tuple[str, ...]


def walk(dataset: Dataset, charset: tuple[str, ...] = (), skipped: frozenset[int | None] = frozenset()) -> Iterator[Found]:
    """Every value that is not empty, at every depth; `skipped` tags are so at the top level."""
    charset = charset_of(dataset, charset)
    for tag in sorted(dataset.keys() - skipped):
        element = element_at(dataset, tag)
        items = items_of(element)
        if items is not None:
            for item in items:
                yield from walk(item, charset)
        elif value := bytes_of(element):
            yield Found(dataset, tag, element.VR or known_vr(tag), value, charset)


def known_vr(tag: int) -> str | None:
    """The VR of the dictionary, or None."""
    return dictionary_VR(BaseTag(tag)) if dictionary_has_tag(BaseTag(tag)) else None


@contextmanager
def quiet() -> Iterator[None]:
    """No warning of pydicom, whose texts quote values, gets out of this block."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _parse_meta(stream: BinaryIO) -> Dataset:
    try:
        return read_dataset(stream, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, _vr, _length: tag >> 16 != 2)  # noqa: PLR2004
    except _MALFORMED as error:
        raise _refusal(error, "the file meta information") from error


def _parse(stream: BinaryIO, encoding: Encoding) -> Dataset:
    source = BytesIO(_inflated(stream)) if encoding.deflated else stream
    start = source.tell()
    end = end_of_dataset(source, encoding)
    source.seek(start)
    if end == start:
        return Dataset()
    try:
        dataset = read_dataset(source, encoding.implicit, encoding.little, bytelength=end - start)
    except _MALFORMED as error:
        raise _refusal(error, "the data set") from error
    if source.tell() != end:
        raise Reject("unreadable", "the data set does not end where its elements do")
    return dataset


def _refusal(error: BaseException, what: str) -> BaseException:
    """An error with a number is the machine's; pydicom raises OSError without one for bytes that it cannot read."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    return Reject("unreadable", f"{what} cannot be parsed ({type(error).__name__})")


def _inflated(stream: BinaryIO) -> bytes:
    """The data set of the deflated transfer syntax (PS3.5 A.5), of bounded size."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = inflate.decompress(stream.read(), MAX_INFLATED)
    except zlib.error as error:
        raise Reject("unreadable", "the deflated data set cannot be inflated") from error
    if inflate.unconsumed_tail:
        raise Reject("unreadable", f"the deflated data set inflates to more than {MAX_INFLATED} bytes")
    if not inflate.eof:
        raise Reject("truncated", "the deflated data set ends too early")
    return data
