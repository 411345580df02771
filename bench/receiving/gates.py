"""What the receiver has to reach, as ratios of medians of one run: the gate, and the goal beyond it."""

from collections.abc import Iterator
from typing import NamedTuple

from dicomrx.settings import TABLE
from receiving.cells import IDEAL, IDLE_ASSOCIATIONS, STOCK
from receiving.peers import BARE, BEST, DISK, MEMORY, PEERS
from telling.page import Gate

OURS = f"dicomrx-{TABLE['engine'].default}"
_RATE, _CPU, _PEAK, _LARGEST = "images_per_s", "cpu_s_per_1000", "peak_mb", "largest_mb"
_PEAK_MB, _IDLE_PERCENT = 80, 1.0


class Ratio(NamedTuple):
    """One figure of ours divided by the other receiver's; without another it is taken as it is."""

    sender: str
    load: str
    place: str
    associations: int
    figure: str
    other: str
    gate: float
    goal: float


GATES = (
    *(Ratio(IDEAL, "ct", MEMORY, number, _RATE, BEST, 0.95, 1.1) for number in (1, 4)),
    *(Ratio(IDEAL, "ct", MEMORY, number, _CPU, BEST, 1.15, 1.0) for number in (1, 4)),
    *(Ratio(IDEAL, "ct", MEMORY, number, _RATE, "dcmtk-normal", 1.4, 1.4) for number in (1, 4)),
    *(Ratio(IDEAL, "ct", MEMORY, number, _RATE, "pynetdicom-app", 10, 15) for number in (1, 4, 8)),
    Ratio(IDEAL, "mr", MEMORY, 1, _RATE, BEST, 0.95, 1.2),
    Ratio(IDEAL, "mr", MEMORY, 4, _RATE, BEST, 0.6, 1.0),
    *(Ratio(sender, "ct", MEMORY, 1, _RATE, BEST, 0.9, 1.1) for sender in STOCK),
    *(Ratio(sender, "ct", MEMORY, 1, _RATE, other, 8, 12) for sender in STOCK for other in ("dcmtk-default", "orthanc")),
    *(Ratio(IDEAL, "ct", DISK, number, _RATE, "orthanc", 3, 4) for number in (1, 8)),
    *(Ratio(IDEAL, "ct", DISK, number, _RATE, BARE, 0.6, 0.85) for number in (1, 8)),
    Ratio(IDEAL, "large", MEMORY, 4, _RATE, BEST, 1.0, 1.0),
    *(Ratio(IDEAL, "large", MEMORY, 4, figure, "", _PEAK_MB, _PEAK_MB) for figure in (_PEAK, _LARGEST)),
)


def judged(rows, idle) -> Iterator[Gate]:
    """A gate for each ratio that was measured."""
    medians = {(*_place(row.scenario), row.peer.name): row.median for row in rows if row.counts}
    for ratio in GATES:
        ours, other = (medians.get((ratio.sender, ratio.load, ratio.place, ratio.associations, name)) for name in (OURS, ratio.other))
        if ours is not None and (other is not None or not ratio.other):
            value = getattr(ours, ratio.figure) / (getattr(other, ratio.figure) if ratio.other else 1)
            against = f"over that of {PEERS[ratio.other].title}" if ratio.other else ""
            what = f"{ratio.figure}, {ratio.load}, {ratio.sender}, {ratio.place}, associations: {ratio.associations}"
            yield Gate(what, against, value, ratio.gate, ratio.goal, at_most=ratio.figure != _RATE)
    percent = idle.get(PEERS[OURS].title)
    if isinstance(percent, float):
        yield Gate(f"idle associations: {IDLE_ASSOCIATIONS}", "percent of a core", percent, _IDLE_PERCENT, _IDLE_PERCENT, at_most=True)


def _place(scenario):
    return scenario.sender, scenario.load.name, scenario.place, scenario.associations
