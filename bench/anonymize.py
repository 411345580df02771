"""How fast images are de-identified, side by side with other tools, in one run with its repetitions interleaved."""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import NamedTuple

from anonymizing.contenders import (
    BARE,
    CONTENDERS,
    DEID,
    DICOGNITO,
    GDCM,
    PYDICOM,
    REWRITING,
    TWO,
    WHOLE,
    Failed,
    Figures,
    install_others,
    pinned,
    run,
)
from anonymizing.images import build
from making.folders import in_memory, on_disk
from receiving.loads import LOADS
from receiving.peers import DISK, MEMORY
from telling.machine import facts, told
from telling.page import Bars, Gate, Page, add_arguments, parse, short

_INTRODUCTION = """\
Made by `bench/anonymize.py`. Ours is the whole stage: claim, read, refuse or accept, find the patient, de-identify, second look, hashes,
vault record, file, remove the input; two processes share one backlog; *the rewriting alone* is read, check, de-identify and write. The
*bare loop* is the least in Python that makes files and removes files: read, one SHA-256, write a new file, rename it, remove the input,
and where it is durable one round of syncs for 64; it knows nothing of DICOM. The others read a file and write one: *pydicom* removes
private elements, walks over the data set, empties or hashes by VR and saves; dicognito, dicom-anonymizer and deid do what they do by
default; the C++ tools change nine elements, in one call for all files. Every process has done an image before the clock starts. Durable:
on the disk; ours syncs as it always does, for the others each file is synced once it is made. Not durable: in memory (tmpfs). CPU is of
all threads and children, the peak of the largest process; *rate* and *CPU* are ratios, pydicom's is 1."""
_COLUMNS = ("", "images/s", "least-most", "MB/s", "CPU ms / image", "peak MB", "rate", "CPU")


class Scenario(NamedTuple):
    """So many images of a load, where, and by whom."""

    load: str
    place: str
    count: int
    names: tuple[str, ...]

    @property
    def title(self):
        return f"{LOADS[self.load].title}, {'durable, on the disk' if self.place == DISK else 'not durable, in memory'}"


_ALL = tuple(CONTENDERS)
_ONE = tuple(name for name in _ALL if name not in (TWO, REWRITING))
_PLAN = (
    Scenario("ct", DISK, 960, _ONE),
    Scenario("ct", MEMORY, 960, _ALL),
    Scenario("mr", DISK, 1920, (WHOLE, BARE, PYDICOM, DICOGNITO, GDCM)),
    Scenario("mr", MEMORY, 7680, (WHOLE, TWO, REWRITING, BARE, PYDICOM, DICOGNITO, GDCM)),
    Scenario("large", DISK, 2, (WHOLE, PYDICOM)),
    Scenario("large", MEMORY, 2, (WHOLE, REWRITING, PYDICOM, GDCM)),
)
_QUICK_COUNT = 32


class Bound(NamedTuple):
    """Ours over another's, in one scenario: at least so much, and the goal beyond it."""

    load: str
    place: str
    ours: str
    other: str
    gate: float
    goal: float


_BOUNDS = (
    Bound("ct", DISK, WHOLE, PYDICOM, 5, 10),
    Bound("ct", DISK, WHOLE, DICOGNITO, 10, 20),
    Bound("ct", DISK, WHOLE, DEID, 50, 100),
    Bound("ct", DISK, WHOLE, GDCM, 1, 2),
    Bound("mr", DISK, WHOLE, PYDICOM, 6, 15),
    Bound("ct", MEMORY, REWRITING, PYDICOM, 10, 10),
    Bound("mr", MEMORY, TWO, WHOLE, 1.8, 1.8),
)
_LARGE_MB_PER_S, _LARGE_PEAK_MB = 400, 80


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=_ALL, help="only these")
    parser.add_argument("--loads", nargs="+", choices=LOADS, default=tuple(LOADS), help="only these")
    return parse(parser)


def planned(chosen):
    for scenario in _PLAN:
        names = tuple(name for name in scenario.names if name in chosen.only)
        if names and scenario.load in chosen.loads and not (chosen.quick and scenario.load == "large"):
            yield scenario._replace(names=names, count=_QUICK_COUNT if chosen.quick else scenario.count)


def measure(scenario, repeats, sources, folder):
    """What each contender's runs gave, or why there are none."""
    runs = {name: [] for name in scenario.names}
    remarks = {name: f"skipped: {CONTENDERS[name].missing}" for name in scenario.names if CONTENDERS[name].missing}
    for _ in range(repeats):
        for name in scenario.names:
            contender = CONTENDERS[name]
            share = sources[: max(2, scenario.count // contender.share)]
            with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as root:
                if name not in remarks:
                    try:
                        runs[name].append(run(contender, share, Path(root), sync=scenario.place == DISK))
                    except Failed as error:
                        remarks[name] = f"FAILED: {error}"
    return {name: remarks.get(name) or each for name, each in runs.items()}


def medians(found):
    return {name: Figures(*map(statistics.median, zip(*each, strict=True))) for name, each in found.items() if isinstance(each, list)}


def tell(page, scenario, found):
    middle = medians(found)
    base = middle.get(PYDICOM)
    rows = []
    for name, runs in found.items():
        if name not in middle:
            rows.append((CONTENDERS[name].title, runs, *[""] * (len(_COLUMNS) - 2)))
            continue
        it, rates = middle[name], [each.images_per_s for each in runs]
        ratios = [f"{it[column] / base[column]:.2f}x" if base else "" for column in (0, 2)]
        spread = f"{short(min(rates))}-{short(max(rates))}"
        rows.append((CONTENDERS[name].title, short(it[0]), spread, *map(short, it[1:]), *ratios))
    page.table(scenario.title, _COLUMNS, rows, Bars("images/s", {CONTENDERS[name].title: it[0] for name, it in middle.items()}))


def judge(page, results):
    """Add the gates of what was measured; `results`: medians by load, place and contender."""
    for bound in _BOUNDS:
        ours, other = (results.get((bound.load, bound.place, name)) for name in (bound.ours, bound.other))
        if ours and other:
            what = f"{bound.load}, {'durable' if bound.place == DISK else 'memory'}: {CONTENDERS[bound.ours].title}"
            page.gate(Gate(what, f"times {CONTENDERS[bound.other].title}", ours[0] / other[0], bound.gate, bound.goal))
    if large := results.get(("large", DISK, WHOLE)):
        what = f"large, durable: {CONTENDERS[WHOLE].title}"
        page.gate(Gate(what, "MB/s", large.mb_per_s, _LARGE_MB_PER_S, _LARGE_MB_PER_S))
        page.gate(Gate(what, "peak MB", large.peak_mb, _LARGE_PEAK_MB, _LARGE_PEAK_MB, at_most=True))
    page.judge()


def main():
    chosen = arguments()
    install_others(chosen.only)
    tools = {"DCMTK": told("dcmodify"), "GDCM": told("gdcmanon")}
    page = Page("anonymize", "De-identifying, side by side", _INTRODUCTION, facts(**pinned(), **tools, **{"medians of": chosen.repeats}))
    results, raw = {}, []
    scenarios = list(planned(chosen))
    most = {scenario.load: scenario.count for scenario in sorted(scenarios, key=lambda each: each.count)}
    with in_memory() as memory, on_disk() as disk:
        images = {load: build(LOADS[load], memory / load, count) for load, count in most.items()}
        for scenario in scenarios:
            found = measure(scenario, chosen.repeats, images[scenario.load], disk if scenario.place == DISK else memory)
            tell(page, scenario, found)
            results |= {(scenario.load, scenario.place, name): it for name, it in medians(found).items()}
            raw += [{"load": scenario.load, "place": scenario.place, "contender": name, "runs": runs} for name, runs in found.items()]
    judge(page, results)
    page.write(chosen.out, rows=raw)


if __name__ == "__main__":
    main()
