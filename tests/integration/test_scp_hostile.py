"""A real receiver under attack from one address: others are served at once, memory stays small, and all is given back."""

import contextlib
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest

from dicomrx.demo.api_server import DemoApi
from dicomrx.network import wire
from dicomrx.network.client import Association
from tests.acceptance.pipeline import Pipeline, children
from tests.integration.scp_rig import CT, ENGINES, EXPLICIT, IMPLICIT, TITLES, VERIFICATION, connect_from, eventually, store_command

ATTACK_S = 3.0
REQUEST = wire.associate_rq(*TITLES, [(1, CT, [EXPLICIT])])
STORE = wire.p_data(1, b"\3" + store_command())
TOO_LONG = struct.pack(">BxI", wire.P_DATA, 0xFFFFFFF0)


class Attackers:
    """Sockets from 127.0.0.1, which may fail as they like."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: list[socket.socket] = []
        self.until = time.monotonic() + ATTACK_S

    def connect(self, data: bytes = b"") -> socket.socket:
        stream = socket.create_connection(("127.0.0.1", self._port), 10)
        self._open.append(stream)
        with contextlib.suppress(ConnectionError):
            stream.sendall(data)
        return stream

    @contextlib.contextmanager
    def at_work(self, attack: "Callable[[Attackers], None]") -> Iterator[None]:
        def work() -> None:
            with contextlib.suppress(OSError):  # they may be hung up on
                attack(self)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            thread.join()
            for stream in self._open:
                stream.close()

    @property
    def running(self) -> bool:
        return time.monotonic() < self.until


def many_silent(attackers: Attackers) -> None:
    for _ in range(500):
        attackers.connect()


def half_requests(attackers: Attackers) -> None:
    for _ in range(100):
        attackers.connect(REQUEST[:60])


def web_browsers(attackers: Attackers) -> None:
    for _ in range(100):
        attackers.connect(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")


def noise(attackers: Attackers) -> None:
    dice = random.Random(1)
    for _ in range(100):
        attackers.connect(dice.randbytes(4096))


def endless(first: bytes) -> Callable[[Attackers], None]:
    def attack(attackers: Attackers) -> None:
        streams = [attackers.connect(first) for _ in range(10)]
        while attackers.running:
            for stream in streams:
                with contextlib.suppress(OSError):
                    stream.sendall(bytes(1 << 20))
            time.sleep(0.05)

    return attack


def trickle(first: bytes, rest: bytes) -> Callable[[Attackers], None]:
    def attack(attackers: Attackers) -> None:
        streams = [attackers.connect(first) for _ in range(18)]
        for n in range(len(rest)):
            for stream in streams:
                with contextlib.suppress(OSError):
                    stream.sendall(rest[n : n + 1])
            if not attackers.running:
                return
            time.sleep(0.05)

    return attack


def idle(attackers: Attackers) -> None:
    for _ in range(50):
        attackers.connect(REQUEST)


def stalled_instances(attackers: Attackers) -> None:
    for _ in range(30):
        attackers.connect(REQUEST + STORE + wire.p_data(1, b"\0" + bytes(50_000))[:-10])


def resets(attackers: Attackers) -> None:
    while attackers.running:
        stream = attackers.connect(REQUEST + STORE + wire.p_data(1, b"\0" + bytes(50_000)))
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.close()


def heavy_requests(attackers: Attackers) -> None:
    syntaxes = [f"1.2.{n}" for n in range(128)]
    heavy = wire.associate_rq(*TITLES, [(2 * n + 1, CT, syntaxes) for n in range(128)])
    while attackers.running:
        for _ in range(4):
            attackers.connect(heavy)
        time.sleep(0.2)


def never_reads(attackers: Attackers) -> None:
    echo = wire.associate_rq(*TITLES, [(1, VERIFICATION, [IMPLICIT])])
    streams = [attackers.connect(echo) for _ in range(4)]
    while attackers.running:
        for stream in streams:
            stream.setblocking(False)
            with contextlib.suppress(OSError):
                stream.send(wire.p_data(1, b"\3" + wire.echo_request(1)) * 1000)
        time.sleep(0.05)


ATTACKS = {
    "500 silent": many_silent,
    "half a request": half_requests,
    "HTTP": web_browsers,
    "noise": noise,
    "an endless request": endless(struct.pack(">BxI", wire.ASSOCIATE_RQ, 0xFFFFFFF0)),
    "endless data before an association": endless(TOO_LONG),
    "endless data": endless(REQUEST + TOO_LONG),
    "an endless command": endless(REQUEST + wire.p_data(1, b"\1" + bytes(1000)) * 100),
    "a trickled request": trickle(REQUEST[:20], REQUEST[20:]),
    "a trickled instance": trickle(REQUEST, STORE),
    "idle": idle,
    "stalled instances": stalled_instances,
    "resets": resets,
    "heavy requests": heavy_requests,
    "never reads": never_reads,
}


@pytest.fixture(scope="module", params=ENGINES)
def receiver(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Receiver]":
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("DICOM_RECEIVER_"):
                patch.delenv(name)
        root = tmp_path_factory.mktemp(request.param)
        with Receiver(root, request.param) as receiver:
            yield receiver


class Receiver:
    """`dicomrx scp` as a process of its own."""

    def __init__(self, root: Path, engine: str) -> None:
        self._stack = contextlib.ExitStack()
        api = self._stack.enter_context(DemoApi(root / "received"))
        self._pipeline = Pipeline(root, api, ENGINE=engine, LOG_LEVEL="WARNING")
        self.port = self._pipeline.port
        self.incoming = self._pipeline.storage / "incoming"

    def __enter__(self) -> Self:
        self._process = self._stack.enter_context(self._pipeline.running("scp"))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _processes(self) -> list[Path]:
        pids = [self._process.pid, *children(self._process.pid).get("scp", [])]
        return [Path(f"/proc/{pid}") for pid in pids]

    def peak(self) -> int:
        """The most memory that each of its processes has had, bytes together."""
        lines = [line for process in self._processes() for line in (process / "status").read_text().splitlines()]
        return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))

    def descriptors(self) -> int:
        return sum(len(list((process / "fd").iterdir())) for process in self._processes())

    def associate(self, address: str) -> Association:
        return connect_from(address, self.port, (1, VERIFICATION, [IMPLICIT]), ("GOOD", "DICOMRCV"))

    def echo_takes(self) -> float:
        began = time.monotonic()
        with self.associate("127.0.0.9") as association:
            assert association.echo(1) == 0
        return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize("kind", ATTACKS)
def test_a_good_echo_from_elsewhere_is_answered_at_once_and_memory_stays_small(receiver: Receiver, kind: str) -> None:
    at_rest = max(receiver.echo_takes() for _ in range(5))
    before = receiver.descriptors()
    attackers = Attackers(receiver.port)
    with attackers.at_work(ATTACKS[kind]):
        took = []
        while attackers.running:
            took.append(receiver.echo_takes())
            time.sleep(0.1)
    assert max(took) < max(1.0, 10 * at_rest)  # a second, where the machine has nothing else to do
    assert receiver.peak() < 200 << 20
    assert list(receiver.incoming.iterdir()) == []
    eventually(lambda: receiver.descriptors() <= before, 20)
    with contextlib.ExitStack() as stack:  # the attacker's own places are free again
        for _ in range(18):
            stack.enter_context(receiver.associate("127.0.0.1"))
