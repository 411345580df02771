"""Where studies are sent: the API's URL, and whether secrets may travel there."""

import ipaddress

import httpx

from dicomrx.errors import ConfigError


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


def check_destination(base_url: str, *, has_credentials: bool, require_https: bool) -> str | None:
    """The warning to give where credentials would travel in clear text, or None.

    Raises ConfigError for a bad URL, and under REQUIRE_HTTPS for plain http to anything but this machine.
    """
    url = parse_base_url(base_url)
    if url.scheme == "https" or is_loopback(url):
        return None
    if require_https:
        raise ConfigError(f"API_URL is plain http to {url.host}, and REQUIRE_HTTPS is set. Use https:// there, or unset REQUIRE_HTTPS.")
    if not has_credentials:
        return None
    return f"API_URL is plain http to {url.host}: password and token travel in clear text. Use https://, and set REQUIRE_HTTPS."
