"""Who may associate, and how many: decided before a thread is made where that is possible, else with an A-ASSOCIATE-RJ (PS3.8 9.3.4)."""

import ipaddress
import logging
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Final

from dicomrx.errors import ConfigError
from dicomrx.network.wire import MAX_PDU

_log = logging.getLogger(__name__)

_WAITING_FACTOR: Final = 4  # connections that have not asked to associate yet, for each that may
_KEPT_FOR_OTHERS: Final = 2
_TITLE_LENGTH: Final = 16
_TELL_AGAIN_S: Final = 60.0
_TELL_AT_MOST: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """How to receive. Empty lists allow anyone; times are in seconds.

    `idle_s` ends an association that says nothing, `read_s` one that sends a PDU too slowly, `associate_s` a connection that does not
    ask to associate; `instance_s` is the longest that one instance may take.
    """

    host: str = "0.0.0.0"  # noqa: S104 - a modality is another machine; the lists below say which
    port: int = 11112
    ae_title: str = "DICOMRCV"
    calling_ae: tuple[str, ...] = ()
    allow_hosts: tuple[str, ...] = ()
    max_connections: int = 20
    max_pdu: int = MAX_PDU
    idle_s: float = 60.0
    read_s: float = 30.0
    associate_s: float = 15.0
    instance_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """The fields of an A-ASSOCIATE-RJ, and what an operator may do about it."""

    result: int
    source: int
    diagnostic: int
    advice: str


class Admission:
    """The doorkeeper of one listener; safe for threads. Raises ConfigError for an AE title or a network that is none."""

    def __init__(self, listen: Listen) -> None:
        self._called = _title("AE_TITLE", listen.ae_title)
        self._calling = frozenset(_title("CALLING_AE", title) for title in listen.calling_ae)
        self._networks = tuple(_network(text) for text in listen.allow_hosts)
        self._most = listen.max_connections
        self._most_for_one = max(1, listen.max_connections - _KEPT_FOR_OTHERS)
        self._lock = threading.Lock()
        self._waiting: Counter[str] = Counter()
        self._admitted: Counter[str] = Counter()
        self._silent_until: dict[tuple[str, str], float] = {}
        self._closing = False

    def close(self) -> None:
        """Admit nobody any more."""
        self._closing = True

    def lets_in(self, address: str) -> bool:
        """False for a connection that is to be closed unheard: from outside the networks, or one too many that say nothing."""
        if self._networks and not any(_address(address) in network for network in self._networks):
            self._tell(address, "it is not in ALLOW_HOSTS")
            return False
        with self._lock:
            crowd = self._waiting[address] >= self._most or self._waiting.total() >= self._most * _WAITING_FACTOR
        if crowd:
            self._tell(address, "too many connections wait without asking to associate")
        return not crowd

    def arrive(self, address: str) -> "Visit":
        """A connection that waits until it is admitted or leaves."""
        with self._lock:
            self._waiting[address] += 1
        return Visit(self, address)

    def admit(self, visit: "Visit", called: str, calling: str) -> Refusal | None:
        """Judge a request to associate, and count it as an association where it may."""
        with self._lock:
            refusal = self._judge(visit, called, calling)
            if refusal is None:
                visit.admitted = True
                _less(self._waiting, visit.address)
                self._admitted[visit.address] += 1
        if refusal is not None:
            self._tell(visit.address, refusal.advice, f" (it called {called!r} and is {calling!r})")
        return refusal

    def leave(self, visit: "Visit") -> None:
        """One connection less; nothing happens the second time."""
        with self._lock:
            if not visit.gone:
                visit.gone = True
                _less(self._admitted if visit.admitted else self._waiting, visit.address)

    def _judge(self, visit: "Visit", called: str, calling: str) -> Refusal | None:
        if called != self._called:
            return Refusal(1, 1, 7, f"the called AE title is not AE_TITLE {self._called}")
        if self._calling and calling not in self._calling:
            return Refusal(1, 1, 3, "its AE title is not in CALLING_AE")
        if self._closing or visit.gone:
            return Refusal(2, 3, 1, "the receiver is stopping, or it has hung up")
        if self._admitted.total() >= self._most:
            return Refusal(2, 3, 2, f"{self._most} associations are open: MAX_CONNECTIONS")
        if self._admitted[visit.address] >= self._most_for_one:
            return Refusal(2, 3, 2, f"it has {self._most_for_one} associations open, as many as one peer gets: MAX_CONNECTIONS")
        return None

    def _tell(self, address: str, why: str, detail: str = "") -> None:
        """Log a refusal; the same one again after a minute."""
        now = time.monotonic()
        with self._lock:
            if now < self._silent_until.get((address, why), 0.0):
                return
            if len(self._silent_until) >= _TELL_AT_MOST:
                self._silent_until.clear()
            self._silent_until[address, why] = now + _TELL_AGAIN_S
        _log.warning("refused %s: %s%s", address, why, detail)


class Visit:
    """One connection, from accept to close; its flags are the admission's to change."""

    def __init__(self, admission: Admission, address: str) -> None:
        self.address = address
        self.admitted = False
        self.gone = False
        self._admission = admission

    def admit(self, called: str, calling: str) -> Refusal | None:
        """Ask to associate: None, or why not."""
        return self._admission.admit(self, called, calling)

    def leave(self) -> None:
        """Give the place up."""
        self._admission.leave(self)


def _less(counts: Counter[str], address: str) -> None:
    counts[address] -= 1
    if counts[address] <= 0:
        del counts[address]


def _title(setting: str, text: str) -> str:
    title = text.strip()
    if not 0 < len(title) <= _TITLE_LENGTH or not title.isascii() or not title.isprintable() or "\\" in title:
        msg = f"{setting}: {text!r} is no AE title: 1 to 16 ASCII characters, no backslash"
        raise ConfigError(msg)
    return title


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError as error:
        msg = f"ALLOW_HOSTS: {text!r} is neither an address nor a network such as 10.1.0.0/16"
        raise ConfigError(msg) from error


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
