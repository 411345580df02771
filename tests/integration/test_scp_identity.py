"""What lies in the file is what the sender had, byte for byte, however it was cut on its way."""

import contextlib
import io
import os
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import cycle
from pathlib import Path

import pydicom.data
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomrx.network import wire
from dicomrx.network.client import Association
from dicomrx.network.filemeta import read_meta
from dicomrx.network.server import Server
from tests.integration.certificates import Authority
from tests.integration.scp_rig import (
    CT,
    ENGINES,
    EXPLICIT,
    LISTEN,
    OFFERS,
    PRIVATE_CLASS,
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
)
from tests.integration.test_scp_tls import client_context

FILES = Path(pydicom.data.__file__).parent / "test_files"
NAMES = (
    "CT_small.dcm",
    "rtplan.dcm",  # implicit
    "MR_small_bigendian.dcm",
    "image_dfl.dcm",  # deflated
    "SC_rgb_jpeg_dcmtk.dcm",
    "JPGExtended.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_RLE.dcm",
    "MR_truncated.dcm",
)


@dataclass(frozen=True)
class Source:
    sop_class: str
    syntax: str
    data: bytes


def sources() -> list[Source]:
    """Real files in every kind of transfer syntax, and lengths at which something may go wrong."""
    found = []
    for name in NAMES:
        with (FILES / name).open("rb") as file:
            meta = read_meta(file)
            assert meta is not None
            file.seek(meta.offset)
            found.append(Source(meta.sop_class, meta.transfer_syntax, file.read()))
    lengths = (0, 1, 2, 4090, 4091, 16_376, 131_065, 131_066, 131_067, 262_144, 1_000_003)
    return found + [Source(PRIVATE_CLASS, EXPLICIT, os.urandom(length)) for length in lengths]


SOURCES = sources()
SYNTAXES = sorted({(source.sop_class, source.syntax) for source in SOURCES})


@pytest.fixture(params=ENGINES)
def intake(tmp_path: Path, request: pytest.FixtureRequest) -> Folder:
    return Folder(tmp_path, request.param)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "hospital")


@contextlib.contextmanager
def associated(server: Server, tls: ssl.SSLContext | None = None) -> Iterator[Association]:
    offers = [(2 * n + 1, sop_class, [syntax]) for n, (sop_class, syntax) in enumerate(SYNTAXES)]
    association = connect(server, *offers) if tls is None else secured(server, offers, tls)
    with association:
        yield association


def secured(server: Server, offers: list[tuple[int, str, list[str]]], tls: ssl.SSLContext) -> Association:
    import socket

    stream = tls.wrap_socket(socket.create_connection(server.address, 10))
    association = Association(stream, "the receiver")
    association._negotiate(TITLES, offers)
    return association


def pdus(source: Source, number: int, size: int) -> list[bytes]:
    """A C-STORE in PDUs of at most `size` bytes; the command in pieces too where it does not fit."""
    context = 2 * SYNTAXES.index((source.sop_class, source.syntax)) + 1
    command = wire.store_request(number, source.sop_class, f"1.2.3.{number}")
    cut = [*wire.fragments(command, size - 6, command=True), *wire.fragments(source.data, size - 6, command=False)]
    return [wire.p_data(context, value) for value in cut]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("size", [50, 4096, 16_382, 131_072, 10_000_000])
def test_whatever_its_syntax_and_the_size_of_the_pdus_it_arrives_as_it_was(
    intake: Folder, size: int, tls: bool, authority: Authority
) -> None:
    own = authority.issue("own")
    listen = replace(LISTEN, tls_cert=own, tls_ca=authority.certificate, max_pdu=0) if tls else replace(LISTEN, max_pdu=0)
    sent = [source for source in SOURCES if len(source.data) < 2000 * size]
    with receiving(intake, listen) as server, associated(server, client_context(authority, own) if tls else None) as association:
        for number, source in enumerate(sent, 1):
            association.write([b"".join(pdus(source, number, size))])
            assert answer(association) == 0
    assert [data_set_of(path) for path in sorted(arrivals(intake), key=number_of)] == [source.data for source in sent]


def number_of(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def test_a_pdu_as_big_as_the_instance_passes_where_any_size_is_taken(intake: Folder) -> None:
    data = os.urandom(900_000)
    with receiving(intake, replace(LISTEN, max_pdu=0)) as server, connect(server) as association:
        association.write([wire.p_data(1, b"\3" + store_command()), wire.p_data(1, b"\2" + data)])
        assert answer(association) == 0
    assert data_set_of(arrivals(intake)[0]) == data


cuts = st.lists(st.integers(1, 3000), min_size=1, max_size=6)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    messages=st.lists(st.one_of(st.none(), st.binary(max_size=5000)), min_size=1, max_size=6),
    value_cuts=cuts,
    pdu_cuts=cuts,
    write_cuts=cuts,
)
def test_many_messages_sent_without_waiting_and_cut_anywhere_are_each_answered_and_kept(
    intake: Folder, messages: list[bytes | None], value_cuts: list[int], pdu_cuts: list[int], write_cuts: list[int]
) -> None:
    """None is a C-ECHO; values are cut, gathered into PDUs, and these written in pieces, each of any size."""
    for path in arrivals(intake):
        path.unlink()
    values = list(cut_values(messages, cycle(value_cuts)))
    stream = b"".join(gathered(values, cycle(pdu_cuts)))
    with receiving(intake) as server, connect(server, *OFFERS) as association:
        for piece in pieces(stream, cycle(write_cuts)):
            association.write([piece])
        assert [answer(association) for _ in messages] == [0] * len(messages)
    kept = [data_set_of(path) for path in sorted(arrivals(intake), key=number_of)]
    assert kept == [message for message in messages if message is not None]


def cut_values(messages: list[bytes | None], sizes: Iterator[int]) -> Iterator[tuple[int, bytes]]:
    for number, message in enumerate(messages, 1):
        context = 3 if message is None else 1
        command = wire.echo_request(number) if message is None else wire.store_request(number, CT, f"1.2.{number}")
        for kind, data in ((1, command), (0, message)):
            if data is not None:
                parts = list(pieces(data, sizes)) or [b""]
                for part in parts[:-1]:
                    yield context, bytes([kind]) + part
                yield context, bytes([kind | 2]) + parts[-1]


def pieces(data: bytes, sizes: Iterator[int]) -> Iterator[bytes]:
    while data:
        size = next(sizes)
        yield data[:size]
        data = data[size:]


def gathered(values: list[tuple[int, bytes]], counts: Iterator[int]) -> Iterator[bytes]:
    while values:
        count = next(counts) % 7 + 1
        yield wire.pdu(wire.P_DATA, b"".join(wire.p_data(*value)[6:] for value in values[:count]))
        values = values[count:]


@pytest.mark.slow
def test_a_multi_frame_of_200_mb_is_written_as_it_comes_with_flat_memory(tmp_path: Path, intake: Folder) -> None:
    def measure() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], resident())

    block = os.urandom(1 << 20)
    peak, done = [0], threading.Event()
    with receiving(intake) as server, connect(server) as association:
        assert store(association, block) == 0
        before = resident()
        watcher = threading.Thread(target=measure)
        watcher.start()
        assert association.store(1, CT, "1.2.3", Blocks(block, 200)) == 0
        done.set()
        watcher.join()
    assert peak[0] - before < 8_000_000
    big = max(arrivals(intake), key=lambda path: path.stat().st_size)
    digest = sha256()
    with big.open("rb") as file:
        meta = read_meta(file)
        assert meta is not None
        file.seek(meta.offset)
        for _ in range(200):
            digest.update(file.read(1 << 20))
        assert file.read() == b""
    expected = sha256()
    for _ in range(200):
        expected.update(block)
    assert digest.digest() == expected.digest()
    big.unlink()


class Blocks(io.BytesIO):
    """The same block again and again: a big data set that takes no memory."""

    def __init__(self, block: bytes, count: int) -> None:
        super().__init__()
        self._twice = block * 2
        self._length, self._left, self._at = len(block), len(block) * count, 0

    def read(self, size: int | None = -1) -> bytes:
        size = min(size or 0, self._left)
        piece = self._twice[self._at : self._at + size]
        self._at = (self._at + size) % self._length
        self._left -= size
        return piece


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_idle_associations_cost_nothing(tmp_path: Path) -> None:
    intake = Folder(tmp_path, "lane")
    listen = replace(LISTEN, max_connections=40)
    with receiving(intake, listen) as server, contextlib.ExitStack() as stack:
        opened = [stack.enter_context(connect(server)) for _ in range(32)]
        assert [store(association, b"data") for association in opened] == [0] * 32
        eventually(lambda: len(arrivals(intake)) == 32)
        time.sleep(0.5)
        before = time.process_time()
        time.sleep(5)
        assert time.process_time() - before < 0.05  # one per cent of a core
