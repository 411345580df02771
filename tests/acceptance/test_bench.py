"""Every bench runs, and what it writes can be shown: tables, bars, gates, and nothing that tells whose machine it was."""

import json
import platform
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"
OURS_ALONE = {
    "anonymize": ["--loads", "ct", "--only", "whole", "two", "rewriting", "bare", "pydicom"],
    "receive": ["--loads", "ct", "--senders", "near-ideal", "--associations", "1", "--receivers", "dicomrx-lane", "bare-loop"],
}
WITHOUT_GATES = {"identities"}
NAMES = ("anonymize", "completion", "identities", "pack", "pipeline", "receive", "scaling", "start")

pytestmark = pytest.mark.slow


def run(name: str, out: Path, *options: str) -> None:
    command = [sys.executable, str(BENCH / f"{name}.py"), "--quick", "--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def told(name: str, out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / f"{name}.json").read_text())
    return found


def test_every_bench_is_known_to_these_tests_and_to_the_one_that_runs_them_all() -> None:
    assert tuple(sorted(path.stem for path in BENCH.glob("*.py"))) == tuple(sorted([*NAMES, "all"]))
    usage = subprocess.run([sys.executable, str(BENCH / "all.py"), "--help"], capture_output=True, text=True, check=True).stdout
    assert all(name in usage for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_quick_run_writes_its_tables_bars_and_gates(name: str, tmp_path: Path) -> None:
    run(name, tmp_path, *OURS_ALONE.get(name, []))
    assert bool(told(name, tmp_path)["gates"]) is (name not in WITHOUT_GATES)
    page = (tmp_path / f"{name}.md").read_text()
    assert "FAILED" not in page
    assert "\n| --- |" in page
    if f"]({name}.svg)" in page:
        drawn = ET.fromstring((tmp_path / f"{name}.svg").read_text())
        assert len(drawn.findall(".//{http://www.w3.org/2000/svg}rect")) > 1
    assert not any(re.search(rf"\b{re.escape(platform.node())}\b", str(fact)) for fact in told(name, tmp_path)["machine"].values())
    for written in tmp_path.iterdir():
        text = written.read_text()
        assert not any(f"{folder}/" in text for folder in (Path.home(), tmp_path, BENCH.parent, "/dev/shm", "/var/tmp"))


def test_one_command_runs_them_and_puts_all_gates_on_one_page(tmp_path: Path) -> None:
    run("all", tmp_path, "--only", "pack")
    overview = (tmp_path / "README.md").read_text()
    assert len(told("pack", tmp_path)["gates"]) == overview.count("[pack](pack.md)") == 2
