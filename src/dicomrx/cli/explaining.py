"""`dicomrx anonymize --explain` and `--describe`: text for a terminal of 100 columns. Nothing is written, no number is given."""

import secrets
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydicom.datadict import keyword_for_tag

from dicomrx import deid
from dicomrx.deid.explaining import Row
from dicomrx.deid.tags import text_of
from dicomrx.errors import DicomrxError, NoInputError, PermissionRefused, Reject
from dicomrx.profiles import Profiles
from dicomrx.settings import Settings
from dicomrx.sources import opened
from dicomrx.stages.anonymize import who_of
from dicomrx.text import safe
from dicomrx.vault import Placeholders, State, Who

_WIDTH: Final = 100
_INDENT: Final = 4
_NARROWEST: Final = 12
_ALL: Final = 1000
# What stands for a patient who has no number yet.
_NOBODY: Final = "sub-000"
_DAYS: Final = 366
_WORDS: Final = {"X": "remove", "Z": "empty", "D": "dummy", "U": "new UID", "K": "keep", "C": "clean", "R": "items"}


def explained(path: Path, settings: Settings) -> Iterator[str]:
    """What would happen to each element of a file, and to the file; raises NoInputError and PermissionRefused."""
    if not path.is_file():
        msg = f"{path} is no file"
        raise NoInputError(msg)
    profiles = Profiles.of(settings)
    for _, file in opened(path):
        if isinstance(file, DicomrxError):
            raise PermissionRefused(f"{path}: {file}")
        try:
            instance = deid.read(file)
        except Reject as never:
            yield _quarantined(never)
        else:
            yield from _explained(instance, profiles, settings)


def _explained(instance: deid.Instance, profiles: Profiles, settings: Settings) -> Iterator[str]:
    profile = profiles.for_ae(instance.calling_ae)
    context, refusal = _context(instance, settings)
    explanation = deid.explain(instance, context, profile, settings.burned_in)
    yield f"by {profile.label}"
    for row in explanation.rows:
        yield from _lines(row)
    refusal = explanation.refusal or refusal
    yield _quarantined(refusal) if refusal else f"result: de-identified, as {context.pseudonym}"


def _quarantined(refusal: Reject) -> str:
    return f"result: quarantined, {safe(refusal)}"


def _context(instance: deid.Instance, settings: Settings) -> tuple[deid.Context, Reject | None]:
    """With what the state knows, which is opened to read; where it is not there or not ours, with made-up values, and that is said.

    Also why the instance would be taken for no patient's.
    """
    who = who_of(instance, dict(settings.issuers), Placeholders(settings.placeholders))
    try:
        with State.open(settings.state_dir, create=False) as state:
            return _as_known(state, who)
    except (NoInputError, PermissionRefused) as error:
        _say(f"{error}; so UIDs are made with a key of this moment, {_NOBODY} stands for the patient, and dates move by {_DAYS} days")
        return deid.Context(_NOBODY, secrets.token_bytes(32), date_shift=_DAYS), None


def _as_known(state: State, who: Who) -> tuple[deid.Context, Reject | None]:
    nobody = deid.Context(_NOBODY, state.uid_key, date_shift=_DAYS)
    try:
        patient = state.known_patient(who)
    except Reject as never:
        return nobody, never
    if patient is not None:
        return deid.Context(patient.pseudonym, state.uid_key, date_shift=state.date_shift(patient)), None
    _say(f"this patient has no number yet: {_NOBODY} stands for it, and dates move by {_DAYS} days")
    return nobody, None


def _say(message: str) -> None:
    print(f"dicomrx: {safe(message, 500)}", file=sys.stderr)


def _lines(row: Row) -> Iterator[str]:
    """What and why, then the value before and after; an item's elements begin with its number."""
    lead = " " * _INDENT * row.depth + (f"{row.item}. " if row.depth else "")
    name = keyword_for_tag(row.tag) or ("private" if row.tag >> 16 & 1 else "unknown")
    yield from _wrapped(f"{text_of(row.tag)} {name} {row.vr}  {row.action}: {row.reason}", lead)
    begin = " " * (len(lead) + _INDENT)
    room = max(_WIDTH - len(begin), 2 * _NARROWEST)
    if row.action == "kept":
        yield f"{begin}{_value(row.before, room)}"
    else:
        half = (room - len(" -> ")) // 2
        yield f"{begin}{_value(row.before, half)} -> {_value(row.after, half)}"


def _value(text: str | None, room: int) -> str:
    return "(none)" if text is None else safe(text, room) or "(empty)"


def _wrapped(text: str, lead: str) -> list[str]:
    return textwrap.wrap(
        safe(text, _ALL), max(_WIDTH, len(lead) + 2 * _NARROWEST), initial_indent=lead, subsequent_indent=" " * (len(lead) + _INDENT)
    )


def described(settings: Settings) -> Iterator[str]:
    """The profile, and that of each calling AE title that has one of its own: every rule in effect."""
    profiles = Profiles.of(settings)
    yield from _profile("profile", profiles.default)
    for calling_ae, profile in profiles.by_ae.items():
        yield ""
        yield from _profile(f"profile of {safe(calling_ae)}", profile)


def _profile(title: str, profile: deid.Profile) -> Iterator[str]:
    yield f"{title}: {safe(profile.name)}, written into files as {safe(profile.label)}"
    yield f"options: {', '.join(sorted(profile.options)) or 'none'}"
    for code, meaning in profile.methods:
        yield f"method {code}: {meaning}"
    for row in deid.describe(profile):
        yield from _wrapped(f"{_WORDS[row.code]}  {row.what} {row.vr}".rstrip() + f": {row.reason}", "")
