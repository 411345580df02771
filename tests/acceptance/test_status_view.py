"""The status view on a screen of 80x24: every study on its way, no line that wraps, nobody's identity."""

import cProfile
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from dicomrx import tui
from dicomrx.deid import Needles
from dicomrx.demo.checks import values
from dicomrx.demo.samples import bundled
from dicomrx.network.refusals import Refused
from dicomrx.status import Queue, Status, StudyState
from tests.acceptance.pipeline import Pipeline, wait_until

WIDTH, HEIGHT = 80, 24
STAGES = ("scp", "anonymize", "watch", "upload")
ROW = re.compile(r"…(\d{12}) +(\d*) +(open|complete|pending|sending|held|failed|sent) +(\d+) +(\d+ (?:s|min|h|d))")


class Terminal:
    """A tmux server of its own, each window a screen of 80x24."""

    def __init__(self, folder: Path) -> None:
        self._tmux = ["tmux", "-u", "-f", os.devnull, "-S", str(folder / "tmux")]

    def open(self, name: str, command: Sequence[str]) -> None:
        """Run a command in a new window, and what it ended with below its output."""
        line = f"{shlex.join(command)}; echo ended with $?; sleep 600"
        self._run("new-session", "-d", "-s", name, "-x", str(WIDTH), "-y", str(HEIGHT), line)

    def screen(self, name: str) -> list[str]:
        return self._run("capture-pane", "-p", "-t", name).splitlines()

    def steady(self, name: str) -> list[str]:
        """The lines of a pane once two looks agree: one may fall into the drawing of a screen."""
        seen = self.screen(name)
        while True:
            time.sleep(0.02)
            again = self.screen(name)
            if again == seen:
                return seen
            seen = again

    def press(self, name: str, key: str) -> None:
        self._run("send-keys", "-t", name, key)

    def end(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], capture_output=True, check=False)

    def _run(self, *arguments: str) -> str:
        return subprocess.run([*self._tmux, *arguments], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with tempfile.TemporaryDirectory(prefix="rx") as folder:  # a socket's path must be short
        terminal = Terminal(Path(folder))
        yield terminal
        terminal.end()


def dicomrx(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dicomrx", *arguments]


def waiting(screen: list[str], stage: str) -> int:
    line = next(line for line in screen if line.startswith(stage))
    found = re.match(r"\w+ +(?:yes|no) +(\d+)", line)
    assert found is not None, line
    return int(found[1])


def states(screen: list[str]) -> list[str]:
    """The states of the studies that the screen shows, and of those that it only counts."""
    shown = [match[3] for line in screen if (match := ROW.match(line))]
    more = next((line for line in screen if line.startswith("and more")), "")
    return shown + [state for count, state in re.findall(r"(\d+) (\w+)", more) for _ in range(int(count))]


def assert_is_whole(screen: list[str]) -> None:
    assert len(screen) == HEIGHT
    assert all(len(line) <= WIDTH for line in screen)
    first = [line.split(" ")[0] for line in screen]
    assert [first.count(word) for word in ("dicomrx", "stage", "study", "quarantine:", "arrivals:", *STAGES)] == [1] * 9, screen
    assert [line for line in screen if line and line.split(" ")[0].startswith("…") and not ROW.match(line)] == []


@pytest.mark.slow
@pytest.mark.tmux
@pytest.mark.needs_tool("tmux")
def test_status_watch_shows_each_study_on_its_way_during_the_demo_and_nobody(terminal: Terminal, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    spool = kept / "spool"
    terminal.open("demo", dicomrx("demo", "--keep", str(kept)))
    wait_until((spool / ".run/id").exists, 30, "the demo's spool")
    terminal.open("status", dicomrx("status", "--watch", "--storage", str(spool)))
    wait_until(lambda: any(terminal.screen("status")), 20, "the view")
    nobody = Needles(frozenset().union(*map(values, bundled())))
    assert nobody.found_in("compressedsamples^ct1")
    screens = []
    deadline = time.monotonic() + 90
    while set(states(screen := terminal.steady("status"))) != {"sent"}:
        assert time.monotonic() < deadline, "\n".join(screen)
        screens.append(screen)
        assert not nobody.found_in("\n".join(terminal.screen("demo")))
        time.sleep(0.05)
    screens.append(screen)
    on_their_way = 0
    for seen in screens:
        assert_is_whole(seen)
        assert not nobody.found_in("\n".join(seen))
        assert states(seen).count("open") == waiting(seen, "watch")
        on_their_way = max(on_their_way, waiting(seen, "watch"))
    assert on_their_way > HEIGHT - 12, "more studies than lines"
    assert states(screens[-1]).count("sent") >= on_their_way
    terminal.press("status", "C-c")
    wait_until(lambda: "ended with 0" in terminal.screen("status"), 20, "a quiet end")
    wait_until(lambda: "ended with 0" in terminal.screen("demo"), 90, "the demo's end")
    printed = terminal.screen("demo")
    begin, end = (next(row for row, line in enumerate(printed) if line.startswith(word)) for word in ("sent", "demo passed in"))
    assert all(re.match(r" {0,2}\S+ +\d+( |$)", line) and len(line) < WIDTH for line in printed[begin:end]), printed
    assert_json_tells_the_same(spool, nobody, on_their_way)


def assert_json_tells_the_same(spool: Path, nobody: Needles, studies: int) -> None:
    done = subprocess.run(dicomrx("status", "--json", "--storage", str(spool)), capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["version"] == 1
    assert [queue["stage"] for queue in found["stages"]] == list(STAGES)
    assert {queue["waiting"] for queue in found["stages"]} == {0}
    assert found["sent"] == len(found["studies"]) >= studies
    assert {study["state"] for study in found["studies"]} == {"sent"}
    fates = found["fates"]
    assert fates["acknowledged"] == fates["filed"] + fates["duplicate"] + fates["quarantined"] > 0
    assert sum(found["quarantine"].values()) == fates["quarantined"]
    assert not nobody.found_in(done.stdout)


def drawn(status: Status, width: int = WIDTH, height: int = HEIGHT) -> list[str]:
    out = StringIO()
    console = Console(file=out, width=width, height=height, highlight=False, markup=False, emoji=False)
    console.print(tui.render(status, height))
    return out.getvalue().splitlines()


def a_status(studies: list[StudyState], **facts: object) -> Status:
    given: dict[str, object] = {
        "spool": "/spool",
        "stages": [Queue(stage, running=True, waiting=123456, oldest_s=99999.0) for stage in STAGES],
        "studies": studies,
        "sent": 3,
        "quarantine": {},
        "fates": {"acknowledged": 7, "filed": 6, "duplicate": 1, "quarantined": 0, "requeued": 0},
        "blocked": None,
        "free_bytes": 5 << 30,
        "refused": [],
        **facts,
    }
    return Status(**given)  # type: ignore[arg-type]


def a_study(number: int, state: str, note: str = "") -> StudyState:
    return StudyState(f"2.25.{10**30 + number}", None if state == "open" else 1, state, 5, 61.0, note)


def test_what_is_on_its_way_comes_first_then_the_dead_letters_and_what_is_sent_last() -> None:
    studies = [a_study(number, state) for number, state in enumerate(("sent", "failed", "open", "complete", "pending", "sending"))]
    assert states(drawn(a_status(studies))) == ["sending", "pending", "complete", "open", "failed", "sent"]


@pytest.mark.parametrize("blocked", [None, "a receiver that died has left its run directory, and it will be a very long story to tell"])
@pytest.mark.parametrize("count", [0, 1, 11, 12, 13, 100])
def test_any_number_of_studies_fits_the_screen_and_every_one_is_shown_or_counted(count: int, blocked: str | None) -> None:
    notes = "HTTP 503: the server says that it is in maintenance and will be back later, which is a long note"
    studies = [a_study(number, "open" if number % 2 else "pending", notes) for number in range(count)]
    reasons = {f"anonymize/reason-number-{number}": 1000 + number for number in range(20)}
    screen = drawn(a_status(studies, blocked=blocked, quarantine=reasons))
    assert len(screen) <= HEIGHT
    assert all(len(line) <= WIDTH for line in screen)
    assert sorted(states(screen)) == sorted(study.state for study in studies)
    assert screen[-1].startswith("arrivals:")
    assert any("no study completes" in line for line in screen) == (blocked is not None)


@pytest.mark.parametrize("width", [40, 60])
def test_on_a_narrow_screen_lines_are_cut_and_never_wrap(width: int) -> None:
    studies = [a_study(number, "pending", "HTTP 503: a long note that has no room") for number in range(30)]
    screen = drawn(a_status(studies, quarantine={"anonymize/burned-in": 5}), width)
    assert len(screen) <= HEIGHT
    assert all(len(line) <= width for line in screen)


def test_a_study_that_is_sent_shows_how_far_it_is_and_one_that_is_held_what_to_do() -> None:
    sending = replace(a_study(1, "sending"), sent_bytes=3 << 20, total_bytes=12 << 20)
    retried = replace(sending, note="the API answered HTTP 503")
    held = a_study(2, "held", "may have arrived: `dicomrx upload 2.25.1.1` sends it again")
    screen = drawn(a_status([sending, retried, held]))
    assert any(line.rstrip().endswith("25 % of 12.0 MiB") for line in screen)
    assert any("HTTP 503" in line for line in screen)
    assert states(screen) == ["sending", "sending", "held"]
    assert any("may have arrived" in line for line in screen)


@pytest.mark.parametrize("blocked", [None, "a receiver that died has left its run directory"])
def test_why_no_study_is_sent_is_told_on_one_line(blocked: str | None) -> None:
    why = "The API refused the login (HTTP 403).\x1b[2J Check API_URL, API_USERNAME and API_PASSWORD." + " And more." * 20
    screen = drawn(a_status([a_study(number, "pending") for number in range(30)], stopped=why, blocked=blocked))
    assert len(screen) <= HEIGHT
    (line,) = [line for line in screen if line.startswith("no study is sent: The API refused the login (HTTP 403).")]
    assert "\x1b" not in line


@pytest.mark.parametrize("count", [1, 3, 4, 50])
def test_of_whom_the_receiver_refused_the_newest_are_shown_with_the_setting_and_the_rest_counted(count: int) -> None:
    facts = {
        "calling": "A" * 16,
        "called": "OTHER",
        "setting": "MAX_CONNECTIONS",
        "why": "a long story " * 9,
        "last": "2026-11-25T17:36:40+00:00",
    }
    refused = [Refused(peer=f"192.0.2.{number}", count=10 + number, **facts) for number in range(count)]
    screen = drawn(a_status([a_study(number, "pending") for number in range(30)], refused=refused))
    assert len(screen) <= HEIGHT
    lines = [line for line in screen if line.startswith("refused ")]
    told = [line for line in lines if " by MAX_CONNECTIONS, last 17:36:40: " + "A" * 16 in line]
    assert len(lines) == min(count, 3)
    assert len(told) == (count if count <= 3 else 2)
    if count > 3:
        assert lines[-1].startswith(f"refused {sum(range(12, 10 + count))}x more, {count - 2} others")


def test_a_note_cannot_drive_the_terminal() -> None:
    screen = drawn(a_status([a_study(1, "failed", "bad\x1b[2J\r\nline")]))
    assert not any("\x1b" in line or "\r" in line for line in screen)
    assert any("bad\\x1b[2J\\r\\nline" in line for line in screen)


def test_the_first_look_after_a_boot_leaves_nothing_unfinished(pipeline: Pipeline) -> None:
    pipeline.run("anonymize", "--once")
    for anchor in (pipeline.storage / ".run" / "clock").glob("[!.]*"):
        anchor.unlink()
    pipeline.status()
    assert list((pipeline.storage / ".run" / "tmp").iterdir()) == []


def test_a_study_more_costs_no_more_than_its_line() -> None:
    def calls(studies: int) -> int:
        profile = cProfile.Profile()
        profile.runcall(drawn, a_status([a_study(number, "open") for number in range(studies)]), height=tui.UNBOUNDED)
        return sum(entry.callcount for entry in profile.getstats())

    few, many = calls(100), calls(400)
    assert (many - few) / 300 < 600


def test_without_a_terminal_the_whole_list_is_printed() -> None:
    studies = [a_study(number, "sent") for number in range(100)]
    assert states(drawn(a_status(studies), height=tui.UNBOUNDED)) == ["sent"] * 100
