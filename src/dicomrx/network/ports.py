"""What the receiver needs of the spool; `dicomrx.spool.intake` is the real one."""

from typing import Protocol


class Reception(Protocol):
    """One instance on its way in; it is nowhere until it is kept."""

    def write(self, *pieces: bytes | memoryview) -> None:
        """Append them all; raises OSError."""

    def keep(self) -> object:
        """Make it durable under its final name; only then it may be acknowledged. Raises OSError."""

    def drop(self) -> None:
        """Leave nothing behind but what was kept; harmless after anything, itself included."""


class Intake(Protocol):
    """Where receptions come from; safe for threads."""

    def new_association(self) -> int:
        """A number that no other association of this receiver has."""

    def begin(self, association: int, number: int, /) -> Reception:
        """Stamp the begin of an instance, now, which may be a moment before its first byte; raises OSError where there is no room."""

    def space_left(self) -> bool:
        """False while nothing is taken in for want of room."""

    def note_association(self, association: int, /, **facts: object) -> None:
        """Write down how an association stands; raises OSError."""
