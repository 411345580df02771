"""How fast a study is zipped, beside Python's zipfile by default."""

import resource
import statistics
import threading
import time
import zipfile

from dicomrx import archive
from making.ct import build
from making.folders import in_memory
from telling.machine import facts
from telling.page import Bars, Gate, Page, parse_images, short

_INTRODUCTION = """\
Made by `bench/pack.py`. CT images of half a megabyte, with a body and a scanner's noise. Both read files and write a zip in memory
(tmpfs), taking turns; zipfile does so for some of the images only, for it is slow, and hashes nothing: we also take the SHA-256 of each
file and of the whole zip. *size*: of the zip over that of the images."""
_STUDY = "2.25.1"
_SERIES = "2.25.2"
_SLOW_SHARE = 8  # zipfile packs one image of so many
_MIN_FASTER, _MAX_LARGER = 12, 1.10


def ours(paths, target):
    with target.open("wb") as out:
        writer = archive.Writer(out)
        writer.pack(paths[0].parents[1], _STUDY, [(_SERIES, path.stem) for path in paths])
        writer.finish()


def zipfile_default(paths, target):
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
        for path in paths:
            out.write(path, path.name)


def two_threads(paths, target):
    half = len(paths) // 2
    threads = [
        threading.Thread(target=ours, args=(share, target.with_suffix(f".{number}")))
        for number, share in enumerate((paths[:half], paths[half:]))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def timed(work, paths, target):
    """Megabytes of images a second, by the clock and by CPU; and the size of the zip over that of the images."""
    megabytes = sum(path.stat().st_size for path in paths) / 1e6
    began, cpu = time.perf_counter(), time.process_time()
    work(paths, target)
    cpu, seconds = time.process_time() - cpu, time.perf_counter() - began
    size = sum(made.stat().st_size for made in target.parent.glob(f"{target.stem}.*")) / 1e6
    for made in target.parent.glob(f"{target.stem}.*"):
        made.unlink()
    return megabytes / seconds, megabytes / cpu, size / megabytes


def main():
    chosen = parse_images(__doc__, images=200, quick=40)
    page = Page("pack", "Zipping", _INTRODUCTION, facts(images=chosen.images, **{"medians of": chosen.repeats}))
    with in_memory() as folder:
        images = build(folder / _SERIES, chosen.images)
        few = images[: max(2, chosen.images // _SLOW_SHARE)]
        plan = {"dicomrx": (ours, images), "dicomrx, few": (ours, few), "dicomrx, 2 threads": (two_threads, images)}
        plan["zipfile"] = (zipfile_default, few)
        runs = {what: [] for what in plan}
        for _ in range(chosen.repeats):
            for what, (work, paths) in plan.items():
                runs[what].append(timed(work, paths, folder / "made.zip"))
    told = {what: [statistics.median(column) for column in zip(*each, strict=True)] for what, each in runs.items()}
    rows = [(what, short(rate), short(cpu_rate), f"{size:.3f}") for what, (rate, cpu_rate, size) in told.items()]
    rates = {what: rate for what, (rate, _, _) in told.items()}
    page.table("A study to a zip", ("", "MB/s", "MB / CPU s", "size"), rows, Bars("MB/s", rates))
    few, theirs = told["dicomrx, few"], told["zipfile"]
    page.gate(Gate("zip", "times zipfile's MB / CPU s", few[1] / theirs[1], _MIN_FASTER, _MIN_FASTER))
    page.gate(Gate("zip", "times zipfile's bytes", few[2] / theirs[2], _MAX_LARGER, _MAX_LARGER, at_most=True))
    page.judge()
    figures = {what: dict(zip(("mb_per_s", "mb_per_cpu_s", "size"), each, strict=True)) for what, each in told.items()}
    page.write(chosen.out, peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, rows=figures)


if __name__ == "__main__":
    main()
