"""The bytes of PS3.8 (PDUs) and PS3.7 6.3 (command sets), as far as C-STORE and C-ECHO need them."""

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

MAX_PDU: Final = 131072

ASSOCIATE_RQ: Final = 1
ASSOCIATE_AC: Final = 2
ASSOCIATE_RJ: Final = 3
P_DATA: Final = 4
RELEASE_RQ: Final = 5
RELEASE_RP: Final = 6
ABORT: Final = 7

C_STORE_RQ: Final = 0x0001
C_STORE_RSP: Final = 0x8001
C_ECHO_RQ: Final = 0x0030
C_ECHO_RSP: Final = 0x8030
_NO_DATA_SET: Final = 0x0101
_WITHOUT: Final = _NO_DATA_SET.to_bytes(2, "little")

_COMMAND_BIT: Final = 1
_LAST_BIT: Final = 2

VERIFICATION: Final = "1.2.840.10008.1.1"
_APPLICATION_CONTEXT: Final = b"1.2.840.10008.3.1.1.1"
# Ours, from a random UUID (PS3.5 B.2).
IMPLEMENTATION_CLASS_UID: Final = "2.25.180359664797480045516660657176646159747"
IMPLEMENTATION_VERSION: Final = "DICOMRX"

# Leading zeros are forbidden by PS3.5 9.1, and sent by scanners in use: refusing those would lose images.
_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*")
_UID_LENGTH: Final = 64

# A C-STORE-RQ (PS3.7 9.3.1.1) as nearly every sender writes it: read so, it costs a third of reading element by element.
_UID_VALUE: Final = rb"(.)\x00\x00\x00([0-9]+(?:\.[0-9]+)*\x00?)"  # behind its length
_USUAL_STORE: Final = re.compile(
    b"".join(
        (
            rb"\x00\x00\x00\x00\x04\x00\x00\x00....",  # group length
            rb"\x00\x00\x02\x00" + _UID_VALUE,  # affected SOP class
            rb"\x00\x00\x00\x01\x02\x00\x00\x00\x01\x00",  # command field
            rb"\x00\x00\x10\x01\x02\x00\x00\x00(..)",  # message ID
            rb"\x00\x00\x00\x07\x02\x00\x00\x00..",  # priority
            rb"\x00\x00\x00\x08\x02\x00\x00\x00(..)",  # data set type
            rb"\x00\x00\x00\x10" + _UID_VALUE,  # affected SOP instance
        )
    ),
    re.DOTALL,
)

_FIXED: Final = 68  # bytes of an A-ASSOCIATE-RQ or -AC before its items
_MAX_CONTEXTS: Final = 128  # odd numbers of one byte, PS3.8 9.3.2.2
_MAX_ITEMS: Final = 1024

_ELEMENT: Final = struct.Struct("<HHI")
_US: Final = struct.Struct("<HHIH")
_GROUP_LENGTH: Final = struct.Struct("<HHII")
_PDU: Final = struct.Struct(">BxI")
_P_DATA: Final = struct.Struct(">BxIIB")
_PDV: Final = struct.Struct(">IBB")
_ITEM: Final = struct.Struct(">BxH")

header: Final = _PDU.unpack_from  # (data, offset) to type and length of a PDU, from its first six bytes
value_header: Final = _PDV.unpack_from  # (data, offset) to length, context ID and message control header of a presentation data value


class WireError(ValueError):
    """The peer broke the protocol; the message says how, and quotes nothing of what it sent."""


def uid_text(value: bytes | None) -> str | None:
    """The UID in an element's value, without padding; None where it is missing or malformed."""
    text = (value or b"").rstrip(b"\0 ").decode("latin-1")
    return text if len(text) <= _UID_LENGTH and _UID.fullmatch(text) else None


class Command(NamedTuple):
    """What a command set says, as far as it concerns storage; the UIDs are None where missing or malformed."""

    field: int
    message_id: int
    has_data_set: bool
    sop_class: str | None
    sop_instance: str | None
    status: int | None

    @classmethod
    def parse(cls, data: bytes) -> "Command":
        """Raises WireError where this is no command set that can be answered."""
        return _usual_store(data) or cls._of(_elements(data))

    @classmethod
    def _of(cls, elements: Mapping[int, bytes]) -> "Command":
        field, message_id = _us(elements, 0x0100), _us(elements, 0x0110)
        if field is None:
            raise WireError("a command set without a command field")
        if field == C_STORE_RQ and message_id is None:
            raise WireError("a C-STORE request without a message ID")
        return cls(
            field=field,
            message_id=message_id or 0,
            has_data_set=_us(elements, 0x0800) != _NO_DATA_SET,
            sop_class=uid_text(elements.get(0x0002)),
            sop_instance=uid_text(elements.get(0x1000)),
            status=_us(elements, 0x0900),
        )


def _usual_store(data: bytes) -> Command | None:
    found = _USUAL_STORE.fullmatch(data)
    if found is None:
        return None
    class_length, sop_class, message_id, data_set, instance_length, sop_instance = found.groups()
    lengths = class_length[0], instance_length[0]
    if lengths != (len(sop_class), len(sop_instance)) or max(lengths) > _UID_LENGTH:
        return None
    uids = sop_class.rstrip(b"\0").decode("ascii"), sop_instance.rstrip(b"\0").decode("ascii")
    return Command(C_STORE_RQ, int.from_bytes(message_id, "little"), data_set != _WITHOUT, *uids, None)


def _elements(data: bytes) -> dict[int, bytes]:
    elements = {}
    offset, end = 0, len(data)
    while offset < end:
        if end - offset < _ELEMENT.size:
            raise WireError("a command set that ends inside an element")
        group, element, length = _ELEMENT.unpack_from(data, offset)
        offset += _ELEMENT.size
        if group != 0 or length > end - offset:
            raise WireError("a command set with an element that is none of its own")
        elements[element] = data[offset : offset + length]
        offset += length
    return elements


def _us(elements: Mapping[int, bytes], element: int) -> int | None:
    value = elements.get(element, b"")
    return int.from_bytes(value, "little") if len(value) == 2 else None  # noqa: PLR2004 - the length of a US


def command_set(values: Mapping[int, int | str]) -> bytes:
    """Encode group 0000: numbers as US, texts as UI; the group length is put in front."""
    body = b"".join([_element(element, values[element]) for element in sorted(values)])
    return _GROUP_LENGTH.pack(0, 0, 4, len(body)) + body


def _element(element: int, value: int | str) -> bytes:
    if isinstance(value, int):
        return _US.pack(0, element, 2, value)
    data = even(value.encode("ascii"), b"\0")
    return _ELEMENT.pack(0, element, len(data)) + data


def even(value: bytes, pad: bytes) -> bytes:
    """`value` padded to an even length."""
    return value + pad if len(value) % 2 else value


def store_response(request: Command, status: int) -> bytes:
    """The command set that answers a C-STORE request (PS3.7 9.3.1.2); malformed UIDs are not repeated."""
    sop_instance = b"" if request.sop_instance is None else _element(0x1000, request.sop_instance)
    before, between = _around_message_id(request.sop_class, len(sop_instance))
    return before + request.message_id.to_bytes(2, "little") + between + status.to_bytes(2, "little") + sop_instance


@lru_cache(maxsize=256)
def _around_message_id(sop_class: str | None, behind: int) -> tuple[bytes, bytes]:
    """What stands in a C-STORE response before the message ID, and from there to the status: the same for all of a series.

    `behind` is how many bytes follow the status.
    """
    before = b"" if sop_class is None else _element(0x0002, sop_class)
    before += _element(0x0100, C_STORE_RSP) + _ELEMENT.pack(0, 0x0120, 2)
    between = _element(0x0800, _NO_DATA_SET) + _ELEMENT.pack(0, 0x0900, 2)
    length = len(before) + 2 + len(between) + 2 + behind
    return _GROUP_LENGTH.pack(0, 0, 4, length) + before, between


def store_request(message_id: int, sop_class: str, sop_instance: str) -> bytes:
    """The command set of a C-STORE request of medium priority (PS3.7 9.3.1.1)."""
    return command_set({0x0002: sop_class, 0x0100: C_STORE_RQ, 0x0110: message_id, 0x0700: 0, 0x0800: 1, 0x1000: sop_instance})


def echo_request(message_id: int) -> bytes:
    """The command set of a C-ECHO request (PS3.7 9.3.5.1)."""
    return command_set({0x0002: VERIFICATION, 0x0100: C_ECHO_RQ, 0x0110: message_id, 0x0800: _NO_DATA_SET})


def fragments(data: bytes, size: int, *, command: bool) -> Iterator[bytes]:
    """Cut a message into PDV values, each with its message control header (PS3.8 E.2) and none above `size` bytes of data."""
    kind = _COMMAND_BIT if command else 0
    for offset in range(0, max(len(data), 1), size):
        last = _LAST_BIT if offset + size >= len(data) else 0
        yield bytes([kind | last]) + data[offset : offset + size]


def split(value: bytes) -> tuple[bool, bool, memoryview]:
    """A PDV value: whether it is of the command, whether it is the last, and the data."""
    if not value:
        raise WireError("an empty presentation data value")
    return bool(value[0] & _COMMAND_BIT), bool(value[0] & _LAST_BIT), memoryview(value)[1:]


def payload_size(max_pdu: int) -> int:
    """How much data fits into a PDU for a peer that takes `max_pdu` bytes (0: any number)."""
    return max(min(max_pdu or MAX_PDU, MAX_PDU) - _PDV.size, 1)


def pdu(kind: int, body: bytes) -> bytes:
    """One PDU (PS3.8 9.3)."""
    return _PDU.pack(kind, len(body)) + body


def p_data(context_id: int, value: bytes) -> bytes:
    """A P-DATA-TF of one presentation data value."""
    return _P_DATA.pack(P_DATA, len(value) + 5, len(value) + 1, context_id) + value


def command_pdus(context_id: int, command: bytes, size: int) -> bytes:
    """A command set as P-DATA-TFs, none of more than `size` bytes of data."""
    if len(command) <= size:
        return p_data(context_id, b"\3" + command)
    return b"".join([p_data(context_id, value) for value in fragments(command, size, command=True)])


def values(body: bytes) -> Iterator[tuple[int, bytes]]:
    """The presentation data values of a P-DATA-TF, each with its context ID; raises WireError."""
    offset = 0
    while offset < len(body):
        if len(body) - offset < _PDV.size:
            raise WireError("a P-DATA-TF that ends inside a value")
        length, context_id, _ = _PDV.unpack_from(body, offset)
        end = offset + 4 + length
        if length < 2 or end > len(body):  # noqa: PLR2004 - context ID and control header
            raise WireError("a P-DATA-TF with a value of impossible length")
        yield context_id, body[offset + 5 : end]
        offset = end


def _item(kind: int, body: bytes) -> bytes:
    return _ITEM.pack(kind, len(body)) + body


def associate_rq(calling: str, called: str, contexts: Sequence[tuple[int, str, Sequence[str]]], max_pdu: int = MAX_PDU) -> bytes:
    """An A-ASSOCIATE-RQ (PS3.8 9.3.2) that offers `contexts`: (odd ID, abstract syntax, transfer syntaxes)."""
    offers = b"".join(
        _item(0x20, bytes([number, 0, 0, 0]) + _item(0x30, abstract.encode()) + b"".join(_item(0x40, ts.encode()) for ts in syntaxes))
        for number, abstract, syntaxes in contexts
    )
    user = (
        _item(0x51, struct.pack(">I", max_pdu))
        + _item(0x52, IMPLEMENTATION_CLASS_UID.encode())
        + _item(0x55, IMPLEMENTATION_VERSION.encode())
    )
    titles = called.encode().ljust(16) + calling.encode().ljust(16)
    body = struct.pack(">HH", 1, 0) + titles + bytes(32) + _item(0x10, _APPLICATION_CONTEXT) + offers + _item(0x50, user)
    return pdu(ASSOCIATE_RQ, body)


def parse_associate_ac(body: bytes) -> tuple[dict[int, str], int]:
    """Accepted contexts ({ID: transfer syntax}) and the peer's maximum PDU length from an A-ASSOCIATE-AC (PS3.8 9.3.3)."""
    accepted: dict[int, str] = {}
    max_pdu = 0
    for kind, item in _items(body[_FIXED:]):
        if kind == 0x21 and item[2] == 0:  # noqa: PLR2004 - presentation context, accepted
            accepted[item[0]] = dict(_items(item[4:])).get(0x40, b"").rstrip(b"\0 ").decode("latin-1")
        elif kind == 0x50:  # noqa: PLR2004 - user information
            max_pdu = int.from_bytes(dict(_items(item)).get(0x51, b""), "big")
    return accepted, max_pdu


def slim_associate_rq(body: bytes) -> bytes:
    """An A-ASSOCIATE-RQ (PS3.8 9.3.2) with the first transfer syntax of each context alone; raises WireError where it is out of bounds."""
    slim, contexts = body[:_FIXED], 0
    for kind, item in _items(body[_FIXED:]):
        if kind == 0x20:  # noqa: PLR2004 - presentation context
            contexts += 1
            slim += _item(kind, _slim_context(item))
        else:
            if kind == 0x50 and sum(1 for _ in _items(item)) > _MAX_ITEMS:  # noqa: PLR2004 - user information
                raise WireError("a request to associate of too many items")
            slim += _item(kind, item)
    if len(body) < _FIXED or not 0 < contexts <= _MAX_CONTEXTS:
        raise WireError("a request to associate without presentation contexts, or with too many")
    return slim


def _slim_context(item: bytes) -> bytes:
    abstract, syntaxes = ([(kind, part) for kind, part in _items(item[4:]) if kind == wanted] for wanted in (0x30, 0x40))
    if len(abstract) != 1 or not syntaxes:
        raise WireError("a presentation context that offers nothing")
    return item[:4] + _item(*abstract[0]) + _item(*syntaxes[0])


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while len(data) - offset >= _ITEM.size:
        kind, length = _ITEM.unpack_from(data, offset)
        offset += _ITEM.size
        if length > len(data) - offset:
            raise WireError("an item of impossible length")
        yield kind, data[offset : offset + length]
        offset += length
