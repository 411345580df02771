"""The results, for a terminal and for docs/bench/: what machine it was, and nothing that tells whose."""

import json
import os
import platform
import shutil
import statistics
import subprocess
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import version

from receiving import gates, plot
from receiving.cells import IDLE_ASSOCIATIONS, Figures, Scenario
from receiving.peers import BARE, BEST, MEMORY, Peer

_COLUMNS = ("receiver", "images/s", "least-most", "MB/s", "CPU s / 1,000", "peak MB", "identical", "rate", "CPU")
_REASONS = ("FAILED: ", "skipped: ")


@dataclass
class Row:
    """One receiver in one scenario, and why it has no figures."""

    scenario: Scenario
    peer: Peer
    runs: list[Figures] = field(default_factory=list)
    skipped: str = ""
    failed: str = ""

    @property
    def median(self):
        columns = zip(*self.runs, strict=True)
        return Figures(*(None if None in column else statistics.median(column) for column in columns))

    @property
    def counts(self):
        return bool(self.runs) and not self.failed


def reference(rows):
    """Whom the others are compared with: DCMTK's best in memory, the bare loop on the disk."""
    return next((row.median for row in rows if row.peer.name in (BEST, BARE) and row.counts), None)


def title(scenario):
    place = "received in memory, nothing synced" if scenario.place == MEMORY else "received on the disk, synced before it is acknowledged"
    return f"{scenario.load.title}, {scenario.sender} sender, associations: {scenario.associations}, {place}"


def cells(row, against):
    if not row.counts:
        return [row.peer.title, _REASONS[0] + row.failed if row.failed else _REASONS[1] + row.skipped, *[""] * (len(_COLUMNS) - 2)]
    it = row.median
    rates = [run.images_per_s for run in row.runs]
    ratios = ["", ""] if against is None else [f"{it.images_per_s / against.images_per_s:.2f}x", f"{_cpu(it) / _cpu(against):.2f}x"]
    peak = "" if it.peak_mb is None else f"{it.peak_mb:.0f}"
    spread = f"{_short(min(rates))}-{_short(max(rates))}"
    identical = f"{it.identical:.0f} of {it.images:.0f}"
    figures = [_short(it.images_per_s), spread, _short(it.mb_per_s), _short(it.cpu_s_per_1000), peak, identical]
    return [row.peer.title, *figures, *ratios]


def _short(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _cpu(figures):
    return max(figures.cpu_s_per_1000, 1e-6)


def machine(mtu, *, in_memory, repeats):
    """What the figures depend on; no path and no name of the machine."""
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cores": os.cpu_count(),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "loopback MTU": mtu,
        "memory": "tmpfs" if in_memory else "no tmpfs with enough room: the disk, without fsync",
        "medians of": repeats,
        "Python": platform.python_version(),
        **{name: version(name) for name in ("dicomrx", "pynetdicom", "pydicom")},
        "DCMTK": _told("storescp"),
        "Orthanc": _told("Orthanc"),
    }


def _told(program):
    if shutil.which(program) is None:
        return "not on this machine"
    words = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.split()
    return next(word.lstrip("v") for word in words if word.lstrip("v")[:1].isdigit())


class Report:
    """What has been measured so far; each scenario is printed as it comes."""

    def __init__(self, facts):
        self._facts = facts
        self._groups = []
        self._idle = {}
        print(", ".join(f"{name}: {value}" for name, value in facts.items()), flush=True)

    def add(self, rows):
        self._groups.append(rows)
        _print(title(rows[0].scenario), [_COLUMNS, *(cells(row, reference(rows)) for row in rows)])

    def add_idle(self, told):
        self._idle = told
        _print(f"{IDLE_ASSOCIATIONS} idle associations", self._idle_lines())

    def judge(self):
        """Tell which gates are met."""
        _print(f"What {gates.OURS} has to reach", self._gate_lines())

    def failed(self):
        """True where a receiver lost or refused an image."""
        return any(row.failed for row in self._rows())

    def write(self, folder):
        """receive.json, receive.md and receive.svg."""
        folder.mkdir(parents=True, exist_ok=True)
        whole = {"version": 1, "machine": self._facts, "rows": [_flat(row) for row in self._rows()], "idle": self._idle}
        (folder / "receive.json").write_text(json.dumps(whole, indent=1) + "\n")
        (folder / "receive.md").write_text(self._markdown())
        bars = [
            (title(rows[0].scenario), [(row.peer.title, row.median.images_per_s) for row in rows if row.counts]) for rows in self._groups
        ]
        (folder / "receive.svg").write_text(plot.svg(bars))

    def _rows(self):
        return [row for rows in self._groups for row in rows]

    def _idle_lines(self):
        return [("receiver", "percent of a core"), *((name, _percent(value)) for name, value in self._idle.items())]

    def _gate_lines(self):
        return [gates.COLUMNS, *gates.judged(self._rows(), self._idle)]

    def _markdown(self):
        facts = "\n".join(f"- {name}: {value}" for name, value in self._facts.items())
        groups = [(title(rows[0].scenario), [_COLUMNS, *(cells(row, reference(rows)) for row in rows)]) for rows in self._groups]
        groups += [(f"{IDLE_ASSOCIATIONS} idle associations", self._idle_lines()), (f"What {gates.OURS} has to reach", self._gate_lines())]
        tables = "\n".join(f"## {head}\n\n{_table(lines)}" for head, lines in groups)
        return f"{_INTRODUCTION}\n{facts}\n\n{tables}"


_INTRODUCTION = """# Receiving, side by side

Made by `bench/receive.py`; `receive.json` has every run. Sender and receiver share the cores. The near-ideal sender has all messages
encoded before the clock starts and one outstanding on each association; DCMTK's senders are timed as whole processes. CPU and peak
memory are of the receiver's whole process tree. *identical*: data sets that lie on the disk byte for byte as they were sent. *rate* and
*CPU* are ratios against DCMTK's best (`storescp --fork +B -pdu 131072`, TCP_NODELAY=1; normal: without `+B`), on the disk against the
bare loop (write, fsync, link, fsync of the directory). A receiver that loses an image has no figures.

![images per second](receive.svg)
"""


def _flat(row):
    scenario = {**asdict(row.scenario), "load": row.scenario.load.name}
    figures = {"median": row.median._asdict(), "runs": [run._asdict() for run in row.runs]} if row.counts else {}
    return {**scenario, "receiver": row.peer.name, "skipped": row.skipped, "failed": row.failed, **figures}


def _table(lines):
    head, *rest = lines
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ["---"] * len(head), *rest))


def _print(head, lines):
    widths = [max(len(line[column]) for line in lines if not line[1].startswith(_REASONS) or not column) for column in range(len(lines[0]))]
    print(f"\n{head}")
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip(), flush=True)


def _percent(value):
    return f"{value:.2f}" if isinstance(value, float) else value
