"""C-STORE and C-ECHO, from the wire to the kept file."""

import contextlib
import errno
import io
import os
import re
import threading
import time
from functools import partial
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomrx.errors import UnavailableError
from dicomrx.network import wire
from dicomrx.network.sender import echo
from tests.integration.scp_rig import (
    CT,
    ENGINES,
    EXPLICIT,
    IMPLICIT,
    OFFERS,
    PRIVATE_CLASS,
    PRIVATE_SYNTAX,
    VERIFICATION,
    Folder,
    answer,
    arrivals,
    connect,
    data_set_of,
    eventually,
    raw_command,
    receiving,
    store,
    store_command,
)


@pytest.fixture(params=ENGINES)
def intake(tmp_path: Path, request: pytest.FixtureRequest) -> Folder:
    return Folder(tmp_path, request.param)


def no_space(step: str) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_c_echo_is_answered(intake: Folder) -> None:
    with receiving(intake) as server:
        assert echo(*server.address)
        assert not echo(*server.address, called="WRONG")
    assert intake.begun == []


def test_the_file_is_a_head_of_ours_and_the_data_set_as_it_came(intake: Folder) -> None:
    data = b"this is no data set, and nobody minds"
    with receiving(intake) as server, connect(server, titles=("MODALITY 1", "DICOMRCV")) as association:
        assert store(association, data, "1.2.3.4") == 0
    (path,) = arrivals(intake)
    content = path.read_bytes()
    assert content[:132] == bytes(128) + b"DICM"
    assert content.endswith(data)
    meta = pydicom.filereader.read_file_meta_info(path)
    assert meta.FileMetaInformationGroupLength == len(content) - len(data) - 144
    assert meta.FileMetaInformationVersion == b"\0\1"
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID) == (CT, "1.2.3.4", EXPLICIT)
    assert (meta.ImplementationClassUID, meta.ImplementationVersionName) == (wire.IMPLEMENTATION_CLASS_UID, "DICOMRX")
    assert meta.SourceApplicationEntityTitle == meta.SendingApplicationEntityTitle == "MODALITY 1"
    assert meta.ReceivingApplicationEntityTitle == "DICOMRCV"
    assert intake.notes == [
        {"association": 1, "calling": "MODALITY 1", "called": "DICOMRCV", "peer": "127.0.0.1", "ended": ended, "instances": count}
        for ended, count in (("open", 0), ("released", 1))
    ]


def test_every_storage_class_is_taken_in_the_first_syntax_offered_private_ones_too(intake: Folder) -> None:
    jpeg = "1.2.840.10008.1.2.4.50"
    offers = [
        (1, CT, [jpeg, EXPLICIT]),
        (3, CT, [PRIVATE_SYNTAX, IMPLICIT]),
        (5, PRIVATE_CLASS, [PRIVATE_SYNTAX]),
        (7, "1.2.840.10008.5.1.4.38.1", [PRIVATE_SYNTAX]),  # a hanging protocol: non-patient object storage
        (9, "1.2.840.10008.5.1.4.1.1.6", [EXPLICIT]),  # retired
        (11, "1.2.840.10008.5.1.4.1.1.99999", [IMPLICIT]),  # not invented yet
        (13, "1.2.840.10008.5.1.4.31", [IMPLICIT]),  # a modality worklist is none
        (15, "1.2.840.10008.1.20.1", [IMPLICIT]),  # nor is storage commitment
    ]
    with receiving(intake) as server, connect(server, *offers) as association:
        accepted = {1: jpeg, 3: PRIVATE_SYNTAX, 5: PRIVATE_SYNTAX, 7: PRIVATE_SYNTAX, 9: EXPLICIT, 11: IMPLICIT}
        assert association.contexts == accepted
        for number, sop_class, _ in offers[:6]:
            assert store(association, b"data", sop_class=sop_class, context=number) == 0
    kept = {pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID for path in arrivals(intake)}
    assert kept == set(accepted.values())
    assert len(arrivals(intake)) == 6


def test_each_offer_is_taken_in_its_own_first_syntax(intake: Folder) -> None:
    syntaxes = [f"{PRIVATE_SYNTAX}.{n}" for n in range(6)]
    offers = [(2 * n + 1, CT, syntaxes[n:] + syntaxes[:n]) for n in range(6)]
    with receiving(intake) as server, connect(server, *offers) as association:
        assert list(association.contexts.values()) == syntaxes


def test_all_128_presentation_contexts_are_taken(intake: Folder) -> None:
    offers = [(2 * n + 1, f"{PRIVATE_CLASS}.{n}", [EXPLICIT, IMPLICIT, PRIVATE_SYNTAX]) for n in range(128)]
    with receiving(intake) as server, connect(server, *offers) as association:
        assert len(association.contexts) == 128
        assert store(association, b"data", sop_class=f"{PRIVATE_CLASS}.127", context=255) == 0


def test_the_same_instance_twice_is_two_files(intake: Folder) -> None:
    with receiving(intake) as server, connect(server) as association:
        assert [store(association, data) for data in (b"one", b"one", b"two")] == [0, 0, 0]
    assert [data_set_of(path) for path in arrivals(intake)] == [b"one", b"one", b"two"]


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (store_command(uid=None), 0x0117),
        (store_command(uid=b""), 0x0117),
        (store_command(uid=b"1.2.x\0"), 0x0117),
        (store_command(uid=b"../../../tmp/x"), 0x0117),
        (store_command(uid=b"1.2\n\x1b[31m.3 "), 0x0117),
        (store_command(uid=b"1." + b"2" * 63 + b"\0"), 0x0117),
        (store_command(uid=b"1." + b"2" * 62), 0x0000),
        (store_command(uid=b"1.002.3 "), 0x0000),
        (store_command(sop_class=None), 0x0122),
        (store_command(sop_class=b"1.2.\0\0"), 0x0122),
        (store_command(sop_class=VERIFICATION.encode() + b"\0"), 0x0122),
        (store_command(sop_class=b"1.2.840.10008.1.2\0"), 0x0122),
        (store_command(sop_class=b"1.2.840.10008.1.20.1"), 0x0122),
        (store_command(sop_class=b"1.2.840.10008.5.1.4.1.2.1.1\0"), 0x0122),
    ],
)
def test_what_the_command_says_decides_the_answer_and_the_association_goes_on(intake: Folder, command: bytes, status: int) -> None:
    with receiving(intake) as server, connect(server) as association:
        association.write([wire.p_data(1, b"\3" + command), wire.p_data(1, b"\0" + b"data" * 100), wire.p_data(1, b"\2data")])
        assert answer(association) == status
        assert len(arrivals(intake)) == (status == 0)
        assert store(association, b"the next") == 0
    assert list(intake.receiving.iterdir()) == []


def test_a_c_store_on_a_context_for_c_echo_is_0122(intake: Folder) -> None:
    with receiving(intake) as server, connect(server, *OFFERS) as association:
        assert store(association, b"data", context=3) == 0x0122
        assert association.echo(3) == 0
    assert arrivals(intake) == []


def test_a_c_store_without_a_data_set_is_c000(intake: Folder) -> None:
    with receiving(intake) as server, connect(server) as association:
        association.write([wire.p_data(1, b"\3" + store_command(data_set=b"\1\1"))])
        assert answer(association) == 0xC000
        assert store(association, b"the next") == 0


@pytest.mark.parametrize("step", ["begin", "write", "keep"])
@pytest.mark.parametrize(
    ("error", "status"),
    [(OSError(errno.ENOSPC, "no space"), 0xA700), (OSError(errno.EIO, "i/o"), 0xA700), (MemoryError(), 0xA700), (KeyError("bug"), 0xC000)],
)
def test_what_fails_is_answered_at_the_end_of_the_data_set_and_leaves_nothing(
    intake: Folder, step: str, error: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(where: str) -> None:
        if where == step:
            raise error

    with receiving(intake) as server, connect(server) as association:
        intake.fail = fail
        assert store(association, bytes(500_000)) == status
        assert list(intake.receiving.iterdir()) == arrivals(intake) == []
        intake.fail = lambda where: None
        assert store(association, b"the next") == 0
    assert [data_set_of(path) for path in arrivals(intake)] == [b"the next"]
    assert intake.notes[-1]["instances"] == 1
    assert f"{status:04X}" in caplog.text
    assert "bug'" not in caplog.text


def test_without_room_nothing_is_begun_and_with_room_again_it_is(intake: Folder) -> None:
    with receiving(intake) as server, connect(server) as association:
        intake.room = False
        assert store(association, bytes(500_000)) == 0xA700
        assert intake.begun == []
        intake.room = True
        assert store(association, b"data") == 0


def test_a_write_that_fails_in_the_middle_gives_its_space_back_before_the_answer(intake: Folder) -> None:
    with receiving(intake) as server, connect(server) as association:
        association.write([wire.p_data(1, b"\3" + store_command()), wire.p_data(1, b"\0" + b"data")])
        eventually(lambda: list(intake.receiving.iterdir()))
        intake.fail = no_space
        association.write([wire.p_data(1, b"\0" + b"data")])
        eventually(lambda: not list(intake.receiving.iterdir()))
        association.write([wire.p_data(1, b"\2" + b"data")])
        assert answer(association) == 0xA700


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("how", ["abort", "close"])
def test_an_end_in_the_middle_of_an_instance_leaves_nothing(intake: Folder, how: str) -> None:
    with receiving(intake) as server:
        before = open_files()
        association = connect(server)
        assert store(association, b"kept") == 0
        association.write([wire.p_data(1, b"\3" + store_command()), wire.p_data(1, b"\0" + bytes(100_000))])
        eventually(lambda: list(intake.receiving.iterdir()))
        if how == "abort":
            association.abort()
        else:
            association._stream.close()
        eventually(lambda: len(intake.notes) == 2)
        assert list(intake.receiving.iterdir()) == []
        assert len(arrivals(intake)) == 1
        assert (intake.notes[1]["ended"], intake.notes[1]["instances"]) == ("aborted" if how == "abort" else "lost", 1)
        eventually(lambda: open_files() <= before)


def test_reception_begins_with_the_first_fragment_of_the_command(intake: Folder) -> None:
    command = store_command()
    with receiving(intake) as server, connect(server) as association:
        association.write([wire.p_data(1, b"\1" + command[:10])])
        eventually(lambda: intake.begun == [(1, 1)])
        association.write([wire.p_data(1, b"\1" + command[10:50]), wire.p_data(1, b"\3" + command[50:]), wire.p_data(1, b"\2data")])
        assert answer(association) == 0
    assert intake.begun.count((1, 1)) == 1


def test_the_next_instance_is_begun_ahead_for_a_moment_and_again_when_it_comes(tmp_path: Path) -> None:
    intake = Folder(tmp_path)
    with receiving(intake) as server, connect(server) as association:
        assert store(association, b"data") == 0
        eventually(lambda: intake.begun == [(1, 1), (1, 2)])
        eventually(lambda: not list(intake.receiving.iterdir()))
        assert store(association, b"data") == 0
        eventually(lambda: intake.begun == [(1, 1), (1, 2), (1, 2), (1, 3)])


def test_where_the_next_cannot_be_begun_ahead_the_association_goes_on(tmp_path: Path) -> None:
    intake = Folder(tmp_path)

    def broken(step: str) -> None:
        if step == "begin" and intake.begun:
            failed.append(step)
            raise OSError(errno.EIO, "Input/output error")

    failed: list[str] = []
    intake.fail = broken
    with receiving(intake) as server, connect(server) as association:
        assert store(association, b"data") == 0
        eventually(lambda: failed)
        time.sleep(0.1)  # longer than what is begun ahead is kept
        assert store(association, b"data") == 0xA700
        intake.fail = lambda step: None
        assert store(association, b"data") == 0


def test_a_fragmented_c_echo_is_answered_and_leaves_nothing(intake: Folder) -> None:
    command = wire.echo_request(7)
    with receiving(intake) as server, connect(server, (1, VERIFICATION, [IMPLICIT]), (3, CT, [EXPLICIT])) as association:
        association.write([wire.p_data(1, b"\1" + command[:20]), wire.p_data(1, b"\3" + command[20:])])
        assert answer(association) == 0
        assert store(association, b"data", context=3) == 0
    assert list(intake.receiving.iterdir()) == []
    assert len(arrivals(intake)) == 1


def test_one_who_floods_with_other_messages_is_slowed_down_not_refused(intake: Folder) -> None:
    count = 40
    with receiving(intake) as server, connect(server, (1, VERIFICATION, [IMPLICIT]), (3, CT, [EXPLICIT])) as association:
        began = time.monotonic()
        association.write([wire.p_data(1, b"\3" + wire.echo_request(1))] * count)
        assert [answer(association) for _ in range(count)] == [0] * count
        assert time.monotonic() - began > 1
        assert store(association, b"data", context=3) == 0


def test_many_values_in_one_pdu_and_two_instances_without_waiting(intake: Folder) -> None:
    def item(value: bytes) -> bytes:
        return wire.p_data(1, value)[6:]

    values = [b"\3" + store_command(), b"\0one ", b"\0", b"\2two", b"\3" + store_command(message_id=b"\2\0"), b"\2three"]
    with receiving(intake) as server, connect(server) as association:
        association.write([wire.pdu(wire.P_DATA, b"".join(map(item, values)))])
        assert [answer(association), answer(association)] == [0, 0]
    assert [data_set_of(path) for path in arrivals(intake)] == [b"one two", b"three"]


@pytest.mark.parametrize(
    "values",
    [
        [(1, b"\2data without a command")],
        [(3, b"\3" + store_command())],  # a context that was not accepted
        [(0, b"\1" + store_command())],
        [(1, b"\3" + store_command()), (1, b"\3" + store_command())],
        [(1, b"\1" + store_command()[:20]), (3, b"\3" + store_command()[20:])],
        [(1, b"\3" + store_command(message_id=None))],
        [(1, b"\3" + store_command()[:-1])],
        [(1, b"\3" + raw_command({0x0110: b"\1\0"}))],
        [(1, b"\3" + raw_command({0x0100: b"\1\x77", 0x0110: b"\1\0", 0x0800: b"\1\1"}))],
        [(1, b"\1" + bytes(20_000))],
    ],
)
def test_a_peer_that_breaks_the_protocol_is_aborted_and_leaves_nothing(intake: Folder, values: list[tuple[int, bytes]]) -> None:
    with receiving(intake) as server:
        association = connect(server)
        association.write(wire.p_data(*value) for value in values)
        assert answer(association) is None
        association.abort()
        eventually(lambda: len(intake.notes) == 2)
        assert intake.notes[1]["ended"] == "aborted"
        assert list(intake.receiving.iterdir()) == arrivals(intake) == []
        assert echo(*server.address)


def test_another_message_may_not_fill_the_memory(intake: Folder) -> None:
    find = raw_command({0x0002: CT.encode() + b"\0", 0x0100: b"\x20\0", 0x0110: b"\1\0", 0x0700: b"\0\0", 0x0800: b"\1\0"})
    with receiving(intake) as server:
        association = connect(server)
        with contextlib.suppress(UnavailableError):  # it may be hung up on before all is sent
            association.write([wire.p_data(1, b"\3" + find), *[wire.p_data(1, b"\0" + bytes(100_000))] * 20])
        eventually(lambda: len(intake.notes) == 2)
        association.abort()
    assert intake.notes[1]["ended"] == "aborted"


def test_concurrent_associations_each_get_their_own(intake: Folder) -> None:
    def work(n: int) -> None:
        with connect(server) as association:
            done.extend(store(association, f"{n} {i} ".encode() * 3000) for i in range(10))

    done: list[int] = []
    with receiving(intake) as server:
        threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert done == [0] * 60
    assert {data_set_of(path) for path in arrivals(intake)} == {f"{n} {i} ".encode() * 3000 for n in range(6) for i in range(10)}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=3000), sizes=st.lists(st.integers(1, 400), min_size=1, max_size=5), cut=st.integers(1, 80))
def test_however_it_is_fragmented_the_same_bytes_lie_there(intake: Folder, data: bytes, sizes: list[int], cut: int) -> None:
    pieces: list[bytes] = []
    rest = data
    while rest:
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(rest[:size])
        rest = rest[size:]
    command = [wire.p_data(1, value) for value in wire.fragments(store_command(), cut, command=True)]
    with receiving(intake) as server, connect(server) as association:
        association.write([*command, *[wire.p_data(1, b"\0" + piece) for piece in pieces], wire.p_data(1, b"\2")])
        assert answer(association) == 0
    path = arrivals(intake)[-1]
    assert data_set_of(path) == data
    path.unlink()


def test_no_value_of_a_command_or_a_data_set_is_logged(
    intake: Folder, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    secret = re.compile("1234567|DOE")
    with receiving(intake) as server:
        with connect(server) as association:
            association.write([wire.p_data(1, b"\3" + store_command(uid=b"1.1234567.DOE")), wire.p_data(1, b"\2DOE^JANE")])
            assert answer(association) == 0x0117
            intake.fail = no_space
            assert store(association, b"DOE^JANE", "1.2.1234567") == 0xA700
        association = connect(server)
        association.write([wire.p_data(1, b"\3" + raw_command({0x0100: b"\x20\0", 0x0800: b"\1\1", 0x0002: b"1.1234567.0x"}))])
        association.abort()
        eventually(lambda: len(intake.notes) == 4)
    assert caplog.records
    assert not secret.search(caplog.text)
    assert not secret.search("".join(capfd.readouterr()))


def received(intake: Folder, size: int) -> bool:
    return sum(path.stat().st_size for path in intake.receiving.iterdir()) >= size


def test_a_big_data_set_is_written_as_it_comes(intake: Folder) -> None:
    with receiving(intake) as server:
        association = connect(server)
        association.write([wire.p_data(1, b"\3" + store_command())])
        for n in range(1, 40):
            association.write([wire.p_data(1, b"\0" + bytes(100_000))])
            eventually(partial(received, intake, n * 100_000))
        association.write([wire.p_data(1, b"\2")])
        assert answer(association) == 0
        association.release()
    assert data_set_of(arrivals(intake)[0]) == bytes(3_900_000)


def test_a_data_set_of_any_length_arrives_whole(intake: Folder) -> None:
    size = wire.payload_size(wire.MAX_PDU)
    lengths = [0, 1, size - 1, size, size + 1, 2 * size]
    with receiving(intake) as server, connect(server) as association:
        for length in lengths:
            assert association.store(1, CT, "1.2.3", io.BytesIO(os.urandom(length))) == 0
    assert [len(data_set_of(path)) for path in arrivals(intake)] == lengths
