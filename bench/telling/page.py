"""What a bench tells: tables on the terminal as they come; then NAME.json, NAME.md and NAME.svg in a folder.

page = Page("pack", "Zipping", "How, and with what.", machine.facts())
page.table("200 CT images", ("", "MB/s"), [("dicomrx", "345"), ("zipfile", "25")], bars=Bars("MB/s", {"dicomrx": 345, "zipfile": 25}))
page.gate(Gate("zip, against zipfile", "times its MB/s", 13.8, gate=12, goal=12))
page.write(chosen.out, rows=[...])  # what a program wants to know; nothing is written where `out` is None
"""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

from telling import plot

FOLDER = Path(__file__).parents[2] / "docs" / "bench"


class Bars(NamedTuple):
    """What is drawn of a table: a unit, and a figure for each bar."""

    unit: str
    figures: dict[str, float]


class Gate(NamedTuple):
    """What has to be reached, `gate`, and what is hoped for, `goal`; `measured` says in what."""

    what: str
    measured: str
    value: float
    gate: float
    goal: float
    at_most: bool = False

    COLUMNS = ("what", "measured", "is", "gate", "goal", "")  # of `line`

    def reaches(self, bound: float) -> bool:
        return self.value <= bound if self.at_most else self.value >= bound

    @property
    def verdict(self) -> str:
        if not self.reaches(self.gate):
            return "MISSED"
        return "goal met" if self.reaches(self.goal) else "met"

    def line(self) -> tuple[str, ...]:
        return self.what, self.measured, short(self.value), _bound(self.gate), _bound(self.goal), self.verdict


class Page:
    """The results of one bench."""

    def __init__(self, name, title, introduction, facts):
        self._name, self._title, self._introduction, self._facts = name, title, introduction, facts
        self._tables = []
        self._bars = []
        self._gates = []
        print(", ".join(f"{fact}: {value}" for fact, value in facts.items()), flush=True)

    def table(self, title, columns, rows, bars=None):
        """Add a table, of text, and print it."""
        lines = [tuple(columns), *map(tuple, rows)]
        self._tables.append((title, lines))
        if bars and bars.figures:
            self._bars.append((title, bars))
        _print(title, lines)

    def gate(self, gate):
        """Add what has to be reached; `judge` tells whether it is."""
        self._gates.append(gate)

    def judge(self):
        """Print the gates; True where none is missed."""
        if self._gates:
            _print("Gates", self._judged())
        return all(gate.reaches(gate.gate) for gate in self._gates)

    def write(self, folder, **raw):
        """Write the results, and `raw` as JSON beside them; nothing without a folder."""
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        gates = [{**gate._asdict(), "verdict": gate.verdict} for gate in self._gates]
        whole = {"version": 1, "bench": self._name, "machine": self._facts, "gates": gates, **raw}
        (folder / f"{self._name}.json").write_text(json.dumps(whole, indent=1) + "\n")
        (folder / f"{self._name}.md").write_text(self._markdown())
        if self._bars:
            (folder / f"{self._name}.svg").write_text(plot.svg([(f"{title}, {bars.unit}", bars.figures) for title, bars in self._bars]))

    def _judged(self):
        return [Gate.COLUMNS, *(gate.line() for gate in self._gates)]

    def _markdown(self):
        tables = [("Gates", self._judged()), *self._tables] if self._gates else self._tables
        parts = [f"# {self._title}", self._introduction.strip()]
        parts += [f"![{self._title}]({self._name}.svg)"] if self._bars else []
        parts.append("\n".join(f"- {fact}: {value}" for fact, value in self._facts.items()))
        parts += [f"## {title}\n\n{markdown_table(lines)}" for title, lines in tables]
        return "\n\n".join(parts) + "\n"


def add_arguments(parser: argparse.ArgumentParser, *, repeats: int = 5) -> None:
    """What every bench takes: `--repeats`, `--quick`, and `--out`."""
    parser.add_argument("--repeats", type=int, default=repeats, help="the median of so many is told")
    parser.add_argument("--quick", action="store_true", help="once, of little: does it run? Writes nothing without --out")
    parser.add_argument("--out", type=Path, help=f"folder for the results; without --quick: {FOLDER.parent.name}/{FOLDER.name}")


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.repeats = 1
    else:
        chosen.out = chosen.out or FOLDER
    return chosen


def parse_images(description: str, *, images: int, quick: int) -> argparse.Namespace:
    """What a bench takes whose only other option is how many images."""
    parser = argparse.ArgumentParser(description=description)
    add_arguments(parser)
    parser.add_argument("--images", type=int, default=images)
    chosen = parse(parser)
    if chosen.quick:
        chosen.images = quick
    return chosen


def short(value: float) -> str:
    """Three digits that count."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _bound(value):
    return f"{value:g}"


def markdown_table(lines):
    """Lines of cells, the first one the head."""
    head, *rest = lines
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rest))


def _print(title, lines):
    """Columns as wide as what is in them; a remark in the second, with nothing behind it, may be wider."""
    fitting = [line for line in lines if len(line) == 2 or any(line[2:])]
    widths = [max(len(line[column]) for line in (fitting if column else lines)) for column in range(len(lines[0]))]
    print(f"\n{title}")
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip(), flush=True)
