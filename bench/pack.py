"""How fast a study is zipped, beside Python's zipfile by default: CT images of half a megabyte, with a body and a scanner's noise.

Both read files and write a zip in memory (tmpfs), taking turns; zipfile does so once for some of the images, for it is slow, and hashes
nothing: we also take the SHA-256 of each file and of the whole zip. Prints a table and, last, one line of JSON.
"""

import argparse
import json
import resource
import statistics
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path

from dicomrx import archive
from making.ct import build

_STUDY = "2.25.1"
_SERIES = "2.25.2"
_SLOW_SHARE = 8  # zipfile packs one image of so many
_MIN_FASTER, _MAX_LARGER = 12, 1.10


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="the median of so many is told")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="once, few images")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.repeats, chosen.images = 1, 40
    return chosen


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
    chosen = arguments()
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="dicomrx-bench-", dir=shared if shared.is_dir() else None) as name:
        folder = Path(name) / _SERIES
        images = build(folder, chosen.images)
        few = images[: max(2, chosen.images // _SLOW_SHARE)]
        plan = {"dicomrx": (ours, images), "dicomrx, few": (ours, few), "dicomrx, 2 threads": (two_threads, images)}
        plan["zipfile"] = (zipfile_default, few)
        runs = {what: [] for what in plan}
        for _ in range(chosen.repeats):
            for what, (work, paths) in plan.items():
                runs[what].append(timed(work, paths, Path(name) / "made.zip"))
    told = {what: [statistics.median(column) for column in zip(*each, strict=True)] for what, each in runs.items()}
    print(f"{'':20} {'MB/s':>8} {'MB/CPU s':>9} {'size':>6}")
    for what, (rate, cpu_rate, size) in told.items():
        print(f"{what:20} {rate:8.1f} {cpu_rate:9.1f} {size:6.3f}")
    faster = told["dicomrx, few"][1] / told["zipfile"][1]
    larger = told["dicomrx, few"][2] / told["zipfile"][2]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    good = faster >= _MIN_FASTER and larger <= _MAX_LARGER
    print(f"{faster:.1f} times zipfile's default by CPU (gate {_MIN_FASTER}), {100 * larger - 100:+.1f} % bytes (gate +10 %)")
    figures = {what: dict(zip(("mb_per_s", "mb_per_cpu_s", "size"), each, strict=True)) for what, each in told.items()}
    print(json.dumps({"bench": "pack", "faster": faster, "larger": larger, "peak_mb": peak, "good": good, "rows": figures}))
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
