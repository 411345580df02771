"""What the same promises take of any program in Python that makes a file and removes one: a bare loop that knows nothing of DICOM.

usage: bare.py ROOT DURABLE       a batch after the other of ROOT/in to ROOT/out, in files of their own, the inputs removed last

A file has a megabyte at most; `warm` is not one of those that are timed.
"""
# ruff: noqa: PTH104, PTH208, TID251  it measures what the spool has to do

import os
import sys
from hashlib import sha256

from anonymizing import turn
from dicomrx.spool import durable

_BATCH = 64  # as the stage has
_BUFFER = memoryview(bytearray(1 << 20))


def copy(source, part):
    """Read, hash and write; the new file's descriptor."""
    fd = os.open(source, os.O_RDONLY)
    data = _BUFFER[: os.readv(fd, [_BUFFER])]
    os.close(fd)
    sha256(data).digest()
    made = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    durable.write_all(made, data)
    durable.begin_sync(made)
    return made


def move(root, names):
    made = [copy(f"{root}/in/{name}", f"{root}/parts/{name}") for name in names]
    for fd in made:
        durable.sync(fd)
        os.close(fd)
    for name in names:
        os.rename(f"{root}/parts/{name}", f"{root}/out/{name}")
    durable.sync_directory(f"{root}/out")
    durable.remove_all(f"{root}/in", names, {})


def main():
    root, sync = sys.argv[1:]
    durable.set_durable(enabled=sync == "1")
    move(root, ["warm"])
    names = sorted(os.listdir(f"{root}/in"))
    turn.take(lambda: [move(root, names[first : first + _BATCH]) for first in range(0, len(names), _BATCH)])


if __name__ == "__main__":
    main()
