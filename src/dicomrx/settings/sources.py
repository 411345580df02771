"""Where settings are given: environment, command line, file and systemd credentials, each as text by name."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from dicomrx.errors import ConfigError
from dicomrx.settings.table import ENV_PREFIX, OLDER_VARIABLES, TABLE, Setting
from dicomrx.settings.values import to_text
from dicomrx.text import safe

ENVIRONMENT: Final = "environment"
COMMAND_LINE: Final = "command line"
FILE: Final = "file"
CREDENTIAL: Final = "credential"
DEFAULT: Final = "default"
FILE_SUFFIX: Final = "_file"

_SECRET_MAX: Final = 65536
_OTHERS_READ: Final = 0o004
_LINE_END: Final = re.compile(r"\r?\n\Z")
_TOML_WORDS: Final = {int: "a number", float: "a fraction", str: "text", bool: "true or false", list: "a list of texts without commas"}

# Every name that a source may give: a secret has a second one, for the file that holds it.
NAMES: Final[Mapping[str, Setting]] = {
    **TABLE,
    **{name + FILE_SUFFIX: row for name, row in TABLE.items() if row.secret},
}


@dataclass(frozen=True)
class Source:
    """What one place gives; `texts` holds no empty value and is keyed by the names in NAMES."""

    origin: str
    texts: Mapping[str, str] = field(repr=False)
    path: Path | None = None
    warnings: tuple[str, ...] = ()

    def place(self, name: str) -> str:
        """How an operator finds `name` in this source."""
        word = flag_word(name)
        if self.origin == ENVIRONMENT:
            return ENV_PREFIX + name.upper()
        if self.origin == COMMAND_LINE:
            return f"--no-{word}" if NAMES[name].kind == "bool" and self.texts[name] == "false" else f"--{word}"
        if self.origin == CREDENTIAL:
            return f"systemd credential {word.removesuffix('-file')}"
        return f"{word} in {safe(self.path)}"


def flag_word(name: str) -> str:
    """The word of a name on the command line and in the file."""
    return NAMES[name].flag_word + ("-file" if name not in TABLE else "")


def from_environment(env: Mapping[str, str]) -> Source:
    """The DICOM_RECEIVER_* variables; an empty one is unset, an unknown one is warned about."""
    texts = {name: env[variable] for name in NAMES if env.get(variable := ENV_PREFIX + name.upper(), "").strip()}
    unknown = sorted(v for v in env if v.startswith(ENV_PREFIX) and v.removeprefix(ENV_PREFIX).lower() not in NAMES)
    return Source(ENVIRONMENT, texts, warnings=tuple(_unknown_variable(v) for v in unknown))


def _unknown_variable(variable: str) -> str:
    if variable in OLDER_VARIABLES:
        return f"{variable} is not used: {OLDER_VARIABLES[variable]}"
    return f"{safe(variable)} is not a setting{_nearest(variable.removeprefix(ENV_PREFIX), [name.upper() for name in NAMES], ENV_PREFIX)}"


def from_flags(flags: Mapping[str, object]) -> Source:
    """What was typed, by name; None is not typed. A list may be repeated, joined by commas, or both."""
    if stray := flags.keys() - NAMES.keys():
        raise TypeError(", ".join(sorted(stray)))
    texts = {name: to_text(value) for name, value in flags.items() if to_text(value).strip()}
    warnings = tuple(
        f"--{flag_word(name)} is visible to every user of this machine; better: --{flag_word(name)}-file or {NAMES[name].env}"
        for name in texts
        if name in TABLE and TABLE[name].secret
    )
    return Source(COMMAND_LINE, texts, warnings=warnings)


def from_file(path: Path | None) -> Source:
    """A TOML file; `ConfigError` for what is not a setting or has another type."""
    if path is None:
        return Source(FILE, {})
    try:
        content = path.read_bytes()
        table = tomllib.loads(content.decode())
    except OSError as error:
        raise ConfigError(f"configuration file {safe(path)} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"configuration file {safe(path)} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"configuration file {safe(path)} is not TOML: {_where(error)}") from None
    texts = dict(_toml_texts(path, table))
    exposed = [name for name in texts if name in TABLE and TABLE[name].secret] if others_read(path) else []
    return Source(FILE, texts, path, tuple(f"{safe(path)} holds {flag_word(n)} and every user can read it: chmod 600 it" for n in exposed))


def _where(error: tomllib.TOMLDecodeError) -> str:
    """The position alone: what stands there may be part of a secret."""
    position = re.search(r"\((at [a-z0-9, ]+)\)$", str(error))
    return position[1] if position else "it cannot be read"


def _toml_texts(path: Path, table: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    words = {flag_word(name): name for name in NAMES if name != "config"}
    for word, value in table.items():
        if word not in words:
            raise ConfigError(f"{safe(path)}: {safe(word)} is not a setting{_nearest(word, list(words))}")
        name = words[word]
        types = NAMES[name].toml_types if name in TABLE else (str,)
        if not _fits(value, types):
            wanted = " or ".join(_TOML_WORDS[kind] for kind in types)
            raise ConfigError(f"{safe(path)}: {word} must be {wanted}")
        if to_text(value).strip():
            yield name, to_text(value)


def _fits(value: object, types: tuple[type, ...]) -> bool:
    if isinstance(value, list):
        return list in types and all(isinstance(item, str) and "," not in item for item in value)
    return isinstance(value, types) and isinstance(value, bool) == (bool in types)


def from_credentials(env: Mapping[str, str]) -> Source:
    """Secrets that systemd hands over (LoadCredential=api-token:...), where there are any."""
    directory = env.get("CREDENTIALS_DIRECTORY", "")
    paths = {name: Path(directory, flag_word(name).removesuffix("-file")) for name in NAMES if name not in TABLE and directory}
    return Source(CREDENTIAL, {name: str(path) for name, path in paths.items() if path.exists()})


def read_secret(path: Path, place: str) -> tuple[str, tuple[str, ...]]:
    """The secret in a file, less one line end, and warnings; `ConfigError` names the setting that led here."""
    try:
        with path.open("rb") as file:
            content = file.read(_SECRET_MAX + 1)
        secret = _LINE_END.sub("", content.decode())
    except OSError as error:
        raise ConfigError(f"{place}: {safe(path)} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{place}: {safe(path)} is not UTF-8 text") from None
    if not secret.strip() or len(content) > _SECRET_MAX:
        raise ConfigError(f"{place}: {safe(path)} is {'empty' if not secret.strip() else 'too long for a secret'}")
    return secret, (f"{place}: every user can read {safe(path)}: chmod 600 it",) if others_read(path) else ()


def others_read(path: Path) -> bool:
    """True where every user of this machine may read the file; raises OSError."""
    return bool(path.stat().st_mode & _OTHERS_READ)


def _nearest(word: str, known: list[str], prefix: str = "") -> str:
    near = get_close_matches(word, known, n=1)
    return f"; did you mean {prefix}{near[0]}?" if near else ""
