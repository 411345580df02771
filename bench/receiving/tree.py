"""What a process and all that it started take: CPU time and memory, from /proc."""

import contextlib
import os
import threading
import time
from collections import Counter
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_SAMPLE_S = 0.05


def family(pid):
    """The process and its descendants, zombies among them."""
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        for children in Path(f"/proc/{found[-1]}/task").glob("*/children"):
            try:
                waiting += map(int, children.read_text().split())
            except OSError:  # the thread has ended
                continue
    return found


def cpu_s(pid):
    """CPU seconds of the tree so far; children that were waited for count in their parent."""
    return sum(_own(member) + _reaped(member) for member in family(pid))


def cpu_by(pid, kind):
    """The same for each kind of process, which `kind` tells from the words of its command line; what has ended is not in it."""
    told = Counter()
    for member in family(pid):
        with contextlib.suppress(OSError):
            told[kind(Path(f"/proc/{member}/cmdline").read_text().split("\0"))] += _own(member)
    return told


def _own(pid):
    try:
        return time.clock_gettime((~pid << 3) | 2)  # the CPU clock of another process: nanoseconds, where /proc has hundredths
    except OSError:
        return 0.0


def _reaped(pid):
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[13]) + int(fields[14])) / _TICKS


def _peak(pid):
    """Peak resident bytes of one process; 0 for a zombie."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


class Memory(threading.Thread):
    """Watches the tree's memory: `peak` is the largest sum of the peaks of processes that lived at one time, `largest` is one of these."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.peak = self.largest = 0
        self._pid = pid
        self._done = threading.Event()

    def run(self):
        while not self._done.wait(_SAMPLE_S):
            self._look()

    def stop(self):
        self._look()
        self._done.set()
        self.join()

    def _look(self):
        peaks = [_peak(member) for member in family(self._pid)]
        self.peak, self.largest = max(self.peak, sum(peaks)), max(self.largest, *peaks)
