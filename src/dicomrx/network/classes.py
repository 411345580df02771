"""Which SOP classes are storage."""

from functools import lru_cache
from typing import Final

from pydicom.config import IGNORE
from pydicom.uid import UID

_NOT_STORED: Final = ("Storage Commitment", "Media Storage Directory")


@lru_cache(maxsize=1024)
def is_storage(uid: str) -> bool:
    """True for what may be a storage SOP class: private, unknown to the dictionary, or named so by PS3.6 Annex A, retired ones too."""
    known = UID(uid, validation_mode=IGNORE)  # it would warn about a malformed one, and quote it
    if not known.type:
        return True
    return known.type == "SOP Class" and "Storage" in known.name and not known.name.startswith(_NOT_STORED)
