"""Every bench, one after the other: tables, plots and raw figures in docs/bench/, and a page over all of them."""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from telling.page import FOLDER, Gate, markdown_table

_HERE = Path(__file__).parent
_NAMES = ("receive", "anonymize", "pack", "pipeline", "scaling", "completion", "identities", "start")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="each once, of little: do they run?")
    parser.add_argument("--out", type=Path, help="folder for the results; without --quick: docs/bench")
    parser.add_argument("--only", nargs="+", choices=_NAMES, default=_NAMES, help="only these")
    chosen = parser.parse_args()
    chosen.out = chosen.out or (None if chosen.quick else FOLDER)
    return chosen


def run(name, chosen):
    """One bench, as a process of its own; returns its exit code."""
    options = ["--quick"] if chosen.quick else []
    options += ["--out", str(chosen.out)] if chosen.out else []
    began = time.monotonic()
    code = subprocess.run([sys.executable, str(_HERE / f"{name}.py"), *options], check=False).returncode
    print(f"\n{name}: {time.monotonic() - began:.0f} s\n", flush=True)
    return code


def overview(folder):
    """README.md of the folder: every gate of every result that lies there."""
    lines = [("bench", "date", *Gate.COLUMNS)]
    for name in _NAMES:
        if (path := folder / f"{name}.json").exists():
            told = json.loads(path.read_text())
            gates = [Gate(**{field: gate[field] for field in Gate._fields}) for gate in told["gates"]]
            lines += [(f"[{name}]({name}.md)", told["machine"]["date"], *gate.line()) for gate in gates] or [
                (f"[{name}]({name}.md)", told["machine"]["date"], "no gate", *[""] * (len(Gate.COLUMNS) - 1))
            ]
    (folder / "README.md").write_text(f"{_OVERVIEW}\n{markdown_table(lines)}\n")


_OVERVIEW = """\
# Measured

Made by `bench/all.py` (`make bench`). Each page names its machine; ratios are of medians of one run with its repetitions interleaved.
"""


def main():
    chosen = arguments()
    codes = [run(name, chosen) for name in chosen.only]
    if chosen.out:
        overview(chosen.out)
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
