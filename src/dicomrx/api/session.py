"""Being logged in: one token for all threads, and one login however many of them find it expired."""

import json
import threading
from dataclasses import dataclass, field

import httpx

from dicomrx.api.answers import Answer, TryLater, describe, read_answer
from dicomrx.api.outcomes import DestinationRefused
from dicomrx.errors import ConfigError


@dataclass(frozen=True)
class Credentials:
    """A user name with its password, a token, both (the token is tried first) or neither; raises ConfigError."""

    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if (self.username is None) != (self.password is None):
            raise ConfigError("API_USERNAME and API_PASSWORD belong together: give both, or neither.")
        if self.token is not None and not _is_bearer(self.token):
            raise ConfigError("API_TOKEN holds a blank, a line end or another character that no HTTP header can carry: copy it again.")
        try:
            f"{self.username}{self.password}".encode()
        except UnicodeEncodeError:
            raise ConfigError("API_USERNAME or API_PASSWORD is not valid UTF-8.") from None

    @property
    def can_log_in(self) -> bool:
        """A user name and a password are there."""
        return self.password is not None


class Session:
    """The token in use. Safe for threads; a login that one of them is refused is not tried again by those that waited for it."""

    def __init__(self, client: httpx.Client, login_url: str, credentials: Credentials, patience_s: float) -> None:
        self._client = client
        self._login_url = login_url
        self._credentials = credentials
        self._patience_s = patience_s
        self._token = credentials.token
        self._lock = threading.Lock()
        self._logins = 0
        self._refusal: str | None = None

    @property
    def can_log_in(self) -> bool:
        """A token that expired can be replaced."""
        return self._credentials.can_log_in

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no text from outside may carry into a receipt or a message, as it is and as JSON would write it."""
        plain = [secret for secret in (self._token, self._credentials.token, self._credentials.password) if secret]
        return (*plain, *(json.dumps(secret)[1:-1] for secret in plain))

    def token(self) -> str | None:
        """The token to send, after a login where there is none yet; None where no credentials were given."""
        return self._token or (self.renew(None) if self.can_log_in else None)

    def renew(self, stale: str | None) -> str:
        """A token other than `stale`; raises TryLater, or DestinationRefused where the login is."""
        seen = self._logins
        with self._lock:
            if self._token is not None and self._token != stale:
                return self._token
            if self._logins != seen and self._refusal is not None:
                raise DestinationRefused(self._refusal)
            self._refusal = None
            try:
                self._token = self._log_in()
            except DestinationRefused as refusal:
                self._refusal = str(refusal)
                raise
            except TryLater as error:
                error.at_login = True
                raise
            finally:
                self._logins += 1
            return self._token

    def _log_in(self) -> str:
        body = {"username": self._credentials.username, "password": self._credentials.password}
        try:
            answer = read_answer(self._client, self._client.build_request("POST", self._login_url, json=body), self._patience_s)
        except httpx.TransportError as error:
            raise TryLater(f"no answer to the login ({describe(error)})") from None
        if answer.may_pass:
            raise TryLater(f"the API answered the login with HTTP {answer.status}", answer.retry_after)
        if not answer.ok:
            # Never its body: it may repeat what was sent.
            raise DestinationRefused(f"The API refused the login (HTTP {answer.status}). Check API_URL, API_USERNAME and API_PASSWORD.")
        return _access_token(answer)


def _access_token(answer: Answer) -> str:
    try:
        content = json.loads(answer.body)
    except (ValueError, RecursionError):
        content = None
    token = content.get("access") if isinstance(content, dict) else None
    if not isinstance(token, str) or not _is_bearer(token):
        raise DestinationRefused("The API answered the login without a usable 'access' token. Check API_URL.")
    return token


def _is_bearer(token: str) -> bool:
    return token.isascii() and token.isprintable() and " " not in token and token != ""
