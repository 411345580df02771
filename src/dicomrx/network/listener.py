"""The listening socket: it accepts as fast as peers can knock, and reads nothing."""

import errno
import logging
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from dicomrx.errors import ConfigError, PermissionRefused, TryAgainError
from dicomrx.network.admission import Admission, Listen
from dicomrx.network.visit import Visit

_log = logging.getLogger(__name__)

_BACKLOG: Final = 1024  # a tenth of a second of a flood: what finds it full comes again after a second
_POLL_S: Final = 0.1
_PAUSE_S: Final = 0.05


class Listener:
    """Gives each connection that is let in to `meet`, which must not wait for its peer; `able` says whether it can take one.

    Listens when made. Raises TryAgainError where the port is taken, PermissionRefused where it is not ours, ConfigError for a bad address.
    """

    def __init__(
        self, listen: Listen, admission: Admission, meet: Callable[[Visit], None], able: Callable[[], bool] = lambda: True
    ) -> None:
        self._admission = admission
        self._meet = meet
        self._able = able
        self._socket = _bound(listen)
        host, port = self._socket.getsockname()[:2]
        self.address = str(host), int(port)  # the port that was really bound
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="dicomrx-accept", daemon=True)
        self._thread.start()
        _log.info("receiving on %s port %d as %s", *self.address, listen.ae_title)

    @property
    def alive(self) -> bool:
        """False after `close`, and where accepting has died."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Listen no more, and hang up on who has not been admitted."""
        self._admission.close()
        self._closing.set()
        self._thread.join()
        self._socket.close()

    def _accept(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while not self._closing.is_set():
            if poll.poll(_POLL_S * 1000) and not self._take_all():
                time.sleep(_PAUSE_S)
            self._admission.hang_up_on_overdue()

    def _take_all(self) -> bool:
        """Take all that knock now; False where one must knock again, for want of descriptors or of somebody to meet it."""
        try:
            for _ in range(_BACKLOG):
                if not self._able():
                    return False
                self._take(*self._socket.accept())
        except OSError as error:
            return isinstance(error, BlockingIOError)
        return True

    def _take(self, client: socket.socket, address: tuple[str, int]) -> None:
        wanted = _is_there(client) and self._admission.lets_in(address[0])
        visit = self._admission.arrive(address[0], client) if wanted else None
        if visit is None:
            client.close()
        else:
            self._meet(visit)


def _is_there(client: socket.socket) -> bool:
    """False for a peer that has reset the connection before anybody looked at it."""
    try:
        client.getpeername()
    except OSError:
        return False
    return True


def _bound(listen: Listen) -> socket.socket:
    listening = None
    try:
        family, kind, _, _, address = min(socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM))  # IPv4, where it has both
        listening = socket.socket(family, kind)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
        listening.setblocking(False)  # noqa: FBT003 - the name of the method says it
    except OSError as error:
        if listening is not None:
            listening.close()
        raise _cannot_listen(error, listen.host, listen.port) from error
    return listening


def _cannot_listen(error: OSError, host: str, port: int) -> Exception:
    if error.errno == errno.EADDRINUSE:
        return TryAgainError(f"port {port} on {host} is in use, perhaps by another dicomrx: stop that, or choose another with --port")
    if error.errno in {errno.EACCES, errno.EPERM}:
        return PermissionRefused(f"port {port} may not be opened by this user: choose one above 1023 with --port")
    return ConfigError(f"cannot listen on {host} port {port}: {error.strerror or error}; --host names an address of this machine")
