"""What the demo shows: the status view while it runs, a line now and then where nobody looks at a terminal, and a table at the end."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dicomrx import tui
from dicomrx.demo.evidence import Evidence
from dicomrx.demo.hospital import Outcome
from dicomrx.demo.samples import CONFLICT, CONFLICT_WHY, EXCEPTIONS, REFUSED, Sample
from dicomrx.demo.traffic import CALLING, resent
from dicomrx.status import Status

_PLAIN_EVERY_S: Final = 3.0
_MOST_FINDINGS: Final = 20
_MOST_WRONG: Final = 3


class Show:
    """The view of a running demo; made by `showing`."""

    def __init__(self, console: Console, live: Live | None) -> None:
        self._console = console
        self._live = live
        self._started = self._told = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the show began."""
        return time.monotonic() - self._started

    def update(self, doing: str, status: Status) -> None:
        """Show the pipeline now; `doing` says what the demo itself is at."""
        if self._live is not None:
            line = Text(f"demo, {self.elapsed_s:.0f} s: {doing}", style="bold magenta", no_wrap=True, overflow="ellipsis")
            self._live.update(Group(line, tui.render(status, self._console.height - 1)), refresh=True)
        elif time.monotonic() - self._told > _PLAIN_EVERY_S:
            self._told = time.monotonic()
            fates = ", ".join(f"{count} {fate}" for fate, count in status.fates.items() if count)
            self._console.print(
                f"{self.elapsed_s:3.0f} s: {doing}; {fates or 'nothing received yet'}; {status.sent} studies sent", soft_wrap=True
            )


@contextmanager
def showing(console: Console) -> Iterator[Show]:
    """A live view on a terminal, gone when the block ends; lines elsewhere."""
    if not console.is_terminal:
        yield Show(console, None)
        return
    with Live(console=console, auto_refresh=False, screen=True) as live:
        yield Show(console, live)


def report(console: Console, samples: Sequence[Sample], evidence: Evidence, found: Sequence[str]) -> None:
    """Print what arrived, and what is wrong."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(overflow="fold")
    for what, count, why in rows(samples, evidence):
        table.add_row(what, str(count), Text(why, style="dim"))
    console.print(table)
    for line in found[:_MOST_FINDINGS]:
        console.print(Text(f"WRONG: {line}", style="bold red"), soft_wrap=True)
    if len(found) > _MOST_FINDINGS:
        console.print(f"... and {len(found) - _MOST_FINDINGS} more")


def hospital_report(console: Console, outcomes: Sequence[Outcome]) -> None:
    """Print what became of each behaviour."""
    table = Table(box=None, pad_edge=False, header_style="bold dim")
    table.add_column("sender")
    for heading in ("studies", "zips"):
        table.add_column(heading, justify="right")
    table.add_column("outcome", overflow="fold")
    for each in outcomes:
        told = Text("as it must", style="green") if not each.wrong else Text("; ".join(each.wrong[:_MOST_WRONG]), style="bold red")
        table.add_row(each.behaviour.replace("_", " "), str(each.studies), str(each.generations), told)
    console.print(table)


def rows(samples: Sequence[Sample], evidence: Evidence) -> Iterator[tuple[str, int, str]]:
    """(what, how many, why) of the table at the end."""
    refused = sum(answer is None for _, answer in evidence.answers)
    restored = sum(len(entry.originals) for entry in evidence.entries)
    again = f"instance {resent(samples).number} was sent twice"
    yield "sent", len(evidence.answers), f"instances over {len(CALLING) + 1} associations; {again}"
    yield "  refused", refused, EXCEPTIONS[REFUSED][0]
    yield "acknowledged", evidence.acknowledged, "each one on disk before its answer"
    patients, studies, bundles = ({getattr(entry, part) for entry in evidence.entries} for part in ("patient", "study", "bundle"))
    yield "uploaded", len(evidence.entries), f"of {len(patients)} patients, {len(studies)} studies in {len(bundles)} zips"
    yield "duplicates", evidence.fates.get("duplicate", 0), "known already, or the same once de-identified: sent once"
    yield "quarantined", evidence.quarantined.total(), ""
    for reason, count in evidence.reasons.most_common():
        yield f"  {reason}", count, CONFLICT_WHY if reason == CONFLICT else EXCEPTIONS.get(reason, ("not expected",))[0]
    yield "restored", restored, "originals by `dicomrx restore` from the zips"
