"""The receiver on the real spool."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomrx.errors import UnavailableError
from dicomrx.network import wire
from dicomrx.network.admission import Listen
from dicomrx.network.server import serve
from dicomrx.spool.intake import Intake
from dicomrx.spool.layout import Spool
from dicomrx.spool.names import Arrival
from tests.integration.scp_rig import ENGINES, answer, connect, data_set_of, eventually, receiving, store, store_command, through


@pytest.fixture(params=ENGINES)
def listen(request: pytest.FixtureRequest) -> Listen:
    return through(request.param)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool.open(tmp_path / "storage", tmp_path / "zips", make=True) as spool:
        yield spool


def test_what_was_acknowledged_lies_in_incoming_under_an_arrivals_name(spool: Spool, listen: Listen) -> None:
    intake = Intake(spool)
    with receiving(intake, listen) as server, connect(server) as one, connect(server) as other:
        assert [store(one, b"first"), store(other, b"second"), store(one, b"third")] == [0, 0, 0]
    kept = {path.name: data_set_of(path) for path in spool.incoming.iterdir()}
    ids = {re.fullmatch(r"\d{20}\.\d{20}\.[0-9a-f]{8}-(\d+)-(\d+)\.dcm", name): data for name, data in kept.items()}
    assert {(match[1], match[2], data) for match, data in ids.items() if match} == {
        ("1", "1", b"first"),
        ("2", "1", b"second"),
        ("1", "2", b"third"),
    }
    intake.stop(cut=False)
    assert list(spool.receiving.iterdir()) == []


def test_an_instance_on_its_way_is_seen_in_receiving_from_its_command_on(spool: Spool, listen: Listen) -> None:
    intake = Intake(spool)
    with receiving(intake, listen) as server, connect(server) as association:
        association.write([wire.p_data(1, b"\3" + store_command())])
        eventually(lambda: list(spool.receiving.glob("*/*.part")))
        association.write([wire.p_data(1, b"\2data")])
        assert answer(association) == 0
        eventually(lambda: not list(spool.receiving.glob("*/*.part")))
    intake.stop(cut=False)


def test_what_was_begun_ahead_is_given_up_where_it_does_not_come(spool: Spool) -> None:
    intake = Intake(spool)
    with receiving(intake, through("lane")) as server, connect(server) as association:
        for data in (b"first", b"at once", b"later"):
            assert store(association, data) == 0
            if data == b"at once":
                eventually(lambda: not list(spool.receiving.glob("*/*.part")))
                given_up = spool.now()
        eventually(lambda: not list(spool.receiving.glob("*/*.part")))
    intake.stop(cut=False)
    kept = {data_set_of(path): Arrival.parse(path.name) for path in spool.incoming.iterdir()}
    first, at_once, later = (kept[data] for data in (b"first", b"at once", b"later"))
    assert first is not None
    assert at_once is not None
    assert later is not None
    assert [arrival.number for arrival in (first, at_once, later)] == [1, 2, 3]
    assert first.end < at_once.begin < given_up < later.begin


def test_below_the_floor_of_free_space_all_is_refused(spool: Spool, listen: Listen) -> None:
    intake = Intake(spool, min_free=1 << 60)
    with receiving(intake, listen) as server, pytest.raises(UnavailableError, match="congested"):
        connect(server)
    assert list(spool.incoming.iterdir()) == []
    assert [path.name for path in spool.receiving.glob("*/*")] == ["closed"]
    intake.stop(cut=False)


def test_a_receiver_that_cuts_an_association_leaves_its_run_directory(spool: Spool, listen: Listen) -> None:
    intake = Intake(spool)
    server = serve(listen, intake)
    server.start()
    association = connect(server)
    association.write([wire.p_data(1, b"\3" + store_command())])
    eventually(lambda: list(spool.receiving.glob("*/*.part")))
    intake.stop(cut=server.stop(grace_s=0))
    association.abort()
    assert [path.name for path in spool.receiving.glob("*/*")] == ["open"]
