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
from pathlib import Path

from receiving import plot
from receiving.cells import IDLE_ASSOCIATIONS, Figures, Scenario
from receiving.peers import BARE, BEST, MEMORY, Peer

_COLUMNS = ("receiver", "images/s", "least-most", "MB/s", "CPU s / 1,000", "peak MB", "identical", "rate", "CPU")


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
        return [row.peer.title, f"FAILED: {row.failed}" if row.failed else f"skipped: {row.skipped}", *[""] * (len(_COLUMNS) - 2)]
    it = row.median
    rates = [run.images_per_s for run in row.runs]
    ratios = ["", ""] if against is None else [f"{it.images_per_s / against.images_per_s:.2f}x", f"{_cpu(it) / _cpu(against):.2f}x"]
    peak = "" if it.peak_mb is None else f"{it.peak_mb:.0f}"
    spread = f"{min(rates):.3g}-{max(rates):.3g}"
    figures = [
        f"{it.images_per_s:.4g}",
        spread,
        f"{it.mb_per_s:.0f}",
        _short(it.cpu_s_per_1000),
        peak,
        f"{it.identical:.0f} of {it.images:.0f}",
    ]
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
        lines = [_COLUMNS, *(cells(row, reference(rows)) for row in rows)]
        widths = [max(len(line[column]) for line in lines if len(line[2]) or not column) for column in range(len(_COLUMNS))]
        print(f"\n{title(rows[0].scenario)}")
        for line in lines:
            print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip(), flush=True)

    def add_idle(self, told):
        self._idle = told
        print(f"\n{IDLE_ASSOCIATIONS} idle associations, percent of a core")
        for name, value in told.items():
            print(f"{name}: {_percent(value)}", flush=True)

    def failed(self):
        """True where a receiver lost or refused an image."""
        return any(row.failed for rows in self._groups for row in rows)

    def write(self, folder):
        """receive.json, receive.md and receive.svg."""
        folder.mkdir(parents=True, exist_ok=True)
        flat = [self._flat(row) for rows in self._groups for row in rows]
        whole = {"version": 1, "machine": self._facts, "rows": flat, "idle": self._idle}
        Path(folder / "receive.json").write_text(json.dumps(whole, indent=1) + "\n")
        Path(folder / "receive.md").write_text(self._markdown())
        bars = [
            (title(rows[0].scenario), [(row.peer.title, row.median.images_per_s) for row in rows if row.counts]) for rows in self._groups
        ]
        Path(folder / "receive.svg").write_text(plot.svg(bars))

    @staticmethod
    def _flat(row):
        scenario = {**asdict(row.scenario), "load": row.scenario.load.name}
        figures = {"median": row.median._asdict(), "runs": [run._asdict() for run in row.runs]} if row.counts else {}
        return {**scenario, "receiver": row.peer.name, "skipped": row.skipped, "failed": row.failed, **figures}

    def _markdown(self):
        facts = "\n".join(f"- {name}: {value}" for name, value in self._facts.items())
        tables = "\n".join(f"## {title(rows[0].scenario)}\n\n{_table(rows)}" for rows in self._groups)
        idle = "\n".join(
            ["| receiver | percent of a core |", "|---|---|", *(f"| {name} | {_percent(value)} |" for name, value in self._idle.items())]
        )
        return f"{_INTRODUCTION}\n{facts}\n\n{tables}\n## {IDLE_ASSOCIATIONS} idle associations\n\n{idle}\n"


_INTRODUCTION = """# Receiving, side by side

Made by `bench/receive.py`; `receive.json` has every run. Sender and receiver share the cores. The near-ideal sender has all messages
encoded before the clock starts and one outstanding on each association; DCMTK's senders are timed as whole processes. CPU and peak
memory are of the receiver's whole process tree. *identical*: data sets that lie on the disk byte for byte as they were sent. *rate* and
*CPU* are ratios against DCMTK's best (`storescp --fork +B -pdu 131072`, TCP_NODELAY=1; normal: without `+B`), on the disk against the
bare loop (write, fsync, link, fsync of the directory). A receiver that loses an image has no figures.

![images per second](receive.svg)
"""


def _table(rows):
    lines = [_COLUMNS, ["---"] * len(_COLUMNS), *(cells(row, reference(rows)) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _percent(value):
    return f"{value:.2f}" if isinstance(value, float) else value
