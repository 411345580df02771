"""Settings as others need them: rows for people, a table for the README, an environment for a child."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from dicomrx.settings.resolve import Resolution, display
from dicomrx.settings.sources import others_read
from dicomrx.settings.table import ENV_PREFIX, TABLE, Settings
from dicomrx.settings.values import to_text
from dicomrx.text import safe


class Row(NamedTuple):
    """One line of `dicomrx config`; `overrode` lists what lost, with where and what it was."""

    name: str
    value: str
    origin: str
    overrode: tuple[str, ...]


def rows(resolution: Resolution) -> list[Row]:
    """Every setting by its flag word, secrets masked."""
    return [
        Row(
            row.flag_word,
            display(row, getattr(resolution.settings, name)),
            resolution.origin[name],
            tuple(f"{lost.place} ({lost.value})" for lost in resolution.shadowed if lost.name == name),
        )
        for name, row in TABLE.items()
    ]


def markdown() -> str:
    """The README's table of settings."""
    lines = ["| Environment | Flag | Default | Meaning |", "|---|---|---|---|"]
    for row in TABLE.values():
        flag = f"`--{row.flag_word}`" if row.kind != "bool" else f"`--{row.flag_word}` / `--no-{row.flag_word}`"
        default = f"`{to_text(row.default)}`" if to_text(row.default) else "none"
        also = f"; also `{row.env}_FILE`, `--{row.flag_word}-file`, systemd credential `{row.flag_word}`" if row.secret else ""
        lines.append(f"| `{row.env}` | {flag} | {default} | {row.meaning}{also} |")
    return "\n".join(lines) + "\n"


def exposed_key(settings: Settings, whose: str) -> str | None:
    """What to say of our private key, `whose` being "tls" or "api", where every user can read it; it may lie in its certificate's file."""
    name = f"{whose}_key" if getattr(settings, f"{whose}_key") is not None else f"{whose}_cert"
    path: Path | None = getattr(settings, name)
    with suppress(OSError):  # a file that is not there is told by who uses it
        if path is not None and others_read(path):
            return f"{TABLE[name].env}: every user can read {safe(path)}, and the key in it: chmod 600 it"
    return None


def as_env(settings: Settings, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment that gives a child exactly these settings: `base` without ours, then each setting by value.

    No file is named in it, neither the configuration nor a secret's: the child reads none of them again.
    """
    kept = {name: value for name, value in (base or {}).items() if not name.startswith(ENV_PREFIX)}
    given = {row.env: to_text(getattr(settings, name)) for name, row in TABLE.items() if name != "config"}
    return kept | {name: value for name, value in given.items() if value}
