"""STUB until the vocabulary is merged: the same signature, and next to no words."""

import re
from typing import Final

_WORDS: Final = frozenset({"abdomen", "axial", "brain", "chest", "head", "routine", "spine"})
_WORD: Final = re.compile(r"[a-z]+", re.IGNORECASE)


def clean(text: str, own_words: frozenset[str]) -> str:
    """What may stay of a text that a person typed: its known-safe words, without the instance's own."""
    return " ".join(word for word in _WORD.findall(text) if word.casefold() in _WORDS - own_words)
