"""Where studies are sent: the API's URL, and whether secrets may travel there."""

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

import httpx

from dicomrx.errors import ConfigError, pem_trouble


@dataclass(frozen=True)
class Tls:
    """Whose certificate the API must show (`ca`, PEM; none: those that httpx knows), and our own, with its key where that lies apart."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext | bool:
        """What httpx verifies with; raises ConfigError for a file that cannot be used."""
        if not (self.ca or self.cert or self.key):
            return True
        try:
            context = httpx.create_ssl_context() if self.ca is None else ssl.create_default_context(cafile=self.ca)
        except OSError as error:
            raise ConfigError(f"API_CA {self.ca} cannot be used: {pem_trouble(error, 'certificate')}") from None
        if self.key and not self.cert:
            raise ConfigError("API_KEY is given without API_CERT: a key needs its certificate.")
        if self.cert:
            try:
                context.load_cert_chain(self.cert, self.key, _no_passphrase)
            except OSError as error:
                raise ConfigError(f"API_CERT {self.cert} with API_KEY {self.key or 'in it'} cannot be used: {pem_trouble(error)}") from None
        return context


def _no_passphrase() -> str:
    raise ConfigError("API_KEY is protected by a passphrase: give it without one, readable by its owner alone.")


def parse_base_url(base_url: str) -> httpx.URL:
    """The API_URL without a slash at its end; raises ConfigError, which never repeats the URL: it might hold a password."""
    try:
        url = httpx.URL(base_url.strip().rstrip("/"))
        url.raw_host.decode().encode("idna")  # as the look-up of its address will, which then fails with no word of the setting
    except (httpx.InvalidURL, ValueError):
        raise ConfigError("API_URL is not a valid URL. Write it like https://api.example.org/api.") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError("API_URL must begin with http:// or https:// and name a host, like https://api.example.org/api.")
    if url.userinfo:
        raise ConfigError("API_URL holds a user name or password. Give them as API_USERNAME and API_PASSWORD instead.")
    if url.query or url.fragment:
        raise ConfigError("API_URL must not hold '?' or '#': paths are appended to it.")
    return url


def is_loopback(url: httpx.URL) -> bool:
    """True where what is sent cannot leave this machine."""
    if url.host == "localhost" or url.host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(url.host).is_loopback
    except ValueError:
        return False


def warning_of(base_url: str) -> str | None:
    """The warning to give where credentials would travel in clear text, or None; raises ConfigError for a bad URL."""
    url = parse_base_url(base_url)
    if url.scheme == "https" or is_loopback(url):
        return None
    return f"API_URL is plain http to {url.host}: password and token travel in clear text. Use https://, and set REQUIRE_HTTPS."
