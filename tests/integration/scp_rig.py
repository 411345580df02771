"""A receiver on a real spool, for the tests of the network package."""

import contextlib
import errno
import io
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from dicomrx.network import filemeta, wire
from dicomrx.network.admission import Listen
from dicomrx.network.client import Association
from dicomrx.network.ports import Intake
from dicomrx.network.server import Server, serve

CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
PRIVATE_CLASS = "1.2.826.0.1.3680043.9.9999.1"
PRIVATE_SYNTAX = "1.2.826.0.1.3680043.9.9999.2"
ENGINES = ("lane", "pynetdicom")
LISTEN = Listen(host="127.0.0.1", port=0)
TITLES = ("SENDER", "DICOMRCV")
OFFERS = ((1, CT, [EXPLICIT]), (3, VERIFICATION, [IMPLICIT]))


class Folder:
    """An intake in plain folders; `fail` may raise at "begin", "write" or "keep"."""

    def __init__(self, root: Path, engine: str = "lane") -> None:
        self.engine = engine
        self.receiving, self.incoming = root / "receiving", root / "incoming"
        self.receiving.mkdir(parents=True)
        self.incoming.mkdir()
        self.room = True
        self.notes: list[dict[str, object]] = []
        self.begun: list[tuple[int, int]] = []
        self.fail: Callable[[str], None] = lambda step: None
        self._lock = threading.Lock()
        self._associations = 0

    def new_association(self) -> int:
        with self._lock:
            self._associations += 1
            return self._associations

    def space_left(self) -> bool:
        return self.room

    def begin(self, association: int, number: int) -> "Part":
        if not self.room:
            raise OSError(errno.ENOSPC, "no room")
        self.fail("begin")
        self.begun.append((association, number))
        return Part(self, f"{association}-{number}")

    def note_association(self, association: int, /, **facts: object) -> None:
        self.notes.append({"association": association, **facts})


class Part:
    def __init__(self, folder: Folder, name: str) -> None:
        self._folder = folder
        self._path = folder.receiving / f"{name}.part"
        self._final = folder.incoming / f"{name}.dcm"
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)

    def write(self, *pieces: bytes | memoryview) -> None:
        self._folder.fail("write")
        for piece in pieces:
            assert os.write(self._fd, piece) == len(piece)

    def keep(self) -> None:
        self._folder.fail("keep")
        os.link(self._path, self._final)
        self.drop()

    def drop(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._path.unlink()


def through(engine: str, listen: Listen = LISTEN) -> Listen:
    return replace(listen, engine=engine)


@contextlib.contextmanager
def receiving(intake: Intake, listen: Listen = LISTEN, grace_s: float = 5.0) -> Iterator[Server]:
    """A receiver that listens; through the engine of the folder, where it is one."""
    server = serve(through(intake.engine, listen) if isinstance(intake, Folder) else listen, intake)
    server.start()
    try:
        yield server
    finally:
        if server.alive:
            server.stop(grace_s)


def connect(server: Server, *offers: tuple[int, str, list[str]], titles: tuple[str, str] = TITLES, timeout_s: float = 10.0) -> Association:
    return Association.connect(server.address, titles, offers or [(1, CT, [EXPLICIT])], timeout_s)


def connect_from(address: str, port: int, offer: tuple[int, str, list[str]], titles: tuple[str, str] = TITLES) -> Association:
    """An association from another address of this machine, with a receiver that may be another process."""
    stream = socket.create_connection(("127.0.0.1", port), 10, source_address=(address, 0))
    association = Association(stream, "the receiver")
    try:
        association._negotiate(titles, [offer])
    except BaseException:
        stream.close()
        raise
    return association


def store(association: Association, data: bytes, uid: str = "1.2.3", sop_class: str = CT, context: int = 1) -> int:
    return association.store(context, sop_class, uid, io.BytesIO(data))


def arrivals(intake: Folder) -> list[Path]:
    return sorted(intake.incoming.iterdir())


def data_set_of(path: Path) -> bytes:
    """What lies behind the file meta information of a kept file."""
    with path.open("rb") as file:
        meta = filemeta.read_meta(file)
        assert meta is not None
        file.seek(meta.offset)
        return file.read()


def eventually(condition: Callable[[], object], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(FileNotFoundError):  # a run directory that was looked into has just got another name
            if condition():
                return
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def raw_command(elements: dict[int, bytes]) -> bytes:
    """A command set with whatever values, however wrong."""
    body = b"".join(struct.pack("<HHI", 0, tag, len(value)) + value for tag, value in sorted(elements.items()))
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def store_command(**changes: bytes | None) -> bytes:
    """A C-STORE request; `uid`, `sop_class`, `message_id`, `data_set` replace a value, None leaves it out."""
    values: dict[str, bytes | None] = {"sop_class": CT.encode() + b"\0", "uid": b"1.2.3\0", "message_id": b"\1\0", "data_set": b"\1\0"}
    values |= changes
    tags = {"sop_class": 0x0002, "message_id": 0x0110, "data_set": 0x0800, "uid": 0x1000}
    given = {tags[name]: value for name, value in values.items() if value is not None}
    return raw_command(given | {0x0100: b"\1\0", 0x0700: b"\0\0"})


def answer(association: Association) -> int | None:
    """The status of the next answer, or None where the peer ended the association."""
    kind, body = association.read()
    if kind != wire.P_DATA:
        assert kind == wire.ABORT
        return None
    encoded = b"".join(value[1:] for _, value in wire.values(body))
    return wire.Command.parse(encoded).status
