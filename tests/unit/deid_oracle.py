"""The same de-identification by other means: pydicom parses, and what it read is encoded element by element.

It shares rules, actions and the words of the instance with the engine, and nothing of how bytes are read, walked, held and written.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from pydicom.datadict import dictionary_has_tag, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import BytesLengthException
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_file_meta_info
from pydicom.tag import BaseTag
from pydicom.uid import UID
from pydicom.values import convert_SQ

from dicomrx.deid import Context, DataSet, Profile, subject, values
from dicomrx.deid.dataset import Element
from dicomrx.deid.dummies import SEQUENCES, Item
from dicomrx.deid.encoding import Encoding
from tests.unit.deid_files import LONG

PIXEL_DATA = 0x7FE00010
UNDEFINED = 0xFFFFFFFF
Part = DataElement | RawDataElement


class NoOracleError(Exception):
    """What pydicom chokes on, as on an item whose character set is a number or a sequence; it looks that up while it parses."""


@contextmanager
def _by_pydicom() -> Iterator[None]:
    try:
        yield
    except (AttributeError, BytesLengthException, TypeError, ValueError) as error:
        raise NoOracleError from error


def deidentified(file: bytes, end: int, context: Context, profile: Profile) -> bytes:
    """The file that must come out, but for what the second look replaces.

    `end` is where the data set of `file` ends; `context.own_words` are those of the instance.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stream = io.BytesIO(file[:end])
        stream.seek(132)
        meta = read_dataset(stream, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, _vr, _length: tag >> 16 != 2)
        syntax = _value(meta, 0x00020010).decode("latin-1").strip(" \0")
        encoding, rest = Encoding.of(syntax), stream.read()
        if encoding.deflated:
            rest = zlib.decompressobj(-zlib.MAX_WBITS).decompress(rest)
        with _by_pydicom():
            source = read_dataset(io.BytesIO(rest), encoding.implicit, encoding.little, bytelength=len(rest))
        oracle = _Oracle(encoding, profile)
        made = oracle.stamps(context.pseudonym, oracle.dataset(source, context))
        data = b"".join(made[tag] for tag in sorted(made))
        if encoding.deflated:
            deflate = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
            data = deflate.compress(data) + deflate.flush()
            data += b"\0" * (len(data) & 1)
        return bytes(128) + b"DICM" + _meta(made, syntax) + data


def _meta(made: Mapping[int, bytes], syntax: str) -> bytes:
    def uid(tag: int) -> UID:
        return UID(made[tag][8:].decode("ascii").strip(" \0"))  # a header of 8 bytes in either VR encoding

    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = uid(0x00080016), uid(0x00080018)
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID = UID("2.25.180359664797480045516660657176646159747")
    meta.ImplementationVersionName = "DICOMRX"
    stream = DicomBytesIO()
    write_file_meta_info(stream, meta)
    return stream.getvalue()


def _part(dataset: Dataset, tag: int) -> Part | None:
    return dataset.get_item(BaseTag(tag), keep_deferred=True) if BaseTag(tag) in dataset else None


def _value(dataset: Dataset, tag: int) -> bytes:
    part = _part(dataset, tag)
    return (part.value or b"") if isinstance(part, RawDataElement) else b""


def _items(part: Part) -> Iterable[Dataset] | None:
    if isinstance(part, DataElement):
        return part.value if part.VR == "SQ" else None
    # pydicom leaves an empty one without a length as it is, a private one among them: it is a sequence all the same.
    known = part.length == UNDEFINED or (dictionary_has_tag(part.tag) and dictionary_VR(part.tag) == "SQ")
    unknown = part.VR == "UN"
    if part.VR == "SQ" or (known and (part.VR is None or (unknown and part.is_little_endian))):
        with _by_pydicom():
            return convert_SQ(part.value or b"", part.is_implicit_VR or unknown, part.is_little_endian)
    return None


def _concept(source: Dataset) -> DataSet:
    """What a content item is about, as a rule asks for it."""
    part = _part(source, 0x0040A043)
    items = None if part is None else _items(part)
    told = [DataSet({0x00080100: Element(0x00080100, None, _value(item, 0x00080100))}) for item in items or ()]
    return DataSet({0x0040A043: Element(0x0040A043, None, items=told)})


class _Oracle:
    def __init__(self, encoding: Encoding, profile: Profile) -> None:
        self._encoding = encoding
        self._profile = profile
        self._order = "<" if encoding.little else ">"

    def dataset(self, source: Dataset, context: Context) -> dict[int, bytes]:
        """The encoded elements that are left of a data set or item."""
        if BaseTag(0x00080005) in source:
            value = _value(source, 0x00080005)
            context = replace(context, charset=values.charset_terms(value) if values.is_charset(value) else ())
        made: dict[int, bytes] = {}
        for tag in map(int, sorted(source.keys())):
            encoded = self._element(source, tag, context)
            if encoded is not None:
                made[tag] = encoded
        for tag in list(made):
            if tag >> 16 & 1 and tag & 0xFFFF > 0x0FFF:
                creator = tag & 0xFFFF0000 | tag >> 8 & 0xFF
                made[creator] = self._leaf(creator, "LO", _value(source, creator))
        return made

    def _element(self, source: Dataset, tag: int, context: Context) -> bytes | None:
        part = _part(source, tag)
        assert part is not None
        rule = self._profile.rule(tag, self._encoding.wire_vr(part.VR), self._creator(source, tag))
        rule = subject.hidden(rule, _concept(source), tag)
        if rule.vr is None:
            return None
        if rule.vr == "SQ":
            items = _items(part)
            if items is None:
                return None
            if rule.code == "R":
                return self._sequence(tag, [self._joined(self.dataset(item, context)) for item in items])
            keyword = [word for word in SEQUENCES if tag_for_keyword(word) == tag]
            return self._sequence(tag, self._made(SEQUENCES[keyword[0]][0]) if rule.code == "D" and items else [])
        if isinstance(part, DataElement) or (part.length == UNDEFINED and tag != PIXEL_DATA):
            return None  # what came without a length is a sequence, whatever it should have been
        value = rule.action(context, tag, rule.vr, part.value or b"")
        return None if value is None else self._leaf(tag, rule.vr, bytes(value), undefined=part.length == UNDEFINED)

    def _creator(self, source: Dataset, tag: int) -> str | None:
        if not tag >> 16 & 1 or tag & 0xFFFF <= 0x0FFF:
            return None
        part = _part(source, tag & 0xFFFF0000 | tag >> 8 & 0xFF)
        if part is None or part.VR not in {"LO", "UN", None}:
            return None
        return _value(source, int(part.tag)).decode("latin-1").strip(" \0") or None

    def stamps(self, pseudonym: str, made: dict[int, bytes]) -> dict[int, bytes]:
        """What is left, with what says what was done."""
        methods = tuple(
            {"CodeValue": code, "CodingSchemeDesignator": "DCM", "CodeMeaning": meaning} for code, meaning in self._profile.methods
        )
        texts = {"PatientName": pseudonym, "PatientID": pseudonym, "PatientIdentityRemoved": "YES"}
        texts |= {"DeidentificationMethod": self._profile.label, "LongitudinalTemporalInformationModified": self._profile.longitudinal}
        stamps = self._item({**texts, "DeidentificationMethodCodeSequence": methods})
        return made | stamps

    def _item(self, item: Item) -> dict[int, bytes]:
        made = {}
        for keyword, value in item.items():
            tag = tag_for_keyword(keyword) or 0
            if isinstance(value, tuple):
                made[tag] = self._sequence(tag, self._made(value))
            else:
                made[tag] = self._leaf(tag, dictionary_VR(tag), value.encode() if isinstance(value, str) else value)
        return made

    def _made(self, items: tuple[Item, ...]) -> list[bytes]:
        return [self._joined(self._item(item)) for item in items]

    @staticmethod
    def _joined(made: Mapping[int, bytes]) -> bytes:
        return b"".join(made[tag] for tag in sorted(made))

    def _sequence(self, tag: int, items: list[bytes]) -> bytes:
        return self._leaf(tag, "SQ", b"".join(struct.pack(f"{self._order}HHI", 0xFFFE, 0xE000, len(item)) + item for item in items))

    def _leaf(self, tag: int, vr: str, value: bytes, *, undefined: bool = False) -> bytes:
        value += (b"\0" if vr in {"UI", "OB", "UN"} else b" ") * (len(value) & 1)
        head, length = struct.pack(f"{self._order}HH", tag >> 16, tag & 0xFFFF), UNDEFINED if undefined else len(value)
        if self._encoding.implicit:
            head += struct.pack(f"{self._order}I", length)
        else:
            head += vr.encode() + struct.pack(f"{self._order}xxI" if vr in LONG else f"{self._order}H", length)
        return head + value + (struct.pack(f"{self._order}HHI", 0xFFFE, 0xE0DD, 0) if undefined else b"")
