"""A near-ideal sender, one association a process: everything is encoded before the clock starts, one message is outstanding at a time.

usage: sender.py PORT FILE...

Says `ready`, waits for a line, sends, and tells what it did as JSON.
"""

import json
import socket
import sys
import time
from pathlib import Path

from dicomrx.network import wire
from dicomrx.network.filemeta import read_meta

EXPLICIT = "1.2.840.10008.1.2.1"
CT = "1.2.840.10008.5.1.4.1.1.2"


class Refused(Exception):
    """The receiver does not take it."""


def exactly(stream, count):
    data = b""
    while len(data) < count:
        more = stream.recv(count - len(data))
        if not more:
            raise Refused("the receiver hung up")
        data += more
    return data


def read(stream):
    kind, length = wire.header(exactly(stream, 6))
    return kind, exactly(stream, length)


def encoded(path, number, size):
    with path.open("rb") as file:
        meta = read_meta(file)
        file.seek(meta.offset)
        data = file.read()
    command = wire.fragments(wire.store_request(number % 0xFFFF + 1, meta.sop_class, meta.sop_instance), size, command=True)
    values = [*command, *wire.fragments(data, size, command=False)]
    return b"".join(wire.p_data(1, value) for value in values)


def associate(port, sop_class=CT):
    """Open an association; the stream, and how much of a message one PDU may carry."""
    stream = socket.create_connection(("127.0.0.1", port), 30)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.sendall(wire.associate_rq("BENCH", "DICOMRCV", [(1, sop_class, [EXPLICIT])]))
    kind, body = read(stream)
    contexts, max_pdu = wire.parse_associate_ac(body) if kind == wire.ASSOCIATE_AC else ({}, 0)
    if 1 not in contexts:
        raise Refused("the receiver does not take the association")
    return stream, wire.payload_size(max_pdu)


def store(stream, message):
    """Send one; True where it was answered with success."""
    stream.sendall(message)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    kind, body = read(stream)
    while kind == wire.P_DATA:
        _, last, data = wire.split(next(wire.values(body))[1])
        if last:
            return wire.Command.parse(bytes(data)).status == 0
        kind, body = read(stream)
    raise Refused("the receiver ended the association")


def main():
    port, paths = int(sys.argv[1]), [Path(name) for name in sys.argv[2:]]
    with paths[0].open("rb") as file:
        sop_class = read_meta(file).sop_class
    stream, size = associate(port, sop_class)
    messages = [encoded(path, number, size) for number, path in enumerate(paths)]
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    good = sum(store(stream, message) for message in messages)
    ended = time.monotonic()
    stream.sendall(wire.pdu(wire.RELEASE_RQ, bytes(4)))
    read(stream)
    print(json.dumps({"images": good, "began": began, "ended": ended}), flush=True)


if __name__ == "__main__":
    main()
