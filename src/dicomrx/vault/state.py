"""The state directory: made once, opened with the site's key."""

import hmac
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Self

from dicomrx.errors import CannotCreateError, ConfigError, NoInputError, PermissionRefused
from dicomrx.spool import durable, locks, runs
from dicomrx.spool.runs import RunDirectory
from dicomrx.text import safe
from dicomrx.vault import keys
from dicomrx.vault.audit import AuditLog
from dicomrx.vault.identities import Assignment, Identities, Patient
from dicomrx.vault.keys import Keys
from dicomrx.vault.store import Vault
from dicomrx.vault.who import Who

_KEY: Final = "site.key"
_ID: Final = "id"
_CHECK: Final = "key-check"
_SPOOL: Final = "spool"
_IDENTITIES: Final = "identities.sqlite"
_VAULT: Final = "vault"
_SCRATCH: Final = "tmp"
_AUDIT: Final = "audit.log"
_NOT_YET_A_STATE: Final = frozenset({_KEY, _CHECK, _IDENTITIES, f"{_IDENTITIES}-journal", _VAULT, _SCRATCH, "lost+found"})


class State:
    """An open state; made by `State.open`."""

    def __init__(self, path: Path, run: RunDirectory | None) -> None:
        self.path = path
        self.new_key_path: Path | None = None
        """The site's key, for whom has made the state just now: to be backed up."""
        self._run = run
        self.id = (path / _ID).read_text()
        self._keys = Keys.derive(keys.read_site_key(path / _KEY))
        self._check_key()
        self._identities = Identities(path / _IDENTITIES, self._keys, writable=run is not None)
        self.audit = AuditLog(path / _AUDIT)
        self.vault = Vault(path / _VAULT, run, self._keys, self._identities.data_key)

    @classmethod
    def open(cls, path: Path, *, create: bool) -> Self:
        """Open the state at `path`: to read only, or (`create`) to work in it, made if it is missing, its key first of all.

        Raises NoInputError where there is none to read, PermissionRefused where this user may not, CannotCreateError where none
        can be made, ConfigError for a part that is missing and a key that is open to others or not the one.
        """
        path = path.absolute()
        return cls._open_to_work(path) if create else cls._open_to_read(path)

    @classmethod
    def _open_to_read(cls, path: Path) -> Self:
        try:
            if not cls.exists(path):
                msg = f"no state at {path}: --state-dir names it"
                raise NoInputError(msg)
            return cls(path, None)
        except PermissionError as error:
            msg = f"this user may not read the state {path} ({error.filename})"
            raise PermissionRefused(msg) from error

    @classmethod
    def _open_to_work(cls, path: Path) -> Self:
        run = None
        try:
            made = _make(path)
            runs.sweep(path / _SCRATCH)
            run = RunDirectory(path / _SCRATCH)
            state = cls(path, run)
        except BaseException as error:
            if run is not None:
                run.close()
            if isinstance(error, PermissionError | FileExistsError | NotADirectoryError):
                msg = f"cannot use the state {path}: {error.strerror} at {error.filename}"
                raise CannotCreateError(msg) from error
            raise
        state.new_key_path = path / _KEY if made else None
        return state

    @staticmethod
    def exists(path: Path) -> bool:
        """True where a state was made, its id is the last thing written; also where this user may not look: opening it will tell."""
        try:
            return (path / _ID).is_file()
        except PermissionError:
            return True

    def _check_key(self) -> None:
        path = self.path / _CHECK
        there = path.read_text() if path.is_file() else ""
        if not hmac.compare_digest(there, self._keys.mac(self._keys.check, self.id)):
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

    def use_format(self, text: str) -> None:
        """Make pseudonyms as the PSEUDONYM setting says; raises ConfigError where the state, that keeps its first one, has another."""
        bound = self._identities.bind_format(text)
        if bound != text:
            msg = (
                f"the state {self.path} makes pseudonyms by {safe(bound)}, for ever, so that a patient keeps one pseudonym: set "
                "DICOM_RECEIVER_PSEUDONYM to that; only a new spool with a new state can have another format"
            )
            raise ConfigError(msg)

    def pseudonym(self, number: int) -> str:
        """What stands for the patient of a number."""
        return self._identities.pseudonym(number)

    def number(self, pseudonym: str) -> int | None:
        """The number that a pseudonym was made of; None where it is none."""
        return self._identities.number(pseudonym)

    def patient(self, who: Who) -> Patient:
        """The patient of an instance; the number is durable. Raises Reject as `Identities.patient` does."""
        return self._identities.patient(who)

    def assign(self, numbering: Iterable[Assignment]) -> int:
        """Take over a site's own numbering, all or nothing; returns how many patients are new. Raises ConfigError."""
        return self._identities.assign(numbering)

    def known_patient(self, who: Who) -> Patient | None:
        """The patient of an identity key who has a number already, or None; for who only wants to know."""
        return self._identities.known_patient(who)

    def date_shift(self, patient: Patient) -> int:
        """Days from 366 to 3650 by which this patient's dates move back, in every study."""
        return self._keys.date_shift(patient.number)

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
    """Make what is missing, once, however many processes start; returns whether the state was made now."""
    if State.exists(path):
        _tighten(path)
        return False
    _refuse_foreign(path)
    durable.make_directory(path)
    _tighten(path)
    with locks.locked(path / ".lock"):
        if State.exists(path):
            return False
        _refuse_remains(path)
        for name in (_SCRATCH, _VAULT):
            durable.make_directory(path / name)
        with RunDirectory(path / _SCRATCH) as scratch:
            if not (path / _KEY).exists():  # one brought by the site, or left by a crash, is used
                keys.make_site_key(path / _KEY, scratch)
            derived = Keys.derive(keys.read_site_key(path / _KEY))
            Identities.create(path / _IDENTITIES)
            state_id = secrets.token_hex(16)
            durable.remove(path / _CHECK)
            durable.publish(derived.mac(derived.check, state_id).encode(), path / _CHECK, scratch)
            durable.publish(state_id.encode(), path / _ID, scratch)
        return True


def _tighten(path: Path) -> None:
    """The owner alone, whatever the rights were."""
    if os.geteuid() in {0, path.stat().st_uid}:
        path.chmod(0o700)


def _refuse_foreign(path: Path) -> None:
    there = path.iterdir() if path.is_dir() else ()
    others = [entry.name for entry in there if not entry.name.startswith(".") and entry.name not in _NOT_YET_A_STATE]
    if others and not State.exists(path):  # another process may make it just now
        msg = f"{path} is no state and not empty ({len(others)} other entries): name an empty or new folder with --state-dir"
        raise CannotCreateError(msg)


def _refuse_remains(path: Path) -> None:
    """A state that has lost its id is not begun anew: what it holds has a key, and numbers that are in use."""
    used = (path / _VAULT).is_dir() and any((path / _VAULT).glob("*.seg"))
    if used or ((path / _IDENTITIES).exists() and not (path / _KEY).exists()):
        msg = f"the state {path} is not whole, {_ID} or {_KEY} is missing: put it back from its newest backup"
        raise ConfigError(msg)
