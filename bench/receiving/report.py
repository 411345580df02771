"""What receiving gave, row by row, and which gates it meets."""

import statistics
from dataclasses import asdict, dataclass, field

from receiving import gates
from receiving.cells import IDLE_ASSOCIATIONS, Figures, Scenario
from receiving.peers import BARE, BEST, MEMORY, Peer
from telling.machine import facts, told
from telling.page import Bars, Page, short

_COLUMNS = ("receiver", "images/s", "least-most", "MB/s", "CPU s / 1,000", "peak MB", "largest", "identical", "rate", "CPU")
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
    memory = ["" if peak is None else f"{peak:.0f}" for peak in (it.peak_mb, it.largest_mb)]
    spread = f"{short(min(rates))}-{short(max(rates))}"
    identical = f"{it.identical:.0f} of {it.images:.0f}"
    figures = [short(it.images_per_s), spread, short(it.mb_per_s), short(it.cpu_s_per_1000), *memory, identical]
    return [row.peer.title, *figures, *ratios]


def _cpu(figures):
    return max(figures.cpu_s_per_1000, 1e-6)


def machine(mtu, *, in_memory, repeats):
    """What the figures depend on."""
    memory = "tmpfs" if in_memory else "no tmpfs with enough room: the disk, without fsync"
    several = {"loopback MTU": mtu, "memory": memory, "medians of": repeats, "DCMTK": told("storescp"), "Orthanc": told("Orthanc")}
    return facts(**several)


class Report:
    """What has been measured so far; each scenario is printed as it comes."""

    def __init__(self, known):
        self._page = Page("receive", "Receiving, side by side", _INTRODUCTION, known)
        self._rows = []
        self._idle = {}

    def add(self, rows):
        self._rows += rows
        rates = {row.peer.title: row.median.images_per_s for row in rows if row.counts}
        self._page.table(title(rows[0].scenario), _COLUMNS, (cells(row, reference(rows)) for row in rows), Bars("images/s", rates))

    def add_idle(self, told):
        self._idle = told
        lines = [(name, _percent(value)) for name, value in told.items()]
        self._page.table(f"{IDLE_ASSOCIATIONS} idle associations", ("receiver", "percent of a core"), lines)

    def end(self, folder):
        """Tell which gates are met, and write it all; returns the exit code: 1 where a receiver lost or refused an image."""
        for gate in gates.judged(self._rows, self._idle):
            self._page.gate(gate)
        self._page.judge()
        self._page.write(folder, rows=[_flat(row) for row in self._rows], idle=self._idle)
        return int(any(row.failed for row in self._rows))


_INTRODUCTION = """\
Made by `bench/receive.py`; `receive.json` has every run. Sender and receiver share the cores. The near-ideal sender has all messages
encoded before the clock starts and one outstanding on each association; DCMTK's senders are timed as whole processes. CPU and peak
memory are of the receiver's whole process tree (what its processes share counts in each of them); *largest* is its largest process.
*identical*: data sets that lie on the disk byte for byte as they were sent. *rate* and *CPU* are ratios against DCMTK's best
(`storescp --fork +B -pdu 131072`, TCP_NODELAY=1; normal: without `+B`), on the disk against the bare loop (write, fsync, link, fsync of
the directory). A receiver that loses an image has no figures."""


def _flat(row):
    scenario = {**asdict(row.scenario), "load": row.scenario.load.name}
    figures = {"median": row.median._asdict(), "runs": [run._asdict() for run in row.runs]} if row.counts else {}
    return {**scenario, "receiver": row.peer.name, "skipped": row.skipped, "failed": row.failed, **figures}


def _percent(value):
    return f"{value:.2f}" if isinstance(value, float) else value
