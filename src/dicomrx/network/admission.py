"""Who may associate, and how many: decided before a thread is made where that is possible, else with an A-ASSOCIATE-RJ (PS3.8 9.3.4)."""

import ipaddress
import itertools
import socket
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from dicomrx.errors import ConfigError
from dicomrx.network.refusals import Refusal, Refusals
from dicomrx.network.stream import hang_up
from dicomrx.network.visit import GONE, Visit
from dicomrx.network.wire import MAX_PDU

_WAITING_FACTOR: Final = 4  # connections that have not asked to associate yet, for each that may
_KEPT_FOR_OTHERS: Final = 2
_TITLE_LENGTH: Final = 16


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
    engine: str = "lane"
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_ca: Path | None = None


class Admission:
    """The doorkeeper of one listener; safe for threads. Raises ConfigError for an AE title or a network that is none."""

    def __init__(self, listen: Listen) -> None:
        self.refusals = Refusals()
        self._called = _title("AE_TITLE", listen.ae_title)
        self._calling = frozenset(_title("CALLING_AE", title) for title in listen.calling_ae)
        self._networks = tuple(_network(text) for text in listen.allow_hosts)
        self._associate_s = listen.associate_s
        self._most = listen.max_connections
        self._most_waiting = self._most * _WAITING_FACTOR
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._waiting: dict[Visit, None] = {}  # the oldest first
        self._admitted: Counter[str] = Counter()
        self._closing = False

    def close(self) -> None:
        """Admit nobody any more."""
        self._closing = True
        with self._lock:
            for visit in self._waiting:
                visit.deadline = 0
        self.hang_up_on_overdue()

    def refused(self) -> Sequence[Mapping[str, object]] | None:
        """Whom it turned away, the newest first; None where nobody since the last call."""
        news = self.refusals.news()
        return None if news is None else [asdict(refused) for refused in news]

    def lets_in(self, address: str) -> bool:
        """False for a connection that is to be closed unheard: it comes from outside the networks."""
        if self._networks and not any(_address(address) in network for network in self._networks):
            self.refusals.note(address, "ALLOW_HOSTS", "its address is not in ALLOW_HOSTS")
            return False
        return True

    def arrive(self, address: str, client: socket.socket) -> Visit | None:
        """A connection that waits until it is admitted or leaves; where too many do, the oldest must go.

        None where the last one that had to go has not left yet: its peer knocks too fast to be heard.
        """
        with self._lock:
            if any(visit.address == address and not visit.deadline for visit in self._waiting):
                return None
            visit = Visit(self, next(self._numbers), address, client, time.monotonic() + self._associate_s)
            self._waiting[visit] = None
            one_too_many = self._one_too_many(address)
            if one_too_many is not None:
                one_too_many.deadline = 0
        if one_too_many is not None:
            self.refusals.note(one_too_many.address, "", "it has too many connections that do not ask to associate")
            hang_up(one_too_many.client)
        return visit

    def _one_too_many(self, address: str) -> Visit | None:
        """The oldest of whoever has most, so that nobody can crowd out another."""
        counts = Counter(visit.address for visit in self._waiting if visit.deadline)
        if counts[address] <= self._most:
            if counts.total() <= self._most_waiting:
                return None
            address = counts.most_common(1)[0][0]
        return next(visit for visit in self._waiting if visit.address == address and visit.deadline)

    def hang_up_on_overdue(self) -> None:
        """End the waiting of those whose time is over; harmless again."""
        now = time.monotonic()
        with self._lock:
            for visit in self._waiting:
                if visit.deadline < now:
                    hang_up(visit.client)

    def admit(self, visit: Visit, called: str, calling: str, *, room: bool) -> Refusal | None:
        """See `Doorkeeper`."""
        with self._lock:
            refusal = self._judge(visit, called, calling, room=room)
            if refusal is None:
                visit.admitted = True
                del self._waiting[visit]
                self._admitted[visit.address] += 1
        if refusal is not None and refusal.setting:
            self.refusals.note(visit.address, refusal.setting, refusal.why, calling=calling, called=called)
        return refusal

    def turn_away(self, visit: Visit, setting: str, why: str) -> None:
        """See `Doorkeeper`."""
        self.refusals.note(visit.address, setting, why)

    def leave(self, visit: Visit) -> None:
        """See `Doorkeeper`."""
        with self._lock:
            if not visit.gone:
                visit.gone = True
                self._waiting.pop(visit, None)
                if visit.admitted:
                    _less(self._admitted, visit.address)

    def _judge(self, visit: Visit, called: str, calling: str, *, room: bool) -> Refusal | None:
        if self._closing or visit.gone:
            return GONE
        if called != self._called:
            return Refusal(1, 1, 7, "AE_TITLE", f"the AE title it calls is not AE_TITLE {self._called}")
        if self._calling and calling not in self._calling:
            return Refusal(1, 1, 3, "CALLING_AE", "its AE title is not in CALLING_AE")
        return self._lack_of_room(visit, room=room)

    def _lack_of_room(self, visit: Visit, *, room: bool) -> Refusal | None:
        if not room:
            return Refusal(2, 3, 1, "MIN_FREE", "there is no room for instances: free some on the storage disk, or lower MIN_FREE")
        if self._admitted.total() >= self._most:
            return Refusal(2, 3, 2, "MAX_CONNECTIONS", f"{self._most} associations are open: MAX_CONNECTIONS")
        if self._admitted[visit.address] and self._admitted.total() >= self._most - _KEPT_FOR_OTHERS:
            why = f"it has associations open, and the last {_KEPT_FOR_OTHERS} places are for peers that have none: MAX_CONNECTIONS"
            return Refusal(2, 3, 2, "MAX_CONNECTIONS", why)
        return None


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
