"""What the disk allows: write, fsync, link, fsync of the directory, in a bare loop; one loop a process, as `sender.py` has one association.

usage: diskloop.py FOLDER FILE...
"""
# ruff: noqa: TID251  it measures what the spool has to do

import json
import os
import sys
import time
from pathlib import Path


def keep(root, name, data):
    part = root / "receiving" / name
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(fd, data)
    os.fsync(fd)
    os.close(fd)
    os.link(part, root / "incoming" / name)
    directory = os.open(root / "incoming", os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(directory)
    os.close(directory)


def main():
    root = Path(sys.argv[1])
    for folder in ("receiving", "incoming"):
        (root / folder).mkdir(exist_ok=True)
    images = [(f"{number:05}-{Path(name).name}", Path(name).read_bytes()) for number, name in enumerate(sys.argv[2:])]
    print("ready", flush=True)
    sys.stdin.readline()
    began, cpu = time.monotonic(), time.process_time()
    for name, data in images:
        keep(root, name, data)
    print(json.dumps({"images": len(images), "began": began, "ended": time.monotonic(), "cpu_s": time.process_time() - cpu}), flush=True)


if __name__ == "__main__":
    main()
