"""The audit log: who had originals decrypted, when, and whose by pseudonym; `<state>/audit.log`, a JSON document a line, never cut."""

import contextlib
import json
import os
import pwd
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from dicomrx.errors import PermissionRefused
from dicomrx.spool import durable


class AuditLog:
    """A line of it is on disk before `note` returns: what cannot be noted is not done."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, what: str, facts: Mapping[str, str | int]) -> None:
        """Write down that this user is about to do something; `facts` name pseudonyms only. Raises PermissionRefused."""
        line = {"version": 1, "at": datetime.now(UTC).isoformat(), "by": _user(), "what": what, **facts}
        try:
            durable.append_line(self._path, json.dumps(line).encode())
        except OSError as error:
            msg = f"the audit log {self._path} cannot be written ({error.strerror}): nothing is decrypted without it"
            raise PermissionRefused(msg) from error


def _user() -> dict[str, str | int]:
    """Whose process this is; the name may be unknown to this machine, and who used sudo is told by the environment alone."""
    by: dict[str, str | int] = {"uid": os.getuid()}
    with contextlib.suppress(KeyError):
        by["user"] = pwd.getpwuid(os.getuid()).pw_name
    if sudo := os.environ.get("SUDO_USER"):
        by["sudo_user"] = sudo
    return by
