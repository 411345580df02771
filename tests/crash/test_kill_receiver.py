"""`kill -9` of a receiver at each call that makes an instance durable: what was acknowledged is there whole, and nothing is torn."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from dicomrx.errors import UnavailableError
from dicomrx.network.client import Association
from tests.acceptance.pipeline import Pipeline
from tests.integration.scp_rig import CT, ENGINES, EXPLICIT, TITLES, data_set_of, store

# Each lands before the call is made. strace counts for each thread: so late a call is no other's than the association's.
POINTS = [(call, when) for call in ("writev", "fsync", "linkat", "unlink", "sendto", "recvfrom") for when in (30, 31, 32, 33)]
STRIDE = 1 if os.environ.get("DICOMRX_FULL") == "1" else 5

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.needs_tool("strace")]


@contextlib.contextmanager
def receiver(pipeline: Pipeline, *inject: str) -> Iterator[subprocess.Popen[bytes]]:
    """`dicomrx scp` under strace, which kills it where it is told to."""
    command = ["strace", "-f", "-qq", "-o", "/dev/null", *inject, sys.executable, "-m", "dicomrx", "scp"]
    process = subprocess.Popen(command, env=pipeline.env, cwd=pipeline.root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def send_until_it_dies(pipeline: Pipeline, process: subprocess.Popen[bytes]) -> list[bytes]:
    """What was acknowledged on one association."""
    pipeline.wait_for_echo()
    acknowledged: list[bytes] = []
    association = Association.connect(("127.0.0.1", pipeline.port), TITLES, [(1, CT, [EXPLICIT])], 10)
    with contextlib.closing(association._stream), contextlib.suppress(UnavailableError):
        for number in range(100):
            data = f"{number} ".encode() * 10_000
            if store(association, data) == 0:
                acknowledged.append(data)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
    return acknowledged


@pytest.mark.parametrize("engine", ENGINES)
def test_a_killed_receiver_has_kept_what_it_acknowledged_and_tears_nothing(pipeline: Pipeline, engine: str) -> None:
    pipeline.env |= {"DICOM_RECEIVER_ENGINE": engine, "DICOM_RECEIVER_WORKERS": "1"}  # what is killed is all of it
    killed = 0
    for call, when in POINTS[::STRIDE]:
        with receiver(pipeline, "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={when}") as process:
            acknowledged = send_until_it_dies(pipeline, process)
            killed += process.poll() is not None
        kept = [data_set_of(path) for path in pipeline.incoming()]
        assert len(acknowledged) >= 5, (call, when)
        assert set(acknowledged) <= set(kept), (call, when)
        assert all(whole(data) for data in kept), (call, when)
        with pipeline.running("scp"):  # the next receiver takes over, and removes what the dead one had begun
            assert list((pipeline.storage / "receiving").glob("*/*.part")) == [], (call, when)
        for path in pipeline.incoming():
            path.unlink()
    assert killed == len(POINTS[::STRIDE])


def whole(data: bytes) -> bool:
    """True for exactly what was sent, to its last byte."""
    words = data.split()
    return len(words) == 10_000 and len(set(words)) == 1 and data.endswith(b" ")
