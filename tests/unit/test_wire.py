"""Command sets: the quick way to read and write them, and the one that takes any."""

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomrx.network import wire
from dicomrx.network.filemeta import file_head, read_meta
from dicomrx.network.wire import Command, WireError

# Behind it nothing is usual any more; it says nothing that concerns storage.
MOVE_ORIGINATOR = wire.command_set({0x1031: 7})[12:]

uids = st.lists(st.integers(0, 99_999_999), min_size=1, max_size=6).map(lambda parts: ".".join(map(str, parts)))
numbers = st.integers(0, 0xFFFF)


@st.composite
def store_requests(draw: st.DrawFn) -> bytes:
    """C-STORE requests, most of them good; one byte may be another, or missing."""
    fields: dict[int, int | str] = {0x0002: draw(uids), 0x0100: wire.C_STORE_RQ, 0x0110: draw(numbers)}
    fields |= {0x0700: draw(numbers), 0x0800: draw(st.sampled_from([0, 1, 0x0101])), 0x1000: draw(uids)}
    encoded = wire.command_set(fields)
    at = draw(st.integers(0, len(encoded) - 1))
    return draw(st.sampled_from([encoded, encoded[:at] + draw(st.binary(max_size=2)) + encoded[at + 1 :]]))


def read(encoded: bytes) -> Command | str:
    try:
        return Command.parse(encoded)
    except WireError as error:
        return str(error)


@given(store_requests())
def test_a_usual_request_is_read_as_any_other(encoded: bytes) -> None:
    quickly = read(encoded)
    if isinstance(quickly, Command):
        assert quickly == read(encoded + MOVE_ORIGINATOR)


@pytest.mark.parametrize(("length", "good"), [(63, True), (64, True), (65, False), (66, False)])
def test_a_uid_has_64_characters_at_most(length: int, good: bool) -> None:
    uid = "1." + "2" * (length - 2)
    request = Command.parse(wire.store_request(1, uid, uid))
    assert (request.sop_class, request.sop_instance) == ((uid, uid) if good else (None, None))


@given(numbers, st.none() | uids, st.none() | uids, numbers)
def test_an_answer_is_the_command_set_of_its_fields(message_id: int, sop_class: str | None, sop_instance: str | None, status: int) -> None:
    request = Command(wire.C_STORE_RQ, message_id, has_data_set=True, sop_class=sop_class, sop_instance=sop_instance, status=None)
    fields: dict[int, int | str | None] = {0x0002: sop_class, 0x0100: wire.C_STORE_RSP, 0x0120: message_id, 0x0800: 0x0101}
    fields |= {0x0900: status, 0x1000: sop_instance}
    assert wire.store_response(request, status) == wire.command_set({tag: value for tag, value in fields.items() if value is not None})


@given(st.binary(max_size=100), st.integers(1, 120))
def test_a_command_set_is_cut_to_the_size_that_its_reader_takes(command: bytes, size: int) -> None:
    whole, rest = b"", wire.command_pdus(5, command, size)
    while rest:
        kind, length = wire.header(rest)
        [(context_id, value)] = wire.values(rest[6 : 6 + length])
        is_command, last, data = wire.split(value)
        rest = rest[6 + length :]
        assert (kind, context_id, is_command, last) == (wire.P_DATA, 5, True, not rest)
        assert len(data) <= size
        whole += data
    assert whole == command


@given(uids, uids, uids, st.sampled_from(["", "CT1"]))
def test_the_head_of_a_file_says_what_it_was_told_and_how_long_it_is(sop_class: str, sop_instance: str, syntax: str, calling: str) -> None:
    head = file_head(sop_class=sop_class, sop_instance=sop_instance, transfer_syntax=syntax, calling=calling, called="")
    meta = read_meta(BytesIO(head + b"\x08\x00"))
    assert meta is not None
    assert (meta.sop_class, meta.sop_instance, meta.transfer_syntax, meta.offset) == (sop_class, sop_instance, syntax, len(head))
    assert head[132:140] == b"\2\0\0\0UL\4\0"
    assert int.from_bytes(head[140:144], "little") == len(head) - 144
