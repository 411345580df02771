"""Who gets in, how many, and how it ends; hostile peers among them."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dicomrx.errors import ConfigError, TryAgainError, UnavailableError
from dicomrx.network import wire
from dicomrx.network.admission import Admission, Listen
from dicomrx.network.client import Association
from dicomrx.network.refusals import Refusals
from dicomrx.network.sender import echo
from dicomrx.network.server import Server, serve
from dicomrx.network.visit import Visit
from tests.integration.scp_rig import CT, ENGINES, EXPLICIT, LISTEN, Folder, connect, eventually, receiving, store, store_command


@pytest.fixture(params=ENGINES)
def intake(tmp_path: Path, request: pytest.FixtureRequest) -> Folder:
    return Folder(tmp_path, request.param)


def rejection(server: Server, titles: tuple[str, str]) -> tuple[int, int, int] | None:
    """Result, source and reason of the A-ASSOCIATE-RJ; None where accepted."""
    with socket.create_connection(server.address, 10) as stream:
        stream.sendall(wire.associate_rq(*titles, [(1, CT, [EXPLICIT])]))
        answer = stream.recv(10, socket.MSG_WAITALL)
    return (answer[7], answer[8], answer[9]) if answer[0] == wire.ASSOCIATE_RJ else None


def test_ae_titles_decide_who_may_associate(intake: Folder, caplog: pytest.LogCaptureFixture) -> None:
    with receiving(intake, replace(LISTEN, ae_title=" RX ", calling_ae=("CT1", "PACS"))) as server:
        assert rejection(server, ("CT1", "RX")) is None
        assert rejection(server, ("CT1", "DICOMRCV")) == (1, 1, 7)
        assert rejection(server, ("CT2", "RX")) == (1, 1, 3)
        assert rejection(server, ("ct1", "RX")) == (1, 1, 3)
    assert "AE_TITLE" in caplog.text
    assert "CALLING_AE" in caplog.text


def test_without_a_list_anybody_may_call(intake: Folder) -> None:
    with receiving(intake) as server:
        assert rejection(server, ("WHOEVER", "DICOMRCV")) is None


def test_who_is_outside_the_networks_is_hung_up_on_before_a_thread_is_made(intake: Folder, caplog: pytest.LogCaptureFixture) -> None:
    with receiving(intake, replace(LISTEN, allow_hosts=("10.0.0.0/8", "127.0.0.2"))) as server:
        before = threading.active_count()
        assert not echo(*server.address)
        assert threading.active_count() == before
        with socket.socket() as stream:
            stream.bind(("127.0.0.2", 0))
            stream.connect(server.address)
            stream.sendall(wire.associate_rq("A", "DICOMRCV", [(1, CT, [EXPLICIT])]))
            assert stream.recv(1) == bytes([wire.ASSOCIATE_AC])
    assert caplog.text.count("ALLOW_HOSTS") == 1


@pytest.mark.parametrize(
    "listen",
    [
        replace(LISTEN, allow_hosts=("10.0.0.0/99",)),
        replace(LISTEN, ae_title="a title that is too long"),
        replace(LISTEN, calling_ae=("A\\B",)),
    ],
)
def test_what_is_no_network_or_no_title_is_a_matter_for_the_configuration(listen: Listen, intake: Folder) -> None:
    with pytest.raises(ConfigError):
        serve(listen, intake).start()


def test_an_ipv4_network_also_names_its_addresses_as_ipv6_writes_them() -> None:
    admission = Admission(replace(LISTEN, allow_hosts=("10.1.0.0/16", "fe80::/10")))
    assert admission.lets_in("::ffff:10.1.2.3")
    assert admission.lets_in("fe80::1%eth0")
    assert not admission.lets_in("::ffff:10.2.2.3")


def test_the_last_two_places_are_for_peers_that_have_none_and_all_together_have_a_limit(intake: Folder) -> None:
    def from_address(address: str) -> int:
        stream = socket.socket()
        stack.enter_context(contextlib.closing(stream))
        stream.bind((address, 0))
        stream.settimeout(10)
        stream.connect(server.address)
        stream.sendall(wire.associate_rq("A", "DICOMRCV", [(1, CT, [EXPLICIT])]))
        answer = stream.recv(10, socket.MSG_WAITALL)
        if answer[0] == wire.ASSOCIATE_RJ:
            assert answer[7:10] == b"\2\3\2"
        return answer[0]

    with contextlib.ExitStack() as stack:
        server = stack.enter_context(receiving(intake, replace(LISTEN, max_connections=5), grace_s=0))
        assert [from_address("127.0.0.1") for _ in range(4)] == [wire.ASSOCIATE_AC] * 3 + [wire.ASSOCIATE_RJ]
        assert [from_address("127.0.0.2") for _ in range(2)] == [wire.ASSOCIATE_AC, wire.ASSOCIATE_RJ]
        assert [from_address("127.0.0.3") for _ in range(2)] == [wire.ASSOCIATE_AC, wire.ASSOCIATE_RJ]
        assert from_address("127.0.0.4") == wire.ASSOCIATE_RJ


def test_a_place_is_free_again_when_its_association_ends_however_it_does(intake: Folder) -> None:
    with receiving(intake, replace(LISTEN, max_connections=1)) as server:
        for end in ("release", "abort", "close"):
            association = connect(server)
            assert store(association, b"data") == 0
            with pytest.raises(UnavailableError, match="as many associations as it takes"):
                connect(server)
            association._stream.close() if end == "close" else getattr(association, end)()
            eventually(lambda: echo(*server.address))


@contextlib.contextmanager
def attack(server: Server, data: bytes, count: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(socket.create_connection(server.address, 10)) for _ in range(count)]
        for stream in streams:
            stream.sendall(data)
        yield streams


def good_echo_takes(server: Server) -> float:
    began = time.monotonic()
    with socket.socket() as stream:
        stream.bind(("127.0.0.9", 0))
        stream.settimeout(10)
        stream.connect(server.address)
        association = Association(stream, "the receiver")
        association._negotiate(("GOOD", "DICOMRCV"), [(1, "1.2.840.10008.1.1", ["1.2.840.10008.1.2"])])
        assert association.echo(1) == 0
        association.release()
    return time.monotonic() - began


ASSOCIATE = wire.associate_rq("A", "DICOMRCV", [(1, CT, [EXPLICIT])])


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (b"", 60),
        (ASSOCIATE[:50], 60),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 60),
        (struct.pack(">BxI", 4, 0xFFFFFFF0) + bytes(10_000), 20),
        (struct.pack(">BxI", 1, 0xFFFFFFF0) + bytes(10_000), 20),
        (ASSOCIATE, 30),
        (ASSOCIATE + struct.pack(">BxI", 4, 100_000) + bytes(1000), 18),
        (wire.associate_rq("A", "DICOMRCV", [(1, CT, [])]), 20),
        (wire.associate_rq("A", "DICOMRCV", []), 20),
        (ASSOCIATE + ASSOCIATE, 18),
    ],
    ids=[
        "silent",
        "half a request",
        "HTTP",
        "4 GiB of data",
        "4 GiB of request",
        "idle",
        "half a PDU",
        "no syntax",
        "no context",
        "two requests",
    ],
)
def test_a_good_echo_is_answered_at_once_under_attack_and_all_is_given_back(intake: Folder, data: bytes, count: int) -> None:
    listen = replace(LISTEN, associate_s=1.0, read_s=1.0, idle_s=1.0)
    with receiving(intake, listen) as server:
        threads = threading.active_count()
        with attack(server, data, count):
            assert good_echo_takes(server) < 1
            eventually(lambda: not server.associations.connections, 6)
            eventually(lambda: threading.active_count() <= threads, 6)
        assert good_echo_takes(server) < 1
        admission = server.admission
        eventually(lambda: not admission._waiting and not admission._admitted)


@pytest.mark.parametrize("sent", [ASSOCIATE[:10], ASSOCIATE + struct.pack(">BxI", 4, 100_000)], ids=["request", "PDU"])
def test_one_who_trickles_bytes_is_cut_at_a_deadline(intake: Folder, sent: bytes) -> None:
    listen = replace(LISTEN, associate_s=0.5, read_s=0.5, instance_s=0.5)
    trickle = ASSOCIATE[10:] if sent == ASSOCIATE[:10] else wire.p_data(1, b"\1" + store_command())[6:]
    with receiving(intake, listen) as server, socket.create_connection(server.address, 5) as stream:
        stream.sendall(sent)
        eventually(lambda: taken(server))
        began = time.monotonic()
        for n in range(len(trickle)):
            if not taken(server):
                break
            with contextlib.suppress(ConnectionError):
                stream.sendall(trickle[n : n + 1])
            time.sleep(0.03)
        assert 0.2 < time.monotonic() - began < 2


def taken(server: Server) -> int:
    """How many connections the receiver holds."""
    return len(server.associations.connections) + len(server.admission._waiting)


class Peers:
    """Connections that only wait, from made-up addresses, and who has been hung up on."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._others: dict[Visit, socket.socket] = {}

    def arrive(self, address: str) -> Visit:
        ours, other = socket.socketpair()
        visit = self._admission.arrive(address, ours)
        assert visit is not None
        self._others[visit] = other
        return visit

    def hung_up(self, visit: Visit) -> bool:
        try:
            return self._others[visit].recv(1, socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False

    def close(self) -> None:
        for visit, other in self._others.items():
            visit.client.close()
            other.close()


def peers_of(admission: Admission) -> contextlib.closing[Peers]:
    return contextlib.closing(Peers(admission))


def test_of_too_many_who_wait_the_oldest_goes_first_and_nobody_crowds_out_another() -> None:
    admission = Admission(replace(LISTEN, max_connections=3))
    with peers_of(admission) as peers:
        ours = [peers.arrive("10.0.0.1") for _ in range(3)]
        assert not any(map(peers.hung_up, ours))
        ours.append(peers.arrive("10.0.0.1"))
        assert list(map(peers.hung_up, ours)) == [True, False, False, False]
        ours[0].leave()
        others = [peers.arrive(f"10.0.1.{n}") for n in range(9)]
        assert not any(map(peers.hung_up, ours[1:] + others))
        others.append(peers.arrive("10.0.2.1"))
        assert list(map(peers.hung_up, ours[1:])) == [True, False, False]
        assert not any(map(peers.hung_up, others))
    (refused,) = admission.refusals.news() or []
    assert (refused.peer, refused.count) == ("10.0.0.1", 2)


def test_who_knocks_faster_than_it_leaves_is_not_heard_and_others_are() -> None:
    admission = Admission(replace(LISTEN, max_connections=2))
    with peers_of(admission) as peers:
        flood = [peers.arrive("10.0.0.1") for _ in range(3)]
        assert list(map(peers.hung_up, flood)) == [True, False, False]
        with socket.socket() as client:
            assert admission.arrive("10.0.0.1", client) is None
        other = peers.arrive("10.0.0.2")
        flood[0].leave()
        flood.append(peers.arrive("10.0.0.1"))
        assert list(map(peers.hung_up, [*flood[1:], other])) == [True, False, False, False]


def test_who_is_refused_under_many_titles_hides_nobody_else() -> None:
    refusals = Refusals()
    refusals.note("10.0.0.1", "CALLING_AE", "why", calling="CT1")
    for n in range(1000):
        refusals.note("10.0.0.2", "CALLING_AE", "why", calling=f"X{n}")
    kept = refusals.news() or []
    assert len(kept) <= 50
    assert [refused.calling for refused in kept if refused.peer == "10.0.0.1"] == ["CT1"]


def test_who_does_not_ask_in_time_is_hung_up_on() -> None:
    admission = Admission(replace(LISTEN, associate_s=0.1))
    with peers_of(admission) as peers:
        early = peers.arrive("10.0.0.1")
        time.sleep(0.15)
        late = peers.arrive("10.0.0.1")
        admission.hang_up_on_overdue()
        assert (peers.hung_up(early), peers.hung_up(late)) == (True, False)
        assert late.admit("DICOMRCV", "A", room=True) is None


def test_who_hung_up_while_being_judged_takes_no_place() -> None:
    admission = Admission(replace(LISTEN, max_connections=1))
    with peers_of(admission) as peers:
        visit = peers.arrive("10.0.0.1")
        visit.leave()
        assert visit.admit("DICOMRCV", "A", room=True) is not None
        assert peers.arrive("10.0.0.1").admit("DICOMRCV", "A", room=True) is None


def test_a_connection_that_is_closed_unused_leaves_no_thread_waiting(intake: Folder) -> None:
    with receiving(intake) as server:
        threads = threading.active_count()
        with attack(server, b"", 5):
            eventually(lambda: len(server.admission._waiting) == 5)
        eventually(lambda: threading.active_count() <= threads, 3)


def test_an_instance_that_takes_too_long_is_aborted_though_it_keeps_coming(intake: Folder, caplog: pytest.LogCaptureFixture) -> None:
    with receiving(intake, replace(LISTEN, instance_s=0.3)) as server:
        association = connect(server)
        with contextlib.suppress(UnavailableError):
            association.write([wire.p_data(1, b"\3" + store_command())])
            for _ in range(25):
                association.write([wire.p_data(1, b"\0data")])
                time.sleep(0.02)
        eventually(lambda: len(intake.notes) == 2)
        association.abort()
    assert "takes too long" in caplog.text
    assert intake.notes[1]["ended"] == "aborted"
    assert list(intake.receiving.iterdir()) == []


def test_an_instance_that_stalls_is_aborted_after_the_idle_time(intake: Folder) -> None:
    with receiving(intake, replace(LISTEN, idle_s=0.3)) as server:
        association = connect(server)
        association.write([wire.p_data(1, b"\3" + store_command())])
        assert association.read()[0] == wire.ABORT
        association.abort()
        eventually(lambda: len(intake.notes) == 2)
        assert list(intake.receiving.iterdir()) == []


def test_stopping_between_associations_cuts_nothing_and_closes_the_port(intake: Folder) -> None:
    started: list[tuple[str, int]] = []
    server = serve(LISTEN, intake, started.append)
    server.start()
    assert started == [server.address]
    assert echo(*server.address)
    with socket.create_connection(server.address) as waiting:
        eventually(lambda: server.admission._waiting)
        began = time.monotonic()
        assert server.stop(grace_s=30) is False
        assert time.monotonic() - began < 5
        assert waiting.recv(1) == b""
    assert not server.alive
    assert not echo(*started[0])


def test_stopping_lets_an_association_end_in_its_grace(intake: Folder) -> None:
    server = serve(LISTEN, intake)
    server.start()
    association = connect(server)
    result: list[bool] = []
    stopping = threading.Thread(target=lambda: result.append(server.stop(grace_s=10)))
    stopping.start()
    eventually(lambda: not echo(*server.address))
    assert store(association, b"data") == 0
    association.release()
    stopping.join(5)
    assert result == [False]


def test_stopping_aborts_who_does_not_end_and_says_so(intake: Folder) -> None:
    server = serve(LISTEN, intake)
    server.start()
    waiting = socket.create_connection(server.address)
    idle, busy, stuck = connect(server), connect(server), connect(server)
    busy.write([wire.p_data(1, b"\3" + store_command())])
    stuck.write([struct.pack(">BxI", wire.P_DATA, 1000) + b"half"])
    eventually(lambda: list(intake.receiving.iterdir()))
    began = time.monotonic()
    assert server.stop(grace_s=0.2) is True
    assert time.monotonic() - began < 5
    assert idle.read()[0] == busy.read()[0] == wire.ABORT
    assert waiting.recv(1) == b""
    assert list(intake.receiving.iterdir()) == []
    assert [note["ended"] for note in intake.notes].count("open") == 3
    assert len(intake.notes) == 6
    for association in (idle, busy, stuck):
        association.abort()
    waiting.close()


def test_a_port_in_use_is_said_to_be(intake: Folder) -> None:
    with receiving(intake) as server, pytest.raises(TryAgainError, match="in use"):
        serve(replace(LISTEN, port=server.address[1]), intake).start()


def test_an_address_of_another_machine_is_refused(intake: Folder) -> None:
    with pytest.raises(ConfigError, match="--host"):
        serve(replace(LISTEN, host="192.0.2.1"), intake).start()
