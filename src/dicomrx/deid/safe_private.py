"""The private attributes that the standard knows to be safe: PS3.15 Table E.3.10-1 of edition 2026d, whole, in safe_private.json."""

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Final

# The block that a creator reserves differs from file to file; group and low byte name the attribute (PS3.5 7.8.1).
_NAMED: Final = 0xFFFF00FF


def vr_of(creator: str, tag: int) -> str | None:
    """The VR of a private attribute that is safe to keep under its creator, padded or not; None for any other.

    None too where the standard names no VR, for then nothing tells whether a value is what it should be. "SQ" says that the sequence
    is safe, not what lies in it; "UI" are UIDs to replace like others (PS3.15 E.3.10).
    """
    return _vrs().get((creator.strip(" \0"), tag & _NAMED))


@cache
def table() -> tuple[tuple[str, str, str, str, str], ...]:
    """Every row: creator, tag (8 hex digits, x for any), VR as the standard has it, VM, meaning."""
    text = resources.files(__package__).joinpath("safe_private.json").read_text("utf-8")
    return tuple((creator, tag, vr, vm, meaning) for creator, tag, vr, vm, meaning in json.loads(text))


@cache
def _vrs() -> Mapping[tuple[str, int], str]:
    # OW/OB: both are bytes, and in OW no text is looked for.
    return {(creator, int(tag.replace("x", "0"), 16)): vr.partition("/")[0] for creator, tag, vr, _, _ in table() if vr}
