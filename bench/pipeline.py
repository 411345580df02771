"""How fast the whole pipeline is, from the first byte of a C-STORE to the last zip, beside a naive one."""

import os
import signal
import statistics
import sys
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

from making.ct import build
from making.folders import fits_in_memory, in_memory, on_disk
from receiving.cells import IDEAL, Failed, Scenario, own_folder, send_ideal
from receiving.loads import LOADS
from receiving.peers import DISK, MEMORY, Peer, running
from receiving.tree import Memory, cpu_by, cpu_s
from telling.machine import facts
from telling.page import Bars, Gate, Page, parse_images, short

_INTRODUCTION = """\
Made by `bench/pipeline.py`. The naive one (`bench/piping/naive.py`) is pynetdicom, pydicom and zipfile, never durable, and removes far
less; ours is `dicomrx all` without upload, not durable in memory (tmpfs) and durable on the disk. CT images of half a megabyte, 100 a
study, over four associations; the sender shares the cores, and the pipelines take turns. A rate is images over the seconds from the
first byte sent to the last one answered (received), to an empty `incoming/` (filed) and to the last zip (whole). Studies are complete
after a second of quiet; the time in which nothing is left to do but to wait for that is not counted."""
_QUIET_S = 1
_ASSOCIATIONS = 4
_PATIENCE_S = 600
_LOOK_S = 0.02
_SETTLED_S = 0.02
_PER_STUDY = 100
_SLOW_SHARE = 10  # the naive one gets one image of so many
_GATES = {MEMORY: ("whole pipeline, not durable", 12, 20), DISK: ("whole pipeline, durable", 7, 10)}
_STAGES = ("scp", "anonymize", "watch", "upload")
_HERE = Path(__file__).parent


class Figures(NamedTuple):
    """What one run gave: images a second up to the end of each phase, the whole tree's CPU and memory, and each stage's CPU."""

    received_per_s: float
    filed_per_s: float
    whole_per_s: float
    cpu_s_per_1000: float
    peak_mb: float
    scp: float
    anonymize: float
    watch: float
    upload: float


def _ours(port, folder, place):
    durable = "--durable" if place == DISK else "--no-durable"
    places = [f"--storage={folder}", f"--state-dir={folder.parent / 'state'}", f"--zip-dir={folder.parent / 'zips'}"]
    network = ["--host=127.0.0.1", f"--port={port}", "--max-connections=64"]
    return [sys.executable, "-m", "dicomrx", "all", *places, *network, f"--timeout={_QUIET_S}", "--no-auto-upload", durable]


def _naive(port, folder, _place):
    return [sys.executable, str(_HERE / "piping" / "naive.py"), str(port), str(folder)]


OURS = Peer("dicomrx", "dicomrx all", _ours, received="../zips/*.zip")
NAIVE = Peer("naive", "pynetdicom + pydicom + zipfile", _naive, received="zips/*.zip", slow=True)


def stage_of(words):
    """The stage in a command line of ours."""
    return next((word for word in words[1:] if word in _STAGES), "")


def zipped(peer, folder):
    """How many images lie in finished zips."""
    count = 0
    for path in folder.glob(peer.received):
        with zipfile.ZipFile(path) as made:
            count += len(made.infolist())
    return count


def wait_for_zips(peer, folder, images):
    """Until all are in zips; when nothing was left in `incoming/`, and now. Looks into zips only where there are more than before."""
    studies = -(-images // _PER_STUDY)
    deadline = time.monotonic() + _PATIENCE_S
    filed = None
    seen = 0
    while True:
        now = time.monotonic()
        filed = filed or (None if holds_any(folder / "incoming") else now)
        there = len(list(folder.glob(peer.received)))
        if filed and there >= studies and there > seen:
            seen = there
            if zipped(peer, folder) == images:
                return filed, now
        if now > deadline:
            raise Failed(f"{zipped(peer, folder)} of {images} images were zipped in time")
        time.sleep(_LOOK_S)


def holds_any(folder):
    with os.scandir(folder) as items:
        return any(item.name.endswith(".dcm") for item in items)


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
        before = []
        seconds = send_ideal(scenario, port, sources, lambda: before.extend([time.monotonic(), cpu_s(pid), cpu_by(pid, stage_of)]))
        began, cpu, by_stage = before
        filed, ended = wait_for_zips(peer, root / "spool", len(sources))
        cpu, by_stage = cpu_s(pid) - cpu, cpu_by(pid, stage_of) - by_stage
        memory.stop()
    quiet = began + seconds if peer is OURS else filed  # from when on a study is: as received, or as filed
    waited = max(0.0, quiet + _QUIET_S - filed)
    rates = [len(sources) / each for each in (seconds, filed - began, ended - began - waited)]
    costs = [1000 * each / len(sources) for each in (cpu, *(by_stage[stage] for stage in _STAGES))]
    return Figures(*rates, costs[0], memory.peak / 1e6, *costs[1:])


def measure(chosen, memory, disk):
    sources = build(memory / "sources", chosen.images, _PER_STUDY)
    plan = [(OURS, MEMORY, sources, memory), (NAIVE, MEMORY, sources[: max(_PER_STUDY, chosen.images // _SLOW_SHARE)], memory)]
    plan.append((OURS, DISK, sources, disk))
    runs = {(peer.name, place): [] for peer, place, _, _ in plan}
    for _ in range(chosen.repeats):
        for peer, place, images, folder in plan:
            runs[peer.name, place].append(run(peer, place, images, folder))
    return {key: Figures(*map(statistics.median, zip(*each, strict=True))) for key, each in runs.items()}


def tell(page, told):
    named = {f"{name}, {'durable, disk' if place == DISK else 'memory'}": row for (name, place), row in told.items()}
    rates = [(name, *map(short, row[:5])) for name, row in named.items()]
    bars = Bars("images/s from the first byte to the last zip", {name: row.whole_per_s for name, row in named.items()})
    page.table("Whole pipeline", ("", "received/s", "filed/s", "whole/s", "CPU s / 1,000", "peak MB"), rates, bars)
    shares = [(name, *map(short, row[5:])) for name, row in named.items() if name.startswith(OURS.name)]
    page.table("Where the CPU goes, s / 1,000", ("", *_STAGES), shares)
    naive = told[NAIVE.name, MEMORY].whole_per_s
    for place, (what, gate, goal) in _GATES.items():
        page.gate(Gate(what, "times the naive one's rate", told[OURS.name, place].whole_per_s / naive, gate, goal))


def main():
    chosen = parse_images(__doc__, images=2000, quick=200)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # clean up
    room = 5 * chosen.images * 2**19
    known = facts(
        memory="tmpfs" if fits_in_memory(room) else "no tmpfs with enough room: the disk",
        images=chosen.images,
        **{"medians of": chosen.repeats},
    )
    page = Page("pipeline", "Receive to zip", _INTRODUCTION, known)
    with in_memory(room) as memory, on_disk() as disk:
        told = measure(chosen, memory, disk)
    tell(page, told)
    page.judge()
    page.write(chosen.out, rows={f"{name} {place}": row._asdict() for (name, place), row in told.items()})


if __name__ == "__main__":
    main()
