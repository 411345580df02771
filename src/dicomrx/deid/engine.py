"""Applies a profile to a whole data set, at every depth, as bytes: what is not decoded cannot fail to encode."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from pydicom.datadict import dictionary_VR, tag_for_keyword

from dicomrx.deid import extra_rules
from dicomrx.deid.actions import Context, keep_bulk
from dicomrx.deid.dataset import DataSet, Element, Halved, Output, Shared
from dicomrx.deid.dummies import SEQUENCES, Item
from dicomrx.deid.encoding import Encoding
from dicomrx.deid.own_words import own_words
from dicomrx.deid.private import rule_in
from dicomrx.deid.profile import BASIC, Profile
from dicomrx.deid.reading import CHARSETS, Instance, charset_of, raw_value
from dicomrx.deid.rules import Rule
from dicomrx.deid.tags import creator_tag, text_of
from dicomrx.deid.writing import file_meta, raw
from dicomrx.errors import Reject

_ESSENTIAL: Final = frozenset(tag for keyword in extra_rules.ESSENTIAL if (tag := tag_for_keyword(keyword)) is not None)


def deidentify(instance: Instance, context: Context, profile: Profile = BASIC) -> Output:
    """A new data set, with new file meta: the same for the same instance and context, byte for byte.

    The instance is left as it was. `context.charset` and `context.own_words` are taken from the instance.
    Raises Reject "malformed" where the pixels could not be read any more without an element that is not what its VR says.
    """
    source = instance.dataset
    words = own_words(source, profile) if profile.cleans else frozenset()
    told = source.once("told", CHARSETS, (context, words), lambda: replace(context, charset=charset_of(source, ()), own_words=words))
    made = _Engine(profile, instance.encoding).whole(source, told)
    missing = _ESSENTIAL.difference(made).intersection(source)
    if missing:
        raise Reject("malformed", f"not what the VR says: {', '.join(map(text_of, sorted(missing)))}")
    return Output(file_meta(made, instance.transfer_syntax), made, instance.encoding)


class _Engine:
    """One run over one instance."""

    def __init__(self, profile: Profile, encoding: Encoding) -> None:
        self._profile = profile
        self._encoding = encoding

    def whole(self, source: DataSet, context: Context) -> DataSet:
        """What is left of a data set, stamped: what it has in common with others is worked out once for a patient."""
        if source.halves is None:
            return self._stamped(source, context)
        shared, own = source.halves
        common = shared.once("left", (self._profile, context), lambda: Shared(self._stamped(shared.elements, context)))
        left = self._left(source, own, context)
        return Halved(common, DataSet((tag, element) for tag, element in left.items() if tag not in common.elements))

    def _stamped(self, source: DataSet, context: Context) -> DataSet:
        left = self._left(source, source, context)
        left.update((element.tag, element) for element in self._stamps(context))
        return left

    def _left(self, source: DataSet, part: DataSet, context: Context) -> DataSet:
        """What is left of a part of a data set, or item, in whose character set the context is."""
        left = [self._element(source, element, context) for element in part.values()]
        kept = DataSet((element.tag, element) for element in left if element is not None)
        kept.update(self._creators(source, kept))
        return kept

    def _item_left(self, source: DataSet, context: Context) -> DataSet:
        charset = charset_of(source, context.charset)
        return self._left(source, source, context if charset == context.charset else replace(context, charset=charset))

    def _creators(self, source: DataSet, kept: Iterable[int]) -> dict[int, Element]:
        """Whose the private elements are that stay."""
        tags = {creator_tag(tag) for tag in kept}
        return {tag: raw(tag, "LO", raw_value(source, tag), self._encoding) for tag in tags if tag is not None}

    def _stamps(self, context: Context) -> list[Element]:
        """Whose it is now, and what was done to it (PS3.15 E.1.1, PS3.3 C.12.1)."""
        methods = tuple(
            {"CodeValue": code, "CodingSchemeDesignator": "DCM", "CodeMeaning": meaning} for code, meaning in self._profile.methods
        )
        return self._made(
            {
                "PatientName": context.pseudonym,
                "PatientID": context.pseudonym,
                "PatientIdentityRemoved": "YES",
                "DeidentificationMethod": self._profile.label,
                "DeidentificationMethodCodeSequence": methods,
                "LongitudinalTemporalInformationModified": self._profile.longitudinal,
            }
        )

    def _element(self, source: DataSet, element: Element, context: Context) -> Element | None:
        tag, vr, value, items, undefined = element
        rule = rule_in(source, tag, self._encoding.wire_vr(vr), self._profile)
        if rule.vr is None:
            return None
        if rule.vr == "SQ":
            return None if items is None else self._sequence(tag, items, rule, context)
        if items is not None and undefined:
            return None
        if rule.action is keep_bulk:
            made = keep_bulk(context, tag, rule.vr, value)
        else:
            data = bytes(value)
            made = rule.action(context, tag, rule.vr, data)
            made = value if made is data else made
        if made is value and rule.vr == vr and not len(value) & 1:
            return element
        return None if made is None else raw(tag, rule.vr, made, self._encoding, undefined=undefined)

    def _sequence(self, tag: int, items: list[DataSet], rule: Rule, context: Context) -> Element:
        if rule.code == "R":
            return self._sequence_of(tag, [self._item_left(item, context) for item in items])
        if rule.code == "D" and items:
            return self._dummy_sequence(tag)
        return self._sequence_of(tag, [])

    def _dummy_sequence(self, tag: int) -> Element:
        items = next(made for keyword, (made, _) in SEQUENCES.items() if tag_for_keyword(keyword) == tag)
        return self._sequence_of(tag, [self._item(item) for item in items])

    def _item(self, item: Item) -> DataSet:
        return DataSet((element.tag, element) for element in self._made(item))

    def _made(self, item: Item) -> list[Element]:
        return [self._made_element(keyword, value) for keyword, value in item.items()]

    def _made_element(self, keyword: str, value: str | bytes | tuple[Item, ...]) -> Element:
        tag = tag_for_keyword(keyword) or 0
        if isinstance(value, tuple):
            return self._sequence_of(tag, [self._item(inner) for inner in value])
        return raw(tag, dictionary_VR(tag), value.encode("ascii") if isinstance(value, str) else value, self._encoding)

    def _sequence_of(self, tag: int, items: list[DataSet]) -> Element:
        return Element(tag, None if self._encoding.implicit else "SQ", b"", items)
