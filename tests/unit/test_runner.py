import errno
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from watchdog.observers.api import BaseObserver

from dicomrx import hints, runner
from dicomrx.errors import ConfigError, Defer, Reject, Taken, UnavailableError
from dicomrx.hints import Hints
from dicomrx.jobs import Chosen, Job, Tally
from dicomrx.runner import STRIKES, Runner
from dicomrx.spool import durable, incoming, quarantine
from dicomrx.spool.layout import Spool
from tests.spool_rig import STUDY, die, drop, filed, frozen, names, open_spool, tree

Work = Callable[[Job], None]


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with open_spool(tmp_path) as spool:
        yield spool


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_AFTER_FAILURE_S", 0.02)


class Eat:
    """Works off what lies in a folder, by `work`, and removes it."""

    name = "eat"

    def __init__(self, folder: Path, work: Work = lambda _: None) -> None:
        self.folder = folder
        self.work = work
        self.done: list[str] = []
        self.tried: list[str] = []
        self.watched: Sequence[Path] = (folder,)

    def scan(self) -> Iterator[Job]:
        for path in sorted(self.folder.iterdir()):
            yield Job(path.parent, path.name)

    def process(self, job: Job) -> None:
        self.tried.append(job.name)
        self.work(job)
        durable.remove(job.path)
        self.done.append(job.name)

    def ready_in(self) -> float | None:
        return None


def raising(error: Exception, *only: str) -> Work:
    def work(job: Job) -> None:
        if not only or job.name in only:
            raise error

    return work


def put(spool: Spool, *wanted: str) -> None:
    for name in wanted:
        drop(spool, name)


def put_aside(spool: Spool) -> list[tuple[str, str, str]]:
    return [(item.stage, item.reason, item.detail) for item in quarantine.items(spool)]


@pytest.fixture
def running() -> Iterator[Callable[[Runner], threading.Thread]]:
    """Starts a runner for ever, and stops it at the end of the test."""
    started: list[tuple[Runner, threading.Thread]] = []

    def start(one: Runner) -> threading.Thread:
        thread = threading.Thread(target=one.forever, name="forever")
        started.append((one, thread))
        thread.start()
        return thread

    yield start
    for one, thread in started:
        one.stop()
        thread.join(10)
        assert not thread.is_alive()


def wait_until(true: Callable[[], object], within_s: float = 5.0) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


# One pass and one run


def test_once_does_all_there_is_and_what_appears_meanwhile(spool: Spool) -> None:
    stage = Eat(spool.incoming, lambda job: put(spool, "d") if job.name == "c" else None)
    put(spool, "a", "b", "c")
    tally = Runner(stage, spool).once()
    assert (tally.done, tally.deferred, tally.rejected, tally.unavailable) == (4, 0, 0, None)
    assert stage.done == ["a", "b", "c", "d"]


def test_defer_leaves_the_job_where_it_is(spool: Spool) -> None:
    put(spool, "a", "b")
    tally = Runner(Eat(spool.incoming, raising(Defer("not now"), "a")), spool).once()
    assert (tally.done, tally.deferred) == (1, 1)
    assert names(spool.incoming) == ["a"]
    assert put_aside(spool) == []


def test_a_deferred_job_is_not_tried_before_its_time(spool: Spool) -> None:
    stage = Eat(spool.incoming, raising(Defer("in an hour", 3600.0), "a"))
    put(spool, "a", "b")
    one = Runner(stage, spool)
    assert one.once().deferred == 1
    assert one.once().deferred == 1
    assert stage.tried.count("a") == 1
    stage.work = raising(Defer("at once", 0.0), "a")
    one._not_before.clear()
    one.once()
    one.once()
    assert stage.tried.count("a") == 3


def test_reject_quarantines_with_its_reason(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    put(spool, "a", "b")
    tally = Runner(Eat(spool.incoming, raising(Reject("burned-in", "it says so"), "a")), spool).once()
    assert (tally.done, tally.rejected) == (1, 1)
    assert put_aside(spool) == [("eat", "burned-in", "it says so")]
    assert names(spool.incoming) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EROFS, errno.EDQUOT])
def test_a_sick_machine_quarantines_nothing(spool: Spool, code: int) -> None:
    put(spool, "a", "b")
    one = Runner(Eat(spool.incoming, raising(OSError(code, os.strerror(code)))), spool)
    for _ in range(5):
        tally = one.once()
        assert (tally.done, tally.deferred, tally.rejected) == (0, 2, 0)
    assert names(spool.incoming) == ["a", "b"]
    assert names(spool.run_dir / "strikes") == []


def test_a_trouble_of_the_machine_is_told_of_one_job_and_then_of_how_many(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    put(spool, *"abcdefgh")
    Runner(EatTogether(spool.incoming, raising(OSError(errno.ENOSPC, "No space left"), *"abcdefg")), spool).once()
    told = [record.getMessage().partition(" at ")[0] for record in caplog.records if record.levelno == logging.ERROR]
    one, all_of_them = "a: the machine is unwell", "eat: the machine was unwell for 7 jobs"
    passes = 2  # for h was done in the first
    assert told == [f"{words}: OSError [No space left]" for words in (one, all_of_them)] * passes


def test_a_disk_on_which_only_small_ones_fit_quarantines_no_big_one(spool: Spool) -> None:
    one = Runner(Eat(spool.incoming, raising(OSError(errno.ENOSPC, "No space left"), "big")), spool)
    for number in range(5):
        put(spool, "big", f"small-{number}")
        one.once()
    assert put_aside(spool) == []
    assert names(spool.incoming) == ["big"]


def test_a_disk_too_full_to_note_what_is_in_hand_defers(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    put(spool, "a")

    def full(*_: Path) -> None:
        if _:
            raise OSError(errno.ENOSPC, "No space left")

    monkeypatch.setattr(spool, "in_hand", full)
    assert Runner(Eat(spool.incoming), spool).once().deferred == 1


def test_an_input_that_alone_cannot_be_read_three_times_is_quarantined(spool: Spool) -> None:
    one = Runner(Eat(spool.incoming, raising(OSError(errno.EIO, "Input/output error"), "bad")), spool)
    put(spool, "bad")
    one.once()
    one.once()
    assert spool.strikes("bad") == 0  # alone in its pass, nothing shows whose fault it is
    for number in range(3):
        assert put_aside(spool) == []
        put(spool, f"good-{number}")
        one.once()
    assert [reason for _, reason, _ in put_aside(spool)] == ["three-strikes"]
    assert names(spool.incoming) == []
    assert names(spool.run_dir / "strikes") == []


def test_a_bug_quarantines_its_input_and_tells_its_place_but_not_its_message(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    put(spool, "a", "b")
    tally = Runner(Eat(spool.incoming, raising(ValueError("PatientName SMITH^JOHN"), "a")), spool).once()
    assert (tally.done, tally.rejected) == (1, 1)
    ((stage, reason, detail),) = put_aside(spool)
    assert (stage, reason) == ("eat", "bug")
    assert detail.startswith("ValueError at test_runner.py:")
    everything = caplog.text + "".join(path.read_text(errors="replace") for path in spool.quarantine.rglob("*.json"))
    assert "SMITH" not in everything


def test_an_unreachable_destination_ends_the_pass(spool: Spool) -> None:
    stage = Eat(spool.incoming, raising(UnavailableError("no answer"), "b"))
    put(spool, "a", "b", "c")
    tally = Runner(stage, spool).once()
    assert tally.done == 1
    assert tally.unavailable is not None
    assert names(spool.incoming) == ["b", "c"]
    assert "c" not in stage.tried


def test_a_wrong_setting_ends_the_stage(spool: Spool) -> None:
    put(spool, "a")
    with pytest.raises(ConfigError):
        Runner(Eat(spool.incoming, raising(ConfigError("no key"))), spool).once()
    assert names(spool.incoming) == ["a"]


def test_nobody_takes_a_study_apart(spool: Spool) -> None:
    filed(spool)
    for _ in range(4):
        spool.strike(STUDY)
    stage = Eat(spool.studies, raising(ValueError("a bug")))
    assert Runner(stage, spool).once().deferred == 1
    assert stage.tried == [STUDY]
    assert names(spool.studies) == [STUDY]


def test_a_rejected_frozen_study_is_a_dead_letter(spool: Spool) -> None:
    one = frozen(spool)
    assert Runner(Eat(spool.outbox, raising(Reject("http-400"))), spool).once().rejected == 1
    assert names(spool.failed) == [one.name]


def test_what_another_process_has_in_hand_is_neither_awaited_nor_quarantined(spool: Spool) -> None:
    put(spool, "a", "b")
    assert Runner(Eat(spool.incoming, raising(Taken())), spool).once() == Tally()
    with incoming.claimed(spool.incoming / "a"):
        stage = Eat(spool.incoming, raising(Reject("bad"), "a"))
        assert Runner(stage, spool).once().rejected == 0
    assert names(spool.incoming) == ["a"]


def test_strikes_against_what_another_process_has_in_hand_are_not_forgotten(spool: Spool) -> None:
    put(spool, "a")
    spool.strike("a")
    with incoming.claimed(spool.incoming / "a"):
        Runner(ClaimAndEat(spool.incoming), spool).once()
    assert spool.strikes("a") == 1


def test_what_another_process_has_in_hand_does_not_show_that_the_machine_is_well(spool: Spool) -> None:
    put(spool, "a", "b")
    stage = ClaimAndEat(spool.incoming, raising(OSError(errno.EIO, "sick"), "a"))
    with incoming.claimed(spool.incoming / "b"):
        Runner(stage, spool).once()
    assert spool.strikes("a") == 0
    Runner(stage, spool).once()
    assert spool.strikes("a") == 1


def test_what_stays_though_it_is_done_is_done_twice_and_no_more(spool: Spool) -> None:
    put(spool, "a", "b")
    tried: list[str] = []
    stage = Eat(spool.incoming)
    stage.process = lambda job: tried.append(job.name)  # type: ignore[method-assign]
    assert Runner(stage, spool).once().done == 2
    assert tried == ["a", "b"] * 2


def test_what_is_done_and_gone_is_not_remembered(spool: Spool) -> None:
    put(spool, *map(str, range(100)))
    tally = Runner(Eat(spool.incoming), spool).once()
    assert (tally.done, tally.stayed) == (100, set())


def test_a_job_that_vanishes_while_it_is_done_is_not_quarantined(spool: Spool) -> None:
    put(spool, "a")

    def vanish(job: Job) -> None:
        job.path.unlink()
        raise ValueError

    tally = Runner(Eat(spool.incoming, vanish), spool).once()
    assert (tally.rejected, put_aside(spool)) == (0, [])


def test_chosen_jobs_and_no_others_are_done_once(spool: Spool) -> None:
    put(spool, "a", "b", "c")
    stage = Eat(spool.incoming, raising(Defer("not now"), "b"))
    tally = Runner(Chosen(stage, [Job(spool.incoming, name) for name in ("b", "c")]), spool).once()
    assert (tally.done, tally.deferred) == (1, 1)
    assert stage.done == ["c"]
    assert names(spool.incoming) == ["a", "b"]


def test_a_long_look_that_finds_nothing_is_followed_by_a_long_rest_which_an_event_ends(
    spool: Spool, running: Callable[[Runner], object]
) -> None:
    stage = Eat(spool.incoming)
    looks: list[float] = []

    def scan() -> Iterator[Job]:
        began = time.thread_time()
        while time.thread_time() - began < 0.02:
            pass
        looks.append(began)
        return Eat.scan(stage)

    stage.scan = scan  # type: ignore[method-assign]
    running(Runner(stage, spool, 0.001))
    wait_until(lambda: looks)
    time.sleep(1)  # without a rest it looks fifty times
    assert len(looks) == 1
    put(spool, "a")
    wait_until(lambda: stage.done == ["a"], 2)


# Threads


class ClaimAndEat(Eat):
    def process(self, job: Job) -> None:
        with incoming.claimed(job.path) as file:
            if file is None:
                raise Taken
            super().process(job)


def test_several_threads_share_the_jobs_and_a_long_one_holds_back_none(spool: Spool, running: Callable[[Runner], object]) -> None:
    put(spool, "a-long-one")
    ended = threading.Event()

    def work(job: Job) -> None:
        if job.name == "a-long-one":
            ended.wait(20)

    stage = ClaimAndEat(spool.incoming, work)
    running(Runner(stage, spool, 0.05, threads=2))
    wait_until(lambda: stage.tried == ["a-long-one"])
    put(spool, "b", "c")
    wait_until(lambda: stage.done == ["b", "c"])
    ended.set()
    wait_until(lambda: stage.done == ["b", "c", "a-long-one"])


def test_once_with_several_threads_counts_each_job_once(spool: Spool) -> None:
    put(spool, *(f"{number:02}" for number in range(30)))
    stage = ClaimAndEat(spool.incoming, raising(Defer("not now", 60), "07"))
    tally = Runner(stage, spool, threads=3).once()
    assert sorted(stage.done) == [f"{number:02}" for number in range(30) if number != 7]
    assert tally.done == 29
    assert tally.deferred >= 1
    assert tally.unavailable is None


def test_a_thread_that_ends_by_a_bug_of_the_stage_ends_the_runner(spool: Spool) -> None:
    stage = Eat(spool.incoming)

    def scan() -> Iterator[Job]:
        if threading.current_thread() is not threading.main_thread():
            raise ConfigError
        return iter(())

    stage.scan = scan  # type: ignore[method-assign]
    with pytest.raises(ConfigError):
        Runner(stage, spool, 0.05, threads=2).forever()


def test_what_each_thread_has_in_hand_when_its_process_dies_gets_a_strike(spool: Spool, tmp_path: Path) -> None:
    put(spool, "a", "b")
    victim = open_spool(tmp_path)
    victim.in_hand(victim.incoming / "a")
    thread = threading.Thread(target=victim.in_hand, args=(victim.incoming / "b",))
    thread.start()
    thread.join()
    die(victim)
    spool.sweep()
    assert [spool.strikes(name) for name in ("a", "b")] == [1, 1]


def test_a_destination_that_refuses_is_asked_less_and_less_often(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    put(spool, "a")
    waited: list[float] = []
    one = Runner(Eat(spool.incoming, raising(UnavailableError("down"))), spool)

    def wait(seconds: float | None = None) -> bool:
        waited.append(seconds or 0)
        if len(waited) == 7:
            one._stop.set()
        return False

    monkeypatch.setattr(one._stop, "wait", wait)
    monkeypatch.setattr(one._wake, "wait", lambda _: None)
    one.forever()
    assert waited == [2, 4, 8, 16, 30, 30, 30]


def test_what_was_deferred_is_not_tried_at_every_look(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    put(spool, "a")
    waited: list[float] = []
    one = Runner(Eat(spool.incoming, raising(Defer("later"))), spool, 0.01)

    def wait(seconds: float | None = None) -> bool:
        waited.append(seconds or 0)
        if len(waited) == 3:
            one._stop.set()
        return False

    monkeypatch.setattr(one._stop, "wait", wait)
    one.forever()
    assert waited == [1, 1, 1]


# Strikes of the dead


def test_what_a_worker_had_in_hand_when_it_died_gets_a_strike_and_the_third_quarantines(spool: Spool, tmp_path: Path) -> None:
    put(spool, "killer", "later")

    class Killed(BaseException):
        pass

    def work(job: Job) -> None:
        if job.name == "killer":
            raise Killed

    for strikes in range(1, 4):
        victim = open_spool(tmp_path)
        victim_runner = Runner(Eat(victim.incoming, work), victim)
        real = victim.in_hand
        victim.in_hand = lambda *paths, real=real: real(*paths) if paths else None  # type: ignore[method-assign] # the dead tidy nothing
        with pytest.raises(Killed):
            victim_runner.once()
        die(victim)
        spool.sweep()
        assert spool.strikes("killer") == strikes
    stage = Eat(spool.incoming, work)
    tally = Runner(stage, spool).once()
    assert (tally.done, tally.rejected) == (1, 1)
    assert stage.done == ["later"]
    assert [reason for _, reason, _ in put_aside(spool)] == ["three-strikes"]


def test_what_is_done_after_all_has_its_strikes_forgotten(spool: Spool) -> None:
    put(spool, "a")
    spool.strike("a")
    spool.strike("a")
    Runner(Eat(spool.incoming), spool).once()
    assert names(spool.run_dir / "strikes") == []


def test_nothing_to_do_changes_nothing(tmp_path: Path) -> None:
    with open_spool(tmp_path) as spool:
        put(spool, "a")
        Runner(Eat(spool.incoming), spool).once()
    before = tree(tmp_path / "storage")
    with open_spool(tmp_path) as spool:
        Runner(Eat(spool.incoming), spool).once()
    after = tree(tmp_path / "storage")
    ours = f".run{os.sep}tmp"  # its modification time alone: a run directory came and went
    assert before.pop(ours)[:2] == after.pop(ours)[:2]
    assert before == after


# Waiting


class Adopting(Eat):
    """As anonymize: adopts before it scans, and has `--once` wait for what is young."""

    def __init__(self, spool: Spool) -> None:
        super().__init__(spool.incoming)
        self.spool = spool
        self.adoption = incoming.Adoption(spool)

    def scan(self) -> Iterator[Job]:
        self.adoption.run()
        for arrival in incoming.arrivals(self.spool):
            yield Job(self.spool.incoming, arrival.name)

    def ready_in(self) -> float | None:
        return 0.05 if self.adoption.pending() else None


def test_once_waits_for_what_was_dropped_a_moment_ago(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "QUIET_S", 0.3)
    put(spool, "young", "folder/young")
    assert Runner(Adopting(spool), spool).once().done == 2
    assert names(spool.incoming) == []


def test_stop_ends_a_wait_at_once(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "QUIET_S", 60.0)
    put(spool, "young")
    stage = Adopting(spool)
    stage.ready_in = lambda: 60.0  # type: ignore[method-assign]
    one = Runner(stage, spool)
    thread = threading.Thread(target=one.once)
    thread.start()
    time.sleep(0.1)
    one.stop()
    thread.join(2)
    assert not thread.is_alive()


# For ever


def test_an_event_wakes_the_runner_before_the_next_scan_is_due(spool: Spool, running: Callable[[Runner], object]) -> None:
    stage = Eat(spool.incoming)
    running(Runner(stage, spool, 3600.0))
    wait_until(lambda: any(isinstance(thread, BaseObserver) for thread in threading.enumerate()))
    time.sleep(0.5)
    put(spool, "a")
    wait_until(lambda: stage.done, within_s=30.0)


def observers() -> list[BaseObserver]:
    return [thread for thread in threading.enumerate() if isinstance(thread, BaseObserver)]


def test_lost_events_only_delay(
    spool: Spool, impatient: None, monkeypatch: pytest.MonkeyPatch, running: Callable[[Runner], object]
) -> None:
    monkeypatch.setattr(hints._Wake, "on_any_event", lambda *_: None)
    stage = Eat(spool.incoming)
    running(Runner(stage, spool, 0.2))
    wait_until(observers)
    put(spool, "a")
    wait_until(lambda: stage.done == ["a"])


def test_a_dead_observer_only_delays_and_is_started_again(spool: Spool, impatient: None, running: Callable[[Runner], object]) -> None:
    stage = Eat(spool.incoming)
    running(Runner(stage, spool, 0.2))
    wait_until(observers)
    (first,) = observers()
    first.stop()
    first.join()
    put(spool, "a")
    wait_until(lambda: stage.done == ["a"])
    wait_until(lambda: observers() not in ([], [first]))


def test_a_folder_that_was_replaced_is_watched_again(spool: Spool) -> None:
    wake = threading.Event()
    hints = Hints((spool.incoming,), wake)
    spool.incoming.rmdir()
    spool.incoming.mkdir()
    wait_until(lambda: hints._observer is not None and not hints._is_well(hints._observer))
    hints.tend()
    wake.clear()
    put(spool, "a")
    assert wake.wait(3)
    hints.close()


def test_without_file_events_the_scans_go_on_and_it_is_said_once(
    spool: Spool, impatient: None, running: Callable[[Runner], object], caplog: pytest.LogCaptureFixture
) -> None:
    stage = Eat(spool.incoming)
    stage.watched = (spool.root / "nowhere",)
    running(Runner(stage, spool, 0.2))
    put(spool, "a")
    wait_until(lambda: stage.done == ["a"])
    put(spool, "b")
    wait_until(lambda: stage.done == ["a", "b"])
    assert sum("no file events" in record.message for record in caplog.records) == 1


def test_a_sick_machine_does_not_end_the_daemon(
    spool: Spool, impatient: None, running: Callable[[Runner], threading.Thread], caplog: pytest.LogCaptureFixture
) -> None:
    stage = Eat(spool.incoming)
    real = stage.scan
    failures: list[object] = []

    def scan() -> Iterator[Job]:
        if len(failures) < 3:
            failures.append(1)
            raise OSError(errno.EIO, "Input/output error")
        return real()

    stage.scan = scan  # type: ignore[method-assign]
    put(spool, "a")
    thread = running(Runner(stage, spool, 0.2))
    wait_until(lambda: stage.done == ["a"])
    assert thread.is_alive()
    assert sum(record.levelno == logging.ERROR for record in caplog.records) == 3


def test_a_deferred_job_is_tried_again(spool: Spool, impatient: None, running: Callable[[Runner], object]) -> None:
    stage = Eat(spool.incoming)
    stage.work = lambda job: raising(Defer("not yet"))(job) if len(stage.tried) < 4 else None
    put(spool, "a")
    running(Runner(stage, spool, 0.2))
    wait_until(lambda: stage.done == ["a"])
    assert len(stage.tried) == 4


class EatTogether(Eat):
    """The same, three at once."""

    batch = 3

    def __init__(self, folder: Path, work: Work = lambda _: None) -> None:
        super().__init__(folder, work)
        self.together: list[list[str]] = []

    def process_all(self, jobs: Sequence[Job]) -> Mapping[Job, Exception]:
        self.together.append([job.name for job in jobs])
        failed: dict[Job, Exception] = {}
        for job in jobs:
            try:
                self.process(job)
            except OSError as error:
                failed[job] = error
        return failed


def test_jobs_are_done_together_in_their_order_and_each_has_its_own_outcome(spool: Spool) -> None:
    put(spool, *"abcde")
    stage = EatTogether(spool.incoming, raising(OSError(errno.ENOSPC, "full"), "b"))
    tally = Runner(stage, spool).once()
    assert stage.together[:2] == [["a", "b", "c"], ["d", "e"]]
    assert (sorted(stage.done), tally.done) == (list("acde"), 4)
    assert tally.deferred == 1


def test_what_failed_before_runs_alone(spool: Spool) -> None:
    put(spool, *"abcd")
    spool.strike("b")
    stage = EatTogether(spool.incoming)
    assert Runner(stage, spool).once().done == 4
    assert all("b" not in names for names in stage.together)
    assert spool.strikes("b") == 0


def test_a_death_strikes_all_that_was_done_together_and_then_only_the_one_that_kills(spool: Spool, tmp_path: Path) -> None:
    """Poison: whoever opens it dies."""
    put(spool, *"abcdef")

    class Death(BaseException):
        pass

    def open_it(job: Job) -> None:
        if job.name == "b":
            raise Death

    deaths = 0
    for _ in range(STRIKES + 1):
        victim = open_spool(tmp_path)
        real = victim.in_hand
        victim.in_hand = lambda *paths, real=real: real(*paths) if paths else None  # type: ignore[method-assign] # the dead tidy nothing
        try:
            Runner(EatTogether(victim.incoming, open_it), victim).once()
        except Death:
            deaths += 1
        die(victim)
    assert deaths == STRIKES
    assert names(spool.incoming) == []
    assert [(reason, detail[:9]) for _, reason, detail in put_aside(spool)] == [("three-strikes", "the stage")]
    assert names(spool.run_dir / "strikes") == []


def test_what_takes_too_long_of_the_processor_ends_its_process_and_is_quarantined_the_third_time(spool: Spool, tmp_path: Path) -> None:
    put(spool, "a", "endless", "z")
    script = (
        "import sys; from pathlib import Path\n"
        "from dicomrx.runner import Runner\n"
        "from tests.spool_rig import open_spool\n"
        "from tests.unit.test_runner import EatTogether\n"
        "def work(job):\n"
        "    while job.name == 'endless': pass\n"
        "with open_spool(Path(sys.argv[1])) as spool:\n"
        "    Runner(EatTogether(spool.incoming, work), spool, cpu_s=0.2).once()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    ends = [subprocess.run(command, check=False).returncode for _ in range(STRIKES + 1)]
    assert ends == [-signal.SIGPROF] * STRIKES + [0]
    assert [reason for _, reason, _ in put_aside(spool)] == ["three-strikes"]
    assert names(spool.incoming) == []


def test_what_wants_too_much_memory_costs_only_itself_and_is_quarantined_the_third_time(spool: Spool) -> None:
    block, most = 64 << 20, 256 << 20  # blocks of which none is taken from what was freed before

    def hoard(blocks: int) -> list[bytearray]:
        return [bytearray(block) for _ in range(blocks)]

    put(spool, "endless", "y", "z")
    stage = EatTogether(spool.incoming, lambda job: hoard(8 if job.name == "endless" else 2).clear())
    one = Runner(stage, spool, memory=_data_of_this_process() + most)
    passes = [one.once() for _ in range(STRIKES)]
    assert [tally.rejected for tally in passes] == [0, 0, 1]
    assert sorted(stage.done) == ["y", "z"]
    assert [reason for _, reason, _ in put_aside(spool)] == ["three-strikes"]
    assert names(spool.run_dir / "strikes") == []
    assert len(hoard(8)) == 8, "the limit is for attempts alone"


def _data_of_this_process() -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData:")]
    return int(line.split()[1]) * 1024
