"""Reads an instance wholly or not at all."""

import unicodedata
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, Final, NamedTuple

from dicomrx.deid import values
from dicomrx.deid.dataset import Bulk, DataSet, Value
from dicomrx.deid.encoding import Encoding
from dicomrx.deid.memory import Memory
from dicomrx.deid.structure import Parser
from dicomrx.deid.tags import PIXELS, known_vr
from dicomrx.errors import Reject

MAX_INFLATED: Final = 1 << 29

_PREAMBLE: Final = 128
_PREFIX: Final = b"DICM"
_META_GROUP: Final = 0x0002
_SYNTAX, _CALLING = 0x00020010, 0x00020016
_SOP_CLASS, _SOP, _STUDY, _SERIES = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
_MODALITY, _NUMBER = 0x00080060, 0x00200013
_CHARSET, _NAME, _ID, _ISSUER, _BIRTH = 0x00080005, 0x00100010, 0x00100020, 0x00100021, 0x00100030
CHARSETS: Final = frozenset({_CHARSET})
_OF_META: Final = frozenset({_SYNTAX})
_OF_SERIES: Final = frozenset({*CHARSETS, _SOP_CLASS, _STUDY, _SERIES, _NAME, _ID, _ISSUER, _BIRTH})


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """Whose instance it is, decoded, in Unicode NFC and without padding; empty where it is not sent."""

    patient_id: str
    issuer: str
    name: str
    birth_date: str


@dataclass(frozen=True, slots=True, repr=False)
class Instance:
    """An instance as it came; the UIDs are the originals. `dataset_offset` is where the bytes of the data set begin in the file.

    Big values are left in the file, which stays open while the instance is in use.
    """

    dataset: DataSet
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


def read(stream: BinaryIO, memory: Memory | None = None) -> Instance:
    """Everything up to the end of the data set in a stream that is seekable; its position is there afterwards.

    With a `memory` it is read faster where that knows other instances of the series, and so are all that is done with it later.
    Raises Reject: "unreadable" (no DICOM file, or broken), "truncated", "no-uid" (the SOP class, or a Study, Series or SOP Instance UID is
    missing or malformed).
    The details name tags, never values. Errors of the machine pass through as OSError.
    """
    transfer_syntax, calling_ae, dataset, offset, end = _parse(stream, memory)
    (sop_class, study_uid, series_uid), identity = dataset.once("whose", _OF_SERIES, None, lambda: _whose(dataset))
    instance = Instance(
        dataset=dataset,
        transfer_syntax=transfer_syntax,
        sop_class=sop_class,
        study_uid=study_uid,
        series_uid=series_uid,
        sop_uid=_uid(dataset, _SOP),
        identity=identity,
        calling_ae=calling_ae or None,
        dataset_offset=offset,
    )
    stream.seek(end)
    return instance


class Outline(NamedTuple):
    """What a file is of; `pixels` is where in it their value begins, None where it has none, or only in a deflated data set."""

    sop_uid: str
    pixels: int | None


def outline(stream: BinaryIO) -> Outline:
    """Read a file without its pixels, however long they are; raises Reject as `read` does, but for UIDs that are missing."""
    stream.seek(0)
    transfer_syntax, _, dataset, _, _ = _parse(stream)
    pixels = None if Encoding.of(transfer_syntax).deflated else pixels_of(dataset)
    return Outline(raw_text(dataset, _SOP), None if pixels is None else pixels.place.start)


class _Parsed(NamedTuple):
    """What the file meta says, the data set, and where that begins and ends in the stream."""

    transfer_syntax: str
    calling_ae: str
    dataset: DataSet
    begin: int
    end: int


def _parse(stream: BinaryIO, memory: Memory | None = None) -> _Parsed:
    parse = Parser.parse if memory is None else memory.parse
    parser = Parser(stream)
    if parser.skip(_PREAMBLE + len(_PREFIX))[_PREAMBLE:] != _PREFIX:
        raise Reject("unreadable", "not a DICOM file: no DICM behind the preamble")
    meta = parse(parser, parser.meta_encoding(), _META_GROUP)
    transfer_syntax = meta.once("syntax", _OF_META, None, lambda: _syntax(meta))
    encoding, begin = Encoding.of(transfer_syntax), parser.at
    if encoding.deflated:
        stream.seek(begin)
        dataset, end = parse(Parser(BytesIO(_inflated(stream))), encoding), stream.tell()
    else:
        dataset, end = parse(parser, encoding), parser.at
    return _Parsed(transfer_syntax, raw_text(meta, _CALLING), dataset, begin, end)


def _syntax(meta: DataSet) -> str:
    transfer_syntax = raw_text(meta, _SYNTAX)
    if not transfer_syntax or not values.is_single_uid(transfer_syntax.encode("latin-1")):
        raise Reject("unreadable", "the file meta names no transfer syntax (0002,0010)")
    return transfer_syntax


def raw_value(dataset: DataSet, tag: int) -> bytes:
    """The bytes of an element's value; empty where there is none, or a sequence."""
    return bytes(dataset[tag].value) if tag in dataset else b""


def raw_text(dataset: DataSet, tag: int) -> str:
    """The value of a string of the default repertoire, without padding."""
    return raw_value(dataset, tag).decode("latin-1").strip(" \0")


def charset_of(dataset: DataSet, inherited: tuple[str, ...]) -> tuple[str, ...]:
    """The character set that holds in a data set or item; an unknown one counts as ASCII."""
    if _CHARSET not in dataset:
        return inherited
    return values.known_terms(raw_value(dataset, _CHARSET))


def decode(value: bytes, charset: tuple[str, ...]) -> str:
    """The text of a value; where the declared set does not fit, as Latin-1, so that no two values ever become one."""
    if value.isascii() and b"\x1b" not in value:  # means the same in every set
        return " ".join(value.decode("ascii").strip("\0 ").split())
    plain = values.decoded(value, charset)
    if plain is None and b"\x1b" in value:
        plain = values.decoded_with_escapes(value, charset)
    if plain is None:
        plain = value.decode("latin-1")
    return " ".join(unicodedata.normalize("NFC", plain).strip("\0 ").split())


def _whose(dataset: DataSet) -> tuple[tuple[str, str, str], Identity]:
    """SOP class, study, series; and the patient."""
    return (_uid(dataset, _SOP_CLASS), _uid(dataset, _STUDY), _uid(dataset, _SERIES)), _identity(dataset)


def _identity(dataset: DataSet) -> Identity:
    charset = charset_of(dataset, ())
    birth_date = decode(raw_value(dataset, _BIRTH), charset)
    digits = "".join(character for character in birth_date if character in "0123456789")
    return Identity(
        patient_id=decode(raw_value(dataset, _ID), charset),
        issuer=decode(raw_value(dataset, _ISSUER), charset),
        name=decode(raw_value(dataset, _NAME), charset).rstrip("^= "),
        birth_date=digits or birth_date,
    )


def _uid(dataset: DataSet, tag: int) -> str:
    value = raw_value(dataset, tag).strip(b" \0")
    if not value or not values.is_single_uid(value):
        raise Reject("no-uid", f"({tag >> 16:04X},{tag & 0xFFFF:04X}) is missing, or is no UID")
    return value.decode("ascii")


# A value, by the data set or item that holds it and its tag; its VR, the dictionary's where the wire has none; its character set.
Found = tuple[DataSet, int, str | None, Value, tuple[str, ...]]


def walk(
    dataset: DataSet, charset: tuple[str, ...] = (), skipped: frozenset[int | None] = frozenset(), part: DataSet | None = None
) -> Iterator[Found]:
    """Every value that is not empty, at every depth; at the top level without `skipped` tags, and of a `part` alone."""
    charset = charset_of(dataset, charset)
    part = dataset if part is None else part
    for tag in sorted(part.keys() - skipped):
        _, vr, value, items, _ = part[tag]
        if items is not None:
            for item in items:
                yield from walk(item, charset)
        elif value:
            yield dataset, tag, vr or known_vr(tag), value, charset


def pixels_of(dataset: DataSet) -> Bulk | None:
    """The value of the pixels, where there are some."""
    for tag in PIXELS:
        if tag in dataset and isinstance(value := dataset[tag].value, Bulk):
            return value
    return None


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
