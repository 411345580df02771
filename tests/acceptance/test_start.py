"""What a stage says as it starts, of what is around it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dicomrx.demo.api_server import DemoApi
from tests.acceptance.pipeline import Pipeline, stop, wait_until
from tests.integration.certificates import Authority


@pytest.mark.parametrize("folder", ["STORAGE_DIR", "STATE_DIR"])
def test_a_full_disk_is_named_and_no_other(folder: str, small_disk: Path, new_pipeline: Callable[..., Pipeline]) -> None:
    log = small_disk.parent / "dicomrx.log"
    full = new_pipeline(**{folder: small_disk / "there", "LOG_FILE": log})
    filler = small_disk / "filler"
    filler.write_bytes(bytes(600 << 10))
    stderr = full.run("anonymize", "--once", code=74).stderr
    assert stderr.splitlines()[-1] == f"dicomrx: no space is left on the disk of {small_disk / 'there'}: make some, then start again"
    assert f"no space is left on the disk of {small_disk / 'there'}" in log.read_text()
    filler.unlink()
    full.run("anonymize", "--once")


@pytest.mark.parametrize("setting", ["TLS_KEY", "TLS_CERT"])
def test_a_key_of_the_receiver_that_everybody_can_read_is_warned_about(
    setting: str, tmp_path: Path, new_pipeline: Callable[..., Pipeline]
) -> None:
    key = Authority(tmp_path, "hospital").issue("receiver")
    site = new_pipeline(**{"TLS_CERT": key, setting: key})
    told = f"DICOM_RECEIVER_{setting}: every user can read {key}, and the key in it: chmod 600 it"
    key.chmod(0o644)
    assert told in log_of_start(site)
    key.chmod(0o640)  # a group is somebody's decision
    assert told not in log_of_start(site)


READ = [("ZIP_DIR", name) for name in (".", "incoming", "studies/zips", "sent", ".run/zips")] + [("STATE_DIR", "incoming/x")]


@pytest.mark.parametrize(("setting", "below"), READ)
def test_a_folder_among_what_stages_read_is_refused_with_both_settings(setting: str, below: str, pipeline: Pipeline) -> None:
    (pipeline.root / "link").symlink_to(pipeline.storage)
    flag = f"--{setting.lower().replace('_', '-')}"
    told = pipeline.run("anonymize", "--once", code=78, **{f"DICOM_RECEIVER_{setting}": str(pipeline.root / "link" / below)}).stderr
    assert "--storage" in told
    assert flag in told
    assert not pipeline.storage.exists()


def test_zips_may_lie_beside_the_folders_of_the_spool(pipeline: Pipeline) -> None:
    pipeline.run("anonymize", "--once", DICOM_RECEIVER_ZIP_DIR=str(pipeline.storage / "zips"))


def log_of_start(site: Pipeline) -> str:
    (site.root / "scp.log").unlink(missing_ok=True)
    process = site.start("scp")
    wait_until(lambda: "receiving on" in site.logs(), 30)
    stop(process)
    return site.logs()


@pytest.mark.parametrize("setting", ["API_KEY", "API_CERT"])
def test_a_key_for_the_api_that_everybody_can_read_is_warned_about(setting: str, pipeline: Pipeline, api: DemoApi, tmp_path: Path) -> None:
    key = Authority(tmp_path, "hospital").issue("uploader")
    pipeline.env |= {f"DICOM_RECEIVER_{name}": str(key) for name in {"API_CERT", setting}}
    told = f"DICOM_RECEIVER_{setting}: every user can read {key}, and the key in it: chmod 600 it"
    pipeline.run("anonymize", "--once")
    key.chmod(0o644)
    assert told in pipeline.run("upload", "--once").stderr
    key.chmod(0o600)
    assert told not in pipeline.run("upload", "--once").stderr


LOADED = "import sys; from dicomrx.cli.staging import STAGES; STAGES[sys.argv[1]].build; print(*sys.modules)"


@pytest.mark.parametrize(("stage", "needed"), [("anonymize", {"pydicom", "dicomrx.vault"}), ("watch", set()), ("upload", {"httpx"})])
def test_a_stage_starts_with_nothing_that_only_another_needs(stage: str, needed: set[str]) -> None:
    loaded = subprocess.run([sys.executable, "-c", LOADED, stage], capture_output=True, text=True, check=True).stdout.split()
    assert needed == {"pydicom", "dicomrx.vault", "httpx"}.intersection(loaded)
