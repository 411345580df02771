"""How fast images are received, side by side with other receivers, in one run with its repetitions interleaved.

Loopback has a MTU of 1500 in a network namespace of its own, where this machine lets us make one. What is received lies in memory
(tmpfs) where nothing is synced, and on the disk where it is. Results: a table here, JSON, Markdown and a plot in docs/bench/.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys

from making.folders import fits_in_memory, in_memory, on_disk
from receiving import report
from receiving.cells import IDEAL, IDLE_ASSOCIATIONS, STOCK, Failed, Scenario, idle, run
from receiving.loads import LOADS, build
from receiving.peers import BARE, BEST, DISK, MEMORY, PEERS, ours
from telling.page import add_arguments, parse

_MTU = "DICOMRX_BENCH_MTU"  # says, once we are in a namespace of our own, what its loopback has
_ROOM = 3_000_000_000  # the loads, and the largest once more as it is received

_LARGE_PEERS = (*ours(), "dcmtk-normal", BEST)  # the others take ten seconds for what shows nothing new
_STOCK_PEERS = (*ours(), "pynetdicom-app", "dcmtk-default", BEST, "orthanc")
_IDEAL_PEERS = tuple(name for name in PEERS if name not in ("orthanc", BARE))
_DURABLE_PEERS = tuple(name for name, peer in PEERS.items() if DISK in peer.places)
# Sender, load, place, numbers of associations, receivers.
_PLAN = (
    (IDEAL, "ct", MEMORY, (1, 4, 8, 16), _IDEAL_PEERS),
    (IDEAL, "mr", MEMORY, (1, 4), _IDEAL_PEERS),
    (IDEAL, "large", MEMORY, (4,), _LARGE_PEERS),
    *((sender, "ct", MEMORY, (1,), _STOCK_PEERS) for sender in STOCK),
    (IDEAL, "ct", DISK, (1, 8), _DURABLE_PEERS),
)
_QUICK_ASSOCIATIONS = 4


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--receivers", nargs="+", choices=PEERS, help="only these")
    parser.add_argument("--loads", nargs="+", choices=LOADS, help="only these")
    parser.add_argument("--senders", nargs="+", choices=[IDEAL, *STOCK], help="only these")
    parser.add_argument("--places", nargs="+", choices=[MEMORY, DISK], help="only what is received there")
    parser.add_argument("--associations", nargs="+", type=int, help="so many at a time, for each load and sender")
    add_arguments(parser)
    return parse(parser)


def enter_namespace():
    """Start again in a network namespace whose loopback has the MTU of an Ethernet, where that can be had."""
    setup = ["sh", "-c", 'ip link set lo mtu 1500 up && exec "$@"', "sh"]
    for unshare in (["unshare", "--net"], ["unshare", "--net", "--user", "--map-root-user"]):
        with contextlib.suppress(OSError):
            if subprocess.run([*unshare, *setup, "true"], capture_output=True, check=False).returncode == 0:
                os.environ[_MTU] = "1500, in a network namespace of its own"
                os.execvp("unshare", [*unshare, *setup, sys.executable, *sys.argv])
    os.environ[_MTU] = "of the machine's loopback: no namespace could be made"


def scenarios(chosen):
    """What to run, and by which receivers."""
    for sender, load, place, numbers, names in _PLAN:
        peers = [PEERS[name] for name in names if name in (chosen.receivers or names)]
        if peers and sender in (chosen.senders or [sender]) and load in (chosen.loads or [load]) and place in (chosen.places or [place]):
            for number in chosen.associations or numbers:
                if not (chosen.quick and (load == "large" or number > _QUICK_ASSOCIATIONS)):
                    yield Scenario(sender, LOADS[load], min(number, LOADS[load].count), place), peers


def why_not(peer, scenario):
    if scenario.sender in STOCK and shutil.which(scenario.sender) is None:
        return f"{scenario.sender} is not on this machine"
    return peer.missing(scenario.associations)


def measure(scenario, peers, repeats, sources, folder):
    """A row for each receiver; the repetitions are interleaved, so that a slow minute of the machine is everyone's."""
    rows = {peer.name: report.Row(scenario, peer, skipped=why_not(peer, scenario)) for peer in peers}
    for _ in range(repeats):
        for peer in peers:
            row = rows[peer.name]
            if row.skipped or row.failed:
                continue
            try:
                row.runs.append(run(peer, scenario, sources, folder))
            except Failed as error:
                row.failed = str(error)
    return list(rows.values())


def measure_idle(peers, folder):
    told = {}
    for peer in peers:
        told[peer.title] = peer.missing(IDLE_ASSOCIATIONS)
        if not told[peer.title]:
            try:
                told[peer.title] = idle(peer, folder)
            except Failed as error:
                told[peer.title] = str(error)
    return told


def main():
    chosen = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # clean up
    if _MTU not in os.environ:
        os.environ["PATH"] += ":/usr/sbin:/sbin"  # where Orthanc and ip are
        enter_namespace()
    known = report.machine(os.environ[_MTU], in_memory=fits_in_memory(_ROOM), repeats=chosen.repeats)
    with in_memory(_ROOM) as memory, on_disk() as disk:
        result = report.Report(known)
        sources = {}
        for scenario, peers in scenarios(chosen):
            if scenario.load.name not in sources:
                sources[scenario.load.name] = build(scenario.load, memory / scenario.load.name)
            folder = disk if scenario.place == DISK else memory
            result.add(measure(scenario, peers, chosen.repeats, sources[scenario.load.name], folder))
        if not chosen.quick:
            result.add_idle(measure_idle([PEERS[name] for name in _IDEAL_PEERS if name in (chosen.receivers or _IDEAL_PEERS)], memory))
        return result.end(chosen.out)


if __name__ == "__main__":
    sys.exit(main())
