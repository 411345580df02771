import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomrx.text import safe

HIDDEN = ["\x1b[2J", "\r\n", "\x00", "\x7f", "\x9b31m", "\u202e", "\u200b", "\u2066", "\ufeff", "\u2028", "\u00ad", "\ue000", "\udc80"]
UNSEEN = ["\u3164", "\u115f", "\uffa0", "\u034f", "\ufe0f", "\u2800", "\U000e0101", "\U000e0041"]


@pytest.mark.parametrize("character", HIDDEN + UNSEEN)
def test_what_cannot_be_seen_is_shown_as_its_escape(character: str) -> None:
    shown = safe(f"a{character}b")
    assert shown.isprintable()
    assert not set(shown) & set(UNSEEN)
    assert shown.startswith("a\\")
    assert shown.endswith("b")


def test_readable_text_of_any_script_stays() -> None:
    for text in ("Größe 5 %", "山田^太郎", "Иванов", "a\\b", "x" * 200):
        assert safe(text) == text


def test_a_long_text_is_cut_with_a_mark() -> None:
    assert safe("x" * 201) == "x" * 199 + "…"
    assert safe("\x1b" * 100, 10) == "\\x1b\\x1b…"


def test_any_object_can_be_shown() -> None:
    assert safe(ValueError("two\nlines")) == "two\\nlines"
    assert safe(None) == "None"


@given(st.text(st.characters(), max_size=60), st.integers(1, 40))
def test_whatever_comes_in_one_printable_bounded_line_comes_out(text: str, limit: int) -> None:
    shown = safe(text, limit)
    assert len(shown) <= limit
    assert shown.isprintable()
    assert not any(unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for character in shown)
    assert safe(shown, limit) == shown
    shown.encode()
