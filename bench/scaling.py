"""How cost grows: CPU and memory of each stage over 1,000, 10,000 and 100,000 instances in backlog, and over 1, 10 and 1,000 open studies.

Small images (8 kB), so that what grows is seen; each stage works off all of it at once, by `--once`, in one process, not durable.
Every cell is run in a spool of its own. Prints a table and, last, one line of JSON; growth is CPU per instance over that of the first row.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from dicomrx.spool import durable
from dicomrx.spool.intake import Intake
from dicomrx.spool.layout import Spool
from receiving.loads import INSTANCE, Load, header

_LOAD = Load("small", "MR of 8 kB", "1.2.840.10008.5.1.4.1.1.4", "MR", 48, 0, 0)
_BACKLOGS = (1_000, 10_000, 100_000)
_STUDIES = (1, 10, 1_000)
_AT_STUDIES, _OF_INSTANCES = 10, 10_000
_QUIET_S = 1


class Cost(NamedTuple):
    """Of one stage over all instances."""

    cpu_ms_per_instance: float
    peak_mb: float


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=_BACKLOGS[-1], help="leave larger backlogs out")
    parser.add_argument("--quick", action="store_true", help="100 and 1,000 instances, 1 and 100 studies")
    return parser.parse_args()


def receive(places, instances, studies):
    """A backlog as a receiver leaves it, the studies' images in turns."""
    storage, zips = places
    with Spool.open(storage, zips, make=True) as spool:
        intake = Intake(spool)
        association = intake.new_association()
        starts = [header(_LOAD, study + 1)[0] for study in range(studies)]
        pixels = bytes(_LOAD.side * _LOAD.side * 2)
        for number in range(instances):
            reception = intake.begin(association, number + 1)
            uid = INSTANCE[:-9] + str(10**8 + number)
            reception.write(starts[number % studies].replace(INSTANCE.encode(), uid.encode()), pixels)
            reception.keep()
        intake.stop(cut=False)


def stage(name, places, *options):
    """What one run to the end costs, its start not counted."""
    storage, zips = places
    command = [sys.executable, "-m", "dicomrx", name, "--once", f"--storage={storage}", f"--zip-dir={zips}", "--no-durable", *options]
    process = subprocess.Popen([*command, "--log-level=ERROR"])
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{name} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def cell(instances, studies):
    with tempfile.TemporaryDirectory(prefix="dicomrx-bench-") as folder:
        places = Path(folder) / "spool", Path(folder) / "zips"
        state = f"--state-dir={folder}/state"
        plan = {
            "anonymize": [state, "--workers=1"],
            "watch": [f"--timeout={_QUIET_S}"],
            "upload": ["--no-send", "--workers=1"],
        }
        idle = {name: stage(name, places, *options)[0] for name, options in plan.items()}
        receive(places, instances, studies)
        told = {}
        for name, options in plan.items():
            cpu, peak = stage(name, places, *options)
            told[name] = Cost(1000 * max(0.0, cpu - idle[name]) / instances, peak)
            time.sleep(_QUIET_S)
        if (zips := len(list(places[1].glob("*.zip")))) != studies:
            sys.exit(f"{zips} of {studies} studies were zipped")
    return told


def table(title, cells, first):
    """Growth against the first cell; returns what a program wants to know."""
    print(f"\n{title}\n{'':10} {'':10} {'CPU ms/instance':>16} {'growth':>7} {'peak MB':>8}")
    rows = []
    for label, told in cells.items():
        for name, cost in told.items():
            growth = round(cost.cpu_ms_per_instance / first[name].cpu_ms_per_instance, 2) if first[name].cpu_ms_per_instance else None
            print(f"{label:<10} {name:10} {cost.cpu_ms_per_instance:16.3f} {growth or '-':>7} {cost.peak_mb:8.0f}")
            rows.append({"at": label, "stage": name, **cost._asdict(), "growth": growth})
    return rows


def main():
    chosen = arguments()
    durable.set_durable(enabled=False)
    backlogs = (100, 1_000) if chosen.quick else [count for count in _BACKLOGS if count <= chosen.most]
    studies, of = ((1, 100), 500) if chosen.quick else (_STUDIES, _OF_INSTANCES)
    by_backlog = {count: cell(count, min(_AT_STUDIES, count)) for count in backlogs}
    by_studies = {count: cell(of, count) for count in studies}
    rows = {
        "backlog": table("instances in backlog", by_backlog, by_backlog[backlogs[0]]),
        "studies": table(f"open studies, {of} instances", by_studies, by_studies[studies[0]]),
    }
    print(json.dumps({"bench": "scaling", **rows}))


if __name__ == "__main__":
    main()
