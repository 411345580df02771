"""`patient_info_map.json` of the older tool: puts the values it holds back into files anonymized by that tool.

It kept the UIDs, wrote `sub-001` (some versions `sub-001^`) for the name and `ANON` for a few other values, and noted the first
instance's values for the whole study, as text: a multiple value is the text of a Python list.
"""

import ast
import json
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self, TypeGuard

from pydicom import Dataset, config
from pydicom.charset import convert_encodings, decode_bytes, default_encoding, encode_string
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR, STR_VR, TEXT_VR_DELIMS

from dicomrx.errors import ConfigError, NoInputError, PermissionRefused
from dicomrx.text import safe

_UTF8: Final = "ISO_IR 192"
_UNBOUNDED: Final = frozenset({"LT", "ST", "UT", "UR"})  # never multiple: a list's text is just text there (PS3.5 6.2)

_Values = Mapping[str, str]


class LegacyMap:
    """The older tool's map; it never shows a value of its own."""

    def __init__(self, studies: Mapping[str, _Values], names: _Values) -> None:
        self._studies = studies
        self._pseudonyms = names
        self._originals: dict[str, list[str]] = defaultdict(list)
        for original, pseudonym in names.items():
            self._originals[pseudonym].append(original)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the map, in its later or its flat form.

        Raises `NoInputError` where there is no such file, `PermissionRefused` where it is not ours to read, and `ConfigError`
        where it is not such a map.
        """
        try:
            content = json.loads(path.read_bytes())
        except PermissionError:
            raise PermissionRefused(f"the map {safe(path)} may not be read by this user") from None
        except OSError as error:
            raise NoInputError(f"the map {safe(path)} cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError):
            raise ConfigError(f"{safe(path)} is damaged: it is not JSON; take an older copy of it") from None
        studies, names = _parts(content)
        if not (isinstance(studies, dict) and all(_is_texts(values) for values in studies.values()) and _is_texts(names)):
            raise ConfigError(f"{safe(path)} is not a patient_info_map.json: it maps no studies to values")
        return cls(studies, names)

    def restore(self, dataset: Dataset) -> bool:
        """Put back what the map holds for this dataset; False, and nothing changed, where it holds nothing.

        A study without an entry, or whose entry is of another patient, gets the name alone, if its pseudonym leads to one.
        Raises `ConfigError` for a value that no element of its kind can hold.
        """
        pseudonym = str(dataset.get("PatientName", "")).rstrip("^ ")
        values = self._studies.get(str(dataset.get("StudyInstanceUID", "")))
        if values is None or self._is_of_another(values, pseudonym):
            originals = self._originals.get(pseudonym, [])
            if len(originals) != 1:
                return False
            values = {"PatientName": originals[0]}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote values
            elements = [element for keyword, text in values.items() if (element := _element(keyword, text))]
            _make_room_for(elements, dataset)
            for element in elements:
                dataset[element.tag] = element
        return True

    def numbering(self) -> Iterator[tuple[str, str, str]]:
        """For each study the PatientID, its issuer and the pseudonym of its patient; empty where the map does not hold it."""
        for values in self._studies.values():
            pseudonym = self._pseudonyms.get(values.get("PatientName", ""), "")
            yield values.get("PatientID", ""), values.get("IssuerOfPatientID", ""), pseudonym

    def _is_of_another(self, values: _Values, pseudonym: str) -> bool:
        """Several patients under one Study UID: the entry is the first one's."""
        noted = self._pseudonyms.get(values.get("PatientName", ""))
        return noted is not None and noted != pseudonym and pseudonym in self._originals


def _parts(content: object) -> tuple[object, object]:
    if isinstance(content, dict) and "patient_info" in content:
        return content["patient_info"], content.get("patient_name_map", {})
    return content, {}


def _is_texts(values: object) -> TypeGuard[dict[str, str]]:
    return isinstance(values, dict) and all(isinstance(text, str) and _is_unicode(text) for text in (*values, *values.values()))


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _element(keyword: str, text: str) -> DataElement | None:
    """The element that the older tool read `text` from; None for what it could not have replaced."""
    tag = tag_for_keyword(keyword)
    vr = dictionary_VR(tag) if tag is not None else ""
    if tag is None or vr not in STR_VR:
        return None
    value: Any = text if vr in _UNBOUNDED else _values(text)
    try:
        if vr not in CUSTOMIZABLE_CHARSET_VR:
            text.encode(default_encoding)
        return DataElement(tag, vr, value, validation_mode=config.IGNORE)
    except ValueError:
        raise ConfigError(f"the map holds a {keyword} that a file cannot hold (VR {vr})") from None


def _values(text: str) -> str | list[str]:
    """The values of a list's text: of names `[A^B, C]`, of others `['a', 'b']`, with or without escaped quotes."""
    if not (text.startswith("[") and text.endswith("]") and ", " in text):
        return text
    if text[1] not in "'\"":
        return text[1:-1].split(", ")
    try:
        return [str(value) for value in ast.literal_eval(text)]
    except (ValueError, SyntaxError):
        return text[2:-2].split("', '")


def _make_room_for(elements: list[DataElement], dataset: Dataset) -> None:
    """Turn the dataset to UTF-8 if its character set cannot hold a value; what it holds already is decoded first."""
    encodings = convert_encodings(dataset.get("SpecificCharacterSet"))
    texts = [str(value) for element in elements if element.VR in CUSTOMIZABLE_CHARSET_VR for value in _each(element.value)]
    if all(_holds(encodings, text) for text in texts):
        return
    dataset.decode()
    dataset.SpecificCharacterSet = _UTF8


def _each(value: Any) -> list[Any]:  # noqa: ANN401  what pydicom's elements hold
    return [value] if isinstance(value, str) or not hasattr(value, "append") else list(value)


def _holds(encodings: list[str], text: str) -> bool:
    try:
        return decode_bytes(encode_string(text, encodings), encodings, TEXT_VR_DELIMS) == text
    except UnicodeError:
        return False
