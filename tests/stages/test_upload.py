import json
import os
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from dicomrx import archive, status
from dicomrx.api import ApiClient
from dicomrx.demo.api_server import LOGIN, UPLOAD, DemoApi
from dicomrx.demo.faults import Arrival, Fault
from dicomrx.jobs import Chosen, Job, Tally
from dicomrx.runner import Runner
from dicomrx.settings import Settings
from dicomrx.spool import quarantine
from dicomrx.spool.by_name import frozen_by_name
from dicomrx.spool.layout import ATTEMPTS, MANIFEST, RECEIPT, Spool, read_json
from dicomrx.spool.outbox import Outgoing
from dicomrx.spool.sending import Record, Step
from dicomrx.spool.studies import is_marked
from dicomrx.stages import upload
from dicomrx.stages.upload import Upload
from tests.acceptance.pipeline import wait_until
from tests.spool_rig import INSTANCE, OTHER_STUDY, SECOND, SERIES, STUDY, advance, filed, frozen, mark, names, open_spool, tree

Faults = Callable[[Arrival], Fault | None]


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with open_spool(tmp_path) as spool:
        yield spool


@pytest.fixture
def api(tmp_path: Path) -> Iterator[DemoApi]:
    with DemoApi(tmp_path / "received") as api:
        yield api


@pytest.fixture
def client(api: DemoApi) -> Iterator[ApiClient]:
    with ApiClient(api.url, username="demo", password="demo", max_retries=1, retry_delay=0.01) as client:
        yield client


def run(
    spool: Spool,
    client: ApiClient | None,
    *,
    keep_days: int | None = None,
    hold: bool = False,
    threads: int = 1,
    manifest_in_zip: bool = False,
) -> Tally:
    stage = Upload(spool, client, profile="basic", keep_days=keep_days, hold=hold, manifest_in_zip=manifest_in_zip)
    return Runner(stage, spool, threads=threads).once()


def complete(spool: Spool, study: str = STUDY, instance: str = INSTANCE) -> None:
    filed(spool, study, instance, f"output of {instance}".encode())
    assert mark(spool, study)


def steps(folder: Path) -> list[dict]:
    return [
        {key: value for key, value in step.items() if key not in {"at", "key", "destination", "answer"}}
        for step in Record.read(folder).steps
    ]


def to_upload(fault: Fault, *numbers: int) -> Faults:
    return lambda arrival: fault if arrival.path == UPLOAD and (not numbers or arrival.number in numbers) else None


def test_a_complete_study_is_frozen_zipped_sent_and_settled(spool: Spool, api: DemoApi, client: ApiClient) -> None:
    complete(spool)
    filed(spool, OTHER_STUDY)  # not complete
    assert run(spool, client).done == 1
    (received,) = api.accepted
    assert received.name == f"{STUDY}.1.zip"
    with zipfile.ZipFile(received.path) as packed:
        assert packed.namelist() == [f"{STUDY}/{SERIES}/{INSTANCE}.dcm"]
        assert packed.read(packed.namelist()[0]) == b"output of 2.25.1"
    assert names(spool.outbox) == []
    assert names(spool.studies) == [OTHER_STUDY]
    sent = spool.sent / f"{STUDY}.1"
    manifest, receipt = read_json(sent / MANIFEST), read_json(sent / RECEIPT)
    assert manifest is not None
    assert receipt is not None
    assert received.key == receipt["key"] == sha256((sent / MANIFEST).read_bytes()).hexdigest()
    assert receipt["zip"] == {"name": received.name, "size": received.size, "sha256": received.sha256}
    assert (receipt["study"], receipt["generation"], receipt["destination"], receipt["status"]) == (STUDY, 1, api.url, 201)
    assert receipt["attempts"] == 1
    assert (manifest["study"], manifest["generation"], manifest["parent"], manifest["profile"]) == (STUDY, 1, None, "basic")
    assert manifest["complete"]["rule"] == "hand"
    assert [row["instance"] for row in manifest["instances"]] == [INSTANCE]
    assert (sent / SERIES / f"{INSTANCE}.dcm").exists()
    assert (spool.zips / received.name).exists()


def test_without_a_client_it_only_freezes_and_zips(spool: Spool, api: DemoApi) -> None:
    complete(spool)
    assert run(spool, None).done == 1
    assert names(spool.outbox) == [f"{STUDY}.1"]
    assert (spool.zips / f"{STUDY}.1.zip").exists()
    before = tree(spool.root.parent)
    assert run(spool, None) == Tally()
    assert {path for path, state in tree(spool.root.parent).items() if before.get(path) != state and "in-hand" not in path} == set()
    assert api.requests == []


def test_what_was_zipped_before_is_sent_as_it_is(spool: Spool, api: DemoApi, client: ApiClient) -> None:
    complete(spool)
    run(spool, None)
    zipped = (spool.zips / f"{STUDY}.1.zip").read_bytes()
    run(spool, client)
    assert api.accepted[0].path.read_bytes() == zipped


def test_cleanup_takes_the_originals_after_the_receipt_and_keeps_the_receipt(spool: Spool, api: DemoApi, client: ApiClient) -> None:
    complete(spool)
    run(spool, client, keep_days=0)
    kept = names(spool.sent / f"{STUDY}.1")
    assert RECEIPT in kept
    assert MANIFEST in kept
    assert SERIES not in kept
    assert names(spool.zips) == [".tmp"]


def test_cleanup_that_was_switched_on_later_or_cut_short_is_made_good(spool: Spool, client: ApiClient) -> None:
    complete(spool)
    run(spool, client)
    run(spool, client, keep_days=0)
    assert SERIES not in names(spool.sent / f"{STUDY}.1")


def test_what_came_later_is_a_supplement_of_its_own(spool: Spool, api: DemoApi, client: ApiClient) -> None:
    complete(spool)
    run(spool, client)
    complete(spool, instance=SECOND)
    run(spool, client)
    assert [received.name for received in api.accepted] == [f"{STUDY}.1.zip", f"{STUDY}.2.zip"]
    with zipfile.ZipFile(api.accepted[1].path) as packed:
        assert packed.namelist() == [f"{STUDY}/{SERIES}/{SECOND}.dcm"]
    manifest = read_json(spool.sent / f"{STUDY}.2" / MANIFEST)
    assert manifest is not None
    assert (manifest["generation"], manifest["parent"]) == (2, 1)


def test_a_study_that_is_not_its_marker_is_not_sent(spool: Spool, api: DemoApi, client: ApiClient) -> None:
    complete(spool)
    (spool.studies / STUDY / SERIES / f"{SECOND}.dcm").write_bytes(b"late")
    run(spool, client)
    assert api.requests == []
    assert not is_marked(spool, STUDY)


def test_a_lost_answer_is_repeated_with_the_same_key_and_bytes_and_counts_once(spool: Spool, api: DemoApi, client: ApiClient) -> None:
    complete(spool)
    api.fault = to_upload(Fault(lose_answer=True), 1)
    run(spool, client)
    assert (len(api.accepted), api.repeats) == (1, 1)
    assert names(spool.sent) == [f"{STUDY}.1"]


def test_an_attempt_is_recorded_before_its_first_byte_and_after_its_answer(spool: Spool, api: DemoApi, client: ApiClient) -> None:
    complete(spool)
    seen = []
    folder = spool.outbox / f"{STUDY}.1"

    def look(arrival: Arrival) -> Fault | None:
        if arrival.path != UPLOAD:
            return None
        seen.append(steps(folder))
        return Fault(status=503) if arrival.number < 3 else None

    api.fault = look
    tally = run(spool, client)
    assert tally.deferred == 1
    packed = (spool.zips / f"{STUDY}.1.zip").read_bytes()
    failed = {"step": "failed", "ambiguous": False, "refused": False, "error": "the API answered HTTP 503"}
    expected = [
        {"step": "sealed", "zip": {"size": len(packed), "sha256": sha256(packed).hexdigest()}},
        {"step": "sending", "attempt": 1},
        {"attempt": 1, **failed},
        {"step": "sending", "attempt": 2},
        {"attempt": 2, **failed},
        {"step": "sending", "attempt": 3},
    ]
    assert seen == [expected[:2], expected[:4]]
    assert steps(folder) == expected[:5]
    run(spool, client, keep_days=0)
    assert seen[2:] == [expected]
    assert steps(spool.sent / f"{STUDY}.1") == [*expected, {"step": "sent", "attempt": 3, "status": 201}, {"step": "cleaned"}]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", ["before the answer is noted", "before the receipt", "before it is settled"])
def test_a_crash_after_the_api_has_it_sends_nothing_twice(
    spool: Spool, api: DemoApi, client: ApiClient, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete(spool)
    real_note, real_write = Outgoing.note, Outgoing.write

    def note(self: Outgoing, step: Step, **facts: object) -> None:
        if at == "before the answer is noted" and step == Step.SENT:
            raise Killed
        real_note(self, step, **facts)

    def write(self: Outgoing, name: str, document: dict) -> None:
        if at == "before the receipt" and name == RECEIPT:
            raise Killed
        real_write(self, name, document)

    def settle(self: Outgoing) -> Path:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Outgoing, "note", note)
        patch.setattr(Outgoing, "write", write)
        if at == "before it is settled":
            patch.setattr(Outgoing, "settle", settle)
        with pytest.raises(Killed):
            run(spool, client)
    assert names(spool.outbox) == [f"{STUDY}.1"]
    frozen_by_name(spool, STUDY)  # somebody wants it sent: it is
    run(spool, client)
    assert names(spool.sent) == [f"{STUDY}.1"]
    assert len(api.accepted) == 1
    assert api.repeats == (at == "before the answer is noted")
    assert_receipt_tells_of_the_accept(spool, api)


def assert_receipt_tells_of_the_accept(spool: Spool, api: DemoApi) -> None:
    receipt = read_json(spool.sent / f"{STUDY}.1" / RECEIPT)
    assert receipt is not None
    (received,) = api.accepted
    assert (receipt["key"], receipt["zip"]["sha256"], receipt["status"]) == (received.key, received.sha256, 201)
    assert (receipt["destination"], receipt["attempts"]) == (api.url, 1 + api.repeats)
    assert received.sha256 in receipt["answer"]


def test_a_server_that_forgets_the_key_but_knows_the_study_is_believed_after_an_ambiguous_end(
    spool: Spool, api: DemoApi, client: ApiClient
) -> None:
    complete(spool)
    api.fault = to_upload(Fault(status=504))
    assert run(spool, client).deferred == 1
    assert steps(spool.outbox / f"{STUDY}.1")[-1]["ambiguous"]
    api.fault = to_upload(Fault(status=409))
    assert run(spool, client).done == 1


def test_a_study_that_the_api_refuses_is_a_dead_letter_and_the_next_is_sent(spool: Spool, api: DemoApi, client: ApiClient) -> None:
    complete(spool)
    complete(spool, OTHER_STUDY)
    api.fault = to_upload(Fault(status=422, body=b'{"detail": "no"}'), 1)
    tally = run(spool, client)
    assert (tally.done, tally.rejected) == (1, 1)
    ((item,),) = [list(quarantine.items(spool))]
    assert (item.stage, item.reason) == ("upload", "http-422")
    assert names(spool.failed) == [item.name]
    quarantine.requeue(spool, item, 1)
    api.fault = lambda _: None
    assert run(spool, client).done == 1
    assert len(api.accepted) == 2
    assert names(spool.failed) == []


def test_an_unreachable_api_ends_the_pass_and_everything_stays_pending(spool: Spool, tmp_path: Path) -> None:
    complete(spool)
    complete(spool, OTHER_STUDY)
    with DemoApi(tmp_path / "gone") as gone:
        url = gone.url
    with ApiClient(url, token="t", max_retries=0, retry_delay=0.01) as client:
        tally = run(spool, client)
    assert tally.unavailable is not None
    assert names(spool.outbox) == [f"{STUDY}.1", f"{OTHER_STUDY}.1"]
    assert [len(steps(spool.outbox / name)) for name in names(spool.outbox)] == [3, 0]


def test_wrong_credentials_make_no_dead_letter(spool: Spool, api: DemoApi) -> None:
    complete(spool)
    with ApiClient(api.url, username="demo", password="wrong", max_retries=0, retry_delay=0.01) as client:
        tally = run(spool, client)
    assert tally.unavailable is not None
    assert names(spool.outbox) == [f"{STUDY}.1"]


@pytest.mark.parametrize("fault", [Fault(status=404), Fault(status=403, body=b"\x1b[2J")], ids=["404", "403"])
@pytest.mark.parametrize("path", [LOGIN, UPLOAD])
def test_status_says_why_no_study_is_sent_until_one_is(spool: Spool, api: DemoApi, client: ApiClient, fault: Fault, path: str) -> None:
    complete(spool)
    api.fault = lambda arrival: fault if arrival.path == path else None
    run(spool, client)
    assert f"HTTP {fault.status}" in (status.read(spool).stopped or "")
    api.fault = lambda _: None
    run(spool, client)
    assert status.read(spool).stopped is None
    complete(spool, OTHER_STUDY)
    run(spool, None)
    assert status.read(spool).stopped is None


def test_status_no_longer_says_what_an_answer_about_a_study_has_disproved(spool: Spool, api: DemoApi, client: ApiClient) -> None:
    complete(spool)
    api.fault = lambda _: Fault(status=403)
    run(spool, client)
    assert status.read(spool).stopped is not None
    api.fault = lambda arrival: Fault(status=503) if arrival.path == UPLOAD else None
    run(spool, client)
    assert status.read(spool).stopped is None


def test_two_uploaders_send_a_study_once(spool: Spool, api: DemoApi, client: ApiClient, tmp_path: Path) -> None:
    complete(spool)
    began = threading.Event()

    def slow(arrival: Arrival) -> Fault | None:
        began.set()
        time.sleep(0.5 if arrival.path == UPLOAD else 0)
        return None

    api.fault = slow
    thread = threading.Thread(target=run, args=(spool, client))
    thread.start()
    began.wait(5)
    with open_spool(tmp_path) as other, ApiClient(api.url, username="demo", password="demo") as second:
        started = time.monotonic()
        run(other, second)
        assert time.monotonic() - started < 0.4  # it does not wait for the other
    thread.join()
    assert sum(request.path == UPLOAD for request in api.requests) == 1
    assert names(spool.sent) == [f"{STUDY}.1"]


def test_a_full_disk_defers_and_the_next_pass_makes_good(
    spool: Spool, api: DemoApi, client: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete(spool)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(archive.Writer, "pack", full)
        assert run(spool, client).deferred == 1
        assert run(spool, client).deferred == 1
    assert names(spool.outbox) == [f"{STUDY}.1"]
    assert names(spool.zips) == [".tmp"]
    assert [step["step"] for step in steps(spool.outbox / f"{STUDY}.1")] == ["failed"]
    (study,) = status.read(spool).studies
    assert study.note.startswith("no room for its zip in ")
    assert run(spool, client).done == 1


def test_a_crash_between_manifest_and_zip_sends_what_the_manifest_says(
    spool: Spool, api: DemoApi, client: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete(spool)
    one = frozen(spool, OTHER_STUDY)

    def die_after_manifest(self: Outgoing, name: str, document: dict) -> None:
        real(self, name, document)
        raise Killed

    real = Outgoing.write
    with monkeypatch.context() as patch:
        patch.setattr(Outgoing, "write", die_after_manifest)
        with pytest.raises(Killed):
            run(spool, None)
    manifests = [folder / MANIFEST for folder in spool.outbox.iterdir() if (folder / MANIFEST).exists()]
    (before,) = [path.read_bytes() for path in manifests]
    run(spool, client)
    assert len(api.accepted) == 2
    assert sha256(before).hexdigest() in {received.key for received in api.accepted}
    assert names(spool.sent) == sorted([one.name, f"{STUDY}.1"])


@pytest.mark.parametrize("wanted", [False, True])
def test_the_zip_holds_the_manifest_only_where_it_is_wanted_and_is_the_same_after_a_crash(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    complete(spool)
    run(spool, None, manifest_in_zip=wanted)
    path = spool.zips / f"{STUDY}.1.zip"
    first = path.read_bytes()
    manifest = (spool.outbox / f"{STUDY}.1" / MANIFEST).read_bytes()
    with zipfile.ZipFile(path) as bundle:
        assert bundle.testzip() is None
        others = [name for name in bundle.namelist() if not name.endswith(".dcm")]
        assert others == ([f"{STUDY}/manifest.json"] if wanted else [])
        assert [bundle.read(name) for name in others] == ([manifest] if wanted else [])
    path.unlink()  # as if it had died before the zip had its name
    run(spool, None, manifest_in_zip=wanted)
    assert path.read_bytes() == first


def test_a_zip_left_by_an_earlier_spool_is_not_sent(spool: Spool, api: DemoApi, client: ApiClient) -> None:
    complete(spool)
    complete(spool, OTHER_STUDY)
    (spool.zips / f"{STUDY}.1.zip").write_bytes(b"somebody else's")
    tally = run(spool, client)
    assert (tally.done, tally.deferred) == (1, 1)
    assert run(spool, client).deferred == 1
    assert names(spool.outbox) == [f"{STUDY}.1"]
    (spool.zips / f"{STUDY}.1.zip").unlink()
    run(spool, client)
    assert len(api.accepted) == 2


def test_chosen_studies_and_no_others_are_sent(spool: Spool, api: DemoApi, client: ApiClient) -> None:
    for study in (STUDY, OTHER_STUDY):
        frozen(spool, study)
    stage = Upload(spool, client, profile="basic")
    Runner(Chosen(stage, [Job(spool.outbox, f"{OTHER_STUDY}.1")]), spool).once()
    assert [received.name for received in api.accepted] == [f"{OTHER_STUDY}.1.zip"]


def test_with_nothing_to_do_uploading_changes_nothing(spool: Spool, api: DemoApi, client: ApiClient) -> None:
    complete(spool)
    run(spool, client, keep_days=0)
    before, requests = tree(spool.root.parent), len(api.requests)
    run(spool, client, keep_days=0)
    after = tree(spool.root.parent)
    assert {path for path in before.keys() | after.keys() if before.get(path) != after.get(path) and "in-hand" not in path} == set()
    assert len(api.requests) == requests


def test_no_step_and_no_document_tells_a_secret(spool: Spool, api: DemoApi) -> None:
    api.password = "hunter2-hunter2"
    complete(spool)
    with ApiClient(api.url, username="demo", password="hunter2-hunter2") as client:
        run(spool, client)
    folder = spool.sent / f"{STUDY}.1"
    text = "".join((folder / name).read_text() for name in (RECEIPT, MANIFEST, ATTEMPTS))
    assert "hunter2" not in text
    assert json.loads((folder / RECEIPT).read_text())["version"] == 1


@pytest.mark.parametrize("auto", [True, False])
def test_the_settings_decide_whether_it_sends(spool: Spool, api: DemoApi, auto: bool) -> None:
    complete(spool)
    settings = Settings(api_url=api.url, api_username="demo", api_password="demo", auto_upload=auto)
    with upload.build(spool, settings) as stage:
        Runner(stage, spool).once()
    assert len(api.accepted) == auto
    assert (names(spool.outbox) == []) == auto


def test_credentials_that_would_travel_in_clear_text_are_warned_about(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    for password, lines in ((None, 0), ("p", 1)):
        settings = Settings(api_url="http://api.example.org/api", api_username=password and "u", api_password=password, auto_upload=True)
        with upload.build(spool, settings):
            assert sum("clear text" in line for line in caplog.messages) == lines


# --- the seal ---------------------------------------------------------------------------------------------------------


def unsure(spool: Spool, client: ApiClient, api: DemoApi) -> tuple[Path, Path]:
    """A study whose zip the API may have got; its folder and its zip."""
    complete(spool)
    api.fault = to_upload(Fault(reset_at=1.0))
    assert run(spool, client).deferred == 1
    api.fault = lambda _: None
    return spool.outbox / f"{STUDY}.1", spool.zips / f"{STUDY}.1.zip"


def reasons(spool: Spool) -> list[str]:
    return [item.reason for item in quarantine.items(spool)]


@pytest.mark.parametrize("how", ["changed", "cut short", "gone"])
def test_a_zip_that_is_not_the_sealed_one_is_made_anew_and_what_was_sealed_is_sent(
    spool: Spool, api: DemoApi, client: ApiClient, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder, packed = unsure(spool, client, api)
    sealed = packed.read_bytes()
    packed.unlink()
    if how != "gone":
        packed.write_bytes(b"x" + sealed[1:] if how == "changed" else sealed[:-1])
    run(spool, client)
    assert api.accepted[0].path.read_bytes() == sealed
    assert [step["step"] for step in steps(spool.sent / folder.name)].count("sealed") == 1
    assert ("not the one that was sealed" in caplog.text) == (how != "gone")


def test_a_zip_changed_between_two_passes_of_one_process_is_not_sent(spool: Spool, api: DemoApi, client: ApiClient) -> None:
    _, packed = unsure(spool, client, api)
    sealed = packed.read_bytes()
    stage = Upload(spool, client, profile="basic")
    api.fault = to_upload(Fault(status=503))
    Runner(stage, spool).once()
    packed.write_bytes(b"x" + sealed[1:])
    api.fault = lambda _: None
    Runner(stage, spool).once()
    assert api.accepted[0].path.read_bytes() == sealed


def other_zips(monkeypatch: pytest.MonkeyPatch) -> None:
    """As another release of isal would make them."""
    monkeypatch.setattr(archive, "_LEVEL", 0)


@pytest.mark.parametrize("how", ["by name", "requeued"])
def test_other_bytes_than_the_api_may_have_got_are_a_dead_letter_until_somebody_wants_them_sent(
    spool: Spool, api: DemoApi, client: ApiClient, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, packed = unsure(spool, client, api)
    packed.unlink()
    other_zips(monkeypatch)
    assert run(spool, client).rejected == 1
    assert reasons(spool) == ["zip-changed"]
    assert api.accepted == []
    if how == "by name":
        frozen_by_name(spool, STUDY)
    else:
        for item in quarantine.find(spool, "zip-changed"):
            quarantine.requeue(spool, item, 1)
    run(spool, client)
    assert [received.name for received in api.accepted] == [f"{STUDY}.1.zip"]


def test_a_zip_of_which_the_api_surely_has_nothing_may_be_sealed_anew(
    spool: Spool, api: DemoApi, client: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete(spool)
    api.fault = to_upload(Fault(status=503))
    run(spool, client)
    (spool.zips / f"{STUDY}.1.zip").unlink()
    other_zips(monkeypatch)
    api.fault = lambda _: None
    run(spool, client)
    (received,) = api.accepted
    receipt = read_json(spool.sent / f"{STUDY}.1" / RECEIPT)
    assert receipt is not None
    assert receipt["zip"] == {"name": received.name, "size": received.size, "sha256": received.sha256}


@pytest.mark.parametrize("sent_before", [True, False])
def test_instances_that_are_not_what_the_manifest_says_are_never_sent(
    spool: Spool, api: DemoApi, client: ApiClient, sent_before: bool
) -> None:
    if sent_before:
        unsure(spool, client, api)
    else:
        complete(spool)
        run(spool, None)
    (spool.zips / f"{STUDY}.1.zip").unlink()
    (spool.outbox / f"{STUDY}.1" / SERIES / f"{INSTANCE}.dcm").write_bytes(b"rotten")
    run(spool, client)
    assert reasons(spool) == ["instances-changed"]
    frozen_by_name(spool, STUDY)
    run(spool, client)
    assert reasons(spool) == ["instances-changed"]
    assert api.accepted == []


# --- what may have arrived --------------------------------------------------------------------------------------------


def test_an_interrupted_request_is_recorded_as_ambiguous_and_repeated(
    spool: Spool, api: DemoApi, client: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete(spool)
    with monkeypatch.context() as patch:
        patch.setattr(ApiClient, "_judge", raise_killed)
        with pytest.raises(Killed):
            run(spool, client)
    assert steps(spool.outbox / f"{STUDY}.1")[-1]["step"] == "sending"
    run(spool, client)
    told = [(step["step"], step.get("ambiguous")) for step in steps(spool.sent / f"{STUDY}.1")]
    assert told == [("sealed", None), ("sending", None), ("failed", True), ("sending", None), ("sent", None)]
    assert (len(api.accepted), api.repeats) == (1, 1)


def raise_killed(*_: object) -> None:
    raise Killed


@pytest.mark.parametrize("how", ["lost answer", "killed"])
def test_what_may_have_arrived_is_held_where_that_is_wanted_and_sent_by_hand(
    spool: Spool, api: DemoApi, client: ApiClient, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete(spool)
    complete(spool, OTHER_STUDY)
    api.fault = to_upload(Fault(lose_answer=how == "lost answer"), 1)
    with monkeypatch.context() as patch:
        if how == "killed":
            patch.setattr(ApiClient, "_judge", raise_killed)
            with pytest.raises(Killed):
                run(spool, client, hold=True)
        else:
            run(spool, client, hold=True)
    for _ in range(2):
        assert run(spool, client, hold=True).deferred == 1
    assert len(api.accepted) == 2
    assert api.repeats == 0
    assert [step["step"] for step in steps(spool.outbox / f"{STUDY}.1")] == ["sealed", "sending", "failed", "held"]
    (held,) = [study for study in status.read(spool).studies if study.state == "held"]
    assert f"dicomrx upload {STUDY}.1" in held.note
    assert frozen_by_name(spool, f"{STUDY}.1")
    run(spool, client, hold=True)
    assert names(spool.sent) == [f"{STUDY}.1", f"{OTHER_STUDY}.1"]
    assert (len(api.accepted), api.repeats) == (2, 1)


def test_what_surely_did_not_arrive_is_retried_also_where_the_rest_is_held(spool: Spool, api: DemoApi, client: ApiClient) -> None:
    complete(spool)
    api.fault = to_upload(Fault(status=503), 1)
    assert run(spool, client, hold=True).done == 1


def test_a_study_held_by_an_earlier_setting_is_sent(spool: Spool, api: DemoApi, client: ApiClient) -> None:
    unsure(spool, client, api)
    assert run(spool, client, hold=True).deferred == 1
    assert run(spool, client).done == 1


# --- order, and several at once ---------------------------------------------------------------------------------------


def test_studies_are_sent_by_age_whatever_was_tried_before(spool: Spool, api: DemoApi, client: ApiClient) -> None:
    for study in ("2.25.3", "2.25.1", "2.25.2"):
        complete(spool, study)
    api.fault = to_upload(Fault(status=503))
    run(spool, client)
    api.fault = lambda _: None
    run(spool, client)
    assert [received.name for received in api.accepted] == ["2.25.3.1.zip", "2.25.1.1.zip", "2.25.2.1.zip"]


def test_one_study_that_meets_a_conflict_for_ever_does_not_stop_the_others(spool: Spool, api: DemoApi, client: ApiClient) -> None:
    complete(spool)
    complete(spool, OTHER_STUDY)
    api.fault = to_upload(Fault(status=409), 1, 3)  # 1 and 3 are of the first study, 2 is of the other
    assert run(spool, client).unavailable is not None
    assert run(spool, client).unavailable is not None
    assert names(spool.sent) == [f"{OTHER_STUDY}.1"]
    assert names(spool.outbox) == [f"{STUDY}.1"]
    (left,) = [study for study in status.read(spool).studies if study.state == "pending"]
    assert "HTTP 409" in left.note
    assert "look there" in left.note


def test_a_large_study_does_not_hold_back_those_behind_it(spool: Spool, api: DemoApi, client: ApiClient) -> None:
    complete(spool)
    rest = [f"2.25.{number}" for number in range(300, 310)]
    begun, done = threading.Event(), threading.Event()

    def slow_first(arrival: Arrival) -> Fault | None:
        if arrival == Arrival(UPLOAD, 1):
            begun.set()
            done.wait(20)  # until all the others are sent, those that come later too
        return None

    api.fault = slow_first
    runner = Runner(Upload(spool, client, profile="basic"), spool, 0.1, threads=2)
    thread = threading.Thread(target=runner.forever)
    thread.start()
    try:
        assert begun.wait(15)
        for study in rest:
            complete(spool, study)
        wait_until(lambda: len(api.accepted) == len(rest), 15)
        wait_until(lambda: names(spool.outbox) == [f"{STUDY}.1"], 15)
        done.set()
        wait_until(lambda: len(api.accepted) == 1 + len(rest), 15)
    finally:
        done.set()
        runner.stop()
        thread.join()


def test_many_studies_at_once_are_each_sent_once_with_one_login_more_where_the_token_expires(
    spool: Spool, api: DemoApi, client: ApiClient
) -> None:
    for number in range(300, 320):
        complete(spool, f"2.25.{number}")
    api.fault = lambda arrival: Fault(meanwhile=api.expire_tokens) if arrival == Arrival(UPLOAD, 10) else None
    tally = run(spool, client, threads=4)
    assert (tally.deferred, tally.rejected, tally.unavailable) == (0, 0, None)
    assert sorted(received.name for received in api.accepted) == [f"2.25.{number}.1.zip" for number in range(300, 320)]
    assert [request.path for request in api.requests].count(LOGIN) == 2


def test_a_death_while_sending_is_no_strike_against_the_study(spool: Spool, client: ApiClient, tmp_path: Path) -> None:
    complete(spool)
    seen: list[set[str]] = []

    def look(*_: object, **__: object) -> None:
        seen.append({hand.read_text() for hand in spool.scratch.path.glob("in-hand*")})
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ApiClient, "upload", look)
        with pytest.raises(Killed):
            run(spool, client)
    assert seen == [{""}]


def test_status_tells_how_far_a_study_is_sent(spool: Spool, api: DemoApi, client: ApiClient) -> None:
    filed(spool, data=os.urandom(3_000_000))
    assert mark(spool)
    seen: list[status.StudyState] = []

    def look() -> None:
        seen.extend(study for study in status.read(spool).studies if study.state == "sending")

    api.fault = to_upload(Fault(status=503, meanwhile=look), 1)
    run(spool, client)
    size = (spool.zips / f"{STUDY}.1.zip").stat().st_size
    (sending,) = seen
    assert sending.total_bytes == size
    assert sending.sent_bytes is not None
    assert 0 < sending.sent_bytes <= size
    assert names(spool.run_dir / "sending") == []
    assert [study.state for study in status.read(spool).studies] == ["sent"]


# --- retention --------------------------------------------------------------------------------------------------------


def test_data_and_zip_are_kept_for_so_many_days_and_the_receipt_for_good(spool: Spool, client: ApiClient) -> None:
    complete(spool)
    day = 86400
    run(spool, client, keep_days=30)
    advance(29 * day, spool)
    run(spool, client, keep_days=30)
    sent = spool.sent / f"{STUDY}.1"
    assert (sent / SERIES / f"{INSTANCE}.dcm").exists()
    assert (spool.zips / f"{STUDY}.1.zip").exists()
    advance(day + 60, spool)
    run(spool, client)
    assert (sent / SERIES / f"{INSTANCE}.dcm").exists()  # none given: for ever
    run(spool, client, keep_days=30)
    assert not (sent / SERIES).exists()
    assert names(spool.zips) == [".tmp"]
    (receipt,) = status.sent(spool)
    assert (receipt["study"], receipt["status"], receipt["instances"]) == (STUDY, 201, 1)
    assert steps(sent)[-1] == {"step": "cleaned"}
    before = tree(spool.sent)
    run(spool, client, keep_days=30)
    assert tree(spool.sent) == before


@pytest.mark.parametrize(("given", "days"), [({}, None), ({"keep_days": 7}, 7), ({"cleanup_after_upload": True, "keep_days": 7}, 0)])
def test_cleanup_after_upload_is_no_days_at_all(spool: Spool, given: dict, days: int | None) -> None:
    with upload.build(spool, Settings(**given)) as stage:
        assert stage._keep_days == days
