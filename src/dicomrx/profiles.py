"""Which profile de-identifies what: PROFILE, AE_PROFILES, and the files that a site wrote."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicomrx import deid
from dicomrx.errors import ConfigError
from dicomrx.settings import TABLE, Settings
from dicomrx.text import safe

_SITE_FILE: Final = ".toml"


@dataclass(frozen=True)
class Profiles:
    """The profile of each calling AE title that has one of its own, and of all others."""

    default: deid.Profile
    by_ae: Mapping[str, deid.Profile]

    @classmethod
    def of(cls, settings: Settings) -> "Profiles":
        """As the settings say; raises ConfigError, naming the setting and the file."""
        by_ae = {row.calling_ae: _profile("ae_profiles", row.profile) for row in settings.ae_profiles}
        made = cls(_profile("profile", settings.profile), by_ae)
        if {"full-dates", "modified-dates"} <= frozenset().union(*(profile.options for profile in made.all)):
            both = f"{_place('profile')} and {_place('ae_profiles')}"
            msg = f"{both}: one keeps full dates and one moves them, so who has a patient's images of both knows the shift: choose one"
            raise ConfigError(msg)
        return made

    @property
    def all(self) -> tuple[deid.Profile, ...]:
        """Each of them."""
        return (self.default, *self.by_ae.values())

    def for_ae(self, calling_ae: str | None) -> deid.Profile:
        """The profile of what this AE title sends."""
        return self.by_ae.get(calling_ae or "", self.default)


def _profile(setting: str, text: str) -> deid.Profile:
    try:
        if not text.endswith(_SITE_FILE):
            return deid.named_profile(text)
        path = Path(text)
        return deid.site_profile(path.read_text("utf-8"), path.stem)
    except (ConfigError, OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{_place(setting)}={safe(text, 200)}: {why}") from error


def _place(setting: str) -> str:
    """Both names: where the value was given is settled, and forgotten, long before it is read."""
    row = TABLE[setting]
    return f"{row.flag} or {row.env}"
