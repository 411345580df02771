"""`dicomrx upload` as cron, as a daemon and by hand, on one spool, with the real command."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dicomrx.demo.api_server import UPLOAD
from dicomrx.demo.faults import Arrival, Fault
from dicomrx.spool.layout import Spool
from dicomrx.spool.names import Frozen
from tests.acceptance.pipeline import Pipeline, children, stop, wait_until
from tests.spool_rig import STUDY, filed, freeze, frozen, mark

FULL = os.environ.get("DICOMRX_FULL") == "1"
NAME = f"{STUDY}.1"
SECRETS = ("typed-secret-1", "token-secret-2")


@pytest.fixture
def spool(pipeline: Pipeline) -> Iterator[Spool]:
    with Spool.open(pipeline.storage, pipeline.zips, make=True) as spool:
        yield spool


def uploads(fault: Fault) -> Callable[[Arrival], Fault | None]:
    return lambda arrival: fault if arrival.path == UPLOAD else None


def wait_for(event: threading.Event) -> None:
    event.wait(30)


# --- cron -------------------------------------------------------------------------------------------------------------


def test_cron_ends_with_0_where_all_is_sent_or_nothing_was_there(pipeline: Pipeline, spool: Spool) -> None:
    pipeline.run("upload", "--once")
    frozen(spool)
    pipeline.run("upload", "--once")
    assert len(pipeline.api.accepted) == 1


@pytest.mark.parametrize(
    ("fault", "code"),
    [(Fault(status=503), 75), (Fault(status=404), 69), (Fault(status=422), 0), (Fault(reset_at=0.5), 75)],
    ids=["503", "404", "422", "reset"],
)
def test_cron_ends_with_75_where_something_is_left_and_69_where_the_api_refuses(
    pipeline: Pipeline, spool: Spool, fault: Fault, code: int
) -> None:
    frozen(spool)
    pipeline.api.fault = uploads(fault)
    pipeline.run("upload", "--once", code=code)


def test_cron_ends_with_69_where_the_api_is_not_there_and_the_next_one_sends(pipeline: Pipeline, spool: Spool) -> None:
    frozen(spool)
    pipeline.api.close_port()
    done = pipeline.run("upload", "--once", code=69)
    assert "Connection refused" in done.stderr
    pipeline.api.open_port()
    pipeline.run("upload", "--once")


def test_a_wrong_api_url_makes_no_dead_letter_and_the_right_one_sends_all(pipeline: Pipeline, spool: Spool) -> None:
    for number in range(3):
        frozen(spool, f"2.25.{300 + number}")
    for _ in range(2):
        pipeline.run("upload", "--once", code=69, DICOM_RECEIVER_API_URL=pipeline.api.url + "/wrong")
    pipeline.run("upload", "--once")
    assert len(pipeline.api.accepted) == 3


# --- by hand ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [STUDY, NAME, "zip"])
def test_what_was_sent_already_is_said_and_not_sent_again(pipeline: Pipeline, spool: Spool, wanted: str) -> None:
    frozen(spool)
    pipeline.run("upload", NAME)
    named = str(spool.zips / f"{NAME}.zip") if wanted == "zip" else wanted
    done = pipeline.run("upload", named)
    assert f"{NAME} was sent already" in done.stdout
    assert len([request for request in pipeline.api.requests if request.path == UPLOAD]) == 1


def test_a_study_that_the_api_refuses_ends_with_69_and_where_to_look_and_by_hand_it_is_sent(pipeline: Pipeline, spool: Spool) -> None:
    filed(spool)
    pipeline.api.fault = uploads(Fault(status=422, body=b'{"detail": "the \\u001b[2J modality"}'))
    done = pipeline.run("upload", STUDY, code=69)
    assert f"{NAME} (http-422)" in done.stderr
    assert f"upload/http-422  {NAME}" in pipeline.run("quarantine", "list").stdout
    shown = pipeline.run("quarantine", "show", NAME).stdout
    assert "refuses this study" in shown
    assert "\x1b" not in shown
    pipeline.run("quarantine", "requeue", "http-422")
    pipeline.run("upload", NAME, code=69)
    pipeline.api.fault = lambda _: None
    pipeline.run("upload", NAME)
    assert len(pipeline.api.accepted) == 1


def test_a_study_that_is_left_ends_with_75(pipeline: Pipeline, spool: Spool) -> None:
    frozen(spool)
    pipeline.api.fault = uploads(Fault(status=503))
    assert f"not sent: {NAME}" in pipeline.run("upload", STUDY, code=75).stderr


def test_what_another_process_is_sending_is_said(pipeline: Pipeline, spool: Spool) -> None:
    frozen(spool)
    done = threading.Event()
    pipeline.api.fault = uploads(Fault(meanwhile=lambda: wait_for(done)))
    with pipeline.running("upload") as daemon:
        wait_until(lambda: Arrival(UPLOAD, 1) in pipeline.api.requests)
        assert "another process is sending" in pipeline.run("upload", NAME, code=75).stderr
        done.set()
        wait_until((spool.sent / NAME).exists)
        assert stop(daemon) == 0
    assert len(pipeline.api.accepted) == 1


def test_what_is_held_is_told_and_sent_by_hand(new_pipeline: Callable[..., Pipeline]) -> None:
    pipeline = new_pipeline(ON_AMBIGUOUS="hold")
    with Spool.open(pipeline.storage, pipeline.zips, make=True) as spool:
        frozen(spool)
    pipeline.api.fault = uploads(Fault(lose_answer=True))
    for _ in range(2):
        pipeline.run("upload", "--once", code=75)
    assert f"dicomrx upload {NAME}" in pipeline.run("upload", "--once", code=75).stderr
    assert " held " in pipeline.run("status").stdout
    pipeline.api.fault = lambda _: None
    pipeline.run("upload", NAME)
    assert (len(pipeline.api.accepted), pipeline.api.repeats) == (1, 1)


# --- together ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_daemon_two_crons_and_a_hand_on_50_studies_make_50_accepts(new_pipeline: Callable[..., Pipeline]) -> None:
    pipeline = new_pipeline(DURABLE="false")
    pipeline.api.honour_key = False
    with Spool.open(pipeline.storage, pipeline.zips, make=True) as spool:
        for number in range(50):
            study = f"2.25.{300 + number}"
            filed(spool, study, data=os.urandom(20_000))
            if number % 2:
                assert mark(spool, study)
    by_hand = [f"2.25.{300 + number}" for number in range(0, 50, 2)]
    with pipeline.running("upload"):
        others = [pipeline.start("upload", "--once") for _ in range(2)] + [pipeline.start("upload", *by_hand)]
        wait_until(lambda: len(list((pipeline.storage / "sent").iterdir())) == 50, 120)
        codes = [process.wait(60) for process in others]
    assert codes[:2] == [0, 0]
    assert codes[2] in {0, 75}  # the daemon was sending some of them
    assert sorted(received.name for received in pipeline.api.accepted) == [f"2.25.{300 + number}.1.zip" for number in range(50)]
    assert [request.path for request in pipeline.api.requests].count(UPLOAD) == 50


class Discard(BaseHTTPRequestHandler):
    """Takes any login and any upload."""

    protocol_version = "HTTP/1.1"
    got = 0

    def do_POST(self) -> None:
        left = int(self.headers["Content-Length"])
        while left:
            left -= len(self.rfile.read(min(left, 1 << 20)))
        type(self).got += int(self.headers["Content-Length"])
        body = b'{"access": "token"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the library
        pass


def large_study(spool: Spool, size: int) -> Frozen:
    """One instance of `size` bytes that counts as compressed, and is stored therefore; most of it is a hole."""
    syntax = b"1.2.840.10008.1.2.4.50"
    head = bytes(128) + b"DICM" + b"\x02\x00\x10\x00UI" + len(syntax).to_bytes(2, "little") + syntax
    os.truncate(filed(spool, data=head), size)
    assert mark(spool)
    one = freeze(spool)
    assert one is not None
    return one


@pytest.mark.slow
def test_a_study_of_any_size_is_zipped_and_sent_in_flat_memory(pipeline: Pipeline, spool: Spool) -> None:
    size = (4 << 30) + 12_345 if FULL else 400 << 20
    one = large_study(spool, size)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Discard)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    peak = 0
    try:
        process = pipeline.start("upload", "--once", DICOM_RECEIVER_API_URL=f"http://127.0.0.1:{server.server_port}/api")
        while process.poll() is None:
            peak = max(peak, peak_kb(process.pid))
            time.sleep(0.05)
        assert process.returncode == 0, pipeline.logs()
    finally:
        server.shutdown()
        server.server_close()
    assert (spool.sent / one.name).exists()
    assert Discard.got > size
    print(f"{size} bytes: at most {peak} kB of memory")
    assert 10_000 < peak < 100_000
    (spool.zips / f"{one.name}.zip").unlink()  # pytest keeps what a test leaves


def peak_kb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_no_secret_is_seen_in_the_command_line_of_a_child_or_in_any_log(pipeline: Pipeline) -> None:
    pipeline.api.password = SECRETS[0]
    secrets = {"DICOM_RECEIVER_API_PASSWORD": SECRETS[0], "DICOM_RECEIVER_API_TOKEN": SECRETS[1], "DICOM_RECEIVER_LOG_LEVEL": "DEBUG"}
    with pipeline.running("all", **secrets) as process:
        wait_until(lambda: {"scp", "anonymize", "watch", "upload"} <= children(process.pid).keys())
        with Spool.open(pipeline.storage, pipeline.zips) as spool:
            frozen(spool)
        wait_until(lambda: pipeline.api.accepted)
        for stage, pids in children(process.pid).items():
            for pid in pids:
                assert not any(secret.encode() in Path(f"/proc/{pid}/cmdline").read_bytes() for secret in SECRETS)
                known = [secret.encode() in Path(f"/proc/{pid}/environ").read_bytes() for secret in SECRETS]
                assert known == [stage == "upload"] * 2
    assert not any(secret in pipeline.logs() for secret in SECRETS)


def test_credentials_over_plain_http_are_warned_about_at_every_start_at_any_log_level_and_refused_where_https_is_required(
    pipeline: Pipeline, spool: Spool
) -> None:
    pipeline.env["DICOM_RECEIVER_API_URL"] = "http://api.example.org/api"  # nothing is there to be sent
    for _ in range(2):
        assert "clear text" in pipeline.run("upload", "--once", DICOM_RECEIVER_LOG_LEVEL="ERROR").stderr
    pipeline.env["DICOM_RECEIVER_REQUIRE_HTTPS"] = "true"
    assert "REQUIRE_HTTPS" in pipeline.run("upload", "--once", code=78).stderr
    assert "REQUIRE_HTTPS" in pipeline.run("all", "--once", code=78).stderr
    for command in (["status"], ["watch", "--once"], ["upload", "--once", "--no-send"], ["all", "--once", "--no-auto-upload"]):
        pipeline.run(*command, DICOM_RECEIVER_AUTO_UPLOAD="")


# --- what was sent ----------------------------------------------------------------------------------------------------


def test_what_was_sent_is_shown_without_the_data(new_pipeline: Callable[..., Pipeline]) -> None:
    pipeline = new_pipeline(KEEP_DAYS="0")
    with Spool.open(pipeline.storage, pipeline.zips, make=True) as spool:
        frozen(spool)
    pipeline.run("upload", "--once")
    assert list(pipeline.storage.rglob("*.dcm")) == []
    assert list(pipeline.zips.glob("*.zip")) == []
    (line,) = pipeline.run("status", "--sent").stdout.splitlines()
    (received,) = pipeline.api.accepted
    for told in (NAME, "HTTP 201", "1 images", received.sha256, pipeline.api.url):
        assert told in line
