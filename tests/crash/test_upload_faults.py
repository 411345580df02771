"""Every fault of an API x the first, the second, every request x the uploader killed meanwhile x an API that knows the key or not.

The number of accepts is asserted for each: nothing is lost, and only where an answer was lost is anything accepted twice, by an API
that does not know the key, and then it is the same bytes under the same key.
"""

import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from pathlib import Path

import pytest
import stamina

from dicomrx.api import ApiClient, Timeouts
from dicomrx.demo.api_server import LOGIN, UPLOAD, DemoApi
from dicomrx.demo.faults import Arrival, Fault
from dicomrx.runner import Runner
from dicomrx.spool import durable, quarantine
from dicomrx.spool.layout import Spool
from dicomrx.spool.sending import Record, Step
from dicomrx.stages.upload import Upload
from tests.spool_rig import OTHER_STUDY, STUDY, frozen, names, open_spool

STRIDE = 1 if os.environ.get("DICOMRX_FULL") == "1" else 12
RETRIES = 1
PASSES = 2  # while the fault lasts

pytestmark = pytest.mark.crash


@dataclass(frozen=True)
class Case:
    """One fault: what the API does, to which kind of request, and what that means.

    The request `passes` when it is repeated, now or `later`, or after a new `token`; it was `delivered` after all; its answer is `lost`
    but it was accepted; the `study` is refused; the whole `line` stops; the connection is `refused`. A `conflict` is told of what was
    taken while its uploader died, and stops the line otherwise.
    """

    fault: Fault = field(default_factory=Fault)
    means: str = (
        "passes"  # passes, lost (the answer; the upload was accepted), study (refused), line (stopped), delivered, refused (the connection)
    )
    path: str = UPLOAD


CASES = {
    "connection refused": Case(means="refused"),
    "reset at 0 %": Case(Fault(reset_at=0.0)),
    "reset at 50 %": Case(Fault(reset_at=0.5)),
    "reset at 100 %": Case(Fault(reset_at=1.0)),
    "answer lost": Case(Fault(lose_answer=True), "lost"),
    "answer lost, 504": Case(Fault(status=504)),
    "hang": Case(Fault(hang_s=30)),
    "401": Case(Fault(status=401), "token"),
    "403": Case(Fault(status=403), "line"),
    "404": Case(Fault(status=404), "line"),
    "405": Case(Fault(status=405), "line"),
    "408": Case(Fault(status=408)),
    "409": Case(Fault(status=409), "conflict"),
    "413": Case(Fault(status=413), "study"),
    "413 before the body is read": Case(Fault(status=413, early=True), "study"),
    "422": Case(Fault(status=422), "study"),
    "425": Case(Fault(status=425)),
    "429, seconds": Case(Fault(status=429, headers={"Retry-After": "1"})),
    "429, a date": Case(Fault(status=429, headers={"Retry-After": formatdate(time.time() + 3600, usegmt=True)}), "later"),
    "429, a day": Case(Fault(status=429, headers={"Retry-After": "86400"}), "later"),
    "500": Case(Fault(status=500)),
    "503": Case(Fault(status=503)),
    "307": Case(Fault(status=307, headers={"Location": UPLOAD}), "line"),
    "garbage": Case(Fault(raw=b"\x00garbage\r\n\r\n")),
    "slow drip": Case(Fault(drip_s=0.001), "delivered"),
    "login 403": Case(Fault(status=403), "line", LOGIN),
    "login 500": Case(Fault(status=500), "line", LOGIN),
    "login hang": Case(Fault(hang_s=30), "line", LOGIN),
}
WHEN = ("first", "second", "every")
CELLS = [(name, when, honour) for name in CASES for when in WHEN for honour in (True, False)]
KILLED_CELLS = [cell for cell in CELLS if cell[:2] not in {("login 403", "second"), ("login 500", "second"), ("login hang", "second")}]


def accepts(case: Case, when: str, *, honour: bool, killed: bool) -> int:
    """How many uploads the API accepts in all: the two studies, and what it took already where nobody heard of it."""
    if honour:
        return 2
    if case.means == "lost" and when == "every":
        return 2 * PASSES * (1 + RETRIES) + 2 + killed
    unheard = case.means == "lost" or (killed and (case.means == "delivered" or (case.means == "conflict" and when != "every")))
    return 2 + unheard


class Cell:
    """One cell of the matrix: two studies, an API with the fault, passes while it lasts and after it."""

    def __init__(self, root: Path, case: Case, when: str, api: DemoApi) -> None:
        self.root = root
        self.case = case
        self.when = when
        self.api = api
        self.lasts = True
        self.killing = threading.Event()
        self.victim: subprocess.Popen[bytes] | None = None
        api.fault = self.fault
        with open_spool(root) as spool:
            for study in (STUDY, OTHER_STUDY):
                frozen(spool, study, data=os.urandom(200_000))
        if case.means == "refused" and when != "second":
            api.close_port()

    def fault(self, arrival: Arrival) -> Fault | None:
        hit = {"first": arrival.number == 1, "second": arrival.number == 2, "every": True}[self.when]
        if self.case.means == "refused":
            closing = self.when == "second" and arrival == Arrival(UPLOAD, 1)
            return Fault(meanwhile=self.api.close_port) if closing else None
        if not self.lasts or not hit or arrival.path != self.case.path:
            return None
        if self.killing.is_set():
            self.killing.clear()
            taken = self.case.means == "conflict"
            return replace(Fault(lose_answer=True) if taken else self.case.fault, meanwhile=self.kill)
        return self.case.fault

    def kill(self) -> None:
        assert self.victim is not None
        self.victim.send_signal(signal.SIGKILL)
        self.victim.wait()

    def run_and_be_killed(self) -> None:
        """The real command, killed at the faulted request; where no connection comes about, once it has noticed."""
        settings = {
            "STORAGE_DIR": "storage",
            "ZIP_DIR": "zips",
            "DURABLE": "false",
            "API_URL": self.api.url,
            "WORKERS": 1,
            "MAX_RETRIES": RETRIES,
            "RETRY_DELAY": 20,
        }
        env = {**os.environ, **{f"DICOM_RECEIVER_{name}": str(value) for name, value in (settings | self.credentials()).items()}}
        log = self.root / "log"
        with log.open("wb") as out:
            self.killing.set()
            self.victim = subprocess.Popen([sys.executable, "-m", "dicomrx", "upload", "--once"], env=env, cwd=self.root, stderr=out)
            if self.case.means == "refused":
                deadline = time.monotonic() + 30
                while b"attempt 1 failed" not in log.read_bytes():
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
                self.kill()
        assert self.victim.wait(60) == -signal.SIGKILL, log.read_text()

    def credentials(self) -> dict[str, str]:
        if self.case.means == "refused":  # a login would meet it first
            answer = self.api.log_in("demo", "demo")
            assert answer is not None
            return {"API_TOKEN": answer["access"]}
        return {"API_USERNAME": "demo", "API_PASSWORD": "demo"}

    def run(self, passes: int) -> None:
        given = self.credentials()
        with (
            open_spool(self.root) as spool,
            ApiClient(
                self.api.url,
                username=given.get("API_USERNAME"),
                password=given.get("API_PASSWORD"),
                token=given.get("API_TOKEN"),
                max_retries=RETRIES,
                retry_delay=0.01,
                timeouts=Timeouts(10, self.patience(), 10),
            ) as client,
        ):
            for _ in range(passes):
                Runner(Upload(spool, client, profile="basic"), spool).once()

    def patience(self) -> float:
        return 0.5 if self.lasts and self.case.fault.hang_s else 10

    def end(self) -> None:
        """The fault is over, and somebody requeues what the API refused."""
        self.lasts = False
        if self.api.closing.is_set():
            self.api.open_port()
        with open_spool(self.root) as spool:
            for item in list(quarantine.items(spool)):
                assert item.reason.startswith("http-"), item
                quarantine.requeue(spool, item, 1)
        self.run(3)


@pytest.fixture
def cell(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[str, str, bool], Cell]]:
    servers: list[DemoApi] = []

    def make(name: str, when: str, honour: bool) -> Cell:
        servers.append(DemoApi(tmp_path / "received", honour_key=honour).__enter__())
        return Cell(tmp_path, CASES[name], when, servers[0])

    durable.set_durable(enabled=False)  # nobody cuts the power
    with stamina.set_testing(True, attempts=99, cap=True):
        yield make
    durable.set_durable(enabled=True)
    servers[0].close_port()


def assert_all_arrived(cell: Cell, spool: Spool, expected: int) -> None:
    arrived = defaultdict(set)
    for received in cell.api.accepted:
        arrived[received.name].add((received.key, received.sha256))
    assert len(cell.api.accepted) == expected
    assert {name: len(versions) for name, versions in arrived.items()} == {f"{study}.1.zip": 1 for study in (STUDY, OTHER_STUDY)}
    assert (names(spool.outbox), names(spool.failed)) == ([], [])
    for received in cell.api.accepted:
        with zipfile.ZipFile(received.path) as packed:
            (entry,) = packed.namelist()
            sent = spool.sent / received.name.removesuffix(".zip")
            assert packed.read(entry) == (sent / Path(*Path(entry).parts[1:])).read_bytes()
    for folder in spool.sent.iterdir():
        record = Record.read(folder)
        assert [step["step"] for step in record.steps][-1] == Step.SENT
        assert not record.interrupted


@pytest.mark.parametrize(("name", "when", "honour"), CELLS, ids=lambda value: {True: "knows the key", False: "does not"}.get(value, value))
def test_a_fault_loses_nothing(cell: Callable[[str, str, bool], Cell], name: str, when: str, honour: bool) -> None:
    here = cell(name, when, honour)
    here.run(PASSES)
    here.end()
    with open_spool(here.root) as spool:
        assert_all_arrived(here, spool, accepts(here.case, when, honour=honour, killed=False))


@pytest.mark.parametrize(
    ("name", "when", "honour"), KILLED_CELLS[::STRIDE], ids=lambda value: {True: "knows the key", False: "does not"}.get(value, value)
)
def test_a_fault_loses_nothing_where_the_uploader_is_killed_meanwhile(
    cell: Callable[[str, str, bool], Cell], name: str, when: str, honour: bool
) -> None:
    here = cell(name, when, honour)
    here.run_and_be_killed()
    here.run(PASSES)
    here.end()
    with open_spool(here.root) as spool:
        assert_all_arrived(here, spool, accepts(here.case, when, honour=honour, killed=True))
