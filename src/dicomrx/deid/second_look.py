"""What is done about a find of the second look: the dummy in its place, removal where it is private, or no output at all."""

from pydicom.dataset import Dataset

from dicomrx.deid.dummies import DUMMIES
from dicomrx.deid.profile import BASIC, Profile
from dicomrx.deid.reading import Instance, quiet
from dicomrx.deid.scan import Needles, Place, hit, label, needles, places
from dicomrx.deid.writing import raw
from dicomrx.errors import Reject

# A dummy UID would make two things one, and pixels are not ours to write.
_FIXED = frozenset({"OB", "OW", "UI", "UN", None})


def look_again(instance: Instance, output: Dataset, pseudonym: str, profile: Profile = BASIC) -> list[str]:
    """Search the output of `deidentify` for what the profile removed, and put the VR's dummy wherever any of it still stands.

    A private element goes instead. Returns the keywords of the elements that were changed. Raises Reject "second-look", naming the element
    and never the value, where no dummy can stand: in a UID, or in a comment inside compressed pixels.
    """
    sought = needles(instance, profile)
    with quiet():
        finds = _finds(sought, output, pseudonym, profile)
        for place in finds:
            if place.vr in _FIXED:
                raise Reject("second-look", f"{label(place.tag)} still holds a value that was to be removed")
            if place.tag.is_private:  # no IOD wants it, and pydicom would decode its whole block on the way
                del place.holder[place.tag]
            else:
                place.holder[place.tag] = raw(place.tag, place.vr or "", _replaced(sought, place, pseudonym), instance.encoding)
        for place in _finds(sought, output, pseudonym, profile) if finds else ():
            raise Reject("second-look", f"{label(place.tag)} still holds a value that was to be removed")
    return [label(place.tag) for place in finds]


def _finds(sought: Needles, output: Dataset, pseudonym: str, profile: Profile) -> list[Place]:
    return [place for place in places(output, sought.charsets, profile, everywhere=False) if hit(sought, place, pseudonym, profile)]


def _replaced(sought: Needles, place: Place, pseudonym: str) -> bytes:
    """The dummy; of several values only for those with a find, where they are told apart by a backslash."""
    dummy = DUMMIES[place.vr or "UN"][0]
    parts = place.value.split(b"\\")
    if len(place.texts) > 1 or len(parts) == 1:
        return dummy
    texts = place.texts[0].split("\\")
    kept = [
        dummy if sought.found_in(text) and text.strip().casefold() != pseudonym.casefold() else part
        for part, text in zip(parts, texts, strict=True)
    ]
    return b"\\".join(kept) if dummy in kept else dummy
