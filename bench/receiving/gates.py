"""What the receiver has to reach, as ratios of medians of one run: the gate, and the goal beyond it."""

from collections.abc import Iterator
from typing import NamedTuple

from dicomrx.settings import TABLE
from receiving.cells import IDEAL, IDLE_ASSOCIATIONS, STOCK
from receiving.peers import BARE, BEST, DISK, MEMORY, PEERS

OURS = f"dicomrx-{TABLE['engine'].default}"
_RATE, _CPU, _PEAK = "images_per_s", "cpu_s_per_1000", "peak_mb"
_PEAK_MB, _IDLE_PERCENT = 80, 1.0


class Gate(NamedTuple):
    """One figure of ours divided by the other receiver's; without another it is taken as it is."""

    sender: str
    load: str
    place: str
    associations: int
    figure: str
    other: str
    gate: float
    goal: float

    def met(self, value: float, bound: float) -> bool:
        return value >= bound if self.figure == _RATE else value <= bound


GATES = (
    *(Gate(IDEAL, "ct", MEMORY, number, _RATE, BEST, 0.95, 1.1) for number in (1, 4)),
    *(Gate(IDEAL, "ct", MEMORY, number, _CPU, BEST, 1.15, 1.0) for number in (1, 4)),
    *(Gate(IDEAL, "ct", MEMORY, number, _RATE, "dcmtk-normal", 1.4, 1.4) for number in (1, 4)),
    *(Gate(IDEAL, "ct", MEMORY, number, _RATE, "pynetdicom-app", 10, 15) for number in (1, 4, 8)),
    Gate(IDEAL, "mr", MEMORY, 1, _RATE, BEST, 0.95, 1.2),
    Gate(IDEAL, "mr", MEMORY, 4, _RATE, BEST, 0.6, 1.0),
    *(Gate(sender, "ct", MEMORY, 1, _RATE, BEST, 0.9, 1.1) for sender in STOCK),
    *(Gate(sender, "ct", MEMORY, 1, _RATE, other, 8, 12) for sender in STOCK for other in ("dcmtk-default", "orthanc")),
    *(Gate(IDEAL, "ct", DISK, number, _RATE, "orthanc", 3, 4) for number in (1, 8)),
    *(Gate(IDEAL, "ct", DISK, number, _RATE, BARE, 0.6, 0.85) for number in (1, 8)),
    Gate(IDEAL, "large", MEMORY, 4, _RATE, BEST, 1.0, 1.0),
    Gate(IDEAL, "large", MEMORY, 4, _PEAK, "", _PEAK_MB, _PEAK_MB),
)
COLUMNS = ("what", "against", "is", "gate", "goal", "")


def judged(rows, idle) -> Iterator[tuple[str, ...]]:
    """A line for each gate that was measured."""
    medians = {(*_place(row.scenario), row.peer.name): row.median for row in rows if row.counts}
    for gate in GATES:
        ours, other = (medians.get((gate.sender, gate.load, gate.place, gate.associations, name)) for name in (OURS, gate.other))
        if ours is not None and (other is not None or not gate.other):
            value = getattr(ours, gate.figure) / (getattr(other, gate.figure) if gate.other else 1)
            against = PEERS[gate.other].title if gate.other else ""
            what = f"{gate.figure}, {gate.load}, {gate.sender}, {gate.place}, associations: {gate.associations}"
            yield what, against, f"{value:.2f}", f"{gate.gate:g}", f"{gate.goal:g}", _verdict(gate, value)
    percent = idle.get(PEERS[OURS].title)
    if isinstance(percent, float):
        verdict = "met" if percent < _IDLE_PERCENT else "MISSED"
        yield f"percent of a core, idle associations: {IDLE_ASSOCIATIONS}", "", f"{percent:.2f}", f"{_IDLE_PERCENT:g}", "", verdict


def _place(scenario):
    return scenario.sender, scenario.load.name, scenario.place, scenario.associations


def _verdict(gate, value):
    if not gate.met(value, gate.gate):
        return "MISSED"
    return "goal met" if gate.met(value, gate.goal) else "met"
