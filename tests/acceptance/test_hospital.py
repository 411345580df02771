"""Badly behaved senders at the real commands, and at a rule that looks at a timer alone."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicomrx.demo import hospital
from dicomrx.demo.api_server import DemoApi
from dicomrx.demo.stages import NAMES, QUIET_S, Stages
from dicomrx.spool.layout import Spool
from dicomrx.spool.studies import Study, is_marked, open_studies
from tests.spool_rig import HAND

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """The hospital of the demo, begun, and its folder: both hospitals take two minutes, of which they wait for nearly all."""
    kept = tmp_path_factory.mktemp("hospital") / "kept"
    with subprocess.Popen(
        [sys.executable, "-m", "dicomrx", "demo", "--hospital", "--keep", str(kept)],
        env={**os.environ, "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        yield running, kept
        running.terminate()


def mark_what_looks_quiet(spool: Spool) -> None:
    """What others do: a study is complete when no file of it has come for so long."""
    for uid in open_studies(spool):
        with Study.locked(spool, uid) as study:
            newest = max((path.stat().st_ctime for path in study.folder.rglob("*.dcm")), default=time.time())
            if not is_marked(spool, uid) and time.time() - newest > QUIET_S:
                study.mark(HAND)


@contextmanager
def timer_only(root: Path, api: DemoApi) -> Iterator[Stages]:
    stages = Stages(root, api, 0, tuple(name for name in NAMES if name != "watch"))
    over = threading.Event()

    def watch() -> None:
        with Spool.open(stages.settings.storage_dir, stages.settings.zip_dir) as spool:
            while not over.wait(0.3):
                mark_what_looks_quiet(spool)

    with stages:
        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield stages
        finally:
            over.set()
            thread.join()


def test_a_rule_that_looks_at_a_timer_alone_fails_at_least_six_of_them(demo: tuple[subprocess.Popen[str], Path], tmp_path: Path) -> None:
    with DemoApi(tmp_path / "api") as api, timer_only(tmp_path, api) as stages:
        outcomes = hospital.run(stages, api, tmp_path / "scans", print)
    assert len(outcomes) == 11
    cut = {outcome.behaviour: outcome.wrong for outcome in outcomes if outcome.wrong}
    assert len(cut) >= 6, outcomes
    assert all("should hold" in line for lines in cut.values() for line in lines), cut  # cut, and nothing lost or doubled


def test_the_hospital_of_the_demo_passes(demo: tuple[subprocess.Popen[str], Path]) -> None:
    running, kept = demo
    printed, _ = running.communicate(timeout=900)
    log = (kept / "all.log").read_text()
    assert running.returncode == 0, printed + log[-3000:]
    assert printed.count("as it must") == 11
    assert "Patient^" not in printed + log
