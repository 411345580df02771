"""How a contender, a process of its own, takes its turn: it gets ready, waits for a line, works, and tells what that took."""

import json
import resource
import sys
import time
from pathlib import Path


def take(work):
    """Do `work` when told to; nothing else that is printed is on stdout."""
    told, sys.stdout = sys.stdout, sys.stderr
    print("ready", file=told, flush=True)
    sys.stdin.readline()
    began, cpu = time.monotonic(), _cpu_s()
    work()
    taken = {"began": began, "ended": time.monotonic(), "cpu_s": _cpu_s() - cpu, "peak_mb": _peak_mb()}
    print(json.dumps(taken), file=told, flush=True)


def _cpu_s():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _peak_mb():
    own = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) * 1024 / 1e6
