"""What came back from the API, or why nothing did."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final, Self

import httpx

_ANSWER_BYTES: Final = 64 * 1024
_MAX_TEXT: Final = 2000
_RETRY_STATUSES: Final = frozenset({408, 425, 429})
_SERVER_ERRORS: Final = range(500, 600)
# A gateway that lost the answer of the server behind it, which may have taken the study.
AMBIGUOUS_STATUSES: Final = frozenset({502, 504})
# Raised before a byte of the request was sent; any other transport error leaves open what arrived.
_NEVER_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)


@dataclass(frozen=True)
class Answer:
    """Status and the beginning of the body, which for an upload's 2xx may be cut short by the network too."""

    status: int
    body: bytes
    retry_after: float | None

    @property
    def ok(self) -> bool:
        """Any 2xx."""
        return httpx.codes.is_success(self.status)

    @property
    def may_pass(self) -> bool:
        """The same request may do better later."""
        return self.status in _RETRY_STATUSES or self.status in _SERVER_ERRORS

    def text(self, secrets: tuple[str, ...]) -> str:
        """The body for people and for the receipt: printable, at most 2000 characters, and none of `secrets` in it."""
        text = self.body.decode(errors="replace")
        for secret in secrets:
            text = text.replace(secret, "***")
        return "".join(char if char.isprintable() else " " for char in text[:_MAX_TEXT]).strip()


class TryLater(Exception):
    """One attempt failed in a way that a later one may not; `retry_after` is the API's own wish in seconds."""

    def __init__(self, why: str, retry_after: float | None = None, *, unreachable: bool = False, ambiguous: bool = False) -> None:
        super().__init__(why)
        self.retry_after = retry_after
        self.unreachable = unreachable
        self.ambiguous = ambiguous
        self.about = ""
        self.at_login = False
        self.in_this_pass = True


def read_answer(client: httpx.Client, request: httpx.Request, patience_s: float) -> Answer:
    """Send `request` and read the answer as far as it is wanted; raises httpx.TransportError where no status came back.

    `patience_s` is for the whole answer, from the last byte of the request on: httpx counts silences only.
    """
    with _Patience(patience_s) as patience:
        request.extensions["trace"] = patience.follow
        response = client.send(request, stream=True)
        try:
            return Answer(response.status_code, _read_body(response), retry_after(response.headers, time.time()))
        finally:
            response.close()


class _Patience:
    """Cuts a request's connection where its answer takes too long, byte by byte for instance."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timer: threading.Timer | None = None
        self._stream: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def follow(self, event: str, info: Mapping[str, Any]) -> None:
        """What httpcore tells of the request: https://www.encode.io/httpcore/extensions/#trace."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._stream = info["return_value"]
        elif event == "http11.receive_response_headers.started":  # a proxy answers first, where there is one
            self._stop()
            self._timer = threading.Timer(self._seconds, self._cut)
            self._timer.daemon = True
            self._timer.start()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _cut(self) -> None:
        with contextlib.suppress(OSError, AttributeError):  # it is closed already, or there never was one
            self._stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)


def _read_body(response: httpx.Response) -> bytes:
    body = bytearray()
    try:
        for chunk in response.iter_raw():
            body += chunk
            if len(body) >= _ANSWER_BYTES:
                break
    except httpx.TransportError:
        # The status has been said, and it alone decides: a body that breaks off takes nothing back.
        pass
    return bytes(body[:_ANSWER_BYTES])


def retry_after(headers: httpx.Headers, now: float) -> float | None:
    """Retry-After in seconds from now, never negative, or None (RFC 9110 10.2.3).

    A date is measured against the API's own Date where it sends one, for the two clocks need not agree.
    """
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    then = _timestamp(value)
    if then is None:
        return None
    theirs = _timestamp(headers.get("Date", ""))
    return max(0.0, then - (now if theirs is None else theirs))


def _timestamp(http_date: str) -> float | None:
    try:
        return parsedate_to_datetime(http_date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def may_have_arrived(error: httpx.TransportError) -> bool:
    """False where the request surely never reached the API."""
    return not isinstance(error, _NEVER_SENT)


def describe(error: httpx.TransportError) -> str:
    """The error for an operator, made of the system's own words alone: httpx's may quote what was sent or received."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    detail: str | None = getattr(cause, "strerror", None)
    if isinstance(cause, ssl.SSLCertVerificationError):
        detail = f"{cause.verify_message} (API_CA)"
    elif isinstance(cause, ssl.SSLError):  # its strerror names a line of Python's own source
        detail = cause.reason
    return f"{type(error).__name__}: {detail}" if detail else type(error).__name__
