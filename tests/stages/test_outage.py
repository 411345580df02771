"""An hour in which nothing can be sent, in faked time: the waits are skipped, the refusals are real. Then all arrives by itself."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import tenacity

from dicomrx import runner as running
from dicomrx.api import ApiClient
from dicomrx.demo.api_server import LOGIN, UPLOAD, DemoApi
from dicomrx.demo.faults import Arrival, Fault
from dicomrx.runner import Runner
from dicomrx.spool import durable
from dicomrx.spool.layout import Spool
from dicomrx.stages.upload import Upload
from tests.spool_rig import frozen, names, open_spool

HOUR = 3600.0
PATIENCE = 3 * HOUR
STUDIES = [f"2.25.{number}" for number in (5, 3, 9, 1, 7, 2)]  # in order of age


class FakeTime:
    """Time that passes only where somebody waits; `ring` is called when an hour is over."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self.now = 0.0
        self._ring: Callable[[], None] | None = ring

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= HOUR and self._ring is not None:
            ring, self._ring = self._ring, None
            ring()

    def event(self, then: Callable[[], object]) -> threading.Event:
        clock = self

        class Event(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                assert timeout is not None
                clock.sleep(timeout)
                then()
                return self.is_set()

        return Event()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    durable.set_durable(enabled=False)  # nobody cuts the power, and an hour has many steps
    with open_spool(tmp_path) as spool:
        for study in STUDIES:
            frozen(spool, study)
        yield spool
    durable.set_durable(enabled=True)


def live_through(spool: Spool, client: ApiClient, then: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    """A daemon until everything is sent; `then` is what happens after an hour."""
    clock = FakeTime(then)
    faked = SimpleNamespace(monotonic=lambda: clock.now, sleep=clock.sleep, thread_time=lambda: 0.0)
    for module in (running, tenacity, tenacity.nap):
        monkeypatch.setattr(module, "time", faked)
    daemon = Runner(Upload(spool, client, profile="basic"), spool, 1.0)

    def stop() -> None:
        if names(spool.outbox) == [] or clock.now > PATIENCE:
            daemon._stop.set()

    daemon._stop, daemon._wake = clock.event(stop), clock.event(stop)
    daemon.forever()
    assert HOUR <= clock.now < HOUR + 120
    return clock


@pytest.mark.parametrize("with_token", [True, False])
def test_after_an_hour_without_the_api_all_arrive_by_themselves_in_order_of_age(
    spool: Spool, api: DemoApi, with_token: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    granted = api.log_in("demo", "demo")
    assert granted is not None
    given = {"token": granted["access"]} if with_token else {"username": "demo", "password": "demo"}
    api.close_port()
    with ApiClient(api.url, **given) as client:
        live_through(spool, client, api.open_port, monkeypatch)
    assert [received.name for received in api.accepted] == [f"{study}.1.zip" for study in STUDIES]
    assert names(spool.failed) == []


@pytest.mark.parametrize("status", [404, 403, 307, 500, 503])
def test_after_an_hour_of_refusals_all_arrive_and_none_is_a_dead_letter(
    spool: Spool, api: DemoApi, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.fault = lambda arrival: Fault(status=status) if arrival.path == UPLOAD else None

    def correct() -> None:
        api.fault = lambda _: None

    with ApiClient(api.url, username="demo", password="demo") as client:
        live_through(spool, client, correct, monkeypatch)
    assert sorted(received.name for received in api.accepted) == sorted(f"{study}.1.zip" for study in STUDIES)
    assert names(spool.failed) == []
    assert names(spool.sent) == sorted(f"{study}.1" for study in STUDIES)


def test_an_hour_of_failing_logins_leaves_no_trace_on_any_study(spool: Spool, api: DemoApi, monkeypatch: pytest.MonkeyPatch) -> None:
    api.fault = lambda arrival: Fault(status=403) if arrival.path == LOGIN else None
    seen: list[set[str]] = []

    def correct() -> None:
        seen.append({path.name for path in spool.outbox.glob("*/attempts.jsonl") if b"sending" in path.read_bytes()})
        api.fault = lambda _: None

    with ApiClient(api.url, username="demo", password="demo") as client:
        live_through(spool, client, correct, monkeypatch)
    assert seen == [set()]
    assert Arrival(UPLOAD, len(STUDIES)) in api.requests
    assert Arrival(UPLOAD, len(STUDIES) + 1) not in api.requests
    assert [received.name for received in api.accepted] == [f"{study}.1.zip" for study in STUDIES]
