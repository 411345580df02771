"""What lies in a folder that this user may not look into is named, and the end is 77."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.pipeline import Pipeline

# Root looks everywhere, unless it lays these rights down.
PLAINLY = ["setpriv", "--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


@pytest.fixture
def shut(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "shut"
    folder.mkdir(mode=0)
    yield folder
    folder.chmod(0o700)


@pytest.mark.parametrize(
    "arguments",
    [["restore", "{}", "out"], ["restore", ".", "{}"], ["verify", ".", "{}"], ["upload", "{}"], ["anonymize", "--explain", "{}"]],
    ids=" ".join,
)
def test_a_path_out_of_reach_is_named(pipeline: Pipeline, shut: Path, arguments: list[str]) -> None:
    pipeline.run("anonymize", "--once")
    assert f"folder of {shut / 'x'}" in refused(pipeline, *(argument.format(shut / "x") for argument in arguments))


@pytest.mark.parametrize(("setting", "name"), [("STORAGE_DIR", "shut/x"), ("ZIP_DIR", "shut/x"), ("ZIP_DIR", "shut")])
def test_a_folder_of_ours_out_of_reach_is_named(pipeline: Pipeline, shut: Path, setting: str, name: str) -> None:
    path = str(shut.parent / name)
    pipeline.env[f"DICOM_RECEIVER_{setting}"] = path
    assert path in refused(pipeline, "anonymize", "--once")


def refused(pipeline: Pipeline, *arguments: str) -> str:
    command = [*PLAINLY, sys.executable, "-m", "dicomrx", *arguments]
    done = subprocess.run(command, env=pipeline.env, cwd=pipeline.root, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 77, done.stderr
    return done.stderr
