"""The options of PS3.15 Annex E as data: a profile's words for them, and what is written about them."""

from collections.abc import Mapping
from typing import Final, NamedTuple


class Option(NamedTuple):
    """One option: its column in the table, its code and meaning in CID 7050, and the short word that fits into a label."""

    column: str
    code: str
    meaning: str
    short: str


BASIC_METHOD: Final = ("113100", "Basic Application Confidentiality Profile")

OPTIONS: Final[Mapping[str, Option]] = {
    "retain-uids": Option("retain_uids", "113110", "Retain UIDs Option", "uid"),
    "retain-device": Option("retain_device", "113109", "Retain Device Identity Option", "dev"),
    "retain-institution": Option("retain_institution", "113112", "Retain Institution Identity Option", "inst"),
    "retain-patient": Option("retain_patient", "113108", "Retain Patient Characteristics Option", "pat"),
    "full-dates": Option("full_dates", "113106", "Retain Longitudinal Temporal Information Full Dates Option", "full"),
    "modified-dates": Option("modified_dates", "113107", "Retain Longitudinal Temporal Information Modified Dates Option", "mod"),
    "clean-descriptors": Option("clean_descriptors", "113105", "Clean Descriptors Option", "desc"),
    "clean-structured": Option("clean_structured", "113104", "Clean Structured Content Option", "struct"),
    "clean-graphics": Option("clean_graphics", "113103", "Clean Graphics Option", "graph"),
    "retain-safe-private": Option("safe_private", "113111", "Retain Safe Private Option", "priv"),
}

# The profiles that have a name, and the options of each.
NAMED: Final[Mapping[str, frozenset[str]]] = {
    "basic": frozenset(),
    "research": frozenset({"clean-descriptors", "modified-dates", "retain-patient", "retain-safe-private"}),
}
