"""`dicomrx scp` as a parent that listens and admits, and two workers that serve."""

import contextlib
import os
import resource
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicomrx.errors import UnavailableError
from dicomrx.network import wire
from dicomrx.network.client import Association
from dicomrx.network.link import Link
from dicomrx.network.refusals import Refusal
from dicomrx.network.sender import echo
from dicomrx.network.visit import Visit
from dicomrx.network.workers import Workers
from tests.acceptance.pipeline import Pipeline, children, stop
from tests.integration.certificates import Authority
from tests.integration.scp_rig import CT, EXPLICIT, TITLES, connect_from, data_set_of, eventually, store, store_command

pytestmark = pytest.mark.slow

NewPipeline = Callable[..., Pipeline]


@pytest.fixture
def pipeline(new_pipeline: NewPipeline) -> Pipeline:
    if (os.cpu_count() or 1) < 2:
        pytest.skip("one core: one process")
    return new_pipeline(WORKERS=2)


@contextlib.contextmanager
def receiver(pipeline: Pipeline) -> Iterator[subprocess.Popen[bytes]]:
    """One whose two workers both serve."""
    with pipeline.running("scp") as process:
        both_serve(pipeline, process)
        yield process


def both_serve(pipeline: Pipeline, process: subprocess.Popen[bytes]) -> None:
    """Until an association goes to each of two: a worker that has one is given none while the other has none."""

    def each_has_one() -> bool:
        with associated(pipeline), associated(pipeline):
            runs = [path for path in (pipeline.storage / ".run" / "associations").iterdir() if b'"open"' in path.read_bytes()]
            return len({path.name for path in runs} & {run.name.rpartition(".")[2] for run in run_directories(pipeline)}) == 2

    eventually(each_has_one, 30)
    assert len(workers(process)) == 2


def workers(process: subprocess.Popen[bytes]) -> list[int]:
    return children(process.pid).get("scp", [])


def run_directories(pipeline: Pipeline) -> list[Path]:
    return sorted((pipeline.storage / "receiving").iterdir())


def associated(pipeline: Pipeline, address: str = "127.0.0.1") -> Association:
    return connect_from(address, pipeline.port, (1, CT, [EXPLICIT]))


def lets_in(pipeline: Pipeline, address: str) -> bool:
    try:
        associated(pipeline, address).release()
    except UnavailableError:
        return False
    return True


def served_by(association: Association, data: bytes, pipeline: Pipeline) -> str:
    """The run of the worker that kept an instance of this association."""
    assert store(association, data) == 0
    (path,) = [path for path in pipeline.incoming() if data_set_of(path) == data]
    return path.name.split(".")[2].partition("-")[0]


def test_associations_are_spread_over_both_and_their_number_is_limited_in_all(new_pipeline: NewPipeline, pipeline: Pipeline) -> None:
    pipeline.env["DICOM_RECEIVER_MAX_CONNECTIONS"] = "6"
    with receiver(pipeline), contextlib.ExitStack() as stack:
        ours = [stack.enter_context(associated(pipeline)) for _ in range(4)]
        runs = [served_by(association, f"{n} ".encode(), pipeline) for n, association in enumerate(ours)]
        assert sorted(map(runs.count, set(runs))) == [2, 2]
        assert not lets_in(pipeline, "127.0.0.1")
        for address in ("127.0.0.2", "127.0.0.3"):
            stack.enter_context(associated(pipeline, address))
        assert not lets_in(pipeline, "127.0.0.4")
        ours[0].release()
        eventually(lambda: lets_in(pipeline, "127.0.0.4"))


def test_a_worker_that_dies_takes_no_other_with_it_gives_its_places_back_and_is_replaced(pipeline: Pipeline) -> None:
    pipeline.env["DICOM_RECEIVER_MAX_CONNECTIONS"] = "4"
    with receiver(pipeline) as process, associated(pipeline) as one, associated(pipeline) as other:
        before = run_directories(pipeline)
        victim = served_by(one, b"first", pipeline)
        assert served_by(other, b"second", pipeline) != victim
        one.write([wire.p_data(1, b"\3" + store_command())])
        eventually(lambda: list((pipeline.storage / "receiving").glob(f"*.{victim}/*.part")))
        os.kill(owner(workers(process), pipeline, victim), signal.SIGKILL)
        assert store(other, b"third") == 0
        eventually(lambda: len(workers(process)) == 2, 20)
        eventually(
            lambda: len(run_directories(pipeline)) == 2 and not any(path.name.endswith(victim) for path in run_directories(pipeline)), 20
        )
        assert len(set(before) & set(run_directories(pipeline))) == 1  # the other lives on in its own
        with associated(pipeline) as third:
            assert store(third, b"fourth") == 0
        one._stream.close()
    assert {data_set_of(path) for path in pipeline.incoming()} == {b"first", b"second", b"third", b"fourth"}
    assert run_directories(pipeline) == []


def owner(pids: list[int], pipeline: Pipeline, run: str) -> int:
    """Which of the processes has this run directory open."""
    (path,) = (pipeline.storage / "receiving").glob(f"*.{run}")
    return next(pid for pid in pids if has_open(pid, path))


def has_open(pid: int, path: Path) -> bool:
    return any(os.path.realpath(fd) == str(path) for fd in Path(f"/proc/{pid}/fd").iterdir())


def test_who_comes_while_there_is_no_worker_waits_for_the_next(pipeline: Pipeline) -> None:
    with receiver(pipeline) as process:
        for pid in workers(process):
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: pipeline.logs().count("starting it again") == 2)
        with associated(pipeline) as association:
            assert store(association, b"data") == 0
        eventually(lambda: len(run_directories(pipeline)) == 2, 20)
    assert run_directories(pipeline) == []


def test_workers_die_with_their_parent_and_the_next_receiver_takes_over_at_once(pipeline: Pipeline) -> None:
    with receiver(pipeline) as process, associated(pipeline) as one, associated(pipeline) as other:
        assert [store(one, b"first"), store(other, b"second")] == [0, 0]
        one.write([wire.p_data(1, b"\3" + store_command())])
        eventually(lambda: list((pipeline.storage / "receiving").glob("*/*.part")))
        orphans = workers(process)
        assert all(has_open(pid, pipeline.storage / ".run" / "locks" / "scp.stage") for pid in orphans)
        process.kill()
        process.wait()
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans))
        for association in (one, other):
            association._stream.close()
        assert len(run_directories(pipeline)) == 2
        with receiver(pipeline):
            assert len(run_directories(pipeline)) == 2
            assert list((pipeline.storage / "receiving").glob("*/*.part")) == []
    assert {data_set_of(path) for path in pipeline.incoming()} == {b"first", b"second"}


def test_a_stop_lets_the_associations_of_both_end_and_leaves_nothing(pipeline: Pipeline) -> None:
    with receiver(pipeline) as process, associated(pipeline) as one, associated(pipeline) as other:
        process.terminate()
        eventually(lambda: not echo("127.0.0.1", pipeline.port))
        assert [store(one, b"first"), store(other, b"second")] == [0, 0]
        one.release()
        other.release()
        assert stop(process) == 0
    assert run_directories(pipeline) == []
    assert len(pipeline.incoming()) == 2


def test_a_setting_that_no_worker_can_use_ends_the_receiver(pipeline: Pipeline) -> None:
    done = pipeline.run("scp", code=78, DICOM_RECEIVER_TLS_KEY="/nowhere.pem")
    assert "TLS_CERT" in done.stderr


def test_the_handshake_of_tls_is_the_workers(pipeline: Pipeline, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca", "ours")
    pipeline.env["DICOM_RECEIVER_TLS_CERT"] = str(authority.issue("localhost"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(authority.certificate)

    def stored() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", pipeline.port), 10) as plain:
            association = Association(context.wrap_socket(plain), "the receiver")
            association._negotiate(TITLES, [(1, CT, [EXPLICIT])])
            with association:
                return store(association, b"data") == 0
        return False

    process = pipeline.start("scp")
    try:
        eventually(stored, 20)
    finally:
        stop(process)
    assert [data_set_of(path) for path in pipeline.incoming()] == [b"data"]


def test_a_worker_without_descriptors_serves_on_and_turns_away_who_comes(pipeline: Pipeline) -> None:
    with receiver(pipeline) as process, associated(pipeline) as one, associated(pipeline) as other:
        pids = workers(process)
        limits = [resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1])) for pid in pids]
        assert not any(echo("127.0.0.1", pipeline.port) for _ in range(4))
        for pid, limit in zip(pids, limits, strict=True):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)
        assert echo("127.0.0.1", pipeline.port)
        assert [store(one, b"first"), store(other, b"second")] == [0, 0]
        assert sorted(workers(process)) == sorted(pids)


def test_who_comes_while_a_worker_hangs_is_given_to_the_other(pipeline: Pipeline) -> None:
    with receiver(pipeline) as process, contextlib.ExitStack() as stack:
        hanging = workers(process)[0]
        os.kill(hanging, signal.SIGSTOP)
        stack.callback(os.kill, hanging, signal.SIGCONT)
        lost = 0
        for number in range(6):
            try:
                association = stack.enter_context(associated(pipeline))
            except UnavailableError:
                lost += 1
            else:
                assert store(association, b"%d " % number) == 0
        assert lost <= 1  # only by trying, or after two looks, it is found out


def test_the_log_tells_how_a_peer_broke_the_protocol(pipeline: Pipeline) -> None:
    with receiver(pipeline), associated(pipeline) as association:
        association.write([wire.p_data(1, b"\2data")])
        assert association.read()[0] == wire.ABORT
        eventually(lambda: "its peer sent a data set without a command" in pipeline.logs())


class Doorkeeper:
    """Lets everybody in, and tells who has left."""

    def __init__(self) -> None:
        self.left: list[int] = []

    def admit(self, visit: Visit, called: str, calling: str, *, room: bool) -> Refusal | None:
        return None

    def turn_away(self, visit: Visit, setting: str, why: str) -> None:
        raise AssertionError

    def leave(self, visit: Visit) -> None:
        self.left.append(visit.number)


def test_where_no_worker_takes_a_visit_it_leaves() -> None:
    doorkeeper, workers = Doorkeeper(), Workers()
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    with theirs:
        workers.meet(Visit(doorkeeper, 7, "10.0.0.1", ours))
        assert theirs.recv(1) == b""
    assert doorkeeper.left == [7]


def test_the_visits_of_a_worker_that_is_gone_leave_and_one_that_was_never_ready_had_none() -> None:
    doorkeeper, workers = Doorkeeper(), Workers()
    ready, silent = workers.connect(never), workers.connect(never)
    Link(ready).say("ready", 0)
    eventually(workers.able)
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    with theirs:
        workers.meet(Visit(doorkeeper, 7, "10.0.0.1", ours))
        assert doorkeeper.left == []
        ready.close()
        silent.close()
        assert theirs.recv(1) == b""
    eventually(lambda: not workers.able())
    assert doorkeeper.left == [7]


def never() -> None:
    raise AssertionError


def answer_calls(link: Link) -> None:
    for (_, number, _), _ in link.messages():
        link.say("heard", number)


@pytest.mark.parametrize("ready", [True, False], ids=["ready", "starting"])
def test_a_worker_that_listens_no_more_is_killed_and_one_that_does_is_not(ready: bool) -> None:
    workers = Workers()
    with subprocess.Popen(["sleep", "60"]) as hangs, subprocess.Popen(["sleep", "60"]) as lives:
        deaf, alive = workers.connect(hangs.kill), workers.connect(lives.kill)
        listener = threading.Thread(target=answer_calls, args=(Link(alive),), daemon=True)
        listener.start()
        eventually(lambda: len(workers._linked) == 2)
        for end in (deaf, alive) if ready else ():
            Link(end).say("ready", 0)
        eventually(lambda: len(workers._ready()) == 2 * ready)
        looks = 0
        while hangs.poll() is None:
            workers.tend()
            looks += 1
            time.sleep(0.05)  # for the one to listen
        assert hangs.returncode == -signal.SIGKILL
        assert looks > (15 if ready else 60)
        assert lives.poll() is None
        lives.kill()
    alive.shutdown(socket.SHUT_RDWR)
    listener.join()
    alive.close()
    deaf.close()
    eventually(lambda: not workers._linked)


def test_a_worker_that_took_long_to_start_is_given_time_to_answer() -> None:
    workers, killed = Workers(), threading.Event()
    with workers.connect(killed.set) as end:
        eventually(lambda: len(workers._linked) == 1)
        for _ in range(40):
            workers.tend()
        Link(end).say("ready", 0)
        eventually(workers.able)
        workers.tend()
        assert not killed.is_set()
