"""A connection that is cut, and a disk that fills up: at any byte nothing is left that was not acknowledged."""

import contextlib
import os
import socket
import struct
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dicomrx.errors import UnavailableError
from dicomrx.network import wire
from dicomrx.network.admission import Listen
from dicomrx.network.server import Server
from dicomrx.spool.intake import Intake
from dicomrx.spool.layout import Spool
from tests.integration.scp_rig import (
    ENGINES,
    OFFERS,
    TITLES,
    Folder,
    answer,
    arrivals,
    connect,
    data_set_of,
    eventually,
    receiving,
    store,
    store_command,
    through,
)

EVERY = 1 if os.environ.get("DICOMRX_FULL") == "1" else 7
REQUEST = wire.associate_rq(*TITLES, OFFERS)
COMMAND = store_command()
STREAM = [
    REQUEST,
    *[wire.p_data(1, value) for value in wire.fragments(COMMAND, 40, command=True)],
    wire.p_data(1, b"\0first"),
    wire.p_data(1, b"\2 data"),
    wire.p_data(3, b"\3" + wire.echo_request(2)),
    wire.pdu(wire.P_DATA, b"".join(wire.p_data(1, value)[6:] for value in (b"\3" + COMMAND, b"\0second", b"\2 data"))),
    wire.pdu(wire.RELEASE_RQ, bytes(4)),
]
WHOLE = b"".join(STREAM)
EDGES = [sum(map(len, STREAM[:count])) for count in range(len(STREAM) + 1)]
POINTS = sorted({cut for edge in EDGES for cut in range(edge - 1, edge + 14) if 0 <= cut <= len(WHOLE)} | set(range(0, len(WHOLE), EVERY)))


@pytest.fixture(params=ENGINES)
def intake(tmp_path: Path, request: pytest.FixtureRequest) -> Folder:
    return Folder(tmp_path, request.param)


@pytest.mark.parametrize("how", ["end", "reset", "abort", "release"])
def test_a_connection_cut_at_any_byte_leaves_what_was_whole_and_nothing_else(intake: Folder, how: str) -> None:
    with receiving(intake) as server:
        for cut in EDGES if how in {"abort", "release"} else POINTS:
            cut_at(server, cut, how)
            eventually(lambda: not server.associations.connections and not server.admission._waiting)
            kept = [data_set_of(path) for path in arrivals(intake)]
            assert kept == [b"first data", b"second data"][: len(kept)], cut
            assert how == "reset" or len(kept) == whole_at(cut), cut
            assert list(intake.receiving.iterdir()) == [], cut
            for path in arrivals(intake):
                path.unlink()
        with connect(server) as association:
            assert store(association, b"data") == 0


def cut_at(server: Server, cut: int, how: str) -> None:
    stream = socket.create_connection(server.address, 10)
    last = {"abort": wire.pdu(wire.ABORT, bytes(4)), "release": wire.pdu(wire.RELEASE_RQ, bytes(4))}.get(how, b"")
    with stream, contextlib.suppress(OSError):  # the receiver may have hung up already
        stream.sendall(WHOLE[: min(cut, len(REQUEST))])
        if cut >= len(REQUEST):
            assert stream.recv(1) == bytes([wire.ASSOCIATE_AC])
        stream.sendall(WHOLE[len(REQUEST) : cut] + last)
        if how == "reset":
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        stream.shutdown(socket.SHUT_WR)
        while stream.recv(65536):
            pass


def whole_at(cut: int) -> int:
    """How many of the two instances are in the stream before `cut`, to its last byte."""
    ends = (WHOLE.index(b"\2 data") + 6, WHOLE.rindex(b"\2 data") + 6)
    return sum(cut >= end for end in ends)


@pytest.fixture(params=ENGINES)
def listen(request: pytest.FixtureRequest) -> Listen:
    return through(request.param)


@pytest.mark.parametrize("floor", [0, 50_000])
def test_a_disk_that_is_full_at_any_byte_refuses_with_a700_and_takes_in_again_when_it_is_not(
    small_disk: Path, listen: Listen, floor: int
) -> None:
    data = os.urandom(200_000)
    filler = small_disk / "filler"
    statuses = []
    with Spool.open(small_disk / "storage", small_disk / "zips", make=True) as spool:
        intake = Intake(spool, floor)
        with receiving(intake, listen) as server, connect(server) as association:
            for room in range(0, 300_000, 4096 * EVERY):
                filler.write_bytes(bytes(max(0, spool.free_bytes() - floor - room)))
                statuses.append(store(association, data))
                kept = list(spool.incoming.iterdir())
                assert [data_set_of(path) for path in kept] == [data] * (statuses[-1] == 0)
                eventually(lambda: not list(spool.receiving.glob("*/*.part")))
                for path in kept:
                    path.unlink()
                filler.unlink()
                assert store(association, b"small") == 0
                next(spool.incoming.iterdir()).unlink()
        intake.stop(cut=False)
    assert set(statuses) == {0, 0xA700}
    assert statuses == sorted(statuses, reverse=True)


def test_while_there_is_no_room_associations_are_refused_for_the_moment(small_disk: Path, listen: Listen) -> None:
    with Spool.open(small_disk / "storage", small_disk / "zips", make=True) as spool:
        intake = Intake(spool, 100_000)
        filler = small_disk / "filler"
        with receiving(intake, listen) as server:
            filler.write_bytes(bytes(spool.free_bytes() - 50_000))
            with pytest.raises(UnavailableError, match="congested for the moment"):
                connect(server)
            (refused,) = server.refused() or []
            assert (refused["setting"], refused["peer"], refused["calling"]) == ("MIN_FREE", "127.0.0.1", "SENDER")
            assert server.refused() is None
            filler.unlink()
            with connect(server) as association:
                assert store(association, b"data") == 0
        intake.stop(cut=False)


def test_many_at_once_stop_above_the_floor_together(small_disk: Path, listen: Listen) -> None:
    """What is on its way counts too: no write finds the disk full, for all stop at the floor."""
    with Spool.open(small_disk / "storage", small_disk / "zips", make=True) as spool:
        intake = Intake(spool, 200_000)
        with receiving(intake, replace(listen, idle_s=5)) as server, contextlib.ExitStack() as stack:
            busy = [stack.enter_context(connect(server)) for _ in range(6)]
            for association in busy:
                association.write([wire.p_data(1, b"\3" + COMMAND)])
            least = spool.free_bytes()
            for _ in range(30):
                for association in busy:
                    association.write([wire.p_data(1, b"\0" + bytes(4000))])
                time.sleep(0.01)
                least = min(least, spool.free_bytes())
            for association in busy:
                association.write([wire.p_data(1, b"\2")])
            statuses = [answer(association) for association in busy]
            assert least > 150_000
            assert set(statuses) == {0, 0xA700}
            assert len(list(spool.incoming.iterdir())) == statuses.count(0)
            eventually(lambda: not list(spool.receiving.glob("*/*.part")))
        intake.stop(cut=False)
