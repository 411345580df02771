"""From the places where settings are given to one frozen `Settings`: environment > command line > file > default."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dicomrx.errors import ConfigError
from dicomrx.settings.sources import (
    COMMAND_LINE,
    DEFAULT,
    FILE_SUFFIX,
    Source,
    from_credentials,
    from_environment,
    from_file,
    from_flags,
    read_secret,
)
from dicomrx.settings.table import ENV_PREFIX, NOT_YET, TABLE, Setting, Settings
from dicomrx.settings.values import to_text
from dicomrx.text import safe

MASK: Final = "********"


@dataclass(frozen=True)
class Lost:
    """A value that was given and did not count; `value` is masked where the setting is secret."""

    name: str
    origin: str
    place: str
    value: str


@dataclass(frozen=True)
class Resolution:
    """The settings of a run and how they came about; `warnings` are lines for stderr."""

    settings: Settings
    origin: Mapping[str, str]
    shadowed: tuple[Lost, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Given:
    row: Setting
    source: Source
    name: str  # the row's, or that of its secret file

    @property
    def place(self) -> str:
        return self.source.place(self.name)

    @property
    def text(self) -> str:
        return self.source.texts[self.name]

    @property
    def by_file(self) -> bool:
        return self.name != self.row.name

    def parsed(self) -> object:
        return self.text if self.by_file else _parse(self.row, self.text, self.place)


@dataclass
class _Found:
    values: dict[str, object] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    shadowed: list[Lost] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def resolve(flags: Mapping[str, object], env: Mapping[str, str], *, strict_config: bool = False, secrets: bool = True) -> Resolution:
    """Settle every setting from what was typed (by name; None: not typed), the environment and the files these name.

    `ConfigError` for a value that breaks its rule, a secret given twice in one place, a setting that this version does not
    carry out, and, where `strict_config`, a typed flag that loses. Without `secrets` none is read: most commands need none, and
    their users need no right to them.
    """
    typed, set_ = from_flags(flags), from_environment(env)
    found = _Found()
    _settle(TABLE["config"], (set_, typed), found)
    config = found.values["config"]
    sources = (set_, typed, from_file(config if isinstance(config, Path) else None), from_credentials(env))
    for source in sources:
        found.warnings += source.warnings
    for row in TABLE.values():
        if row.name != "config":
            _settle(row, () if row.secret and not secrets else sources, found)
    if strict_config and found.ignored:
        raise ConfigError("; ".join(found.ignored))
    settings = Settings(**found.values)  # type: ignore[arg-type]  # each value comes from its own field's parser
    _check_together(settings)
    return Resolution(settings, found.origin, tuple(found.shadowed), (*found.ignored, *found.warnings))


def _settle(row: Setting, sources: Iterable[Source], found: _Found) -> None:
    given = [one for source in sources for one in _given(row, source)]
    if not given:
        found.values[row.name], found.origin[row.name] = row.default, DEFAULT
        return
    winner, *losers = given
    parsed = winner.parsed()
    for loser in losers:
        found.shadowed.append(Lost(row.name, loser.source.origin, loser.place, _shown(loser)))
        if loser.source.origin == COMMAND_LINE and loser.parsed() != parsed:
            found.ignored.append(_answer(loser, winner))
    if winner.by_file:
        secret, warnings = read_secret(Path(winner.text), winner.place)
        parsed = _parse(row, secret, winner.place)
        found.warnings += warnings
    if row.name in NOT_YET and parsed not in NOT_YET[row.name]:
        raise ConfigError(_not_yet(row, winner))
    found.values[row.name], found.origin[row.name] = parsed, winner.source.origin


def _given(row: Setting, source: Source) -> list[_Given]:
    names = [name for name in (row.name, row.name + FILE_SUFFIX) if name in source.texts and (name == row.name or row.secret)]
    if len(names) > 1:
        raise ConfigError(f"{source.place(names[0])} and {source.place(names[1])} are both given: remove one of them")
    return [_Given(row, source, name) for name in names]


def _parse(row: Setting, text: str, place: str) -> object:
    text = text if row.secret else text.strip()
    try:
        if "\0" in text:
            raise ValueError("must not contain a NUL character")  # noqa: TRY301  one handler for every rule
        return row.parse(text)
    except ValueError as error:
        shown = f"={safe(text, 60)}" if row.echo and place.startswith((ENV_PREFIX, "--")) else ""
        raise ConfigError(f"{place}{shown}: {error}") from None


def _shown(given: _Given) -> str:
    if given.by_file:
        return safe(given.text)
    return MASK if given.row.secret else display(given.row, given.parsed())


def display(row: Setting, value: object) -> str:
    """A value as people read it; a secret masked, none as empty text."""
    if value is None:
        return ""
    return MASK if row.secret else safe(to_text(value))


def _answer(loser: _Given, winner: _Given) -> str:
    lost = loser.place if loser.row.secret or loser.row.kind == "bool" else f"{loser.place} {_shown(loser)}"
    won = winner.place if winner.row.secret else f"{winner.place}={_shown(winner)}"
    return f"{lost} ignored: {won} wins (see dicomrx config)"


def _not_yet(row: Setting, given: _Given) -> str:
    carried = [to_text(value) for value in NOT_YET[row.name] if value is not None]
    advice = f"use {' or '.join(carried)}" if carried else "leave it out"
    return f"{given.place}: this version does not yet carry out {_shown(given) if carried else row.flag_word}; {advice}"


def _check_together(settings: Settings) -> None:
    for setting in ("issuers", "ae_profiles", "timeout_ae", "timeout_modality"):
        names = [row[0] for row in getattr(settings, setting)]
        if len(set(names)) != len(names):
            raise ConfigError(f"{ENV_PREFIX}{setting.upper()} gives two values to one name")


def refuse_plain_http(settings: Settings) -> None:
    """For what sends: raises ConfigError where REQUIRE_HTTPS is on and the API's address is another."""
    if settings.require_https and not settings.api_url.lower().startswith("https:"):
        raise ConfigError(f"{ENV_PREFIX}REQUIRE_HTTPS is on, but {ENV_PREFIX}API_URL does not begin with https://")
