"""`kill -9` of any child of `all` at random moments, under load: every acknowledged instance is uploaded once and comes back."""

import contextlib
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from dicomrx.errors import UnavailableError
from dicomrx.network.sender import send
from tests import factories
from tests.acceptance.pipeline import Pipeline, children, dataset_sha256, wait_until

ROUNDS = 20 if os.environ.get("DICOMRX_FULL") == "1" else 2
INSTANCES = 500
ASSOCIATIONS = 4

pytestmark = [pytest.mark.crash, pytest.mark.slow]


def send_until_acknowledged(paths: list[Path], port: int) -> None:
    """As a modality does: what was not acknowledged is sent again."""
    left = list(paths)
    while left:
        with contextlib.suppress(UnavailableError):
            for sent in send(list(left), "127.0.0.1", port, timeout_s=20):
                if sent.status == 0:
                    left.remove(sent.path)
        time.sleep(0.2)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_killed_child_loses_and_doubles_nothing(pipeline: Pipeline, tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    studies = [
        factories.study(tmp_path / "sources", number, INSTANCES // ASSOCIATIONS, patient_id=f"HID-{seed}{number}0000")
        for number in range(1, ASSOCIATIONS + 1)
    ]
    kills: list[str] = []
    with pipeline.running("all") as process:
        senders = [threading.Thread(target=send_until_acknowledged, args=(paths, pipeline.port)) for paths in studies]
        for sender in senders:
            sender.start()
        while any(sender.is_alive() for sender in senders):
            time.sleep(dice.uniform(0.2, 1.5))
            below = children(process.pid)
            if below:
                stage = dice.choice(sorted(below))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(dice.choice(below[stage]), signal.SIGKILL)
                    kills.append(stage)
        wait_until(lambda: len(arrived(pipeline)) == INSTANCES, 180, "every instance uploaded")
        time.sleep(3)
        status = pipeline.status()
    assert kills
    assert len(pipeline.uploaded()) == INSTANCES
    assert not status["quarantine"]
    assert not list((pipeline.storage / "outbox").iterdir())
    assert not list((pipeline.storage / "failed").iterdir())
    originals = sorted(dataset_sha256(path) for paths in studies for path in paths)
    assert sorted(pipeline.restored(tmp_path / "back").values()) == originals


def arrived(pipeline: Pipeline) -> set[str]:
    return set(pipeline.uploaded())
