"""How things in the spool are called: stamps, arrival ids, frozen studies."""

import re
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

STAMP_DIGITS: Final = 20
# A stamp begins with 0 until the year 2286; what lies beyond is no time that a file system could keep.
_ARRIVAL: Final = re.compile(r"(0\d{19})\.(0\d{19})\.([0-9a-f]{8})-(\d{1,12})-(\d{1,12})\.dcm", re.ASCII)
_PART: Final = re.compile(r"(\d{20})\.(\d{1,12}-\d{1,12})\.part", re.ASCII)
_RUN: Final = re.compile(r"(\d{20})\.([0-9a-f]{8})", re.ASCII)
_UID: Final = re.compile(r"2\.25\.(0|[1-9]\d{0,38})", re.ASCII)
_FROZEN: Final = re.compile(r"(2\.25\.(?:0|[1-9]\d{0,38}))\.([1-9]\d{0,8})", re.ASCII)


def visible(name: str) -> bool:
    """A name that begins with a dot does not exist for readers."""
    return not name.startswith(".")


def stamp(time_ns: int) -> str:
    """Spool time as 20 digits of nanoseconds, so that names sort by it."""
    return str(time_ns).zfill(STAMP_DIGITS)


def told_by(name: str) -> tuple[str, str, str] | None:
    """Of an arrival's file name the two stamps and the run, as they stand there: cheaper than the arrival. None for any other name."""
    match = _ARRIVAL.fullmatch(name)
    return (match[1], match[2], match[3]) if match else None


def is_pseudonymous_uid(name: str) -> bool:
    """True for a UID of the form that de-identification makes (2.25.<128 bit>), the only kind of name in `studies/`."""
    return _UID.fullmatch(name) is not None


class Arrival(NamedTuple):
    """One instance in `incoming/`: when its reception began and ended (spool time, ns), and its id.

    Association 0 is ours: adopted or requeued, not received.
    """

    begin: int
    end: int
    run: str
    association: int
    number: int

    @property
    def id(self) -> str:
        """`<run>-<association>-<number>`: what the ledger calls it."""
        return f"{self.run}-{self.association}-{self.number}"

    @property
    def name(self) -> str:
        """The file name in `incoming/`."""
        return f"{stamp(self.begin)}.{stamp(self.end)}.{self.id}.dcm"

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """The arrival that a file name tells of, or None for any other name."""
        match = _ARRIVAL.fullmatch(name)
        if match is None:
            return None
        begin, end, run, association, number = match.groups()
        return cls(int(begin), int(end), run, int(association), int(number))


@dataclass(frozen=True, order=True)
class Frozen:
    """A study frozen for sending: its pseudonymous UID and its generation, from 1."""

    study: str
    generation: int

    @property
    def name(self) -> str:
        """The folder's name in outbox, sent and failed, and the stem of its zip."""
        return f"{self.study}.{self.generation}"

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """The frozen study that a folder name tells of, or None for any other name."""
        match = _FROZEN.fullmatch(name)
        return cls(match[1], int(match[2])) if match else None


def part_name(begin: int, association: int, number: int) -> str:
    """The name of an instance on its way in."""
    return f"{stamp(begin)}.{association}-{number}.part"


def part_begin(name: str) -> int | None:
    """When the reception of a part began, or None for any other name."""
    match = _PART.fullmatch(name)
    return int(match[1]) if match else None


def run_start(name: str) -> int | None:
    """When the run of a receiver's directory began, or None for any other name."""
    match = _RUN.fullmatch(name)
    return int(match[1]) if match else None
