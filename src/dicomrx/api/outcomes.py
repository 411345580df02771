"""How an upload ended. Each says how many attempts were made, and whether one was ambiguous: the API may have the study."""

from dataclasses import dataclass

from dicomrx.errors import Defer, Reject, UnavailableError


@dataclass(frozen=True)
class Accepted:
    """The API has the study; `answer` is the text it gave, made printable, cut short and free of our secrets."""

    status: int
    answer: str
    attempts: int
    ambiguous: bool


class UploadDeferred(Defer):
    """Retrying in this pass did not help; `unreachable` where no connection came about at the last attempt."""

    def __init__(
        self,
        message: str,
        retry_in: float | None = None,
        *,
        attempts: int = 0,
        ambiguous: bool = False,
        unreachable: bool = False,
    ) -> None:
        super().__init__(message, retry_in)
        self.attempts = attempts
        self.ambiguous = ambiguous
        self.unreachable = unreachable


class UploadRejected(Reject):
    """The API refuses this study, and would again: a dead letter."""

    def __init__(self, reason: str, detail: str = "", *, attempts: int = 0, ambiguous: bool = False) -> None:
        super().__init__(reason, detail)
        self.attempts = attempts
        self.ambiguous = ambiguous


class DestinationRefused(UnavailableError):
    """The API refuses us, whatever the study: nothing more is to be sent until an operator has looked."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.attempts = 0
        self.ambiguous = False


class Journal:
    """What is told of each request of an upload, as it happens; this one keeps nothing."""

    def begins(self) -> None:
        """A request is about to be sent: the API has not yet got a byte of it."""

    def failed(self, error: Exception, *, ambiguous: bool) -> None:
        """It brought no accept; `ambiguous` where the API may have the study nevertheless."""
