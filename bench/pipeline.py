"""How fast the whole pipeline is, from the first byte of a C-STORE to the last zip, beside a naive one.

The naive one (bench/piping/naive.py) is pynetdicom, pydicom and zipfile, never durable; ours is `dicomrx all` without upload, not durable
in memory (tmpfs) and durable on the disk. CT images of half a megabyte, in studies, over several associations; the pipelines take
turns. Every study waits a second for quiet, which is not counted. Prints a table and, last, one line of JSON.
"""

import argparse
import contextlib
import json
import shutil
import signal
import statistics
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

from making.ct import build
from receiving.cells import IDEAL, Failed, Scenario, own_folder, send_ideal
from receiving.loads import LOADS
from receiving.peers import DISK, MEMORY, Peer, running
from receiving.tree import Memory, cpu_s

_QUIET_S = 1
_ASSOCIATIONS = 4
_PATIENCE_S = 600
_LOOK_S = 0.02
_SETTLED_S = 0.02
_PER_STUDY = 100
_SLOW_SHARE = 10  # the naive one gets one image of so many
_GATES = {MEMORY: 12, DISK: 7}
_HERE = Path(__file__).parent


class Figures(NamedTuple):
    """What one run gave: images a second from the first byte to the last zip, CPU of the whole tree, and its memory."""

    images_per_s: float
    received_per_s: float
    cpu_s_per_1000: float
    peak_mb: float


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="the median of so many is told")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--quick", action="store_true", help="once, 200 images")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.repeats, chosen.images = 1, 200
    return chosen


def _ours(port, folder, place):
    durable = "--durable" if place == DISK else "--no-durable"
    places = [f"--storage={folder}", f"--state-dir={folder.parent / 'state'}", f"--zip-dir={folder.parent / 'zips'}"]
    network = ["--host=127.0.0.1", f"--port={port}", "--max-connections=64"]
    return [sys.executable, "-m", "dicomrx", "all", *places, *network, f"--timeout={_QUIET_S}", "--no-auto-upload", durable]


def _naive(port, folder, _place):
    return [sys.executable, str(_HERE / "piping" / "naive.py"), str(port), str(folder)]


OURS = Peer("dicomrx", "dicomrx all", _ours, received="../zips/*.zip")
NAIVE = Peer("naive", "pynetdicom + pydicom + zipfile", _naive, received="zips/*.zip", slow=True)


def zipped(peer, folder):
    """How many images lie in finished zips."""
    count = 0
    for path in folder.glob(peer.received):
        with zipfile.ZipFile(path) as made:
            count += len(made.infolist())
    return count


def wait_for_zips(peer, folder, images):
    """Until all are in zips; looks into them only where there are more than at the last look."""
    studies = -(-images // _PER_STUDY)
    deadline = time.monotonic() + _PATIENCE_S
    seen = 0
    while True:
        there = len(list(folder.glob(peer.received)))
        if there >= studies and there > seen:
            seen = there
            now = time.monotonic()
            if zipped(peer, folder) == images:
                return now
        if time.monotonic() > deadline:
            raise Failed(f"{zipped(peer, folder)} of {images} images were zipped in time")
        time.sleep(_LOOK_S)


def settle(pid):
    """Until every process has started: the tree takes no more CPU."""
    before = -1.0
    while (now := cpu_s(pid)) - before > _SETTLED_S:
        before = now
        time.sleep(0.5)


def run(peer, place, sources, folder):
    """One run from start to stop, in a folder of its own."""
    scenario = Scenario(IDEAL, LOADS["ct"], _ASSOCIATIONS, place)
    with own_folder(folder) as root, running(peer, root / "spool", place) as (port, pid):
        settle(pid)
        memory = Memory(pid)
        memory.start()
        began = []
        seconds = send_ideal(scenario, port, sources, lambda: began.extend([cpu_s(pid), time.monotonic()]))
        ended = wait_for_zips(peer, root / "spool", len(sources))
        cpu = cpu_s(pid) - began[0]
        memory.stop()
        whole = ended - began[1] - _QUIET_S
        return Figures(len(sources) / whole, len(sources) / seconds, cpu * 1000 / len(sources), memory.peak / 1e6)


def measure(chosen, memory, disk):
    sources = build(memory / "sources", chosen.images, _PER_STUDY)
    plan = [(OURS, MEMORY, sources, memory), (NAIVE, MEMORY, sources[: max(_PER_STUDY, chosen.images // _SLOW_SHARE)], memory)]
    plan.append((OURS, DISK, sources, disk))
    runs = {(peer.name, place): [] for peer, place, _, _ in plan}
    for _ in range(chosen.repeats):
        for peer, place, images, folder in plan:
            runs[peer.name, place].append(run(peer, place, images, folder))
    return {key: Figures(*map(statistics.median, zip(*each, strict=True))) for key, each in runs.items()}


def main():
    chosen = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # clean up
    shared = Path("/dev/shm")
    room = shared.is_dir() and shutil.disk_usage(shared).free > 5 * chosen.images * 2**19
    with contextlib.ExitStack() as stack:
        memory, disk = (
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dicomrx-bench-", dir=where, ignore_cleanup_errors=True)))
            for where in (shared if room else None, "/var/tmp")
        )
        told = measure(chosen, memory, disk)
    print(f"{'':9} {'place':7} {'images/s':>9} {'received/s':>11} {'CPU s/1000':>11} {'peak MB':>8}")
    for (name, place), row in told.items():
        print(f"{name:9} {place:7} {row.images_per_s:9.1f} {row.received_per_s:11.1f} {row.cpu_s_per_1000:11.2f} {row.peak_mb:8.0f}")
    naive = told[NAIVE.name, MEMORY]
    faster = {place: told[OURS.name, place].images_per_s / naive.images_per_s for place in _GATES}
    for place, gate in _GATES.items():
        print(f"{faster[place]:.1f} times the naive one, {'durable' if place == DISK else 'not durable'} (gate {gate})")
    rows = {f"{name} {place}": row._asdict() for (name, place), row in told.items()}
    print(json.dumps({"bench": "pipeline", "in_memory": room, "images": chosen.images, "faster": faster, "rows": rows}))
    return int(any(faster[place] < gate for place, gate in _GATES.items()))


if __name__ == "__main__":
    sys.exit(main())
