"""What reaches a terminal or a log: printable, on one line, and of bounded length."""

import re
from typing import Final

# str.isprintable lets these pass, and no terminal draws them: Unicode's Default_Ignorable_Code_Point among letters and
# marks, and the blank Braille cell. The format characters (bidi, zero width) are already unprintable.
_UNSEEN: Final = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")


def safe(value: object, limit: int = 200) -> str:
    """Text of `value` that can neither drive a terminal nor forge a line: what cannot be seen is shown as its escape.

    At most `limit` characters; a cut is marked by an ellipsis. `safe(safe(x)) == safe(x)`.
    """
    text = str(value)
    if len(text) <= limit and text.isprintable() and not _UNSEEN.search(text):
        return text
    pieces: list[str] = []
    room = limit
    for character in text[: limit + 1]:
        piece = _visible(character)
        pieces.append(piece)
        room -= len(piece)
        if room < 0:
            return _cut(pieces, limit)
    return "".join(pieces)


def _visible(character: str) -> str:
    if character.isprintable() and not _UNSEEN.match(character):
        return character
    return character.encode("unicode_escape").decode("ascii")


def _cut(pieces: list[str], limit: int) -> str:
    length = sum(map(len, pieces))
    while pieces and length > limit - 1:
        length -= len(pieces.pop())
    return "".join(pieces) + "…"
