"""What can go wrong with a request to the demo API, on purpose."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Arrival:
    """One request: `path`, and its number among those to that path, from 1."""

    path: str
    number: int


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request; without `lose_answer` nothing is accepted.

    `status` and `headers` answer instead of the API, before the body is read where `early`; `reset_at` resets the
    connection after that fraction of the body; `hang_s` waits so long and then drops it; `raw` is sent as it is;
    `lose_answer` accepts the upload and drops the connection.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    early: bool = False
    reset_at: float | None = None
    hang_s: float | None = None
    raw: bytes | None = None
    lose_answer: bool = False
