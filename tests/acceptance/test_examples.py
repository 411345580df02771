"""The examples do what they say."""

import os
import subprocess
import sys
from pathlib import Path

from tests import factories
from tests.acceptance.pipeline import Pipeline, wait_until

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str, *arguments: object) -> str:
    done = subprocess.run([sys.executable, EXAMPLES / name, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_folder_is_sent_and_a_stage_of_ones_own_forgets_what_is_old(pipeline: Pipeline, tmp_path: Path) -> None:
    factories.study(tmp_path / "folder" / "deep")
    with pipeline.running("all"):
        example("send_folder.py", tmp_path / "folder", "--port", pipeline.port)
        wait_until(lambda: pipeline.api.accepted)
        wait_until(lambda: list((pipeline.storage / "sent").iterdir()))
        (sent,) = (pipeline.storage / "sent").iterdir()
        example("own_stage.py", pipeline.storage, pipeline.zips, "--once")
        assert list(sent.glob("*/*.dcm")), "a week has not passed"
        os.utime(sent / "receipt.json", (1, 1))
        example("own_stage.py", pipeline.storage, pipeline.zips, "--once")
        assert not list(sent.glob("*/*.dcm"))
        assert not list(pipeline.zips.glob("*.zip"))
        assert (sent / "manifest.json").exists()


def test_the_crontab_names_a_command_that_exists(pipeline: Pipeline) -> None:
    (line,) = [line for line in (EXAMPLES / "crontab").read_text().splitlines() if line.startswith("*/10")]
    assert line.split()[-2:] == ["upload", "--once"]
    pipeline.run("anonymize", "--once")
    pipeline.run("upload", "--once")
