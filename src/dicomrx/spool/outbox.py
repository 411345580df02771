"""`outbox/` and `sent/`: frozen studies, what is recorded of their sending, and where they go after it."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from dicomrx.errors import Defer
from dicomrx.spool import durable
from dicomrx.spool.layout import ATTEMPTS, MANIFEST, RECEIPT, Spool, read_json
from dicomrx.spool.names import Frozen
from dicomrx.spool.studies import entries

_OTHER_ZIP_RETRY_S: Final = 60.0


def frozen_studies(spool: Spool) -> list[Frozen]:
    """What waits in `outbox/`, the longest untouched first."""
    found = []
    for name in os.listdir(spool.outbox):
        frozen = Frozen.parse(name)
        if frozen is not None:
            with contextlib.suppress(FileNotFoundError):
                found.append(((spool.outbox / name).stat().st_ctime_ns, frozen))
    return [frozen for _, frozen in sorted(found)]


class Outgoing:
    """A frozen study that this process has claimed; made by `Outgoing.claimed`."""

    def __init__(self, spool: Spool, frozen: Frozen) -> None:
        self._spool = spool
        self.frozen = frozen
        self.folder = spool.outbox / frozen.name
        self.zip = spool.zips / f"{frozen.name}.zip"

    @classmethod
    @contextlib.contextmanager
    def claimed(cls, spool: Spool, frozen: Frozen) -> "Iterator[Outgoing | None]":
        """Take a frozen study by flock on its folder: daemon, cron and hand never send the same one at once."""
        fd = durable.claim(spool.outbox / frozen.name)
        if fd is None:
            yield None
            return
        try:
            durable.sync_names(spool.outbox, spool.studies)  # who froze it may have died before that
            yield cls(spool, frozen)
        finally:
            os.close(fd)

    def instances(self) -> list[tuple[str, str]]:
        """Series and instance of every file, sorted."""
        return [(entry.series, entry.instance) for entry in entries(self.folder)]

    def document(self, name: str) -> dict[str, Any] | None:
        """One of the study's documents, or None."""
        return read_json(self.folder / name)

    def manifest_bytes(self) -> bytes:
        """The manifest as it was written: its SHA-256 is the upload's Idempotency-Key."""
        return (self.folder / MANIFEST).read_bytes()

    def write(self, name: str, document: Mapping[str, Any]) -> None:
        """Write a document beside the instances, durably; one that is there already stays."""
        with contextlib.suppress(FileExistsError):
            self._spool.write_json(self.folder / name, document)

    def note_attempt(self, facts: Mapping[str, Any]) -> None:
        """Record a step of an attempt durably: before its first byte, and after its answer."""
        fd = os.open(self.folder / ATTEMPTS, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o660)
        try:
            durable.write_all(fd, b"\n" + json.dumps(facts, sort_keys=True).encode())
            durable.sync(fd)
        finally:
            os.close(fd)
        durable.sync_directory(self.folder)

    def attempts(self) -> list[dict[str, Any]]:
        """The steps recorded so far."""
        return read_attempts(self.folder)

    def is_zipped(self) -> bool:
        """True where the zip is there; raises Defer where another's bears its name, for it would be sent in its place."""
        if not self.zip.exists():
            return False
        if not (self.folder / MANIFEST).exists():  # which is always written first
            msg = f"{self.zip} is there before it was made, perhaps left by an earlier spool: move it away"
            raise Defer(msg, _OTHER_ZIP_RETRY_S)
        return True

    @contextlib.contextmanager
    def making_zip(self) -> Iterator[Path]:
        """A path to write the zip to; it gets its final name when the block ends without an error."""
        part = self._spool.zip_scratch.new_path()
        try:
            yield part
            fd = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
            try:
                durable.sync(fd)
            finally:
                os.close(fd)
            durable.link(part, self.zip)
        finally:
            part.unlink(missing_ok=True)

    def settle(self) -> Path:
        """Move the study to `sent/`: its receipt is durable."""
        target = self._spool.sent / self.frozen.name
        with self._spool.study_lock(self.frozen.study):
            durable.move(self.folder, target)
        return target


def clean(spool: Spool, sent: Path) -> None:
    """Remove a sent study's instances and its zip; receipt and manifest stay for good.

    Does nothing where there is no receipt.
    """
    if not (sent / RECEIPT).exists():
        return
    for path in sorted(sent.iterdir()):
        if path.is_dir():
            durable.remove_tree(path)
    durable.remove(spool.zips / f"{sent.name}.zip")


def read_attempts(folder: Path) -> list[dict[str, Any]]:
    """The steps of all attempts to send the study in `folder`; a line that a crash or a full disk cut says nothing."""
    steps = []
    try:
        for line in (folder / ATTEMPTS).read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                steps.append(json.loads(line))
    except FileNotFoundError:
        pass
    return steps
