"""The receiver: `serve` makes one, `start` listens, `stop` ends it."""

import errno
import logging
import socketserver
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Final

from dicomrx.errors import ConfigError, PermissionRefused, TryAgainError
from dicomrx.network.admission import Listen
from dicomrx.network.engine import Connection, Listener
from dicomrx.network.ports import Intake

_log = logging.getLogger(__name__)

_ABORT_S: Final = 1.0
_HANG_UP_S: Final = 5.0
_POLL_S: Final = 0.1


class Server:
    """A receiver in threads of this process; made by `serve`."""

    def __init__(self, listen: Listen, intake: Intake, on_start: Callable[[tuple[str, int]], None] | None = None) -> None:
        self._listen = listen
        self._intake = intake
        self._on_start = on_start
        self._listener: Listener | None = None
        self._thread = threading.Thread(target=self._accept, name="dicomrx-accept", daemon=True)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: host and the port that was really bound."""
        host, port = self._started().server_address[:2]
        return str(host), int(port)

    @property
    def alive(self) -> bool:
        """False before `start`, after `stop`, and where accepting has died."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Listen. Raises TryAgainError where the port is taken, PermissionRefused where it is not ours, ConfigError for a bad address."""
        host, port = self._listen.host, self._listen.port
        try:
            self._listener = Listener(self._listen, self._intake)
        except OSError as error:
            raise _cannot_listen(error, host, port) from error
        self._thread.start()
        _log.info("receiving on %s port %d as %s", *self.address, self._listen.ae_title)
        if self._on_start is not None:
            self._on_start(self.address)

    def refused(self) -> Sequence[Mapping[str, object]] | None:
        """Whom it turned away, the newest first; None where nobody since the last call."""
        news = self._started().admission.refusals.news()
        return None if news is None else [asdict(refused) for refused in news]

    def stop(self, grace_s: float) -> bool:
        """Listen no more at once, let associations end within `grace_s`, abort those left; True where one was cut."""
        listener = self._started()
        listener.admission.close()
        socketserver.BaseServer.shutdown(listener)  # pynetdicom's own also wants to be in a list of its AE
        listener.server_close()
        self._thread.join()
        _wait(listener, grace_s)
        cut = any(connection.visit.admitted for connection in _all(listener))
        for connection in _all(listener):
            connection.abort()
        _wait(listener, _ABORT_S)
        for connection in _all(listener):
            connection.hang_up()
        _wait(listener, _HANG_UP_S)
        return cut

    def _started(self) -> Listener:
        if self._listener is None:
            msg = "the receiver has not been started"
            raise RuntimeError(msg)
        return self._listener

    def _accept(self) -> None:
        self._started().serve_forever(_POLL_S)


def serve(listen: Listen, intake: Intake, on_start: Callable[[tuple[str, int]], None] | None = None) -> Server:
    """A receiver that is not listening yet; `on_start` is told where it listens, once it does."""
    return Server(listen, intake, on_start)


def _all(listener: Listener) -> list[Connection]:
    return list(listener.connections.copy())


def _wait(listener: Listener, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while listener.connections and time.monotonic() < deadline:
        time.sleep(0.02)


def _cannot_listen(error: OSError, host: str, port: int) -> Exception:
    if error.errno == errno.EADDRINUSE:
        return TryAgainError(f"port {port} on {host} is in use, perhaps by another dicomrx: stop that, or choose another with --port")
    if error.errno in {errno.EACCES, errno.EPERM}:
        return PermissionRefused(f"port {port} may not be opened by this user: choose one above 1023 with --port")
    return ConfigError(f"cannot listen on {host} port {port}: {error.strerror or error}; --host names an address of this machine")
