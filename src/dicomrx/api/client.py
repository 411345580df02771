"""Sends zipped studies to the REST API, and says what became of each."""

import logging
import random
import time
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import BinaryIO, Final, Self

import httpx
import stamina
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from dicomrx.api.answers import AMBIGUOUS_STATUSES, Answer, TryLater, describe, may_have_arrived, read_answer
from dicomrx.api.destination import Tls, is_loopback, parse_base_url
from dicomrx.api.outcomes import Accepted, DestinationRefused, Journal, UploadDeferred, UploadRejected
from dicomrx.api.session import Credentials, Session

# One pass gives a study so long for retries, and then the next study its turn: no new attempt begins later than this.
RETRY_TIMEOUT_S: Final = 45.0
# What an API may ask us to wait between two passes; beyond it, we ask again.
MAX_RETRY_AFTER_S: Final = 900.0
_ABOUT_THE_STUDY: Final = frozenset({400, 413, 415, 422})
_CONFLICT: Final = 409
_UNAUTHORIZED: Final = 401
_DETAIL: Final = 300
_MOST_DOUBLINGS: Final = 30
# After the silence that is granted, for what there is to say.
_ANSWER_S: Final = 30.0
_CONFLICT_ADVICE: Final = "It has something in this study's place that no upload of ours can have brought: look there"

_NO_TLS_OF_OUR_OWN: Final = Tls()
_UNRECORDED: Final = Journal()

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timeouts:
    """Seconds of silence, not of the whole: `read` is how long an API may take over a study before it answers."""

    connect: float = 10.0
    read: float = 120.0
    write: float = 60.0


@dataclass
class _Upload:
    file: BinaryIO
    filename: str
    key: str
    ambiguous: bool
    resend: bool
    journal: Journal
    attempts: int = 0
    began: float = field(default_factory=time.monotonic)


class ApiClient:
    """One API; safe for threads, and to be closed. Raises ConfigError for a URL or a secret that cannot be used.

    `retry_delay` is in seconds and doubles from retry to retry; attempts are `max_retries` + 1. Replaces stamina's hooks,
    which log the arguments of what they retry, for the whole process.
    """

    def __init__(  # noqa: PLR0913 - plain values, so that no layer below settings knows them
        self,
        base_url: str,
        *,
        username: str | None = None,
        password: str | None = None,
        token: str | None = None,
        max_retries: int = 3,
        retry_delay: float = 5.0,
        timeouts: Timeouts = Timeouts(),
        tls: Tls = _NO_TLS_OF_OUR_OWN,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        url = parse_base_url(base_url)
        credentials = Credentials(username, password, token)
        self._base = str(url)
        self._max_retries = max_retries
        self._retry_delay = retry_delay
        self._client = httpx.Client(
            transport=transport,
            verify=tls.context(),
            follow_redirects=False,
            # A connection for each request: one kept may have been closed by the other side, and what is sent on it seems ambiguous.
            limits=httpx.Limits(max_keepalive_connections=0),
            timeout=httpx.Timeout(connect=timeouts.connect, read=timeouts.read, write=timeouts.write, pool=timeouts.read),
            headers={"User-Agent": "dicomrx", "Accept": "application/json", "Accept-Encoding": "identity"},
            # A proxy named by the environment must not get to see what is meant for this machine alone.
            trust_env=not is_loopback(url),
        )
        self._patience_s = timeouts.read + _ANSWER_S
        self._session = Session(self._client, f"{self._base}/users/login/", credentials, self._patience_s)
        set_on_retry_hooks([_log_retry])

    @property
    def destination(self) -> str:
        """The API's URL, which holds no secret."""
        return self._base

    def __repr__(self) -> str:
        return f"ApiClient({self._base!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def upload(
        self,
        file: BinaryIO,
        *,
        filename: str,
        key: str,
        may_have_arrived: bool = False,
        resend: bool = True,
        journal: Journal = _UNRECORDED,
    ) -> Accepted:
        """Send the open, seekable `file` as `filename`, until it is accepted or retrying is no use.

        `key` makes a repeat one and the same upload: SHA-256 of the manifest, in hex. `may_have_arrived` says that an earlier
        pass ended ambiguously, or without an end; without `resend` such an end ends this pass too. `journal` is told of each request.
        Raises UploadDeferred, UploadRejected, DestinationRefused, and OSError where `file` cannot be read.
        """
        upload = _Upload(file, filename, key, may_have_arrived, resend, journal)
        try:
            for attempt in stamina.retry_context(on=partial(self._retry_in, upload), attempts=self._max_retries + 1, timeout=None):
                with attempt:
                    upload.attempts = attempt.num
                    return self._attempt(upload)
        except TryLater as error:
            raise self._give_up(upload, error) from None
        except DestinationRefused as error:
            error.attempts, error.ambiguous = upload.attempts, upload.ambiguous
            raise
        raise AssertionError  # the loop above returns or raises

    def _retry_in(self, upload: _Upload, error: Exception) -> bool | float:
        """Seconds until the next attempt of this pass; False for a longer wait too: nobody's worker sleeps through it."""
        if not isinstance(error, TryLater) or not error.in_this_pass:
            return False
        pause = self._pause(upload, error)
        if error.retry_after is None:
            pause += random.uniform(0.0, min(1.0, self._retry_delay))  # noqa: S311  so that not all come again at once
        return pause if time.monotonic() - upload.began + pause <= RETRY_TIMEOUT_S else False

    def _pause(self, upload: _Upload, error: TryLater) -> float:
        """Seconds until the next attempt, in this pass or another."""
        if error.retry_after is not None:
            return error.retry_after
        return self._retry_delay * 2.0 ** min(upload.attempts - 1, _MOST_DOUBLINGS)

    def _attempt(self, upload: _Upload) -> Accepted:
        token = self._session.token()
        try:
            return self._send(upload, token)
        except DestinationRefused as refused:
            if refused.status != _UNAUTHORIZED or not self._session.can_log_in:
                raise
        return self._send(upload, self._session.renew(token))

    def _send(self, upload: _Upload, token: str | None) -> Accepted:
        upload.journal.begins()
        try:
            return self._judge(upload, self._request(upload, token))
        except TryLater as error:
            upload.ambiguous = upload.ambiguous or error.ambiguous
            error.in_this_pass = upload.resend or not error.ambiguous
            error.about = f"{upload.filename}: "
            upload.journal.failed(error, ambiguous=error.ambiguous)
            raise
        except (UploadRejected, DestinationRefused) as error:
            upload.journal.failed(error, ambiguous=False)
            raise

    def _request(self, upload: _Upload, token: str | None) -> Answer:
        # The boundary comes from the key, so that a repeat is the same body to the last byte, in another process too.
        headers = {"Idempotency-Key": upload.key, "Content-Type": f"multipart/form-data; boundary=dicomrx-{upload.key[:48]}"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        files = {"file": (upload.filename, upload.file, "application/zip")}
        request = self._client.build_request("POST", f"{self._base}/data/upload/", files=files, headers=headers)
        try:
            return read_answer(self._client, request, self._patience_s)
        except httpx.TransportError as error:
            arrived = may_have_arrived(error)
            raise TryLater(f"no answer to the upload ({describe(error)})", unreachable=not arrived, ambiguous=arrived) from None

    def _judge(self, upload: _Upload, answer: Answer) -> Accepted:
        text = answer.text(self._session.secrets)
        if answer.ok or (answer.status == _CONFLICT and upload.ambiguous):
            return Accepted(answer.status, text, upload.attempts, upload.ambiguous)
        if answer.may_pass:
            lost = answer.status in AMBIGUOUS_STATUSES
            raise TryLater(f"the API answered HTTP {answer.status}", answer.retry_after, ambiguous=lost)
        said = f"HTTP {answer.status}: {text[:_DETAIL]}" if text else f"HTTP {answer.status}"
        if answer.status in _ABOUT_THE_STUDY:
            detail = f"The API refuses this study ({said})."
            raise UploadRejected(f"http-{answer.status}", detail, attempts=upload.attempts, ambiguous=upload.ambiguous)
        advice = _CONFLICT_ADVICE if answer.status == _CONFLICT else "Check API_URL and the account"
        raise DestinationRefused(f"The API refuses uploads ({said}). {advice}; all studies stay pending.", status=answer.status)

    def _give_up(self, upload: _Upload, error: TryLater) -> UploadDeferred | DestinationRefused:
        message = f"not sent: {error}, {upload.attempts} attempts to {self._base} (API_URL)"
        if error.at_login:
            refused = DestinationRefused(message)
            refused.attempts, refused.ambiguous = upload.attempts, upload.ambiguous
            return refused
        return UploadDeferred(
            message,
            min(self._pause(upload, error), MAX_RETRY_AFTER_S),
            attempts=upload.attempts,
            ambiguous=upload.ambiguous,
            unreachable=error.unreachable,
        )


def _log_retry(details: RetryDetails) -> None:
    """Only what TryLater says: written here, of status and system errors, never of what was sent."""
    if isinstance(details.caused_by, TryLater):
        error = details.caused_by
        _log.warning("%sattempt %d failed: %s; next in %.1f s", error.about, details.retry_num, str(error), details.wait_for)
