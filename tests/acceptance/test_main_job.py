"""A scanner points at `dicomrx all`; a de-identified, complete study arrives at the API, once, and can be restored."""

import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dicomrx.demo.api_server import DemoApi
from dicomrx.network.sender import send
from dicomrx.supervise import GRACE_S
from tests import factories
from tests.acceptance.pipeline import Pipeline, children, dataset_sha256, stop, wait_until

IDENTITIES = ("quixano", "alonso", "778899", "19470923", "20240517", "5566778", "carrasco")


def test_a_study_sent_to_all_arrives_once_without_identity_and_comes_back_byte_for_byte(pipeline: Pipeline, tmp_path: Path) -> None:
    sources = factories.study(tmp_path / "sources", images=5)
    with pipeline.running("all"):
        assert [sent.status for sent in pipeline.send(sources)] == [0] * 5
        wait_until(lambda: pipeline.api.accepted, what="upload")
    (upload,) = pipeline.api.accepted
    arrived = pipeline.uploaded_datasets()
    assert len(arrived) == 5
    for made in arrived:
        assert (made.PatientName, made.PatientID) == ("sub-001", "sub-001")
        assert made.PatientIdentityRemoved == "YES"
        assert made.SOPInstanceUID.startswith("2.25.")
    outgoing = b"".join(pipeline.uploaded().values()) + "".join(pipeline.uploaded()).encode() + upload.name.encode()
    for identity in IDENTITIES:
        assert identity not in outgoing.decode("latin-1").casefold()
        assert identity not in pipeline.logs().casefold()
    assert sorted(pipeline.restored(tmp_path / "back").values()) == sorted(map(dataset_sha256, sources))
    status = pipeline.status()
    assert status["fates"] == {"acknowledged": 5, "filed": 5, "duplicate": 0, "quarantined": 0, "requeued": 0}
    assert status["sent"] == 1


def test_the_stages_one_by_one_put_the_same_files_into_the_zips_as_all_does(new_pipeline: Callable[..., Pipeline], tmp_path: Path) -> None:
    sources = factories.study(tmp_path / "sources", 1) + factories.study(
        tmp_path / "sources", 2, name="Panza^Sancho", patient_id="HID-445566"
    )
    together = new_pipeline("together")
    together.run("anonymize", "--once")
    with DemoApi(tmp_path / "second") as second:
        (tmp_path / "single").mkdir()
        single = Pipeline(tmp_path / "single", second, TIMEOUT=1)
        assert_same(together, single, sources)


def assert_same(together: Pipeline, single: Pipeline, sources: list[Path]) -> None:
    for folder in ("spool", "state"):
        shutil.copytree(together.root / folder, single.root / folder)
    with together.running("all"):
        together.send(sources)
        wait_until(lambda: len(together.api.accepted) == 2)
    with single.running("scp"):
        single.send(sources)
    single.run("anonymize", "--once")
    time.sleep(1.1)
    single.run("watch", "--once")
    single.run("upload", "--once")
    assert len(single.api.accepted) == 2
    assert single.uploaded() == together.uploaded()


def test_without_auto_upload_all_freezes_and_zips_and_cron_sends(new_pipeline: Callable[..., Pipeline], tmp_path: Path) -> None:
    pipeline = new_pipeline(AUTO_UPLOAD="false")
    with pipeline.running("all"):
        pipeline.send(factories.study(tmp_path / "sources"))
        wait_until(lambda: list(pipeline.zips.glob("*.zip")))
        time.sleep(1)
        assert not pipeline.api.accepted
        assert "not sent: `dicomrx upload` sends them" in pipeline.logs()
        pipeline.run("upload", "--once")
    assert len(pipeline.api.accepted) == 1


def test_cleanup_leaves_receipt_and_manifest_only(new_pipeline: Callable[..., Pipeline], tmp_path: Path) -> None:
    pipeline = new_pipeline(CLEANUP_AFTER_UPLOAD="true")
    with pipeline.running("all"):
        pipeline.send(factories.study(tmp_path / "sources"))
        wait_until(lambda: pipeline.api.accepted)
        wait_until(lambda: not list(pipeline.zips.glob("*.zip")))
    (sent,) = (pipeline.storage / "sent").iterdir()
    assert {path.name for path in sent.iterdir() if path.is_dir()} == set()
    assert {"receipt.json", "manifest.json"} <= {path.name for path in sent.iterdir()}


def test_two_studies_of_one_patient_are_one_pseudonym_and_two_zips(pipeline: Pipeline, tmp_path: Path) -> None:
    with pipeline.running("all"):
        pipeline.send(factories.study(tmp_path / "s", 1) + factories.study(tmp_path / "s", 2))
        wait_until(lambda: len(pipeline.api.accepted) == 2)
    assert {str(made.PatientID) for made in pipeline.uploaded_datasets()} == {"sub-001"}


def test_two_patients_with_one_name_are_two_pseudonyms(pipeline: Pipeline, tmp_path: Path) -> None:
    with pipeline.running("all"):
        pipeline.send(factories.study(tmp_path / "s", 1) + factories.study(tmp_path / "s", 2, patient_id="HID-112233"))
        wait_until(lambda: len(pipeline.api.accepted) == 2)
    assert {str(made.PatientID) for made in pipeline.uploaded_datasets()} == {"sub-001", "sub-002"}


@pytest.mark.parametrize("how", ["removed", "older"])
def test_a_spool_whose_state_is_gone_or_older_refuses_and_renumbers_nothing(pipeline: Pipeline, tmp_path: Path, how: str) -> None:
    with pipeline.running("scp"):
        pipeline.send(factories.study(tmp_path / "s", 1, images=1))
    pipeline.run("anonymize", "--once")
    shutil.copytree(pipeline.state, tmp_path / "older")
    with pipeline.running("scp"):
        pipeline.send(factories.study(tmp_path / "s", 2, images=1, patient_id="HID-112233"))
    pipeline.run("anonymize", "--once")
    shutil.rmtree(pipeline.state)
    if how == "older":
        shutil.copytree(tmp_path / "older", pipeline.state)
    with pipeline.running("scp"):
        pipeline.send(factories.study(tmp_path / "s", 3, images=1, patient_id="HID-998877"))
    done = pipeline.run("anonymize", "--once", code=78)
    assert str(pipeline.state) in done.stderr
    assert len(pipeline.incoming()) == 1, "the input stays where it was"
    if how == "removed":
        assert not (pipeline.state / "identities.sqlite").exists(), "no new numbering was begun"


def test_a_state_older_by_images_alone_refuses_too(pipeline: Pipeline, tmp_path: Path) -> None:
    sources = factories.study(tmp_path / "s", 1, images=2)
    for number, source in enumerate(sources):
        with pipeline.running("scp"):
            pipeline.send([source])
        pipeline.run("anonymize", "--once")
        if number == 0:
            shutil.copytree(pipeline.state, tmp_path / "older")
    shutil.rmtree(pipeline.state)
    shutil.copytree(tmp_path / "older", pipeline.state)
    pipeline.run("anonymize", "--once", code=78)


@pytest.mark.slow
def test_slow_association_backlog_and_restart_leave_each_study_one_zip(pipeline: Pipeline, tmp_path: Path) -> None:
    slow, backlog, restart = (factories.study(tmp_path / "s", number, images=6, patient_id=f"HID-{number}00000") for number in (1, 2, 3))

    def send_slowly() -> None:
        for part in (slow[:2], slow[2:4], slow[4:]):
            list(send(part, "127.0.0.1", pipeline.port))
            time.sleep(1.2)

    with pipeline.running("all") as process:
        sender = threading.Thread(target=send_slowly)
        sender.start()
        anonymizers = children(process.pid)["anonymize"]
        for pid in anonymizers:
            subprocess.run(["kill", "-STOP", str(pid)], check=True)
        pipeline.send(backlog)
        time.sleep(4)
        assert not pipeline.api.accepted, "nothing completes while a backlog waits"
        for pid in anonymizers:
            subprocess.run(["kill", "-CONT", str(pid)], check=True)
        sender.join()
        pipeline.send(restart[:3])
    time.sleep(3)
    with pipeline.running("all"):
        time.sleep(1)
        pipeline.send(restart[3:])
        wait_until(lambda: len(pipeline.api.accepted) >= 3)
        time.sleep(3)
    assert len(pipeline.api.accepted) == 3
    assert len(pipeline.uploaded()) == 18


def test_a_resend_of_everything_sends_nothing_again(pipeline: Pipeline, tmp_path: Path) -> None:
    sources = factories.study(tmp_path / "s")
    with pipeline.running("all"):
        pipeline.send(sources)
        wait_until(lambda: pipeline.api.accepted)
        assert [sent.status for sent in pipeline.send(sources)] == [0] * 4
        wait_until(lambda: not pipeline.incoming())
        time.sleep(3)
    assert len(pipeline.api.accepted) == 1
    assert pipeline.status()["fates"]["duplicate"] == 4  # type: ignore[index]


def test_a_late_instance_is_a_supplement_and_another_content_a_conflict(pipeline: Pipeline, tmp_path: Path) -> None:
    sources = factories.study(tmp_path / "s")
    other = factories.write(tmp_path / "other.dcm", factories.dataset(1, 1, 1, seed=9))
    with pipeline.running("all"):
        pipeline.send(sources[:3])
        wait_until(lambda: pipeline.api.accepted)
        pipeline.send([sources[3], other])
        wait_until(lambda: len(pipeline.api.accepted) == 2)
    assert sorted(upload.name.rpartition(".zip")[0].rpartition(".")[2] for upload in pipeline.api.accepted) == ["1", "2"]
    assert len(pipeline.uploaded()) == 4
    assert pipeline.status()["quarantine"] == {"anonymize/conflict": 1}
    listed = pipeline.run("quarantine", "list").stdout
    assert "anonymize/conflict" in listed
    pipeline.run("quarantine", "requeue", "conflict")
    pipeline.run("anonymize", "--once")
    assert pipeline.status()["quarantine"] == {"anonymize/conflict": 1}


def test_a_second_all_says_that_one_runs_already(pipeline: Pipeline) -> None:
    with pipeline.running("all"):
        done = pipeline.run("all", code=75)
    assert "already runs" in done.stderr


@pytest.mark.slow
def test_all_that_never_gets_its_port_ends_with_75_and_the_log_file_says_why(pipeline: Pipeline) -> None:
    log = pipeline.root / "all.log"
    with socket.create_server(("127.0.0.1", pipeline.port)):
        began = time.monotonic()
        pipeline.run("all", code=75, DICOM_RECEIVER_LOG_FILE=str(log))
        assert time.monotonic() - began > GRACE_S  # one that was just killed may take so long to give the port back
    assert f"CRITICAL scp ended: port {pipeline.port} on 127.0.0.1 is in use" in log.read_text()
    assert "ERROR all scp ended with 75" in log.read_text()


def test_all_waits_for_a_port_that_becomes_free(pipeline: Pipeline) -> None:
    with socket.create_server(("127.0.0.1", pipeline.port)):
        process = pipeline.start("all")
        wait_until(lambda: "is in use" in pipeline.logs(), 30)
    try:
        pipeline.wait_for_echo()
    finally:
        assert stop(process) == 0


def test_sigterm_ends_all_with_0_and_leaves_no_child(pipeline: Pipeline) -> None:
    with pipeline.running("all") as process:
        wait_until(lambda: {"scp", "anonymize", "watch", "upload"} <= children(process.pid).keys())
        pids = [pid for found in children(process.pid).values() for pid in found]
    assert process.returncode == 0
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_no_child_outlives_an_all_that_is_killed(pipeline: Pipeline) -> None:
    with pipeline.running("all") as process:
        wait_until(lambda: {"scp", "anonymize", "watch", "upload"} <= children(process.pid).keys())
        pids = [pid for found in children(process.pid).values() for pid in found]
        process.kill()
        wait_until(lambda: not [pid for pid in pids if Path(f"/proc/{pid}").exists()], 15)


@pytest.mark.parametrize(
    "name", ["dicom-receiver", "dicom_receiver_start.py", "dicom-restore", "restore_dicom_info.py", "upload_study.py", "dicom_config.py"]
)
def test_the_older_names_are_installed_and_work(name: str) -> None:
    done = subprocess.run([str(Path(sys.executable).with_name(name)), "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "dicomrx" in done.stdout or "Usage" in done.stdout


def test_sigterm_ends_all_of_one_pass_and_not_only_the_stage_at_work(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.run("anonymize", "--once")
    factories.study(pipeline.storage / "incoming")  # anonymize waits for it to be quiet
    process = pipeline.start("all", "--once")
    wait_until(lambda: "anonymize" in children(process.pid))
    process.terminate()
    started: set[str] = set()
    while process.poll() is None:
        started |= children(process.pid).keys()
    assert process.returncode == 0
    assert started <= {"anonymize"}
