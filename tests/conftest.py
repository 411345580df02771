"""What every test starts from: a clean environment, and an honest word on programs that are missing."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:  # a copy of this file alone must work too
    from dicomrx.demo.api_server import DemoApi
    from dicomrx.spool.intake import Intake
    from dicomrx.spool.layout import Spool
    from tests.acceptance.pipeline import Pipeline

# Two cores are shared by all the tests: how long one example took says nothing. What CI sets (no random seed) stays.
settings.register_profile("unhurried", settings(), deadline=None)
settings.load_profile("unhurried")

REQUIRE_TOOLS = os.environ.get("DICOMRX_REQUIRE_TOOLS") == "1"
_SBIN = f"{os.defpath}:/usr/sbin:/sbin"


def needs_tool(*names: str) -> None:
    """Skip the running test without these programs; fail it where the machine promised them (DICOMRX_REQUIRE_TOOLS=1).

    For use inside a test or fixture; above a test, write `@pytest.mark.needs_tool("storescu")`.
    """
    search = f"{os.environ.get('PATH', '')}:{_SBIN}"
    missing = [name for name in names if shutil.which(name, path=search) is None]
    if missing:
        not_here(", ".join(missing))


def not_here(what: str) -> None:
    """Skip the running test for want of something; fail it where the machine promised it."""
    message = f"not on this machine: {what}"
    if REQUIRE_TOOLS:
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs_tool"):
        needs_tool(*mark.args)


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the person who runs the tests reaches them, here or in a child process."""
    for name in list(os.environ):
        if name.startswith("DICOM_RECEIVER_") or name == "CREDENTIALS_DIRECTORY":
            monkeypatch.delenv(name)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", disk], check=False, capture_output=True).returncode != 0:
        not_here("the right to mount a tmpfs")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.fixture
def spool(tmp_path: Path) -> "Iterator[Spool]":
    from tests.spool_rig import open_spool

    with open_spool(tmp_path) as spool:
        yield spool


@pytest.fixture
def intake(spool: "Spool") -> "Iterator[Intake]":
    """A receiver's side of the spool, stopped at the end."""
    from dicomrx.spool.intake import Intake

    intake = Intake(spool)
    yield intake
    intake.stop(cut=False)


@pytest.fixture
def api(tmp_path: Path) -> "Iterator[DemoApi]":
    """An upload API that honours the key."""
    from dicomrx.demo.api_server import DemoApi

    with DemoApi(tmp_path / "received") as server:
        yield server


@pytest.fixture
def new_pipeline(tmp_path: Path, api: "DemoApi") -> "Callable[..., Pipeline]":
    """Makes a spool, a state and the commands on them, with these settings."""
    from tests.acceptance.pipeline import Pipeline

    def make(name: str = "site", **settings: object) -> Pipeline:
        root = tmp_path / name
        root.mkdir()
        return Pipeline(root, api, **settings)

    return make


@pytest.fixture
def pipeline(new_pipeline: "Callable[..., Pipeline]") -> "Pipeline":
    return new_pipeline()
