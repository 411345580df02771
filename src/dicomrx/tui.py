"""The status view: one screen of 80x24 that says whether it receives, what is stuck, what is lost, and how much room is left."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dicomrx.network.refusals import Refused
from dicomrx.status import Status, StudyState
from dicomrx.text import safe

UNBOUNDED: Final = 100_000
_FIXED_LINES: Final = 12  # headline, five of stages, heading of studies, quarantine, arrivals, three empty ones
_REFUSED_SHOWN: Final = 3
_NOTE_MAX: Final = 33  # what 80 columns leave
_HEADINGS: Final = ("study", "gen", "state", "images", "age", "")
_SIDES: Final = "<><>><"
_STYLES: Final = {
    "open": "cyan",
    "complete": "cyan",
    "pending": "yellow",
    "sending": "yellow",
    "held": "bold yellow",
    "sent": "green",
    "failed": "bold red",
}
# What is on its way first, the one that is nearest to leaving at the top; then what a person must look at; what is done last.
_ORDER: Final = ("sending", "held", "pending", "complete", "open", "failed", "sent")
_STAGE_NOTES: Final = {"scp": "receiving", "anonymize": "to de-identify", "watch": "studies open", "upload": "studies to send"}
_MIB: Final = 1 << 20
_GIB: Final = 1 << 30


def render(status: Status, height: int = 24) -> RenderableType:
    """One screen of at most `height` lines, none of which wraps; the studies take the lines that are left."""
    refused = _refused(status.refused)
    rows = max(1, height - _FIXED_LINES - bool(status.blocked) - bool(status.stopped) - len(refused))
    parts: list[RenderableType] = [
        _headline(status),
        "",
        _stages(status),
        "",
        *_studies(status.studies, rows),
        "",
        _quarantine(status),
        *refused,
        _balance(status),
    ]
    return Group(*parts)


def watch(look: Callable[[], Status], console: Console, interval_s: float = 1.0) -> None:
    """Show the view until Ctrl-C, at most once an interval; one below the other where there is no terminal."""
    with contextlib.suppress(KeyboardInterrupt):
        if not console.is_terminal:
            while True:
                console.print(render(look(), UNBOUNDED))
                time.sleep(interval_s)
        # Another screen, each line overwritten in its place: nothing scrolls and nothing flickers.
        with Live(console=console, auto_refresh=False, screen=True) as live:
            while True:
                live.update(render(look(), console.height), refresh=True)
                time.sleep(interval_s)


def _headline(status: Status) -> Text:
    line = Text("dicomrx ", style="bold", no_wrap=True, overflow="ellipsis")
    line.append(f"{status.free_bytes / _GIB:.1f} GiB free   {status.sent} sent   {datetime.now(UTC):%H:%M:%S} UTC", style="default")
    if status.blocked:
        line.append(f"\nno study completes: {safe(status.blocked)}", style="bold red")
    if status.stopped:
        line.append(f"\nno study is sent: {safe(status.stopped)}", style="bold red")
    return line


def _stages(status: Status) -> Table:
    table = _table("stage", "runs", "waiting", "oldest", "")
    for queue in status.stages:
        runs = Text("yes", style="green") if queue.running else Text("no", style="dim")
        table.add_row(queue.stage, runs, str(queue.waiting), _age(queue.oldest_s), _STAGE_NOTES.get(queue.stage, ""))
    return table


def _studies(studies: list[StudyState], rows: int) -> Iterator[Text]:
    """A line for each; a table of Rich's would take ten times as long, and there may be thousands where there is no terminal."""
    ordered = sorted(studies, key=_place)
    shown = ordered if len(ordered) <= rows else ordered[: rows - 1]
    cells = [_HEADINGS, *map(_cells, shown)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    yield _row(_HEADINGS, widths, "bold dim")
    for study, told in zip(shown, cells[1:], strict=True):
        yield _row(told, widths, state=_STYLES.get(study.state, ""))
    if len(shown) < len(ordered):
        rest = Counter(study.state for study in ordered[len(shown) :])
        more = ", ".join(f"{count} {state}" for state, count in rest.items())
        yield _row(("and more", "", "", "", "", more), widths, "dim")


def _cells(study: StudyState) -> tuple[str, ...]:
    generation = "" if study.generation is None else str(study.generation)
    return short(study.study), generation, study.state, str(study.instances), _age(study.age_s), _note(study)


def _row(cells: Sequence[str], widths: Sequence[int], style: str = "", state: str = "") -> Text:
    """One line that never wraps; `state` is the style of the third cell."""
    study, generation, where, images, age, note = (f"{cell:{side}{width}}" for cell, side, width in zip(cells, _SIDES, widths, strict=True))
    line = Text(f"{study}  {generation}  ", style=style, no_wrap=True, overflow="ellipsis")
    line.append(where, state).append(f"  {images}  {age}  {note}")
    return line


def _note(study: StudyState) -> str:
    if study.note or study.sent_bytes is None or not study.total_bytes:
        return safe(study.note, _NOTE_MAX)
    return f"{100 * study.sent_bytes // study.total_bytes} % of {study.total_bytes / _MIB:.1f} MiB"


def _place(study: StudyState) -> int:
    return _ORDER.index(study.state) if study.state in _ORDER else 0


def _quarantine(status: Status) -> Text:
    if not status.quarantine:
        return Text("quarantine: empty", style="dim")
    reasons: Counter[str] = Counter()
    for place, count in status.quarantine.items():
        reasons[place.rpartition("/")[2]] += count
    told = ", ".join(f"{count} {safe(reason)}" for reason, count in reasons.most_common())
    return Text(f"quarantine: {reasons.total()} ({told})", style="yellow", overflow="ellipsis", no_wrap=True)


def _refused(refused: Sequence[Refused]) -> list[Text]:
    """A line each, the newest first; the setting before the words, which a narrow screen cuts."""
    lines = [_refusal(one) for one in refused[:_REFUSED_SHOWN]]
    if len(refused) > _REFUSED_SHOWN:
        rest = refused[_REFUSED_SHOWN - 1 :]
        told = f"refused {sum(one.count for one in rest)}x more, {len(rest)} others or for other reasons: status --json"
        lines[-1] = Text(told, style="yellow", overflow="ellipsis", no_wrap=True)
    return lines


def _refusal(one: Refused) -> Text:
    who = f"{one.calling} at {one.peer}" if one.calling else one.peer
    by = f" by {one.setting}" if one.setting else ""
    line = f"refused {one.count}x{by}, last {safe(one.last[11:19])}: {safe(who, 40)}: {safe(one.why)}"
    return Text(line, style="yellow", overflow="ellipsis", no_wrap=True)


def _balance(status: Status) -> Text:
    fates = status.fates
    parts = [f"{fates[name]} {name}" for name in ("acknowledged", "filed", "duplicate", "quarantined", "requeued") if fates.get(name)]
    return Text("arrivals: " + (", ".join(parts) or "none yet"), style="dim", overflow="ellipsis", no_wrap=True)


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, expand=False, header_style="bold dim")
    for heading in headings:
        right = heading in {"waiting", "oldest"}
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    return table


def short(uid: str) -> str:
    """A pseudonymous UID for a narrow screen: its last twelve digits tell studies apart."""
    return f"…{uid[-12:]}"


def _age(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for limit, divisor, unit in ((120.0, 1.0, "s"), (7200.0, 60.0, "min"), (172800.0, 3600.0, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
