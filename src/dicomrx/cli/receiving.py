"""How the receiver runs: in one process, or as workers behind a parent that listens and admits for all of them."""

import contextlib
import ctypes
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from dicomrx.cli import running
from dicomrx.network.admission import Admission, Listen
from dicomrx.network.listener import Listener
from dicomrx.network.workers import Workers
from dicomrx.settings import Settings, exposed_key, resolve
from dicomrx.spool import refused
from dicomrx.spool.intake import Intake
from dicomrx.spool.layout import Spool
from dicomrx.supervise import Child, Supervisor

if TYPE_CHECKING:
    from dicomrx.network.server import Server
    from dicomrx.network.worker import Worker

log = logging.getLogger(__name__)

_WORKER: Final = ("scp", "--worker")
_M_ARENA_MAX: Final = -8  # malloc.h
_GRACE_S: Final = 10.0
_TEND_S: Final = 2.0


def receive(settings: Settings) -> int:
    """Run the receiver; returns the exit code."""
    with running.logged(settings, "scp"), running.opened(settings, make=True) as spool, running.only_one(spool, "scp") as lock:
        spool.sweep()
        _warn(settings)
        count = min(running.workers(settings), os.cpu_count() or 1, running.MAX_WORKERS)
        if count > 1:
            return _supervise(settings, spool, count, lock)
        _serve(settings, spool)
        return 0


def work() -> None:
    """Be a worker: its parent has settled the settings, and is at the other end of standard input."""
    settings = resolve({}, os.environ, secrets=False).settings
    with running.logged(settings, "scp"), running.opened(settings, make=False) as spool:
        _serve(settings, spool, socket.socket(fileno=sys.stdin.fileno()))


def _supervise(settings: Settings, spool: Spool, count: int, lock: int) -> int:
    """Listen for so many workers; they keep the receiver's `lock`, so that none follows before all of them are gone."""
    listen, workers = _listen(settings), Workers()
    admission = Admission(listen)
    environment = running.environment(_WORKER, settings)
    supervisor = Supervisor([Child(_WORKER, environment, workers.connect, [lock]) for _ in range(count)])
    listener = Listener(listen, admission, workers.meet, workers.able)

    def stop() -> None:
        listener.close()
        supervisor.stop()

    def watch() -> None:
        while listener.alive:
            time.sleep(_TEND_S)
            workers.tend()
            _note_refused(spool, admission.refused())
        supervisor.stop()

    threading.Thread(target=watch, name="dicomrx-watch", daemon=True).start()
    with running.stopping(stop):
        code = supervisor.forever()
    listener.close()
    _note_refused(spool, admission.refused())
    return code


def _serve(settings: Settings, spool: Spool, parent: socket.socket | None = None) -> None:
    """Receive in this process, from a port or from a parent."""
    stop = threading.Event()
    with running.stopping(stop.set):
        intake = Intake(spool, settings.min_free.floor(spool.total_bytes()))
        cut = False
        try:
            server = _server(settings, intake, parent)
            server.start()
            while server.alive and not stop.wait(_TEND_S):
                intake.tend()
                _note_refused(spool, server.refused())
            cut = server.stop(_GRACE_S)
            _note_refused(spool, server.refused())
        finally:
            intake.stop(cut=cut)


def _server(settings: Settings, intake: Intake, parent: socket.socket | None) -> "Server | Worker":
    _stay_small()
    from dicomrx.network.server import serve
    from dicomrx.network.worker import Worker

    return serve(_listen(settings), intake) if parent is None else Worker(_listen(settings), intake, parent)


def _stay_small() -> None:
    """Without numpy, which pydicom would load for pixels, and with few arenas for all threads instead of one for each."""
    sys.modules["numpy"] = None  # type: ignore[assignment]
    with contextlib.suppress(AttributeError):  # the C library is not glibc
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def _listen(settings: Settings) -> Listen:
    return Listen(
        host=settings.host,
        port=settings.port,
        ae_title=settings.ae_title,
        calling_ae=settings.calling_ae,
        allow_hosts=settings.allow_hosts,
        max_connections=settings.max_connections,
        engine=settings.engine,
        tls_cert=settings.tls_cert,
        tls_key=settings.tls_key,
        tls_ca=settings.tls_ca,
    )


def _note_refused(spool: Spool, rows: Sequence[Mapping[str, object]] | None) -> None:
    if rows is not None:
        with contextlib.suppress(OSError):  # it is for looking at, and there is a log
            refused.note(spool, rows)


def _warn(settings: Settings) -> None:
    if not (settings.calling_ae or settings.allow_hosts or settings.tls_ca or settings.host.startswith("127.")):
        log.warning("anyone who reaches this port may send: set CALLING_AE, ALLOW_HOSTS or TLS_CA")
    exposed = exposed_key(settings, "tls")
    if exposed is not None:
        log.warning("%s", exposed)
