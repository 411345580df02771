"""Wall clocks that jump by hours under the running commands, and that are wrong at boot: libfaketime, the monotonic clock left alone."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.pipeline import Pipeline, stop, wait_until
from tests.factories import study

LIBRARY = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
QUIET_S = 6.0

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not LIBRARY.exists(), reason="needs libfaketime (package faketime)")]


# libfaketime makes clock_nanosleep fail where the monotonic clock is left alone; select is not touched.
SLEEP = "import select, time\ntime.sleep = lambda seconds: select.select([], [], [], seconds) and None\n"


class Clock:
    """The wall clock of every process that is started with `env`; it may be set while they run."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.set("+0")
        (folder / "sitecustomize.py").write_text(SLEEP)
        self.env = {
            "PYTHONPATH": str(folder),
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, offset: str) -> None:
        """Such as -2h or +3d."""
        new = self._file.with_suffix(".new")
        new.write_text(offset)
        new.replace(self._file)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


def test_the_wall_clock_of_the_processes_really_jumps(new_pipeline: Callable[..., Pipeline], clock: Clock) -> None:
    pipeline = new_pipeline()
    pipeline.run("anonymize", "--once")
    clock.set("+10d")
    (anchor,) = (pipeline.storage / ".run" / "clock").glob("[!.]*")
    anchor.unlink()
    pipeline.run("anonymize", "--once", code=0, **clock.env)
    (anchor,) = (pipeline.storage / ".run" / "clock").glob("[!.]*")
    spool_time = int(anchor.read_text()) + time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    assert abs(spool_time / 1e9 - time.time() - 10 * 86400) < 60


@pytest.mark.parametrize("step", ["+5h", "-5h"])
def test_a_step_of_hours_completes_nothing_early_and_holds_nothing_for_ever(
    new_pipeline: Callable[..., Pipeline], clock: Clock, tmp_path: Path, step: str
) -> None:
    pipeline = new_pipeline(TIMEOUT=QUIET_S)
    images = study(tmp_path / "images", images=3)
    with pipeline.running("all", **clock.env):
        pipeline.send(images[:2])
        wait_until(lambda: not pipeline.incoming() and list((pipeline.storage / "studies").glob("*/*/*.dcm")), 60)
        clock.set(step)
        sent = time.monotonic()
        pipeline.send(images[2:])
        acknowledged = time.monotonic()
        wait_until(lambda: pipeline.api.accepted, 120)
        waited = time.monotonic() - sent
    assert len(pipeline.uploaded()) == 3, "the step cut the study"
    assert waited >= QUIET_S
    assert acknowledged > sent


@pytest.mark.parametrize("wrong", ["-20y", "+2y"])
def test_a_wrong_clock_at_boot_neither_hastens_nor_holds_what_came_before(
    new_pipeline: Callable[..., Pipeline], clock: Clock, tmp_path: Path, wrong: str
) -> None:
    """A boot is an anchor that is not there: the first process of the boot makes it from the clock as it finds it."""
    pipeline = new_pipeline(TIMEOUT=QUIET_S)
    images = study(tmp_path / "images", images=2)
    with pipeline.running("scp") as receiver:
        pipeline.send(images[:1])
        pipeline.run("anonymize", "--once")
        receiver.send_signal(signal.SIGKILL)
        receiver.wait()
    for anchor in (pipeline.storage / ".run" / "clock").glob("[!.]*"):
        anchor.unlink()
    clock.set(wrong)
    pipeline.run("watch", "--once", code=0, **clock.env)
    assert not list((pipeline.storage / "studies").glob("*/.complete")), "years went by for it, but its receiver is dead"
    with pipeline.running("all", **clock.env):
        began = time.monotonic()
        pipeline.send(images[1:])
        clock.set("+0")  # as a time server does, a while after boot
        wait_until(lambda: pipeline.api.accepted, 120)
        assert time.monotonic() - began >= QUIET_S
    assert len(pipeline.uploaded()) == 2


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_restart_at_any_moment_of_the_wait_never_shortens_it(new_pipeline: Callable[..., Pipeline], tmp_path: Path, how: str) -> None:
    pipeline = new_pipeline(TIMEOUT=QUIET_S)
    process = pipeline.start("all")
    try:
        pipeline.wait_for_echo()
        pipeline.send(study(tmp_path / "images", images=2))
        for _ in range(2):
            time.sleep(QUIET_S / 3)
            if how == "stop":
                stop(process)
            else:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
            restarted = time.monotonic()
            process = pipeline.start("all")
            pipeline.wait_for_echo()
        wait_until(lambda: pipeline.api.accepted, 120)
        assert time.monotonic() - restarted >= QUIET_S
        assert len(pipeline.uploaded()) == 2
    finally:
        stop(process)
