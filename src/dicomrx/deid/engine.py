"""Applies a profile to a whole data set, at every depth, as bytes: what is not decoded cannot fail to encode."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from dicomrx.deid import extra_rules
from dicomrx.deid.actions import Context
from dicomrx.deid.dummies import SEQUENCES, Item
from dicomrx.deid.encoding import Encoding
from dicomrx.deid.own_words import own_words
from dicomrx.deid.private import creator_tag, rule_in
from dicomrx.deid.profile import BASIC, Profile
from dicomrx.deid.reading import Element, Instance, bytes_of, charset_of, element_at, items_of, quiet, raw_value
from dicomrx.deid.rules import Rule
from dicomrx.deid.structure import text_of
from dicomrx.deid.writing import file_meta, raw
from dicomrx.errors import Reject

_UNDEFINED: Final = 0xFFFFFFFF
_ESSENTIAL: Final = frozenset(tag_for_keyword(keyword) for keyword in extra_rules.ESSENTIAL)


def deidentify(instance: Instance, context: Context, profile: Profile = BASIC) -> Dataset:
    """A new data set, with new file meta: the same for the same instance and context, byte for byte.

    The instance is left as it was. `context.charset` and `context.own_words` are taken from the instance.
    Raises Reject "malformed" where the pixels could not be read any more without an element that is not what its VR says.
    """
    engine = _Engine(profile, instance.encoding)
    with quiet():
        words = own_words(instance.dataset, profile) if profile.cleans else frozenset()
        output = engine.dataset(instance.dataset, replace(context, charset=(), own_words=words), engine.stamps(context))
        output.file_meta = file_meta(output, instance.transfer_syntax)
    missing = sorted(tag for tag in _ESSENTIAL if tag is not None and tag in instance.dataset and tag not in output)
    if missing:
        raise Reject("malformed", f"not what the VR says: {', '.join(text_of(tag) for tag in missing)}")
    return output


class _Engine:
    """One run over one instance."""

    def __init__(self, profile: Profile, encoding: Encoding) -> None:
        self._profile = profile
        self._encoding = encoding

    def dataset(self, source: Dataset, context: Context, stamps: Iterable[Element] = ()) -> Dataset:
        """The data set, or item, that is left of `source`; `stamps` replace what it has of the same tags."""
        context = replace(context, charset=charset_of(source, context.charset))
        kept: dict[BaseTag, Element] = {}
        for tag in sorted(source.keys()):
            element = self._element(source, element_at(source, tag), context)
            if element is not None:
                kept[tag] = element
        return self._new(kept | self._creators(source, kept) | {element.tag: element for element in stamps})

    def _creators(self, source: Dataset, kept: Iterable[BaseTag]) -> dict[BaseTag, Element]:
        """Whose the private elements are that stay."""
        tags = {creator_tag(tag) for tag in kept}
        return {BaseTag(tag): raw(tag, "LO", raw_value(source, tag), self._encoding) for tag in tags if tag is not None}

    def stamps(self, context: Context) -> list[Element]:
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

    def _element(self, source: Dataset, element: Element, context: Context) -> Element | None:
        rule = rule_in(source, element.tag, self._encoding.wire_vr(element.VR), self._profile)
        if rule.vr is None:
            return None
        if rule.vr == "SQ":
            return self._sequence(element, rule, context)
        value = bytes_of(element)
        if value is not None:
            value = rule.action(context, element.tag, rule.vr, value)
        if value is None:
            return None
        undefined = isinstance(element, RawDataElement) and element.length == _UNDEFINED
        return raw(element.tag, rule.vr, value, self._encoding, undefined=undefined)

    def _sequence(self, element: Element, rule: Rule, context: Context) -> Element | None:
        items = items_of(element)
        if items is None:
            return None
        if rule.code == "R":
            return _sequence_of(element.tag, [self.dataset(item, context) for item in items])
        if rule.code == "D" and items:
            return self._dummy_sequence(element.tag)
        return _sequence_of(element.tag, [])

    def _dummy_sequence(self, tag: BaseTag) -> Element:
        items = next(made for keyword, (made, _) in SEQUENCES.items() if tag_for_keyword(keyword) == tag)
        return _sequence_of(tag, [self._item(item) for item in items])

    def _item(self, item: Item) -> Dataset:
        return self._new({element.tag: element for element in self._made(item)})

    def _made(self, item: Item) -> list[Element]:
        return [self._made_element(keyword, value) for keyword, value in item.items()]

    def _made_element(self, keyword: str, value: str | bytes | tuple[Item, ...]) -> Element:
        tag = BaseTag(tag_for_keyword(keyword) or 0)
        if isinstance(value, tuple):
            return _sequence_of(tag, [self._item(inner) for inner in value])
        return raw(tag, dictionary_VR(tag), value.encode("ascii") if isinstance(value, str) else value, self._encoding)

    def _new(self, elements: dict[BaseTag, Element]) -> Dataset:
        made = Dataset(elements)
        made.set_original_encoding(self._encoding.implicit, self._encoding.little, "iso8859")
        return made


def _sequence_of(tag: BaseTag, items: list[Dataset]) -> DataElement:
    return DataElement(tag, "SQ", Sequence(items))
