"""`outbox/` and `sent/`: frozen studies, what is recorded of their sending, and where they go after it."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from dicomrx.spool import durable, locks
from dicomrx.spool.layout import ARRIVED, MANIFEST, RECEIPT, Spool, read_json
from dicomrx.spool.names import Frozen
from dicomrx.spool.progress import FollowedFile
from dicomrx.spool.sending import Record, Step, note, taken_up
from dicomrx.spool.studies import entries


def frozen_studies(spool: Spool) -> list[Frozen]:
    """What waits in `outbox/`: by the newest arrival, the oldest first; what the destination last refused us over comes last.

    So one study that is met with, say, HTTP 409 for ever stops the line behind the others, not before them.
    """
    found = []
    for name in os.listdir(spool.outbox):
        frozen = Frozen.parse(name)
        if frozen is not None:
            with contextlib.suppress(FileNotFoundError):
                folder = spool.outbox / name
                found.append((Record.read(folder).refused, _age_stamp(folder), frozen))
    return [frozen for _, _, frozen in sorted(found)]


def _age_stamp(folder: Path) -> int:
    arrived = folder / ARRIVED
    return (arrived if arrived.exists() else folder).stat().st_mtime_ns


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
        fd = locks.claim(spool.outbox / frozen.name)
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

    def note(self, step: Step, **facts: object) -> None:
        """Record a step of its sending durably."""
        note(self._spool, self.folder, step, **facts)

    def taken_up(self) -> Record:
        """The steps recorded so far; one that a dead process left open is closed first."""
        return taken_up(self._spool, self.folder)

    def write_receipt(self) -> None:
        """Write down, for good, what was sent and what the API answered."""
        record = self.taken_up()
        sent = record.sent or {}
        receipt = {
            "study": self.frozen.study,
            "generation": self.frozen.generation,
            "key": sent.get("key"),
            "zip": {"name": self.zip.name, **(record.seal._asdict() if record.seal else {})},
            "destination": sent.get("destination"),
            "attempts": sent.get("attempt"),
            "sent_at": sent.get("at"),
            "status": sent.get("status"),
            "answer": sent.get("answer"),
        }
        self.write(RECEIPT, receipt)

    @contextlib.contextmanager
    def reading_zip(self) -> Iterator[FollowedFile]:
        """The zip, to be sent while `status` tells how far it is."""
        with FollowedFile(self._spool, self.zip, self.frozen.name) as file:
            yield file

    @contextlib.contextmanager
    def making_zip(self) -> Iterator[BinaryIO]:
        """A file to write the zip to; it becomes durable and gets its final name when the block ends without an error."""
        part = self._spool.zip_scratch.new_path()
        try:
            with part.open("xb") as file:
                yield file
                file.flush()
                durable.sync(file.fileno())
            durable.link(part, self.zip)
        finally:
            part.unlink(missing_ok=True)

    def remove_zip(self) -> None:
        """Remove a zip that is not what it was sealed as: the instances make it anew."""
        durable.remove(self.zip)

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
    zipped = spool.zips / f"{sent.name}.zip"
    data = sorted(path for path in sent.iterdir() if path.is_dir())
    if not (sent / RECEIPT).exists() or not (data or zipped.exists()):
        return
    if Record.read(sent).last.get("step") != Step.CLEANED:
        note(spool, sent, Step.CLEANED)
    for path in data:
        durable.remove_tree(path)
    durable.remove(zipped)


def clean_older(spool: Spool, days: int) -> None:
    """Clean what was sent so many days ago or earlier, by spool time: a wrong wall clock removes nothing too early."""
    latest = datetime.fromtimestamp(spool.now() / 1e9, UTC) - timedelta(days=days)
    for name in os.listdir(spool.sent):
        if Frozen.parse(name) is not None:
            with contextlib.suppress(KeyError, ValueError):
                receipt = read_json(spool.sent / name / RECEIPT) or {}
                if datetime.fromisoformat(receipt["sent_at"]) <= latest:
                    clean(spool, spool.sent / name)
