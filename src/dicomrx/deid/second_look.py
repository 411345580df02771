"""What is done about a find of the second look: the dummy in its place, removal where it is private, or no output at all."""

from dicomrx.deid.dataset import DataSet, Output
from dicomrx.deid.dummies import DUMMIES
from dicomrx.deid.profile import BASIC, Profile
from dicomrx.deid.reading import Instance
from dicomrx.deid.scan import Needles, Place, hit, label, needles, places
from dicomrx.deid.writing import raw
from dicomrx.errors import Reject

# A dummy UID would make two things one, and pixels are not ours to write.
_FIXED = frozenset({"OB", "OW", "UI", "UN", None})


def look_again(instance: Instance, output: Output, pseudonym: str, profile: Profile = BASIC) -> list[str]:
    """Search the output of `deidentify` for what the profile removed, and put the VR's dummy wherever any of it still stands.

    A private element goes instead. Returns the keywords of the elements that were changed. Raises Reject "second-look", naming the element
    and never the value, where no dummy can stand: in a UID, or in a comment inside compressed pixels.
    """
    sought = needles(instance, profile)
    finds = _finds(sought, output.dataset, pseudonym, profile)
    for place in finds:
        if place.vr in _FIXED:
            raise _found(place)
        if place.tag >> 16 & 1:  # no IOD wants it
            del place.holder[place.tag]
        else:
            place.holder[place.tag] = raw(place.tag, place.vr or "", _replaced(sought, place, pseudonym), instance.encoding)
    for place in _finds(sought, output.dataset, pseudonym, profile) if finds else ():
        raise _found(place)
    return [label(place.tag) for place in finds]


def _found(place: Place) -> Reject:
    return Reject("second-look", f"{label(place.tag)} still holds a value that was to be removed")


def _finds(sought: Needles, output: DataSet, pseudonym: str, profile: Profile) -> list[Place]:
    return [place for place in places(output, sought.charsets, profile, everywhere=False) if hit(sought, place, pseudonym, profile)]


def _replaced(sought: Needles, place: Place, pseudonym: str) -> bytes:
    """The dummy; of several values only for those with a find, where they are told apart by a backslash."""
    dummy = DUMMIES[place.vr or "UN"][0]
    parts = bytes(place.value).split(b"\\")
    if len(place.texts) > 1 or len(parts) == 1:
        return dummy
    texts = place.texts[0].split("\\")
    kept = [
        dummy if sought.found_in(text) and text.strip().casefold() != pseudonym.casefold() else part
        for part, text in zip(parts, texts, strict=True)
    ]
    return b"\\".join(kept) if dummy in kept else dummy
