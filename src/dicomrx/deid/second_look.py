"""What is done about a find of the second look: the dummy in its place, removal where it is private, or no output at all."""

from dataclasses import dataclass

from dicomrx.deid.dataset import DataSet, Element, Halved, Output, Shared
from dicomrx.deid.dummies import DUMMIES
from dicomrx.deid.encoding import Encoding
from dicomrx.deid.profile import BASIC, Profile
from dicomrx.deid.reading import Instance
from dicomrx.deid.scan import Needles, Place, hit, label, needles, needles_of, places, words_of
from dicomrx.deid.writing import raw
from dicomrx.errors import Reject

# A dummy UID would make two things one, and pixels are not ours to write.
_FIXED = frozenset({"OB", "OW", "UI", "UN", None})


def look_again(instance: Instance, output: Output, pseudonym: str, profile: Profile = BASIC) -> list[str]:
    """Search the output of `deidentify` for what the profile removed, and put the VR's dummy wherever any of it still stands.

    A private element goes instead. Returns the keywords of the elements that were changed. Raises Reject "second-look", naming the element
    and never the value, where no dummy can stand: in a UID, or in a comment inside compressed pixels.
    """
    mending = _Mending(pseudonym, profile, instance.encoding)
    found = mending.by_halves(instance.dataset, output.dataset)
    if found is None:
        if output.dataset.halves is not None:
            _own(output.dataset)
        found = mending.mend(output.dataset, needles(instance, profile))
    return found


@dataclass(frozen=True, slots=True)
class _Mending:
    """A second look, but for what is sought and where."""

    pseudonym: str
    profile: Profile
    encoding: Encoding

    def by_halves(self, original: DataSet, output: DataSet) -> list[str] | None:
        """What is in common with others is searched for what is in common, and mended, once; None where that does not do."""
        if original.halves is None or not isinstance(output, Halved) or output.halves is None:
            return None
        (shared, own), (common, rest) = original.halves, output.halves
        known = shared.once("needles", self.profile, lambda: needles_of(shared.elements, shared.elements, self.profile))
        new = needles_of(original, own, self.profile)
        words = common.once("words", (self.profile, known.charsets), lambda: self._words(common.elements, known))
        others = self._words(output, known, rest)
        if new.may_stand_among(words) or new.may_stand_among(others) or known.may_stand_among(others):
            return None
        mended, found = common.once("mended", (self, known), lambda: self._mended(common, known))
        output.share(mended)
        return [*found]

    def _words(self, dataset: DataSet, sought: Needles, part: DataSet | None = None) -> frozenset[str]:
        return words_of(text for place in places(dataset, sought.charsets, self.profile, part=part) for text in place.texts)

    def _mended(self, common: Shared, sought: Needles) -> tuple[Shared, list[str]]:
        dataset = DataSet(common.elements)
        _own(dataset)
        found = self.mend(dataset, sought)
        return (Shared(dataset) if found else common), found

    def mend(self, dataset: DataSet, sought: Needles) -> list[str]:
        """The keywords of what was changed."""
        finds = self._finds(dataset, sought)
        for place in finds:
            if place.vr in _FIXED:
                raise _found(place)
            if place.tag >> 16 & 1:  # no IOD wants it
                del place.holder[place.tag]
            else:
                place.holder[place.tag] = raw(place.tag, place.vr or "", _replaced(sought, place, self.pseudonym), self.encoding)
        for place in self._finds(dataset, sought) if finds else ():
            raise _found(place)
        return [label(place.tag) for place in finds]

    def _finds(self, dataset: DataSet, sought: Needles) -> list[Place]:
        found = places(dataset, sought.charsets, self.profile)
        return [place for place in found if hit(sought, place, self.pseudonym, self.profile)]


def _own(dataset: DataSet) -> None:
    """Let nobody share the items that may be changed now."""
    for tag, element in list(dataset.items()):
        if element.items is not None:
            dataset[tag] = _copied(element)


def _copied(element: Element) -> Element:
    if element.items is None:
        return element
    return element._replace(items=[DataSet((tag, _copied(inner)) for tag, inner in item.items()) for item in element.items])


def _found(place: Place) -> Reject:
    return Reject("second-look", f"{label(place.tag)} still holds a value that was to be removed")


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
