"""What it costs to start and to wait: CPU seconds of commands, and percent of a core of each stage that has nothing to do."""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dicomrx.spool.layout import ARRIVED, Spool
from receiving.peers import free_port
from receiving.tree import cpu_s
from telling.machine import facts
from telling.page import Bars, Gate, Page, add_arguments, parse, short

_INTRODUCTION = """\
Made by `bench/start.py`. `--help` is compared with a bare Typer program of as many commands, the two taking turns. The idle stages look,
all at once, at a spool with so many de-identified instances, a hundred a study, which are never complete; `status`, which draws only
what a terminal has lines for, draws all of these studies here."""
_HERE = Path(__file__).parent
_DICOMRX = [sys.executable, "-m", "dicomrx"]
_A_STUDY = 100
_SERIES = 4
_SETTLE_S = 8


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, repeats=9)
    parser.add_argument("--instances", type=int, default=100_000, help="files in studies/")
    parser.add_argument("--idle-s", type=float, default=20, help="for so long each stage is watched")
    chosen = parse(parser)
    if chosen.quick:
        chosen.instances, chosen.idle_s = 1000, 2
    return chosen


def start(command):
    """CPU seconds, and all of its seconds, that one start takes."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime, time.perf_counter() - began


def starts(commands, repeats):
    runs = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            runs[name].append(start(command))
    return {name: [statistics.median(column) for column in zip(*each, strict=True)] for name, each in runs.items()}


def fill(spool, instances):
    for study in range(instances // _A_STUDY):
        folder = spool.studies / f"2.25.{10**30 + study}"
        for series in range(_SERIES):
            (folder / f"2.25.{series + 1}").mkdir(parents=True)
            for number in range(_A_STUDY // _SERIES):
                (folder / f"2.25.{series + 1}" / f"2.25.{10**30 + number}.dcm").touch()
        (folder / ARRIVED).touch()


def idle(where, seconds):
    """Percent of a core that each stage takes, all of them at work at once."""
    stages = {
        "scp": ["--host=127.0.0.1", f"--port={free_port()}", "--calling-ae=BENCH"],
        "anonymize": [f"--state-dir={where[0].parent / 'state'}", "--workers=1"],
        "watch": ["--timeout=1000000"],
        "upload": ["--api-url=http://127.0.0.1:9/api"],
    }
    with contextlib.ExitStack() as stack:
        running = {}
        for name, options in stages.items():
            command = [*_DICOMRX, name, *places(where), "--log-level=ERROR", *options]
            process = stack.enter_context(subprocess.Popen(command, stderr=subprocess.DEVNULL))
            stack.callback(process.terminate)
            running[name] = process.pid
        time.sleep(_SETTLE_S)
        before, began = {name: cpu_s(pid) for name, pid in running.items()}, time.monotonic()
        time.sleep(seconds)
        passed = time.monotonic() - began
        return {name: 100 * (cpu_s(pid) - before[name]) / passed for name, pid in running.items()}


def places(where):
    storage, zips = where
    return [f"--storage={storage}", f"--zip-dir={zips}"]


def main():
    chosen = arguments()
    page = Page("start", "Starts and rests", _INTRODUCTION, facts(**{"medians of": chosen.repeats}))
    with tempfile.TemporaryDirectory(prefix="dicomrx-bench-") as folder:
        where = Path(folder) / "spool", Path(folder) / "zips"
        with Spool.open(*where, make=True) as spool:
            commands = {
                "bare": [sys.executable, str(_HERE / "starting" / "bare_typer.py"), "--help"],
                "help": [*_DICOMRX, "--help"],
                "status": [*_DICOMRX, "status", *places(where)],
            }
            told = starts(commands, chosen.repeats)
            fill(spool, chosen.instances)
        filled = {"status, filled": commands["status"], "--json, filled": [*commands["status"], "--json"]}
        told |= starts(filled, chosen.repeats)
        waiting = idle(where, chosen.idle_s)
    rows = [(name, f"{cpu:.3f}", f"{seconds:.3f}") for name, (cpu, seconds) in told.items()]
    page.table("A start", ("", "CPU s", "s"), rows, Bars("CPU s", {name: cpu for name, (cpu, _) in told.items()}))
    page.table(
        f"Idle, {chosen.instances:,} files", ("", "percent of a core"), [(name, short(percent)) for name, percent in waiting.items()]
    )
    page.gate(Gate("--help", "times the CPU of a bare Typer program", told["help"][0] / told["bare"][0], 2, 2, at_most=True))
    for name in ("status", "status, filled"):
        page.gate(Gate(name, "s", told[name][1], 0.4, 0.4, at_most=True))
    for name, percent in waiting.items():
        page.gate(Gate(f"{name}, idle", "percent of a core", percent, 1, 1, at_most=True))
    page.judge()
    started = {name: {"cpu_s": cpu, "s": seconds} for name, (cpu, seconds) in told.items()}
    page.write(chosen.out, start=started, idle=waiting)


if __name__ == "__main__":
    main()
