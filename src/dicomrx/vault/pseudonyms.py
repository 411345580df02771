"""The format of pseudonyms: from a patient's number to what stands for the patient, and back."""

import re
from typing import ClassVar, Final

from dicomrx.settings.values import pseudonym_format

_PLACE: Final = re.compile("%[0-9]*d")


class Format:
    """A format as the PSEUDONYM setting gives it."""

    FIRST: ClassVar["Format"]
    """How every pseudonym was made before there was the setting, and by the older tool."""

    def __init__(self, text: str) -> None:
        """Raises ValueError for one that the setting would not take."""
        self.text = pseudonym_format(text)
        before, after = _PLACE.split(self.text)
        self._pattern = re.compile(f"{re.escape(before)}([0-9]{{1,9}}){re.escape(after)}")

    def pseudonym(self, number: int) -> str:
        """What stands for the patient of this number."""
        return self.text % number

    def number(self, text: str) -> int | None:
        """The number of a pseudonym, or of a bare number, from 1 to 999,999,999; None where it is neither."""
        match = self._pattern.fullmatch(text)
        if match and self.pseudonym(int(match[1])) == text:
            return int(match[1]) or None
        return int(text) or None if re.fullmatch("[0-9]{1,9}", text) else None


Format.FIRST = Format("sub-%03d")
