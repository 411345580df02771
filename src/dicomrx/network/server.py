"""The receiver in one process: `serve` makes one, `start` listens, `stop` ends it."""

from collections.abc import Callable, Mapping, Sequence

from dicomrx.network.admission import Admission, Listen
from dicomrx.network.engine import Associations
from dicomrx.network.listener import Listener
from dicomrx.network.ports import Intake


class Server:
    """A receiver in threads of this process; made by `serve`."""

    def __init__(self, listen: Listen, intake: Intake, on_start: Callable[[tuple[str, int]], None] | None = None) -> None:
        self.admission = Admission(listen)
        self.associations = Associations(listen, intake)
        self._listen = listen
        self._on_start = on_start
        self._listener: Listener | None = None

    @property
    def _started(self) -> Listener:
        if self._listener is None:
            msg = "the receiver has not been started"
            raise RuntimeError(msg)
        return self._listener

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: host and the port that was really bound."""
        return self._started.address

    @property
    def alive(self) -> bool:
        """False before `start`, after `stop`, and where accepting has died."""
        return self._listener is not None and self._listener.alive

    def start(self) -> None:
        """Listen; raises as `Listener` does."""
        self._listener = Listener(self._listen, self.admission, self.associations.meet)
        if self._on_start is not None:
            self._on_start(self.address)

    def refused(self) -> Sequence[Mapping[str, object]] | None:
        """Whom it turned away, the newest first; None where nobody since the last call."""
        return self.admission.refused()

    def stop(self, grace_s: float) -> bool:
        """Listen no more at once, let associations end within `grace_s`, abort those left; True where one was cut."""
        self._started.close()
        return self.associations.stop(grace_s)


def serve(listen: Listen, intake: Intake, on_start: Callable[[tuple[str, int]], None] | None = None) -> Server:
    """A receiver that is not listening yet; `on_start` is told where it listens, once it does. Raises ConfigError."""
    return Server(listen, intake, on_start)
