"""How cost grows: CPU, memory and time to the first job of each stage over backlogs of all sizes, and over numbers of open studies."""

import argparse
import os
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

from dicomrx.spool import durable
from dicomrx.spool.intake import Intake
from dicomrx.spool.layout import Spool
from making.folders import in_memory
from receiving.loads import INSTANCE, Load, header
from receiving.tree import Memory
from telling.machine import facts
from telling.page import Bars, Gate, Page, add_arguments, parse, short

_INTRODUCTION = """\
Made by `bench/scaling.py`. Small images (8 kB), so that what grows is seen; each stage works off all of them by `--once`, in one process,
not durable, in a spool of its own in memory (tmpfs). CPU is without that of a start with nothing to do. *growth*: CPU per instance over
that of the first row. *first job*: seconds from the start of the process to its first output, a new study, a marker or a frozen study."""
_LOAD = Load("small", "MR of 8 kB", "1.2.840.10008.5.1.4.1.1.4", "MR", 48, 0, 0)
_BACKLOGS = (1_000, 10_000, 100_000)
_STUDIES = (1, 10, 1_000)
_AT_STUDIES, _OF_INSTANCES = 10, 10_000
_QUIET_S = 1
_LOOK_S = 0.002
_STAGES = {"anonymize": "studies/*", "watch": "studies/*/.complete", "upload": "outbox/*"}  # and its first output
_COLUMNS = ("", "stage", "CPU ms / instance", "growth", "peak MB", "first job s")
_NOISE_MS = 0.05  # a start does not always take the same
_MAX_GROWTH, _MAX_MORE_MB = 1.25, 8


class Cost(NamedTuple):
    """Of one stage over all instances."""

    cpu_ms_per_instance: float
    peak_mb: float | None = None
    first_s: float | None = None


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, repeats=3)
    parser.add_argument("--most", type=int, default=_BACKLOGS[-1], help="leave larger backlogs out")
    return parse(parser)


def receive(places, instances, studies):
    """Leave a backlog as a receiver does, the studies' images in turns; returns CPU seconds."""
    storage, zips = places
    with Spool.open(storage, zips, make=True) as spool:
        intake = Intake(spool)
        association = intake.new_association()
        starts = [header(_LOAD, study + 1)[0] for study in range(studies)]
        pixels = bytes(_LOAD.side * _LOAD.side * 2)
        began = time.process_time()
        for number in range(instances):
            reception = intake.begin(association, number + 1)
            uid = INSTANCE[:-9] + str(10**8 + number)
            reception.write(starts[number % studies].replace(INSTANCE.encode(), uid.encode()), pixels)
            reception.keep()
            reception.drop()
        spent = time.process_time() - began
        intake.stop(cut=False)
    return spent


def stage(name, places, *options):
    """CPU seconds of one run to the end, its peak in MB, and the seconds to its first output."""
    storage, zips = places
    command = [sys.executable, "-m", "dicomrx", name, "--once", f"--storage={storage}", f"--zip-dir={zips}", "--no-durable", *options]
    began, first = time.monotonic(), None
    process = subprocess.Popen([*command, "--log-level=ERROR"])
    memory = Memory(process.pid)
    memory.start()
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if first is None and any(storage.glob(_STAGES[name])):
            first = time.monotonic() - began
        time.sleep(_LOOK_S if first is None else 10 * _LOOK_S)
    memory.stop()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{name} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime, memory.peak / 1e6, first or time.monotonic() - began


def cell(instances, studies):
    """What each stage costs."""
    with in_memory() as folder:
        places = folder / "spool", folder / "zips"
        plan = {
            "anonymize": [f"--state-dir={folder}/state", "--workers=1"],
            "watch": [f"--timeout={_QUIET_S}"],
            "upload": ["--no-send", "--workers=1"],
        }
        idle = {name: stage(name, places, *options)[0] for name, options in plan.items()}
        told = {"receive": Cost(1000 * receive(places, instances, studies) / instances)}
        for name, options in plan.items():
            time.sleep(_QUIET_S if name == "watch" else 0)
            cpu, peak, first = stage(name, places, *options)
            told[name] = Cost(1000 * max(0.0, cpu - idle[name]) / instances, peak, first)
        if (zips := len(list(places[1].glob("*.zip")))) != studies:
            sys.exit(f"{zips} of {studies} studies were zipped")
    return told


def measured(shapes, repeats):
    """Each shape (instances, studies) once; the smallest, with which the others are compared, so many times."""
    cells = {}
    for shape in sorted(shapes):
        runs = [cell(*shape) for _ in range(repeats if not cells else 1)]
        cells[shape] = {name: _median([run[name] for run in runs]) for name in runs[0]}
    return cells


def _median(costs):
    return Cost(*(None if None in column else statistics.median(column) for column in zip(*costs, strict=True)))


def tell(page, title, cells):
    """A table; growth against the first cell. Returns what a program wants to know."""
    first = next(iter(cells.values()))
    rows, raw = [], []
    for label, told in cells.items():
        for name, cost in told.items():
            base = first[name].cpu_ms_per_instance
            growth = f"{cost.cpu_ms_per_instance / base:.2f}" if base > _NOISE_MS or name == "receive" else "-"
            rows.append(
                (
                    f"{label:,}",
                    name,
                    f"{cost.cpu_ms_per_instance:.3f}",
                    growth,
                    *("-" if figure is None else short(figure) for figure in cost[1:]),
                )
            )
            raw.append({"at": label, "stage": name, **cost._asdict()})
    bars = {f"{label:,}, anonymize": told["anonymize"].cpu_ms_per_instance for label, told in cells.items()}
    page.table(title, _COLUMNS, rows, Bars("CPU ms / instance", bars))
    return raw


def main():
    chosen = arguments()
    durable.set_durable(enabled=False)
    backlogs = (100, 300) if chosen.quick else [count for count in _BACKLOGS if count <= chosen.most]
    studies, of = ((1, 10), 100) if chosen.quick else (_STUDIES, _OF_INSTANCES)
    cells = measured({*((count, _AT_STUDIES) for count in backlogs), *((of, count) for count in studies)}, chosen.repeats)
    page = Page("scaling", "How cost grows", _INTRODUCTION, facts(**{"smallest, medians of": chosen.repeats}))
    by_backlog = {count: cells[count, _AT_STUDIES] for count in backlogs}
    by_studies = {count: cells[of, count] for count in studies}
    raw = {
        "backlog": tell(page, f"Instances in backlog, {_AT_STUDIES} studies", by_backlog),
        "studies": tell(page, f"Open studies, {of:,} instances", by_studies),
    }
    few, many = (by_backlog[count]["anonymize"] for count in (backlogs[0], backlogs[-1]))
    what = f"anonymize, {backlogs[-1]:,} instances in backlog"
    grown = many.cpu_ms_per_instance / max(few.cpu_ms_per_instance, _NOISE_MS)  # of very few, all may be lost in what a start takes
    page.gate(Gate(what, f"CPU per instance, times that at {backlogs[0]:,}", grown, _MAX_GROWTH, 1, at_most=True))
    page.gate(Gate(what, f"peak MB more than at {backlogs[0]:,}", many.peak_mb - few.peak_mb, _MAX_MORE_MB, 0, at_most=True))
    page.judge()
    page.write(chosen.out, **raw)


if __name__ == "__main__":
    main()
