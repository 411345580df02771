"""One cell of the table: one receiver, one load, one sender, so many associations; what was sent must have arrived."""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dicomrx.network.filemeta import read_meta
from receiving import tree
from receiving.loads import Load
from receiving.peers import BARE, MEMORY, Peer, running
from receiving.sender import Refused, associate

IDEAL = "near-ideal"
STOCK = {"storescu": ["storescu", "-aec", "DICOMRCV"], "dcmsend": ["dcmsend", "-aec", "DICOMRCV"]}
IDLE_ASSOCIATIONS, IDLE_S = 32, 5
_HERE = Path(__file__).parent
_CELL_S = 180
_SETTLE_S = 0.05
_CHUNK = 1 << 20


class Failed(Exception):
    """The cell has no figure; the message says why."""


@dataclass(frozen=True)
class Scenario:
    """What is the same for all receivers of one group."""

    sender: str
    load: Load
    associations: int
    place: str

    def images(self, peer: Peer) -> int:
        return (self.load.few if peer.slow else self.load.count) // self.associations * self.associations


class Figures(NamedTuple):
    """What one run gave; memory is of the receiver's whole tree and of its largest process, and unknown for the bare loop."""

    images_per_s: float
    mb_per_s: float
    cpu_s_per_1000: float
    peak_mb: float | None
    largest_mb: float | None
    identical: int
    images: int


def run(peer: Peer, scenario: Scenario, sources: Sequence[Path], folder: Path) -> Figures:
    """One run from start to stop, in a folder of its own below `folder`; raises Failed."""
    images = list(sources[: scenario.images(peer)])
    measure = _bare if peer.name == BARE else _received
    with _failing(), own_folder(folder) as root:
        seconds, cpu_s, *memory = measure(peer, scenario, images, root / "spool")
        identical = _arrived(peer, root / "spool", images)
    megabytes = sum(path.stat().st_size for path in images) / 1e6
    per_1000 = cpu_s * 1000 / len(images)
    return Figures(len(images) / seconds, megabytes / seconds, per_1000, *memory, identical, len(images))


@contextlib.contextmanager
def _failing():
    try:
        yield
    except (OSError, RuntimeError, subprocess.SubprocessError, Refused) as error:
        raise Failed(str(error)) from error


@contextlib.contextmanager
def own_folder(folder):
    """Gone afterwards, or with `folder`: a killed receiver's children may still write for a moment."""
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as root:
        yield Path(root)


def _received(peer, scenario, images, folder):
    with running(peer, folder, scenario.place) as (port, pid):
        memory = tree.Memory(pid)
        memory.start()
        before = [0.0]
        send = send_ideal if scenario.sender == IDEAL else _stock
        seconds = send(scenario, port, images, lambda: before.__setitem__(0, tree.cpu_s(pid)))
        time.sleep(_SETTLE_S)
        cpu_s = tree.cpu_s(pid) - before[0]
        memory.stop()
        return seconds, cpu_s, memory.peak / 1e6, memory.largest / 1e6


def _bare(_peer, scenario, images, folder):
    folder.mkdir()
    results = _together([sys.executable, str(_HERE / "diskloop.py"), str(folder)], scenario, images)
    return _duration(results), sum(result["cpu_s"] for result in results), None, None


def send_ideal(scenario, port, images, start):
    """Send them all as fast as can be; the seconds from the first byte to the last answer. Raises Failed."""
    results = _together([sys.executable, str(_HERE / "sender.py"), str(port)], scenario, images, start)
    if sum(result["images"] for result in results) != len(images):
        raise Failed("the receiver refused images")
    return _duration(results)


def _together(command, scenario, images, start=lambda: None):
    """One process an association, set off together; what each told."""
    with contextlib.ExitStack() as stack:
        processes = [_process(stack, [*command, *map(str, share)]) for share in _shares(images, scenario.associations)]
        for process in processes:
            if process.stdout.readline() != "ready\n":
                raise Failed("a sender was not let in")
        start()
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        return [json.loads(process.communicate(timeout=_CELL_S)[0] or '{"images": 0, "began": 0, "ended": 1}') for process in processes]


def _process(stack, command):
    process = stack.enter_context(
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True),
    )
    stack.callback(process.kill)
    return process


def _shares(images, count):
    return [images[number::count] for number in range(count)]


def _duration(results):
    return max(result["ended"] for result in results) - min(result["began"] for result in results)


def _stock(scenario, port, images, start):
    """Whole processes are timed, their start among it."""
    command = [*STOCK[scenario.sender], "127.0.0.1", str(port)]
    start()
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        processes = [_process(stack, [*command, *map(str, share)]) for share in _shares(images, scenario.associations)]
        codes = [process.wait(_CELL_S) for process in processes]
    if any(codes):
        raise Failed(f"{scenario.sender} ended with {max(codes)}")
    return time.monotonic() - began


def _arrived(peer, folder, images):
    """How many data sets are byte for byte what was sent; raises Failed where an image is missing."""
    received = {}
    for path in folder.glob(peer.received):
        with path.open("rb") as file:
            meta = read_meta(file)
        if meta is not None:
            received[meta.sop_instance] = (path, meta.offset)
    identical = 0
    for source in images:
        with source.open("rb") as file:
            meta = read_meta(file)
        if meta.sop_instance not in received:
            raise Failed(f"it lost images: {len(received)} of {len(images)} arrived")
        path, offset = received[meta.sop_instance]
        identical += _same(source, meta.offset, path, offset)
    return identical


def _same(one, one_offset, other, other_offset):
    with one.open("rb") as first, other.open("rb") as second:
        first.seek(one_offset)
        second.seek(other_offset)
        while data := first.read(_CHUNK):
            if second.read(_CHUNK) != data:
                return False
        return not second.read(1)


def idle(peer: Peer, folder: Path) -> float:
    """Percent of one core that the receiver takes while so many associations are open and silent; raises Failed."""
    with _failing(), own_folder(folder) as root, contextlib.ExitStack() as stack:
        port, pid = stack.enter_context(running(peer, root / "spool", MEMORY))
        for _ in range(IDLE_ASSOCIATIONS):
            stack.enter_context(associate(port)[0])
        time.sleep(1)
        before, began = tree.cpu_s(pid), time.monotonic()
        time.sleep(IDLE_S)
        return (tree.cpu_s(pid) - before) / (time.monotonic() - began) * 100
