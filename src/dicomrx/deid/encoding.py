"""How the data set of a transfer syntax is encoded (PS3.5 section 10 and Annex A)."""

from functools import lru_cache
from typing import Final, NamedTuple

from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

# Like implicit VR little endian, but for its pixels: of GE, and in archives still.
_PRIVATE_IMPLICIT = "1.2.840.113619.5.2"


class Encoding(NamedTuple):
    """The four facts about a transfer syntax that reading and writing need; a private one counts as explicit VR little endian."""

    implicit: bool
    little: bool
    deflated: bool
    encapsulated: bool

    @classmethod
    @lru_cache(maxsize=64)
    def of(cls, transfer_syntax: str) -> "Encoding":
        """Of a transfer syntax UID, known or not."""
        uid = transfer_syntax.rstrip(" \0")
        native = {ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, _PRIVATE_IMPLICIT}
        return cls(
            implicit=uid in {ImplicitVRLittleEndian, _PRIVATE_IMPLICIT},
            little=uid != ExplicitVRBigEndian,
            deflated=uid == DeflatedExplicitVRLittleEndian,
            encapsulated=uid not in native,
        )

    def wire_vr(self, vr: str | None) -> str | None:
        """The VR that a rule goes by, for one that was read: None where the transfer syntax has none.

        UN is little endian always (PS3.5 6.2.2), so in a big endian data set its numbers would change their values: it is "" there.
        """
        if self.implicit or vr is None:
            return None
        return "" if vr == "UN" and not self.little else vr


# That of file meta information (PS3.10 7.1).
META: Final = Encoding(implicit=False, little=True, deflated=False, encapsulated=False)
# What some write in its place.
IMPLICIT_META: Final = META._replace(implicit=True)
