"""The dummy of each VR, and of the sequences that PS3.15 Table E.1-1 wants a dummy of."""

from collections.abc import Mapping
from typing import Final

TEXT: Final = "ANON"

# VR: (value, why this one). Text is padded when it is encoded; zeros are zeros in either byte order.
DUMMIES: Final[Mapping[str, tuple[bytes, str]]] = {
    "AE": (b"ANON", "the text dummy is a valid title"),
    "AS": (b"000Y", "the only age that says nothing, and is valid"),
    "AT": (b"\0\0\0\0", "points at no element of a data set"),
    "CS": (b"ANON", "upper case, so a valid code string; no defined term of the standard"),
    "DA": (b"19000101", "a valid date that nobody alive was imaged on; validators refuse 00010101"),
    "DS": (b"0", "a number that says nothing"),
    "DT": (b"19000101000000", "the dummy date and the dummy time"),
    "FD": (bytes(8), "zero"),
    "FL": (bytes(4), "zero"),
    "IS": (b"0", "a number that says nothing"),
    "LO": (b"ANON", "the user's word for a value that had to be replaced"),
    "LT": (b"ANON", "as LO"),
    "OB": (bytes(2), "the shortest value of even length"),
    "OD": (bytes(8), "one zero"),
    "OF": (bytes(4), "one zero"),
    "OL": (bytes(4), "one zero"),
    "OV": (bytes(8), "one zero"),
    "OW": (bytes(2), "one zero"),
    "PN": (b"ANON", "a family name alone is a valid name"),
    "SH": (b"ANON", "as LO; short enough"),
    "SL": (bytes(4), "zero"),
    "SS": (bytes(2), "zero"),
    "ST": (b"ANON", "as LO"),
    "SV": (bytes(8), "zero"),
    "TM": (b"000000", "midnight, the time that the dummy date begins with"),
    "UC": (b"ANON", "as LO"),
    "UI": (b"2.25.0", "the nil UUID; where a UID was, the one derived from it stands instead"),
    "UL": (bytes(4), "zero"),
    "UN": (bytes(2), "the shortest value of even length"),
    "UR": (b"urn:anon", "a valid URI that leads nowhere"),
    "US": (bytes(2), "zero"),
    "UT": (b"ANON", "as LO"),
    "UV": (bytes(8), "zero"),
}

# An item of a dummy sequence: keyword -> text, or bytes for a binary VR, or items again.
Item = Mapping[str, "str | bytes | tuple[Item, ...]"]

_CODE: Final[Item] = {"CodeValue": TEXT, "CodingSchemeDesignator": "99ANON", "CodeMeaning": TEXT}
_COMMENT: Final[Item] = {"CodeValue": "121106", "CodingSchemeDesignator": "DCM", "CodeMeaning": "Comment"}
_CORNER: Final = bytes(8)

# Keyword: (items, why these). The items' own text would tell what the sequence was replaced for, so none of it is used.
SEQUENCES: Final[Mapping[str, tuple[tuple[Item, ...], str]]] = {
    "ContentSequence": (
        ({"RelationshipType": "CONTAINS", "ValueType": "TEXT", "ConceptNameCodeSequence": (_COMMENT,), "TextValue": TEXT},),
        "the content of a report is free; one comment keeps the document readable",
    ),
    "GraphicAnnotationSequence": (
        (
            {
                "GraphicLayer": TEXT,
                "TextObjectSequence": (
                    {
                        "BoundingBoxAnnotationUnits": "DISPLAY",
                        "UnformattedTextValue": TEXT,
                        "BoundingBoxTopLeftHandCorner": _CORNER,
                        "BoundingBoxBottomRightHandCorner": _CORNER,
                        "BoundingBoxTextHorizontalJustification": "LEFT",
                    },
                ),
            },
        ),
        "strokes can be handwriting, so graphics go as text does",
    ),
    "InstitutionCodeSequence": ((_CODE,), "a code of an institution names it"),
    "OperatorIdentificationSequence": (
        ({"PersonIdentificationCodeSequence": (_CODE,), "InstitutionName": TEXT},),
        "a code of a person names that person",
    ),
    "PersonIdentificationCodeSequence": ((_CODE,), "a code of a person names that person"),
    "WaveformAnnotationSequence": (
        ({"ReferencedWaveformChannels": bytes(4), "UnformattedTextValue": TEXT},),
        "annotations are typed by persons",
    ),
}
# These take a dummy by having their items de-identified: nothing of theirs stays but de-identified UIDs, names and dates.
BY_ITEMS: Final[Mapping[str, str]] = {
    "FlowIdentifierSequence": "its items hold dummies only",
    "ReferencedPerformedProcedureStepSequence": "its items hold references only, and references stay consistent",
    "VerifyingObserverSequence": "every element of its items has a row of its own in the table",
}
