"""Children that cannot be started: descriptors, processes and threads come and go, and the pipeline must not go with them."""

import contextlib
import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from dicomrx.errors import TryAgainError
from dicomrx.supervise import Child, Supervisor
from tests.acceptance.pipeline import wait_until


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def no_thread(_kill: Callable[[], None]) -> socket.socket:
    msg = "can't start new thread"
    raise RuntimeError(msg)


def test_a_child_that_cannot_be_started_is_tried_again_until_it_can(caplog: pytest.LogCaptureFixture) -> None:
    supervisor = Supervisor([Child(["--help"], os.environ)])
    running = threading.Thread(target=supervisor.forever)
    try:
        with no_descriptors():
            running.start()
            wait_until(lambda: "--help cannot be started ([Errno 24] Too many open files): starting it again in 1 s" in caplog.text, 10)
        wait_until(lambda: "--help ended (exit 0): starting it again" in caplog.text, 10)
    finally:
        supervisor.stop()
        running.join()


def test_where_it_is_to_run_once_it_is_the_next_call_that_tries_again() -> None:
    supervisor = Supervisor([Child(["--help"], os.environ)])
    with no_descriptors(), pytest.raises(TryAgainError, match="--help cannot be started"):
        supervisor.once()
    assert supervisor.once() == 0


def test_a_thread_that_is_not_to_be_had_for_a_child_is_no_bug() -> None:
    with pytest.raises(TryAgainError, match="can't start new thread"):
        Supervisor([Child(["--help"], os.environ, no_thread)]).once()
