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


def test_the_hospital_of_the_demo_passes(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dicomrx", "demo", "--hospital", "--keep", str(tmp_path / "kept")],
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr + (tmp_path / "kept" / "all.log").read_text()[-3000:]
    assert done.stdout.count("as it must") == 11
    assert "Patient^" not in done.stdout + (tmp_path / "kept" / "all.log").read_text()


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


def test_a_rule_that_looks_at_a_timer_alone_fails_at_least_six_of_them(tmp_path: Path) -> None:
    with DemoApi(tmp_path / "api") as api, timer_only(tmp_path, api) as stages:
        outcomes = hospital.run(stages, api, tmp_path / "scans", print)
    assert len(outcomes) == 11
    cut = {outcome.behaviour: outcome.wrong for outcome in outcomes if outcome.wrong}
    assert len(cut) >= 6, outcomes
    assert all("should hold" in line for lines in cut.values() for line in lines), cut  # cut, and nothing lost or doubled
