import json
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from dicomrx import archive
from dicomrx.api import ApiClient
from dicomrx.demo.api_server import UPLOAD, DemoApi
from dicomrx.demo.faults import Arrival, Fault
from dicomrx.errors import ConfigError
from dicomrx.runner import Chosen, Job, Runner, Tally
from dicomrx.settings import Settings
from dicomrx.spool import outbox, quarantine
from dicomrx.spool.layout import ATTEMPTS, MANIFEST, RECEIPT, Spool, read_json
from dicomrx.spool.outbox import Outgoing
from dicomrx.spool.studies import is_marked
from dicomrx.stages import upload
from dicomrx.stages.upload import Upload
from tests.spool_rig import INSTANCE, OTHER_STUDY, SECOND, SERIES, STUDY, filed, frozen, mark, names, open_spool, tree

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


def run(spool: Spool, client: ApiClient | None, *, cleanup: bool = False, manifest_in_zip: bool = False) -> Tally:
    return Runner(Upload(spool, client, profile="basic", cleanup=cleanup, manifest_in_zip=manifest_in_zip), spool).once()


def complete(spool: Spool, study: str = STUDY, instance: str = INSTANCE) -> None:
    filed(spool, study, instance, f"output of {instance}".encode())
    assert mark(spool, study)


def steps(folder: Path) -> list[dict]:
    return [{key: value for key, value in step.items() if key not in {"began", "ended", "key"}} for step in outbox.read_attempts(folder)]


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
    run(spool, client, cleanup=True)
    kept = names(spool.sent / f"{STUDY}.1")
    assert RECEIPT in kept
    assert MANIFEST in kept
    assert SERIES not in kept
    assert names(spool.zips) == [".tmp"]


def test_cleanup_that_was_switched_on_later_or_cut_short_is_made_good(spool: Spool, client: ApiClient) -> None:
    complete(spool)
    run(spool, client)
    run(spool, client, cleanup=True)
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
    assert seen == [[{"attempt": 1}]] * 2  # stamina's retry is of the same attempt
    assert steps(folder)[1] == {"attempt": 1, "ambiguous": False, "error": steps(folder)[1]["error"]}
    run(spool, client)
    assert steps(spool.sent / f"{STUDY}.1")[2:] == [{"attempt": 2}, {"attempt": 2, "status": 201}]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", ["before the answer is noted", "before the receipt", "before it is settled"])
def test_a_crash_after_the_api_has_it_sends_nothing_twice(
    spool: Spool, api: DemoApi, client: ApiClient, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete(spool)
    real_note, real_write = Outgoing.note_attempt, Outgoing.write

    def note(self: Outgoing, facts: dict) -> None:
        if at == "before the answer is noted" and "status" in facts:
            raise Killed
        real_note(self, facts)

    def write(self: Outgoing, name: str, document: dict) -> None:
        if at == "before the receipt" and name == RECEIPT:
            raise Killed
        real_write(self, name, document)

    def settle(self: Outgoing) -> Path:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Outgoing, "note_attempt", note)
        patch.setattr(Outgoing, "write", write)
        if at == "before it is settled":
            patch.setattr(Outgoing, "settle", settle)
        with pytest.raises(Killed):
            run(spool, client)
    assert names(spool.outbox) == [f"{STUDY}.1"]
    run(spool, client)
    assert names(spool.sent) == [f"{STUDY}.1"]
    assert len(api.accepted) == 1
    assert api.repeats == (at != "before it is settled")


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
    assert [len(steps(spool.outbox / name)) for name in names(spool.outbox)] in ([2, 0], [0, 2])


def test_wrong_credentials_make_no_dead_letter(spool: Spool, api: DemoApi) -> None:
    complete(spool)
    with ApiClient(api.url, username="demo", password="wrong", max_retries=0, retry_delay=0.01) as client:
        tally = run(spool, client)
    assert tally.unavailable is not None
    assert names(spool.outbox) == [f"{STUDY}.1"]


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
        patch.setattr(archive, "pack", full)
        assert run(spool, client).deferred == 1
    assert names(spool.outbox) == [f"{STUDY}.1"]
    assert names(spool.zips) == [".tmp"]
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
    stage = Upload(spool, client, profile="basic", cleanup=False)
    Runner(Chosen(stage, [Job(spool.outbox / f"{OTHER_STUDY}.1")]), spool).once()
    assert [received.name for received in api.accepted] == [f"{OTHER_STUDY}.1.zip"]


def test_with_nothing_to_do_uploading_changes_nothing(spool: Spool, api: DemoApi, client: ApiClient) -> None:
    complete(spool)
    run(spool, client, cleanup=True)
    before, requests = tree(spool.root.parent), len(api.requests)
    run(spool, client, cleanup=True)
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


def test_a_destination_that_would_get_the_password_in_clear_is_refused_where_https_is_required(spool: Spool) -> None:
    settings = Settings(api_url="http://api.example.org/api", api_username="u", api_password="p", auto_upload=True, require_https=True)
    with pytest.raises(ConfigError), upload.build(spool, settings):
        pass
