"""The state directory: made once, opened with the site's key."""

import hmac
import secrets
from pathlib import Path
from typing import Final, Self

from dicomrx.errors import CannotCreateError, ConfigError, NoInputError
from dicomrx.spool import durable
from dicomrx.spool.durable import RunDirectory
from dicomrx.vault import keys
from dicomrx.vault.identities import Identities, Patient
from dicomrx.vault.keys import Keys
from dicomrx.vault.store import Vault

_KEY: Final = "site.key"
_ID: Final = "id"
_CHECK: Final = "key-check"
_SPOOL: Final = "spool"


class State:
    """An open state; made by `State.open`."""

    def __init__(self, path: Path, run: RunDirectory | None) -> None:
        self.path = path
        self.new_key_path: Path | None = None
        self._run = run
        self.id = (path / _ID).read_text()
        self._keys = Keys.derive(keys.read_site_key(path / _KEY))
        self._check_key()
        self._identities = Identities(path / "identities.sqlite", self._keys)
        self.vault = Vault(path / "vault", run, self._keys, self._identities.data_key)

    @classmethod
    def open(cls, path: Path, *, create: bool) -> Self:
        """Open the state at `path`; `create` makes a missing one, its key first of all.

        Raises NoInputError where there is none, ConfigError for a key that is missing, open to others or not the one.
        """
        path = path.absolute()
        if not create:
            if not cls.exists(path):
                msg = f"no state at {path}: --state-dir names it"
                raise NoInputError(msg)
            return cls(path, None)
        try:
            made = _make(path)
            durable.sweep(path / "tmp")
            state = cls(path, RunDirectory(path / "tmp"))
        except PermissionError as error:
            msg = f"cannot use the state {path}: {error.strerror}"
            raise CannotCreateError(msg) from error
        state.new_key_path = path / _KEY if made else None
        return state

    @staticmethod
    def exists(path: Path) -> bool:
        """True where a state was made; its id is the last thing written."""
        return (path / _ID).is_file()

    def _check_key(self) -> None:
        if not hmac.compare_digest((self.path / _CHECK).read_text(), self._keys.mac(self._keys.check, self.id)):
            msg = f"{self.path / _KEY} is not the key that this state was made with: put that one back from its backup"
            raise ConfigError(msg)

    @property
    def uid_key(self) -> bytes:
        """The key of pseudonymous UIDs."""
        return self._keys.uid

    @property
    def spool_id(self) -> str | None:
        """The id of the spool that this state is bound to, or None."""
        path = self.path / _SPOOL
        return path.read_text() if path.exists() else None

    def bind(self, spool_id: str) -> None:
        """Note the spool that this state belongs to from now on."""
        if self._run is None:
            msg = "the state was opened to read"
            raise RuntimeError(msg)
        durable.publish(spool_id.encode(), self.path / _SPOOL, self._run)

    def patient(self, identity_key: str) -> Patient:
        """The patient of an identity key; the number is durable."""
        return self._identities.patient(identity_key)

    def highest_number(self) -> int:
        """The highest number ever given."""
        return self._identities.highest_number()

    def close(self) -> None:
        """Give everything back."""
        self.vault.close()
        if self._run is not None:
            self._run.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _make(path: Path) -> bool:
    """Make what is missing, once, however many processes start; returns whether the key was made now."""
    if State.exists(path):
        return False
    durable.make_directory(path)
    path.chmod(0o700)
    with durable.locked(path / ".lock"):
        if State.exists(path):
            return False
        for name in ("tmp", "vault"):
            durable.make_directory(path / name)
        with RunDirectory(path / "tmp") as scratch:
            made = not (path / _KEY).exists()  # one brought by the site, or left by a crash, is used
            if made:
                keys.make_site_key(path / _KEY, scratch)
            derived = Keys.derive(keys.read_site_key(path / _KEY))
            Identities(path / "identities.sqlite", derived)
            state_id = secrets.token_hex(16)
            durable.remove(path / _CHECK)
            durable.publish(derived.mac(derived.check, state_id).encode(), path / _CHECK, scratch)
            durable.publish(state_id.encode(), path / _ID, scratch)
        return made
