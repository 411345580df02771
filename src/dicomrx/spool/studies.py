"""`studies/`: filing, marking, freezing; all of it under the study lock.

Nothing here is ever zipped, sent or deleted: a marked study leaves by one rename to `outbox/`, and what comes later makes a
new folder, the next generation.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any, Self

from dicomrx.spool import durable
from dicomrx.spool.layout import ARRIVED, MANIFEST, MARKER, RECEIPT, Spool, read_json
from dicomrx.spool.names import Frozen, is_pseudonymous_uid, visible


@dataclass(frozen=True, order=True)
class Entry:
    """One instance in a study's folder."""

    series: str
    instance: str
    size: int


class Study:
    """A study whose lock this process holds; made by `Study.locked`."""

    def __init__(self, spool: Spool, uid: str) -> None:
        self._spool = spool
        self.uid = uid
        self.folder = spool.studies / uid

    @classmethod
    @contextlib.contextmanager
    def locked(cls, spool: Spool, uid: str) -> Iterator[Self]:
        """Take the study's lock; `uid` is pseudonymous and the only source of its folder's name."""
        if not is_pseudonymous_uid(uid):
            msg = "a study's name must be a pseudonymous UID"
            raise ValueError(msg)
        with spool.study_lock(uid):
            yield cls(spool, uid)

    def filed(self, series: str, instance: str) -> set[str]:
        """SHA-256 of every output already filed for this instance, wherever the study's generations lie now.

        A file proves itself; a receipt with its manifest proves what was sent and perhaps removed.
        """
        inside = Path(series) / f"{instance}.dcm"
        found = set()
        for folder in (self.folder, *self.generations()):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError), (folder / inside).open("rb") as file:
                found.add(file_digest(file, "sha256").hexdigest())
        for folder in self.generations():
            if (folder / RECEIPT).exists():
                found |= {row["sha256"] for row in _manifest_rows(folder) if (row["series"], row["instance"]) == (series, instance)}
        return found

    def generations(self) -> list[Path]:
        """The study's frozen folders, in outbox, sent and failed, oldest first."""
        found = []
        for parent in (self._spool.outbox, self._spool.sent, self._spool.failed):
            for name in os.listdir(parent):
                frozen = Frozen.parse(name)
                if frozen is not None and frozen.study == self.uid:
                    found.append((frozen.generation, parent / name))
        return [path for _, path in sorted(found)]

    def file(self, part: Path, series: str, instance: str) -> Path:
        """Give a finished, fsynced output its final name; a marker goes first. Raises FileExistsError."""
        self.unmark()
        target = self.folder / series / f"{instance}.dcm"
        durable.make_directory(target.parent)
        durable.link(part, target)
        return target

    def unmark(self) -> None:
        """Remove the marker: the folder is, or is about to be, no longer what it says."""
        durable.remove(self.folder / MARKER)

    def arrived(self, end: int) -> None:
        """Note the end stamp of an arrival, whatever became of it: never back, never making a folder, and a marker goes.

        A resend is a sender still at work.
        """
        if not self.folder.is_dir():
            return
        self.unmark()
        newest = max(end, self.newest_arrival())
        path = self.folder / ARRIVED
        if path.exists():
            durable.set_time(path, newest)
            return
        # Linked with its time set: one made in place would for a moment bear the wall clock's, which may be years ahead.
        part = self._spool.new_path()
        part.touch(mode=0o660)
        durable.set_time(part, newest)
        durable.link(part, path)
        part.unlink()

    def newest_arrival(self) -> int:
        """The end stamp of the study's newest arrival (spool time, ns), 0 where none is noted."""
        try:
            status = (self.folder / ARRIVED).stat()
        except FileNotFoundError:
            return 0
        return status.st_mtime_ns

    def entries(self) -> list[Entry]:
        """What the folder holds, sorted."""
        return entries(self.folder)

    def mark(self, rule: Mapping[str, Any]) -> bool:
        """Write `.complete`, or remove a folder that holds no instance; returns whether it is marked now."""
        found = self.entries()
        if not found:
            self._remove_empty()
            return False
        counts = Counter(entry.series for entry in found)
        files = [[entry.series, entry.instance, entry.size] for entry in found]
        self._spool.write_json(self.folder / MARKER, {"study": self.uid, **rule, "counts": dict(counts), "files": files})
        return True

    def _remove_empty(self) -> None:
        durable.remove(self.folder / ARRIVED)
        with contextlib.suppress(OSError):
            for series in self.folder.iterdir():
                series.rmdir()
            self.folder.rmdir()

    def freeze(self) -> Frozen | None:
        """Rename a marked study to `outbox/`, if it is exactly its marker; if not, the marker goes and None is returned."""
        marker = read_json(self.folder / MARKER)
        if marker is None:
            return None
        if [[entry.series, entry.instance, entry.size] for entry in self.entries()] != marker["files"]:
            self.unmark()
            return None
        highest = max((frozen.generation for frozen in map(_frozen, self.generations())), default=0)
        frozen = Frozen(self.uid, highest + 1)
        durable.move(self.folder, self._spool.outbox / frozen.name)
        return frozen


def open_studies(spool: Spool) -> list[str]:
    """The studies in `studies/`, marked or not."""
    return sorted(name for name in os.listdir(spool.studies) if is_pseudonymous_uid(name))


def is_marked(spool: Spool, uid: str) -> bool:
    """True where the study is complete and waits to be frozen."""
    return (spool.studies / uid / MARKER).exists()


def entries(folder: Path) -> list[Entry]:
    """Every instance in a study's folder, sorted; anything else visible shows as an entry that no marker can hold."""
    found = []
    for series in sorted(folder.iterdir()):
        if not visible(series.name) or series.name in {MANIFEST, RECEIPT, "reason.json", "attempts.jsonl"}:
            continue
        if not series.is_dir():
            found.append(Entry(series.name, "", -1))
            continue
        for path in sorted(series.iterdir()):
            if visible(path.name):
                found.append(Entry(series.name, path.name.removesuffix(".dcm"), path.stat().st_size))
    return sorted(found)


def _manifest_rows(folder: Path) -> list[dict[str, Any]]:
    manifest = read_json(folder / MANIFEST)
    rows: list[dict[str, Any]] = manifest["instances"] if manifest else []
    return rows


def _frozen(path: Path) -> Frozen:
    frozen = Frozen.parse(path.name)
    assert frozen is not None  # generations() lists only such names
    return frozen
