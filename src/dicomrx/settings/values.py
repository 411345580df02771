"""The text of a setting to its value and back.

A parser raises `ValueError` with the rule that its text breaks, never with the text, which may be a secret in the wrong place.
"""

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

Parser = Callable[[str], object]

_AE_TITLE: Final = re.compile(r"[ -\[\]-~]{1,16}")  # PS3.5 6.2, AE: 16 bytes of the default repertoire, no backslash
_MODALITY: Final = re.compile(r"[A-Z0-9_]{1,16}")  # PS3.5 6.2, CS, without spaces
_ISSUER: Final = re.compile(r"[^\\\x00-\x1f\x7f]{1,64}")  # PS3.5 6.2, LO
_TOKEN: Final = re.compile(r"[!-~]+")  # it becomes an HTTP header
_SPACE: Final = re.compile(r"(\d{1,15})\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_PERCENT: Final = re.compile(r"(\d{1,2}(?:\.\d{1,3})?)\s*%")
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
# PS3.5 6.2: one value of an LO, one component of a PN, the same in every character set; the number stands once.
_PSEUDONYM: Final = re.compile(r"(?! )[ -$&-<>-\[\]_-~]*%(0[1-9])?d[ -$&-<>-\[\]_-~]*(?<! )")
_PSEUDONYM_LENGTH: Final = 40
_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})
_PORT_MAX: Final = 65535
_YEAR_S: Final = 366 * 86400
DAYS_MAX: Final = 36525  # a century, which every date can lie back


class Space(NamedTuple):
    """An amount of disk: bytes, or percent of the whole filesystem."""

    amount: float
    percent: bool = False

    def floor(self, total: int) -> int:
        """Bytes of it on a filesystem of `total` bytes."""
        return int(total * self.amount / 100) if self.percent else int(self.amount)

    def __str__(self) -> str:
        if self.percent:
            return f"{self.amount:g}%"
        exact = [unit for unit, size in _UNITS.items() if self.amount and self.amount % size == 0]
        unit = exact[-1] if exact else ""
        return f"{int(self.amount) // _UNITS[unit]}{unit}"


class Issuer(NamedTuple):
    """The issuer of PatientID assumed for images that a calling AE sends without one."""

    calling_ae: str
    issuer: str

    def __str__(self) -> str:
        return f"{self.calling_ae}={self.issuer}"


class AeProfile(NamedTuple):
    """The de-identification profile of what a calling AE sends."""

    calling_ae: str
    profile: str

    def __str__(self) -> str:
        return f"{self.calling_ae}={self.profile}"


class Timeout(NamedTuple):
    """The quiet time of studies that hold instances of one calling AE title, or of one modality."""

    name: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.name}={to_text(self.seconds)}"


def whole(low: int, high: int | None = None) -> Parser:
    """A whole number from `low` to `high`, both allowed."""
    rule = f"must be a whole number from {low} to {high}" if high is not None else f"must be a whole number, {low} or more"

    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
            raise ValueError(rule)
        number = int(text)
        if number < low or (high is not None and number > high):
            raise ValueError(rule)
        return number

    return parse


port: Final = whole(0, _PORT_MAX)


def seconds(*, zero: bool) -> Parser:
    """A duration in seconds, of a year at most; `zero` says whether none at all is allowed."""
    rule = f"must be a number of seconds, {'0 or more' if zero else 'more than 0'} and at most a year ({_YEAR_S})"

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            raise ValueError(rule) from None
        if not 0 <= number <= _YEAR_S or (number == 0 and not zero):
            raise ValueError(rule)
        return number

    return parse


def timeout(name: Parser) -> Parser:
    """NAME=SECONDS, the name of what `name` takes."""
    duration = seconds(zero=False)

    def parse(text: str) -> Timeout:
        key, equals, value = text.rpartition("=")
        if not equals:
            raise ValueError("must be NAME=SECONDS")
        return Timeout(str(name(key)), float(str(duration(value))))

    return parse


def boolean(text: str) -> bool:
    """True, 1, yes, on; false, 0, no, off; in any case of letters."""
    word = text.lower()
    if word not in _TRUE | _FALSE:
        raise ValueError("must be true or false")
    return word in _TRUE


def words(text: str) -> str:
    """Any text."""
    return text


def path(text: str) -> Path:
    """A path, relative to the working directory unless absolute."""
    return Path(text)


def choice(*names: str) -> Parser:
    """One of `names`, written in any case of letters."""

    def parse(text: str) -> str:
        for name in names:
            if name.lower() == text.lower():
                return name
        raise ValueError(f"must be one of {', '.join(names)}")

    return parse


def ae_title(text: str) -> str:
    """An application entity title (PS3.5 6.2, AE); spaces around it do not count."""
    title = text.strip(" ")
    if not _AE_TITLE.fullmatch(title):
        raise ValueError("must be an AE title: 1 to 16 letters, digits or signs of ASCII, no backslash")
    return title


def modality(text: str) -> str:
    """A modality (PS3.3 C.7.3.1.1.1), written in any case of letters."""
    name = text.strip().upper()
    if not _MODALITY.fullmatch(name):
        raise ValueError("must be a modality such as CT: 1 to 16 letters, digits or _")
    return name


def url(text: str) -> str:
    """The address of an HTTP API; credentials do not belong in it, they would reach logs."""
    rule = "must be an address such as https://host:port/path, without user name, password, ? or #"
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ValueError(rule) from None
    if not usable or "@" in parts.netloc or parts.query or parts.fragment or not _TOKEN.fullmatch(text):
        raise ValueError(rule)
    return text


def token(text: str) -> str:
    """A bearer token."""
    if not _TOKEN.fullmatch(text):
        raise ValueError("must be printable ASCII without spaces")
    return text


def host_or_network(text: str) -> str:
    """An IP address or network, in its canonical form."""
    try:
        return str(ipaddress.ip_network(text, strict=False)) if "/" in text else str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError("must be IP addresses or networks, such as 10.1.2.3 or 10.1.0.0/16") from None


def issuer(text: str) -> Issuer:
    """AE=ISSUER."""
    calling, _, name = text.partition("=")
    name = name.strip()
    if not _ISSUER.fullmatch(name):
        raise ValueError("must be AE=ISSUER, the issuer at most 64 characters without backslash")
    return Issuer(str(ae_title(calling)), name)


def pseudonym_format(text: str) -> str:
    """What a patient's number is put into; short enough for the longest number to leave a valid LO."""
    if not _PSEUDONYM.fullmatch(text) or len(text % 1) > _PSEUDONYM_LENGTH:
        raise ValueError("must be ASCII with one %d or %03d for the number and without ^ = \\, and make at most 40 characters")
    return text


def ae_profile(text: str) -> AeProfile:
    """AE=PROFILE; what the profile means is for those who carry it out."""
    calling, _, profile = text.partition("=")
    if not profile.strip():
        raise ValueError("must be AE=PROFILE, the profile as PROFILE takes it")
    return AeProfile(str(ae_title(calling)), profile.strip())


def space(text: str) -> Space:
    """Bytes with an optional K, M, G or T (powers of 1024), or percent of the filesystem."""
    if match := _PERCENT.fullmatch(text):
        return Space(float(match[1]), percent=True)
    if match := _SPACE.fullmatch(text):
        return Space(int(match[1]) * _UNITS[match[2].upper()])
    raise ValueError("must be bytes such as 500M or 2G, or a part of the disk such as 5%")


def many(parse: Parser) -> Parser:
    """A list of what `parse` takes, separated by commas; what is empty or repeated counts for nothing."""

    def parse_all(text: str) -> tuple[object, ...]:
        return tuple(dict.fromkeys(parse(item.strip()) for item in text.split(",") if item.strip()))

    return parse_all


def to_text(value: object) -> str:
    """The text that the setting's parser turns into `value` again; empty for none."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (Space, Issuer, AeProfile, Timeout)):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, (tuple, list)):
        return ",".join(to_text(item) for item in value)
    return str(value)
