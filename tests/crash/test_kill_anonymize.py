"""`anonymize` killed before each call that changes a directory or makes something durable, then a resend, then a run to the end."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomrx.spool.intake import Intake
from dicomrx.spool.layout import Spool
from tests import factories
from tests.acceptance.pipeline import Pipeline, dataset_sha256

CALLS = ("link", "linkat", "renameat2", "rename", "fsync", "io_submit", "io_getevents", "unlink", "mkdir")
STRIDE = 1 if os.environ.get("DICOMRX_FULL") == "1" else 9

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.needs_tool("strace")]


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """The receiver's: else its files would not look like outputs, and none would be used again."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def receive(pipeline: Pipeline, source: Path) -> None:
    """What the receiver does, without a network: the same bytes twice are a resend."""
    with Spool.open(pipeline.storage, pipeline.zips, make=True) as spool:
        intake = Intake(spool)
        reception = intake.begin(intake.new_association(), 1)
        reception.write(source.read_bytes())
        reception.keep()
        reception.drop()
        intake.stop(cut=False)


def traced(pipeline: Pipeline, log: Path, *inject: str) -> int:
    """The exit code of `anonymize --once` under strace, which kills it where it is told to."""
    strace = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={','.join(CALLS)}", *inject]
    command = [*strace, sys.executable, "-m", "dicomrx", "anonymize", "--once"]
    return subprocess.run(command, env=pipeline.env, cwd=pipeline.root, check=False, capture_output=True).returncode


@pytest.mark.parametrize(("images", "side", "stride"), [(2, 256, STRIDE), (33, 32, STRIDE * 14)])
def test_a_kill_before_any_call_and_a_resend_leave_each_instance_once_and_it_comes_back(
    pipeline: Pipeline, tmp_path: Path, images: int, side: int, stride: int
) -> None:
    """Of one batch, and of two, the second written into the files of the first: two studies, and one instance that is sent twice."""
    one, other = (factories.study(tmp_path / f"sources{number}", number, images=images, side=side) for number in (1, 2))
    sources = [*one, *other]
    for source in (*sources, one[0]):
        receive(pipeline, source)
    pristine = tmp_path / "pristine"
    shutil.copytree(pipeline.root, pristine, symlinks=True)
    log = tmp_path / "trace"
    assert traced(pipeline, log) == 0
    calls = log.read_text().splitlines()
    counts = {call: sum(f" {call}(" in line for line in calls) for call in CALLS}
    assert sum(" link" in line and "/incoming/" in line for line in calls) >= len(sources)  # the files of all inputs were kept
    points = [(call, number) for call, count in counts.items() for number in range(1, count + 1)]
    assert len(points) >= 60
    points = points[::stride]
    killed = 0
    for call, number in points:
        shutil.rmtree(pipeline.root)
        shutil.copytree(pristine, pipeline.root, symlinks=True)
        killed += traced(pipeline, log, "-e", f"inject={call}:signal=KILL:when={number}") != 0
        receive(pipeline, other[0])
        pipeline.run("anonymize", "--once")
        assert len(list(pipeline.storage.glob("studies/*/*/*.dcm"))) == len(sources), (call, number)
        assert not pipeline.incoming(), (call, number)
        assert not list(pipeline.storage.glob("quarantine/*/*/*")), (call, number)
        out = tmp_path / f"{call}-{number}"
        pipeline.run("restore", str(pipeline.storage / "studies"), str(out))
        assert {dataset_sha256(path) for path in out.rglob("*.dcm")} == set(map(dataset_sha256, sources)), (call, number)
    assert killed == len(points)
