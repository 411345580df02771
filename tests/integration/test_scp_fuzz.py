"""Mutated PDUs, the same ones for each seed: what is kept is what a reader of the specification would keep, and the receiver lives.

DICOMRX_EXAMPLES sets how many streams of some six PDUs each are sent (some hundred here). For a release, 100,000 PDUs and a word on
how it went:

    DICOMRX_EXAMPLES=16100 python -m pytest -rP -o faulthandler_timeout=0 tests/integration/test_scp_fuzz.py -k outlives
"""

import contextlib
import os
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dicomrx.network import wire
from dicomrx.network.sender import echo
from dicomrx.spool.ledger import Fate
from dicomrx.spool.names import Arrival
from tests.integration.scp_rig import (
    CT,
    ENGINES,
    EXPLICIT,
    IMPLICIT,
    PRIVATE_CLASS,
    TITLES,
    VERIFICATION,
    Folder,
    arrivals,
    data_set_of,
    eventually,
    raw_command,
    receiving,
)
from tests.integration.test_scp_hostile import Receiver

EXAMPLES = int(os.environ.get("DICOMRX_EXAMPLES", "400"))
OFFERS = [(1, CT, [EXPLICIT]), (3, VERIFICATION, [IMPLICIT]), (5, PRIVATE_CLASS, [EXPLICIT, IMPLICIT])]
REQUEST = wire.associate_rq(*TITLES, OFFERS)
FIND = raw_command({0x0002: CT.encode() + b"\0", 0x0100: b"\x20\0", 0x0110: b"\1\0", 0x0700: b"\0\0", 0x0800: b"\1\0"})
STORAGE = {1, 5}
REST_S = 0.05
NUMBERS = (0, 1, 2, 3, 4, 5, 0x7F, 0x80, 0xFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF)


@pytest.fixture(params=ENGINES)
def intake(tmp_path: Path, request: pytest.FixtureRequest) -> Folder:
    return Folder(tmp_path, request.param)


def conversation(dice: random.Random) -> list[bytes]:
    """PDUs of a peer that behaves: instances, echoes, now and then a query; cut as it likes."""
    values: list[bytes] = []
    for number in range(1, dice.randint(2, 5)):
        size = dice.choice((20, 200, 5000))
        if dice.random() < 0.2:
            values.append(wire.p_data(3, b"\3" + wire.echo_request(number)))
        elif dice.random() < 0.05:
            values += [wire.p_data(1, b"\3" + FIND), wire.p_data(1, b"\2" + dice.randbytes(10))]
        else:
            context, sop_class = dice.choice(((1, CT), (5, PRIVATE_CLASS)))
            command = wire.store_request(number, sop_class, f"1.2.{number}")
            parts = [
                *wire.fragments(command, size, command=True),
                *wire.fragments(dice.randbytes(dice.randint(0, 400)), size, command=False),
            ]
            values += [wire.p_data(context, part) for part in parts]
    pdus = []
    while values:
        count = dice.randint(1, 4)
        pdus.append(wire.pdu(wire.P_DATA, b"".join(value[6:] for value in values[:count])))
        values = values[count:]
    return [*pdus, wire.pdu(wire.RELEASE_RQ, bytes(4))]


def mutated(pdus: list[bytes], dice: random.Random) -> bytes:
    pdus = list(pdus)
    for _ in range(dice.choice((1, 1, 1, 2, 5))):
        at = dice.randrange(len(pdus))
        kind = dice.randrange(8)
        if kind == 0:
            pdus.insert(at, pdus[at])
        elif kind == 1:
            pdus[at] = pdus[dice.randrange(len(pdus))]
        elif pdus[at]:
            pdus[at] = mutated_pdu(pdus[at], kind, dice)
    return b"".join(pdus)


def mutated_pdu(whole: bytes, kind: int, dice: random.Random) -> bytes:
    pdu = bytearray(whole)
    place = dice.randrange(min(len(pdu), dice.choice((6, 12, 40, 10_000))))
    if kind == 2:
        pdu[place] = dice.randrange(256)
    elif kind == 3:
        pdu[place] ^= 1 << dice.randrange(8)
    elif kind == 4:
        del pdu[place : place + dice.randint(1, 20)]
    elif kind == 5:
        pdu[place:place] = dice.randbytes(dice.randint(1, 20))
    else:
        length = 2 if kind == 6 else 6  # where the length of the PDU lies, and that of its first value
        pdu[length : length + 4] = dice.choice(NUMBERS).to_bytes(4, "big")
    return bytes(pdu)


class Reader:
    """PS3.8 and PS3.7 at leisure, with all bytes at hand: what must be kept, and what may be."""

    def __init__(self) -> None:
        self.must: list[bytes] = []
        self.may: list[bytes] = []
        self._unsure = False  # behind another message, which pynetdicom may have answered with an abort
        self._command = b""
        self._context = 0
        self._data: bytes | None = None
        self._kept = True
        self._other = False

    def read(self, stream: bytes, *, whole_pdus: bool) -> None:
        with contextlib.suppress(wire.WireError):
            for values in self._pdus(stream, whole_pdus=whole_pdus):
                for context, value in values:
                    self._value(context, value[0], value[1:])

    def _pdus(self, stream: bytes, *, whole_pdus: bool) -> Iterator[list[tuple[int, bytes]]]:
        offset = 0
        while offset + 6 <= len(stream):
            kind, length = wire.header(stream[offset : offset + 6])
            end = offset + 6 + length
            if kind != wire.P_DATA or length > 1 << 20 or (whole_pdus and end > len(stream)):
                return
            yield from self._values(stream[offset + 6 : end], length, whole=whole_pdus)
            offset = end

    def _values(self, body: bytes, length: int, *, whole: bool) -> Iterator[list[tuple[int, bytes]]]:
        """The stock engine takes a PDU as a whole or not at all, the lane each value as it comes."""
        found, offset = [], 0
        while offset < length:
            if len(body) - offset < 6:
                break
            size = int.from_bytes(body[offset : offset + 4], "big")
            if not 2 <= size <= length - offset - 4 or offset + 4 + size > len(body):
                break
            found.append((body[offset + 4], body[offset + 5 : offset + 4 + size]))
            offset += 4 + size
        if offset == length or not whole:
            yield found
        if offset != length:
            raise wire.WireError("the end")

    def _value(self, context: int, control: int, data: bytes) -> None:
        if context == 0 or (self._context and context != self._context):
            raise wire.WireError("context")
        if control & 1:
            self._part_of_command(context, data, last=bool(control & 2))
        elif self._data is not None:
            self._data += data
            if control & 2:
                self._finish()
        elif not self._other:
            raise wire.WireError("data without command")
        elif control & 2:
            self._reset()

    def _part_of_command(self, context: int, data: bytes, *, last: bool) -> None:
        if self._data is not None or self._other:
            raise wire.WireError("command in data")
        self._context = context
        self._command += data
        if last:
            self._message(context, wire.Command.parse(self._command))

    def _message(self, context: int, command: wire.Command) -> None:
        if command.field == wire.C_STORE_RQ:
            if context not in {1, 3, 5}:
                raise wire.WireError("context")
            good = {CT, PRIVATE_CLASS} | {command.sop_class if is_unknown(command.sop_class) else CT}
            self._kept = context in STORAGE and command.sop_class in good and command.sop_instance is not None
            self._data = b""
            if not command.has_data_set:
                self._reset()
        else:
            self._unsure |= command.field != wire.C_ECHO_RQ or context != 3 or command.sop_class != VERIFICATION or command.has_data_set
            self._unsure |= self._command != wire.echo_request(command.message_id)
            self._reset()
            if command.has_data_set:
                self._context, self._other = context, True

    def _finish(self) -> None:
        if self._kept and self._data is not None:
            self.may.append(self._data)
            if not self._unsure:
                self.must.append(self._data)
        self._reset()

    def _reset(self) -> None:
        self._command, self._context, self._data, self._other = b"", 0, None, False


def is_unknown(uid: str | None) -> bool:
    from dicomrx.network.classes import is_storage

    return uid is not None and is_storage(uid)


def send(address: tuple[str, int], stream: bytes) -> int | None:
    """How many successes come back; None where the connection is reset, and answers may be lost."""
    answers = b""
    with socket.create_connection(address, 10) as peer:
        peer.sendall(REQUEST)
        kind, length = wire.header(peer.recv(6, socket.MSG_WAITALL))
        assert kind == wire.ASSOCIATE_AC
        peer.recv(length, socket.MSG_WAITALL)
        try:
            peer.sendall(stream)
            peer.shutdown(socket.SHUT_WR)
            while more := peer.recv(65536):
                answers += more
        except OSError:
            return None
    return sum(1 for _ in successes(answers))


def ask(address: tuple[str, int], request: bytes) -> None:
    """Send a request that is none, perhaps, and read what comes of it."""
    with socket.create_connection(address, 10) as peer, contextlib.suppress(OSError):
        peer.sendall(request)
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(65536):
            pass


def successes(answers: bytes) -> Iterator[wire.Command]:
    while answers:
        kind, length = wire.header(answers[:6])
        if kind == wire.P_DATA:
            for _, value in wire.values(answers[6 : 6 + length]):
                command = wire.Command.parse(value[1:])
                if command.field == wire.C_STORE_RSP and command.status == 0:
                    yield command
        answers = answers[6 + length :]


@pytest.mark.slow
def test_of_mutated_pdus_exactly_what_is_whole_is_kept(intake: Folder) -> None:
    whole = intake.engine == "pynetdicom"
    count = max(EXAMPLES // (4 if whole else 1), 1)
    with receiving(intake) as server:
        for seed in range(count):
            dice = random.Random(seed)
            stream = mutated(conversation(dice), dice)
            acknowledged = send(server.address, stream)
            eventually(lambda: not server.associations.connections)
            reader = Reader()
            reader.read(stream, whole_pdus=whole)
            kept = [data_set_of(path) for path in sorted(arrivals(intake), key=lambda path: int(path.stem.rpartition("-")[2]))]
            assert kept == reader.may[: len(kept)], seed
            assert len(kept) >= len(reader.must), seed
            assert acknowledged in {None, len(kept)}, seed
            assert intake.notes[-1]["instances"] == len(kept), seed
            assert list(intake.receiving.iterdir()) == [], seed
            for path in arrivals(intake):
                path.unlink()
        assert echo(*server.address)
    assert {path.name for path in intake.receiving.parent.iterdir()} == {"receiving", "incoming"}


@pytest.mark.slow
def test_mutated_requests_to_associate_end_no_receiver(intake: Folder) -> None:
    with receiving(intake) as server:
        threads = threading.active_count()
        for seed in range(max(EXAMPLES // 2, 1)):
            dice = random.Random(seed)
            ask(server.address, mutated([REQUEST], dice) + conversation(dice)[0])
        eventually(lambda: threading.active_count() <= threads, 20)
        assert echo(*server.address)
    assert list(intake.receiving.iterdir()) == []


class Attack:
    """Mutated streams at a receiver, from several associations at once, and what must and what may have been kept of them."""

    def __init__(self, address: tuple[str, int], engine: str) -> None:
        self._address = address
        self._whole_pdus = engine == "pynetdicom"
        self._lock = threading.Lock()
        self.pdus = 0
        self.must: Counter[bytes] = Counter()
        self.may: Counter[bytes] = Counter()

    def __call__(self, seed: int) -> None:
        dice = random.Random(seed)
        if seed % 10 == 0:
            ask(self._address, mutated([REQUEST], dice))
            self._note(1, [], [])
            return
        pdus = conversation(dice)
        stream = mutated(pdus, dice)
        reader = Reader()
        reader.read(stream, whole_pdus=self._whole_pdus)
        acknowledged = send(self._address, stream)
        least, most = (len(reader.must), None) if acknowledged is None else (max(acknowledged, len(reader.must)), acknowledged)
        self._note(len(pdus), reader.may[:least], reader.may[:most])

    def _note(self, pdus: int, must: list[bytes], may: list[bytes]) -> None:
        with self._lock:
            self.pdus += pdus
            self.must.update(must)
            self.may.update(may)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_receiver_outlives_mutated_pdus_serves_others_meanwhile_and_keeps_what_it_acknowledged(engine: str, tmp_path: Path) -> None:
    with Receiver(tmp_path, engine) as receiver, ThreadPoolExecutor(4) as pool:
        spool = receiver.incoming.parent
        around = outside(spool)
        attack = Attack(("127.0.0.1", receiver.port), engine)
        done = [pool.submit(attack, seed) for seed in range(EXAMPLES)]
        echoes, naps = [receiver.echo_takes()], [REST_S]
        while not all(each.done() for each in done):
            echoes.append(receiver.echo_takes())
            began = time.monotonic()
            time.sleep(REST_S)
            naps.append(time.monotonic() - began)
        for each in done:
            each.result()
        peak = receiver.peak()
        echoes.append(receiver.echo_takes())
    print(f"{attack.pdus} mutated PDUs: the slowest of {len(echoes)} echoes took {max(echoes):.3f} s, peak memory {peak / 1e6:.0f} MB")
    assert max(echoes) < max(1.0, 10 * (max(naps) - REST_S))  # a second, where the machine has nothing else to do
    assert peak < 200 << 20
    kept = list(receiver.incoming.iterdir())
    assert attack.must <= Counter(map(data_set_of, kept)) <= attack.may
    assert {arrival.id for path in kept if (arrival := Arrival.parse(path.name))} == acknowledged(spool)
    assert len(kept) == len(acknowledged(spool)) > 0
    assert list((spool / "receiving").iterdir()) == []
    assert outside(spool) == around


def outside(spool: Path) -> set[Path]:
    return {path for path in spool.parent.rglob("*") if spool not in path.parents}


def acknowledged(spool: Path) -> set[str]:
    """The ids that the receiver noted before it answered."""
    ledgers = (spool / ".run" / "arrivals").iterdir()
    noted = [(path.name, line.partition(" ")) for path in ledgers for line in path.read_text().splitlines()]
    return {f"{run}-{number}" for run, (number, _, fate) in noted if fate == Fate.ACKNOWLEDGED}
