"""What content items (PS3.3 10.2, C.17.3) tell of their subject: no option keeps or moves a birth date, or tells an age over 89."""

from typing import Final

from pydicom.datadict import tag_for_keyword

from dicomrx.deid import actions
from dicomrx.deid.dataset import DataSet
from dicomrx.deid.reading import raw_text
from dicomrx.deid.rules import Rule

_CONCEPT: Final = 0x0040A043
_CODE: Final = 0x00080100
_VALUES: Final = frozenset(
    tag_for_keyword(keyword) for keyword in ("Date", "DateTime", "MeasuredValueSequence", "NumericValue", "TextValue")
)
# Birth date and age, in PS3.16 (TID 1007), LOINC and SNOMED CT.
_CONCEPTS: Final = frozenset({"121031", "121033", "21112-8", "30525-0", "184099003", "397669002", "424144002"})
WHAT: Final = "the birth date or the age of a report's subject"


def hidden(rule: Rule, holder: DataSet, tag: int) -> Rule:
    """The rule, or a stricter one for an element that tells of birth or age in the content item that holds it."""
    if tag not in _VALUES or rule.vr is None or rule.code not in {"C", "K", "R"} or not _CONCEPTS.intersection(_concepts(holder)):
        return rule
    if rule.vr == "SQ":
        return Rule("Z", rule.vr, actions.empty, WHAT)
    return Rule("D", rule.vr, actions.dummy, WHAT)


def _concepts(holder: DataSet) -> list[str]:
    """The codes of what a content item is about."""
    items = holder[_CONCEPT].items if _CONCEPT in holder else None
    return [raw_text(item, _CODE) for item in items or ()]
