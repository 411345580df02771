"""What it costs to start and to wait: CPU seconds of commands, and percent of a core of each stage that has nothing to do.

`--help` is compared with a bare Typer program of as many commands, the two taking turns. The idle stages look at a spool with so many
de-identified instances, a hundred a study, which are never complete; `status`, which draws only what a terminal has lines for, draws all
of these studies here. Prints a table and, last, one line of JSON.
"""

import argparse
import contextlib
import json
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

_HERE = Path(__file__).parent
_DICOMRX = [sys.executable, "-m", "dicomrx"]
_A_STUDY = 100
_SERIES = 4
_SETTLE_S = 8


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="the median of so many starts is told")
    parser.add_argument("--instances", type=int, default=100_000, help="files in studies/")
    parser.add_argument("--idle-s", type=float, default=30, help="for so long each stage is watched")
    parser.add_argument("--quick", action="store_true", help="few starts, 10,000 files, ten seconds")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.repeats, chosen.instances, chosen.idle_s = 5, 10_000, 10
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
    for name, (cpu, seconds) in told.items():
        print(f"{name:16} {cpu:8.3f} s CPU {seconds:8.3f} s")
    for name, percent in waiting.items():
        print(f"{name + ', idle':16} {percent:8.2f} % of a core")
    ratio = round(told["help"][0] / told["bare"][0], 2)
    print(f"--help takes {ratio} times the CPU of a bare Typer program")
    started = {name: {"cpu_s": round(cpu, 4), "s": round(seconds, 4)} for name, (cpu, seconds) in told.items()}
    idle_percent = {name: round(percent, 3) for name, percent in waiting.items()}
    print(json.dumps({"bench": "start", "instances": chosen.instances, "help_over_bare": ratio, "start": started, "idle": idle_percent}))


if __name__ == "__main__":
    main()
