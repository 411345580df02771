import hashlib
import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path

import httpx
import pytest
import stamina
from hypothesis import given
from hypothesis import strategies as st

import dicomrx
from dicomrx.api import Accepted, ApiClient, DestinationRefused, Timeouts, UploadDeferred, UploadRejected, warning_of
from dicomrx.api.answers import retry_after
from dicomrx.demo.api_server import LOGIN, UPLOAD, DemoApi
from dicomrx.demo.faults import Arrival, Fault
from dicomrx.demo.multipart import receive_file
from dicomrx.errors import ConfigError

KEY = hashlib.sha256(b"manifest").hexdigest()
NAME = "2.25.100.1.zip"
BODY = os.urandom(300_000) + b"\r\n--dicomrx-" + KEY[:48].encode() + b"\r\n" + os.urandom(300_000)
SECRET = "s3cret-pässword"
SOURCES = str(Path(dicomrx.__path__[0]).parent)
EXAMPLE = Path(__file__).parents[2] / "examples" / "demo_api.py"

type_of_fault = Callable[[Arrival], Fault | None]


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=99, cap=True):
        yield


def serve(tmp_path: Path, *uploads: Fault | None, login: type_of_fault = lambda _: None, honour_key: bool = True) -> DemoApi:
    """A server on which the first uploads go wrong as told, and all later ones well."""

    def fault(arrival: Arrival) -> Fault | None:
        if arrival.path == LOGIN:
            return login(arrival)
        return uploads[arrival.number - 1] if arrival.number <= len(uploads) else None

    return DemoApi(tmp_path / "received", password=SECRET, fault=fault, honour_key=honour_key)


def client(api: DemoApi, retries: int = 3, **more: object) -> ApiClient:
    values: dict[str, object] = {"username": "demo", "password": SECRET, "retry_delay": 0.01, "timeouts": Timeouts(2, 2, 2), **more}
    return ApiClient(api.url, max_retries=retries, **values)  # type: ignore[arg-type]


def send(api: DemoApi, body: bytes = BODY, *, key: str = KEY, may_have_arrived: bool = False, **more: object) -> Accepted:
    with client(api, **more) as uploader:  # type: ignore[arg-type]
        return uploader.upload(io.BytesIO(body), filename=NAME, key=key, may_have_arrived=may_have_arrived)


def numbers(api: DemoApi) -> tuple[int, int, int]:
    """Logins, uploads tried, uploads accepted."""
    paths = [request.path for request in api.requests]
    return paths.count(LOGIN), paths.count(UPLOAD), len(api.accepted)


# --- the plain way ----------------------------------------------------------------------------------------------------


def test_an_upload_arrives_whole_under_its_name_and_key(tmp_path: Path) -> None:
    with serve(tmp_path) as api:
        accepted = send(api)
        assert numbers(api) == (1, 1, 1)
    (received,) = api.accepted
    assert (received.name, received.key, received.size) == (NAME, KEY, len(BODY))
    assert received.path.read_bytes() == BODY
    assert (accepted.status, accepted.attempts, accepted.ambiguous) == (201, 1, False)
    assert hashlib.sha256(BODY).hexdigest() in accepted.answer
    assert [path.name for path in received.path.parent.iterdir()] == [f"0001-{NAME}"]


def test_a_given_token_is_used_without_a_login(tmp_path: Path) -> None:
    with serve(tmp_path) as api:
        granted = api.log_in("demo", SECRET)
        assert granted is not None
        send(api, username=None, password=None, token=granted["access"])
        assert numbers(api) == (0, 1, 1)


def test_one_login_serves_many_uploads(tmp_path: Path) -> None:
    with serve(tmp_path) as api, client(api) as uploader:
        for number in range(5):
            uploader.upload(io.BytesIO(BODY), filename=NAME, key=f"{number:064}")
        assert numbers(api) == (1, 5, 5)


@pytest.mark.parametrize("status", [200, 202, 204, 299])
def test_every_2xx_is_accepted(status: int, tmp_path: Path) -> None:
    with serve(tmp_path, Fault(status=status, body=b"")) as api:
        assert send(api).status == status
        assert numbers(api) == (1, 1, 0)


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_a_token_that_expires_between_two_uploads_is_replaced_without_a_failure(tmp_path: Path) -> None:
    with serve(tmp_path) as api, client(api) as uploader:
        for number in range(6):
            if number == 3:
                api.expire_tokens()
            assert uploader.upload(io.BytesIO(BODY), filename=NAME, key=f"{number:064}").attempts == 1
        assert numbers(api) == (2, 7, 6)


def test_threads_that_find_the_token_expired_together_log_in_once(tmp_path: Path) -> None:
    slow_login = threading.Event()

    def login(arrival: Arrival) -> None:
        if arrival.number == 2:
            slow_login.wait(0.3)

    with serve(tmp_path, login=login) as api, client(api) as uploader, ThreadPoolExecutor(8) as pool:
        uploader.upload(io.BytesIO(BODY), filename=NAME, key="0" * 64)
        api.expire_tokens()
        list(pool.map(lambda n: uploader.upload(io.BytesIO(BODY), filename=NAME, key=f"{n:064}"), range(1, 9)))
        assert numbers(api)[0] == 2
        assert len(api.accepted) == 9


def test_threads_that_wait_for_a_login_that_is_refused_do_not_try_the_password_again(tmp_path: Path) -> None:
    def login(arrival: Arrival) -> Fault:
        time.sleep(0.3)
        return Fault(status=403)

    with serve(tmp_path, login=login) as api, client(api) as uploader, ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(uploader.upload, io.BytesIO(b"x"), filename=NAME, key=f"{n:064}") for n in range(8)]
        assert all(isinstance(one.exception(), DestinationRefused) for one in waiting)
        assert numbers(api)[0] == 1


def test_a_given_token_that_is_refused_stops_the_line_without_a_retry(tmp_path: Path) -> None:
    with serve(tmp_path) as api:
        with pytest.raises(DestinationRefused) as refused:
            send(api, username=None, password=None, token="expired")
        assert numbers(api) == (0, 1, 0)
    assert (refused.value.attempts, refused.value.ambiguous, refused.value.exit_code) == (1, False, 69)


def test_a_given_token_that_expired_is_replaced_where_a_password_is_known(tmp_path: Path) -> None:
    with serve(tmp_path) as api:
        assert send(api, token="expired").attempts == 1
        assert numbers(api) == (1, 2, 1)


def test_401_after_the_new_login_stops_the_line(tmp_path: Path) -> None:
    with serve(tmp_path, *[Fault(status=401)] * 9) as api:
        with pytest.raises(DestinationRefused):
            send(api)
        assert numbers(api) == (2, 2, 0)


@pytest.mark.parametrize("status", [301, 307, 400, 401, 403, 404, 405, 409, 422])
def test_a_refused_login_stops_the_line_at_once(status: int, tmp_path: Path) -> None:
    with serve(tmp_path, login=lambda _: Fault(status=status, headers={"Location": "/elsewhere"})) as api:
        with pytest.raises(DestinationRefused, match=f"login .HTTP {status}"):
            send(api)
        assert numbers(api) == (1, 0, 0)


def test_a_wrong_password_stops_the_line_and_is_not_tried_twice(tmp_path: Path) -> None:
    with serve(tmp_path) as api:
        with pytest.raises(DestinationRefused):
            send(api, password="wrong")
        assert numbers(api) == (1, 0, 0)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'{"access": 5}', b'{"access": ""}', b'{"access": "a\\nb"}', b"[" * 60_000, b"\xff"])
def test_a_login_that_brings_no_usable_token_stops_the_line(body: bytes, tmp_path: Path) -> None:
    with serve(tmp_path, login=lambda _: Fault(status=200, body=body)) as api, pytest.raises(DestinationRefused, match="access"):
        send(api)


def test_a_login_that_fails_for_a_moment_is_retried(tmp_path: Path) -> None:
    with serve(tmp_path, login=lambda arrival: Fault(status=503) if arrival.number < 3 else None) as api:
        assert send(api).attempts == 3
        assert numbers(api) == (3, 1, 1)


def test_a_login_that_goes_on_failing_stops_the_line(tmp_path: Path) -> None:
    with serve(tmp_path, login=lambda _: Fault(reset_at=1.0)) as api:
        with pytest.raises(DestinationRefused) as refused:
            send(api)
        assert numbers(api) == (4, 0, 0)
    assert not refused.value.ambiguous


# --- retries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_what_may_pass_is_retried_until_it_does(status: int, tmp_path: Path) -> None:
    with serve(tmp_path, Fault(status=status), Fault(status=status)) as api:
        accepted = send(api)
        assert numbers(api) == (1, 3, 1)
    assert accepted.attempts == 3
    assert accepted.ambiguous is (status in {502, 504})


@pytest.mark.parametrize(("retries", "tried"), [(0, 1), (1, 2), (3, 4)])
def test_max_retries_counts_the_retries_and_not_the_first_attempt(retries: int, tried: int, tmp_path: Path) -> None:
    with serve(tmp_path, *[Fault(status=500)] * 9) as api:
        with pytest.raises(UploadDeferred) as deferred:
            send(api, retries=retries)
        assert numbers(api) == (1, tried, 0)
    assert (deferred.value.attempts, deferred.value.ambiguous, deferred.value.unreachable) == (tried, False, False)


def test_the_delay_doubles_from_retry_to_retry(tmp_path: Path) -> None:
    stamina.set_testing(False)
    with serve(tmp_path, *[Fault(status=500)] * 3) as api:
        began = time.monotonic()
        send(api, retry_delay=0.1)
        took = time.monotonic() - began
    assert 0.7 <= took < 3  # 0.1 + 0.2 + 0.4, each and a jitter of at most 0.1


def test_retry_after_is_waited_for_and_not_the_own_delay(tmp_path: Path) -> None:
    stamina.set_testing(False)
    with serve(tmp_path, Fault(status=429, headers={"Retry-After": "1"})) as api:
        began = time.monotonic()
        send(api, retry_delay=0.0)
        assert 1.0 <= time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("value", "retry_in"),
    [("600", 600), ("86400", 900), ("9" * 400, 900), (formatdate(time.time() + 86400, usegmt=True), 900)],
    ids=["ten minutes", "a day", "400 digits", "a date"],  # an id that tells the time differs between xdist's workers
)
def test_a_longer_retry_after_is_left_to_the_next_pass_and_capped(value: str, retry_in: float, tmp_path: Path) -> None:
    stamina.set_testing(False)
    with serve(tmp_path, Fault(status=503, headers={"Retry-After": value})) as api:
        with pytest.raises(UploadDeferred) as deferred:
            send(api)
        assert numbers(api) == (1, 1, 0)
    assert deferred.value.retry_in == retry_in


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": " 7 "}, 7.0),
        ({"Retry-After": "-7"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "Thu, 01 Jan 1970 00:01:00 GMT"}, 50.0),
        ({"Retry-After": "Thu, 01 Jan 1970 00:00:01 GMT"}, 0.0),
        ({"Retry-After": "Thu, 01 Jan 1970 00:01:00 GMT", "Date": "Thu, 01 Jan 1970 00:00:55 GMT"}, 5.0),
        ({"Retry-After": "Thu, 01 Jan 1970 00:01:00 GMT", "Date": "?"}, 50.0),
        ({"Retry-After": "Thu, 99 Jan 1970 00:01:00 GMT"}, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date_by_the_clock_of_the_api(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(httpx.Headers(headers), now=10.0) == seconds


def test_no_new_attempt_begins_after_the_time_of_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stamina.set_testing(False)
    monkeypatch.setattr("dicomrx.api.client.RETRY_TIMEOUT_S", 0.2)
    with serve(tmp_path, *[Fault(hang_s=0.3)] * 99) as api:
        with pytest.raises(UploadDeferred):
            send(api, retries=50)
        assert numbers(api) == (1, 1, 0)


def test_a_pause_that_is_longer_than_a_pass_is_left_to_the_next_one(tmp_path: Path) -> None:
    stamina.set_testing(False)
    with serve(tmp_path, *[Fault(status=500)] * 99) as api, pytest.raises(UploadDeferred) as deferred:
        send(api, retry_delay=600.0)
    assert numbers(api) == (1, 1, 0)
    assert deferred.value.retry_in == 600


@pytest.mark.parametrize(("retry_delay", "attempts"), [(600.0, 1), (0.0, 1051)], ids=["long pauses", "none"])
def test_any_number_of_retries_can_be_set(retry_delay: float, attempts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2.0**1024 is no number."""
    stamina.set_testing(False)
    monkeypatch.setattr("dicomrx.api.client.RETRY_TIMEOUT_S", 500.0)
    api = serve(tmp_path)
    api.close_port()
    with pytest.raises(UploadDeferred) as deferred:
        send(api, retries=1050, retry_delay=retry_delay, username=None, password=None, token="t")
    assert deferred.value.attempts == attempts


# --- ambiguous or not -------------------------------------------------------------------------------------------------


def test_a_lost_answer_is_followed_by_the_same_bytes_and_key_and_one_accept(tmp_path: Path) -> None:
    with serve(tmp_path, Fault(lose_answer=True)) as api:
        accepted = send(api)
        assert numbers(api) == (1, 2, 1)
        assert api.repeats == 1  # the server would have said 422 to other bytes
    assert accepted.ambiguous


def test_a_server_that_does_not_know_the_key_gets_the_same_bytes_twice(tmp_path: Path) -> None:
    with serve(tmp_path, Fault(lose_answer=True), honour_key=False) as api:
        send(api)
    first, second = api.accepted
    assert (first.sha256, first.key, first.name) == (second.sha256, second.key, second.name)


def test_a_repeat_is_the_same_request_body_to_the_last_byte_from_another_client_too(tmp_path: Path) -> None:
    bodies = []

    class Recorder(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            bodies.append((request.headers["Content-Type"], request.read()))
            return httpx.Response(200, stream=httpx.ByteStream(b""))

    for _ in range(2):
        with ApiClient("http://localhost/api", token="t", transport=Recorder()) as uploader:
            uploader.upload(io.BytesIO(BODY), filename=NAME, key=KEY)
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize(
    "fault",
    [Fault(reset_at=0.0), Fault(reset_at=0.5), Fault(reset_at=1.0), Fault(hang_s=5), Fault(raw=b"garbage\r\n\r\n"), Fault(raw=b"")],
    ids=["reset at 0 %", "reset at 50 %", "reset at 100 %", "hang", "garbage", "nothing"],
)
def test_an_attempt_without_an_answer_is_ambiguous_and_retried(fault: Fault, tmp_path: Path) -> None:
    with serve(tmp_path, fault) as api:
        accepted = send(api, timeouts=Timeouts(2, 0.5, 2))
        assert numbers(api) == (1, 2, 1)
    assert accepted.ambiguous


def test_a_refused_connection_is_unreachable_and_surely_not_ambiguous(tmp_path: Path) -> None:
    with serve(tmp_path) as api:
        pass
    with pytest.raises(UploadDeferred, match="Connection refused") as deferred:
        send(api, username=None, password=None, token="t")
    assert (deferred.value.attempts, deferred.value.ambiguous, deferred.value.unreachable) == (4, False, True)


def test_409_counts_as_sent_after_an_ambiguous_attempt(tmp_path: Path) -> None:
    with serve(tmp_path, Fault(lose_answer=True), Fault(status=409)) as api:
        accepted = send(api)
    assert (accepted.status, accepted.attempts) == (409, 2)


def test_409_counts_as_sent_where_an_earlier_pass_ended_ambiguously(tmp_path: Path) -> None:
    with serve(tmp_path, Fault(status=409)) as api:
        assert send(api, may_have_arrived=True).status == 409


def test_409_out_of_the_blue_is_no_proof_of_anything(tmp_path: Path) -> None:
    with serve(tmp_path, Fault(status=500), Fault(status=409)) as api, pytest.raises(DestinationRefused):
        send(api)


@pytest.mark.parametrize(("status", "outcome"), [(500, UploadDeferred), (422, UploadRejected), (404, DestinationRefused)])
def test_that_an_attempt_was_ambiguous_is_told_whatever_comes_after(
    status: int, outcome: type[UploadDeferred | UploadRejected | DestinationRefused], tmp_path: Path
) -> None:
    with serve(tmp_path, Fault(reset_at=1.0), *[Fault(status=status)] * 9) as api:
        with pytest.raises(outcome) as ended:
            send(api)
        assert vars(ended.value)["ambiguous"]


def test_a_2xx_whose_body_breaks_off_is_accepted(tmp_path: Path) -> None:
    with serve(tmp_path, Fault(raw=b'HTTP/1.1 201 Created\r\nContent-Length: 500\r\n\r\n{"id": 1')) as api:
        assert send(api) == Accepted(201, '{"id": 1', 1, ambiguous=False)


def test_a_connection_that_is_refused_now_does_not_undo_that_an_earlier_attempt_was_ambiguous(tmp_path: Path) -> None:
    with serve(tmp_path) as api:
        pass
    with pytest.raises(UploadDeferred) as deferred:
        send(api, username=None, password=None, token="t", may_have_arrived=True)
    assert deferred.value.ambiguous


# --- what is about the study, and what is about the destination -------------------------------------------------------


@pytest.mark.parametrize("status", [400, 413, 415, 422])
@pytest.mark.parametrize("early", [False, True])
def test_an_answer_about_the_study_rejects_it_at_once(status: int, early: bool, tmp_path: Path) -> None:
    with serve(tmp_path, Fault(status=status, body=b'{"detail": "no"}', early=early)) as api:
        with pytest.raises(UploadRejected) as rejected:
            send(api)
        assert numbers(api) == (1, 1, 0)
    assert rejected.value.reason == f"http-{status}"
    assert '"no"' in rejected.value.detail


@pytest.mark.parametrize("status", [301, 302, 304, 307, 308, 402, 403, 404, 405, 406, 410, 411, 451])
def test_an_answer_about_the_destination_stops_the_line_at_once(status: int, tmp_path: Path) -> None:
    with serve(tmp_path, Fault(status=status, body=b"", headers={"Location": UPLOAD})) as api:
        with pytest.raises(DestinationRefused):
            send(api)
        assert numbers(api) == (1, 1, 0)


def test_an_unreadable_zip_is_an_error_of_this_machine(tmp_path: Path) -> None:
    with serve(tmp_path) as api, client(api) as uploader, (tmp_path / "zip").open("wb") as write_only, pytest.raises(OSError):
        uploader.upload(write_only, filename=NAME, key=KEY)


# --- secrets ----------------------------------------------------------------------------------------------------------


def everything_said(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + str(error)


@pytest.mark.parametrize(
    "faults",
    [
        [],
        [Fault(status=503), Fault(reset_at=0.5), Fault(hang_s=3)],
        [Fault(status=422, body=SECRET.encode())],
        [Fault(status=200, body=json.dumps({"token": "token-of-ours", "password": SECRET}).encode())],
        [Fault(status=403, body=f"Bearer token-of-ours {SECRET}".encode())],
        [Fault(status=401)] * 9,
        [Fault(raw=b"HTTP/1.1 200 OK\r\n" + SECRET.encode() + b"\r\n\r\n")] * 9,
    ],
)
def test_no_secret_reaches_a_log_an_error_or_a_receipt(faults: list[Fault], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said = ""
    with serve(tmp_path, *faults) as api:
        uploader = client(api, token="token-of-ours", timeouts=Timeouts(2, 0.5, 2))
        said += repr(uploader) + uploader.destination
        try:
            accepted = uploader.upload(io.BytesIO(BODY), filename=NAME, key=KEY)
            said += repr(accepted) + accepted.answer
        except (UploadDeferred, UploadRejected, DestinationRefused) as error:
            said += everything_said(error)
        given = list(api._tokens)
        uploader.close()
    # httpcore writes at DEBUG what arrives, word for word, and an API may repeat what it was sent: that log is to stay off.
    said += "".join(f"{record.getMessage()}{record.__dict__}" for record in caplog.records if "receive_response" not in record.getMessage())
    for secret in [SECRET, json.dumps(SECRET)[1:-1], "token-of-ours", *given]:
        assert secret not in said


@pytest.mark.parametrize("token", ["two\nlines", "with blank", "end\r", "umläut", "", "\0"])
def test_a_token_that_no_header_can_carry_is_named_by_its_setting_and_not_shown(token: str) -> None:
    with pytest.raises(ConfigError, match="API_TOKEN") as wrong:
        ApiClient("http://localhost/api", token=token)
    assert not token or token not in everything_said(wrong.value)


def test_a_password_that_json_cannot_carry_is_named_by_its_setting_and_not_shown() -> None:
    password = SECRET + "\udcff"
    with pytest.raises(ConfigError, match="API_PASSWORD") as wrong:
        ApiClient("http://localhost/api", username="demo", password=password)
    assert SECRET not in everything_said(wrong.value)


@pytest.mark.parametrize("half", [{"username": "demo"}, {"password": SECRET}])
def test_half_a_login_is_refused(half: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="belong together"):
        ApiClient("http://localhost/api", **half)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.org",
        "ftp://api.example.org",
        "https://",
        "https://demo:s3cret@api.example.org/api",
        "https://demo:s3cret@api.example.org:port/api",
        "https://s3cret..example.org/api",
        "https://api.example.org/api?key=s3cret",
        "https://api.example.org/s3cret\n",
        "https://api.example.org/a\ns3cret",
        "https://xn--s3cret-\ud800.org",
    ],
)
def test_a_bad_url_is_named_by_its_setting_and_not_repeated(url: str) -> None:
    if url.endswith("\n"):  # a line end around it is no harm
        assert warning_of(url) is None
        return
    for use in (lambda: ApiClient(url, token="t"), lambda: warning_of(url)):
        with pytest.raises(ConfigError, match="API_URL") as wrong:
            use()
        assert "s3cret" not in str(wrong.value)
        assert wrong.value.__suppress_context__ or wrong.value.__context__ is None


@pytest.mark.parametrize(
    "url", ["http://localhost:8000/api", "http://127.3.2.1/api", "http://[::1]:8000/api", "https://api.example.org/api"]
)
def test_credentials_over_loopback_or_https_need_no_warning(url: str) -> None:
    assert warning_of(url) is None


@pytest.mark.parametrize("url", ["http://api.example.org/api", "http://10.0.0.1/api", "http://localhost.example.org", "http://0x7f.1/"])
def test_credentials_in_clear_text_are_warned_about(url: str) -> None:
    assert "clear text" in (warning_of(url) or "")


def test_a_proxy_of_the_environment_never_sees_what_goes_to_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with serve(tmp_path) as api:
        assert send(api).status == 201


def test_the_answer_kept_is_short_and_printable(tmp_path: Path) -> None:
    with serve(tmp_path, Fault(status=200, body=b"\x1b]0;x\x07 \xe2\x80\xae\xff" + b"a" * 1_000_000)) as api:
        answer = send(api).answer
    assert answer.isprintable()
    assert len(answer) <= 2000


@given(st.binary(max_size=400), st.data())
def test_the_demo_api_finds_the_file_however_the_network_cuts_the_body(content: bytes, data: st.DataObject) -> None:
    content += b"\r\n--bound-?" + content  # what looks like the end, but is not
    body = io.BytesIO(b'--bound\r\nContent-Disposition: form-data; name="file"; filename="a.zip"\r\n\r\n' + content + b"\r\n--bound--\r\n")
    cuts = data.draw(st.lists(st.integers(1, 30), min_size=1))

    class Network:
        def read(self, size: int, /) -> bytes:
            cuts.append(cuts.pop(0))
            return body.read(min(size, cuts[-1]))

    received = bytearray()
    assert receive_file(Network(), b"bound", received.extend) == "a.zip"
    assert received == content


# --- size -------------------------------------------------------------------------------------------------------------


def peak_kb(status: str) -> int:
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


UPLOADER = """
import pathlib, sys
from dicomrx.api import ApiClient
with ApiClient(sys.argv[1], username="demo", password="demo") as uploader, open(sys.argv[2], "rb") as file:
    print(uploader.upload(file, filename="2.25.1.1.zip", key="0" * 64).status)
print(pathlib.Path("/proc/self/status").read_text())
"""


def test_200_mb_are_sent_and_received_in_flat_memory(tmp_path: Path) -> None:
    large = tmp_path / "large.zip"
    large.touch()
    os.truncate(large, 200_000_000)
    env = {**os.environ, "PYTHONPATH": SOURCES}
    serving = [sys.executable, str(EXAMPLE), "--port", "0", "--dir", str(tmp_path / "received")]
    with subprocess.Popen(serving, stdout=subprocess.PIPE, text=True, env=env) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split()[-1]
            done = subprocess.run([sys.executable, "-c", UPLOADER, url, large], check=True, capture_output=True, text=True, env=env)
            server_peak = peak_kb(Path(f"/proc/{server.pid}/status").read_text())
        finally:
            server.terminate()
    status, _, rest = done.stdout.partition("\n")
    assert status == "201"
    assert peak_kb(rest) < 60_000
    assert server_peak < 60_000
    assert (tmp_path / "received" / "0001-2.25.1.1.zip").stat().st_size == 200_000_000


def test_a_zip_that_is_uploaded_is_the_zip_that_is_received(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr("2.25.1/2.25.2/2.25.3.dcm", bytes(1000))
    with serve(tmp_path) as api, client(api) as uploader, (tmp_path / "a.zip").open("rb") as file:
        file.read(10)  # where a reader left it does not matter
        uploader.upload(file, filename=NAME, key=KEY)
    with zipfile.ZipFile(api.accepted[0].path) as received:
        assert received.testzip() is None


# --- patience ---------------------------------------------------------------------------------------------------------


def test_an_answer_that_drips_for_ever_is_cut_and_ambiguous(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomrx.api.client._ANSWER_S", 0.0)
    with serve(tmp_path, Fault(drip_s=0.3)) as api:
        began = time.monotonic()
        accepted = send(api, timeouts=Timeouts(2, 1, 2))
        assert time.monotonic() - began < 20  # it would drip for a minute
        assert numbers(api) == (1, 2, 1)
    assert accepted.ambiguous
