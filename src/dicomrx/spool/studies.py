"""`studies/`: filing, marking, freezing; all of it under the study lock.

Nothing here is ever zipped, sent or deleted: a marked study leaves by one rename to `outbox/`, and what comes later makes a
new folder, the next generation.
"""

import contextlib
import os
import stat
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import file_digest
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from dicomrx.errors import Defer
from dicomrx.spool import durable
from dicomrx.spool.layout import ARRIVED, ATTEMPTS, MANIFEST, MARKER, REASON, RECEIPT, Spool, read_json
from dicomrx.spool.names import Frozen, is_pseudonymous_uid, visible

_DOCUMENTS: Final = frozenset({MANIFEST, RECEIPT, REASON, ATTEMPTS})
_STRAY_RETRY_S: Final = 60.0
_GAP: Final = 8  # generations are numbered without gaps; so many may have been taken away by hand


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
        with cls.all_locked(spool, [uid]) as studies:
            yield studies[uid]

    @classmethod
    @contextlib.contextmanager
    def all_locked(cls, spool: Spool, uids: Collection[str]) -> Iterator[dict[str, Self]]:
        """Take the locks of several studies."""
        if not all(map(is_pseudonymous_uid, uids)):
            msg = "a study's name must be a pseudonymous UID"
            raise ValueError(msg)
        with spool.study_lock(*uids):
            yield {uid: cls(spool, uid) for uid in uids}

    def filed(self, series: str, instance: str) -> set[str]:
        """SHA-256 of every output already filed for this instance, wherever the study's generations lie now.

        A file proves itself; a receipt with its manifest proves what was sent and perhaps removed. Each is synced before it
        is relied on: who made it may have died before that.
        """
        found = set()
        for folder in (self.folder, *self._generations):
            path = f"{folder}/{series}/{instance}.dcm"
            if os.path.exists(path):  # mostly not, which costs less than to open it in vain
                with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
                    durable.sync(file.fileno())
                    durable.sync_names(folder / series, folder, folder.parent)
                    found.add(file_digest(file, "sha256").hexdigest())
            if os.path.exists(f"{folder}/{RECEIPT}"):
                durable.sync_names(folder, folder.parent)
                found |= {row["sha256"] for row in _manifest_rows(folder) if (row["series"], row["instance"]) == (series, instance)}
        return found

    @cached_property
    def _generations(self) -> list[Path]:
        """The same while the lock is held."""
        return self.generations()

    def generations(self) -> list[Path]:
        """The study's frozen folders, in outbox, sent and failed, oldest first.

        Their names are tried, not listed: this is asked for every instance, and `sent/` grows for ever.
        """
        found: list[Path] = []
        highest = number = 0
        while number < highest + _GAP:
            number += 1
            name = Frozen(self.uid, number).name
            there = [
                parent / name for parent in (self._spool.outbox, self._spool.sent, self._spool.failed) if os.path.isdir(f"{parent}/{name}")
            ]
            highest = number if there else highest
            found += there
        return found

    def unmark(self) -> None:
        """Remove the marker: the folder is, or is about to be, no longer what it says."""
        durable.remove(self.folder / MARKER)

    def arrived(self, end: int) -> None:
        """Note the end stamp of an arrival, whatever became of it: never back, never making a folder, and a marker goes.

        A resend is a sender still at work.
        """
        _arrived({self: end})

    def begin(self, arrived: int) -> None:
        """Note the first end stamp of its arrivals."""
        # Linked with its time set: one made in place would for a moment bear the wall clock's, which may be years ahead.
        part = self._spool.new_path()
        part.touch(mode=0o660)
        durable.set_times({part: arrived})
        durable.link(part, self.folder / ARRIVED)
        part.unlink()

    def newest_arrival(self) -> int | None:
        """The end stamp of the study's newest arrival (spool time, ns), None where none is noted."""
        return newest_arrival(self._spool, self.uid)

    def entries(self) -> list[Entry]:
        """What the folder holds, sorted."""
        return entries(self.folder)

    def mark(self, rule: Mapping[str, Any]) -> bool:
        """Write `.complete`, or remove a folder that holds no instance; returns whether it is marked now.

        Raises Defer where something else lies in it: that may identify someone, and is never sent.
        """
        found = self.entries()
        if not found:
            self._remove_empty()
            return False
        if any(entry.size < 0 for entry in found):
            msg = f"files that are not dicomrx's lie in {self.folder}: move them away, until then the study is not complete"
            raise Defer(msg, _STRAY_RETRY_S)
        counts = Counter(entry.series for entry in found)
        files = [[entry.series, entry.instance, entry.size] for entry in found]
        self._spool.write_json(self.folder / MARKER, {"study": self.uid, **rule, "counts": dict(counts), "files": files})
        return True

    def _remove_empty(self) -> None:
        with contextlib.suppress(OSError):
            for series in self.folder.iterdir():
                if series.name != ARRIVED:
                    series.rmdir()
            durable.remove(self.folder / ARRIVED)
            self.folder.rmdir()

    def freeze(self) -> Frozen | None:
        """Rename a marked study to `outbox/`, if it is exactly its marker; if not, the marker goes and None is returned."""
        if not is_marked(self._spool, self.uid):
            return None
        if [[entry.series, entry.instance, entry.size] for entry in self.entries()] != self._marked_files():
            self.unmark()
            return None
        highest = max((int(path.suffix[1:]) for path in self.generations()), default=0)
        frozen = Frozen(self.uid, highest + 1)
        durable.move(self.folder, self._spool.outbox / frozen.name)
        return frozen

    def _marked_files(self) -> object:
        """What the marker says of the folder; a marker that is not ours says nothing."""
        with contextlib.suppress(ValueError, AttributeError):
            return (read_json(self.folder / MARKER) or {}).get("files")
        return None


class Addition(NamedTuple):
    """What becomes of a study: finished, fsynced outputs that it gets, by series and instance, and the newest end stamp of its arrivals."""

    parts: Mapping[tuple[str, str], Path]
    end: int


def file_all(additions: Mapping[Study, Addition]) -> None:
    """Give outputs their final names, and note for each study what arrived, as `Study.arrived` does. Raises FileExistsError.

    That is durable before they are there: after a crash between the two no study must look quiet. However many studies there are, they wait
    for the disk together.
    """
    filed = {study: addition.parts for study, addition in additions.items() if addition.parts}
    for study, parts in filed.items():
        for series in {series for series, _ in parts}:
            durable.make_directory(study.folder / series)
    _arrived({study: addition.end for study, addition in additions.items()})
    pairs = (
        (part, f"{study.folder}/{series}/{instance}.dcm") for study, parts in filed.items() for (series, instance), part in parts.items()
    )
    folders = [study.folder for study in filed]
    # Whoever made the folders may have died before they were durable.
    durable.link_all(pairs, *folders, *{folder.parent for folder in folders})


def _arrived(ends: Mapping[Study, int]) -> None:
    times: dict[Path, int] = {}
    for study, end in ends.items():
        if study.folder.is_dir():
            study.unmark()
            newest = max(end, study.newest_arrival() or 0)
            path = study.folder / ARRIVED
            if path.exists():
                times[path] = newest
            else:
                study.begin(newest)
    durable.set_times(times)


def open_studies(spool: Spool) -> list[str]:
    """The studies in `studies/`, marked or not."""
    return sorted(name for name in os.listdir(spool.studies) if is_pseudonymous_uid(name))


def is_marked(spool: Spool, uid: str) -> bool:
    """True where the study is complete and waits to be frozen."""
    return os.path.exists(f"{spool.studies}/{uid}/{MARKER}")


def newest_arrival(spool: Spool, uid: str) -> int | None:
    """As `Study.newest_arrival`, without its lock: every study is asked at every look."""
    try:
        return os.stat(f"{spool.studies}/{uid}/{ARRIVED}").st_mtime_ns
    except FileNotFoundError:
        return None


def entries(folder: Path) -> list[Entry]:
    """Every instance in a study's folder, sorted; anything else visible shows as an entry of size -1, which no marker holds."""
    found = []
    for name, is_series in _shown(folder):
        if not is_series:
            found.append(Entry(name, "", -1))
            continue
        with os.scandir(folder / name) as items:  # one that is taken away meanwhile ends it
            found += [_entry(name, item) for item in items if visible(item.name)]
    return sorted(found, key=lambda entry: (entry.series, entry.instance, entry.size))


def count(folder: Path) -> int:
    """How many entries there are, without a look at each of them."""
    return sum(sum(map(visible, os.listdir(folder / name))) if is_series else 1 for name, is_series in _shown(folder))


def _shown(folder: Path) -> list[tuple[str, bool]]:
    """What readers see in a study's folder beside its documents, and whether it is a series."""
    with os.scandir(folder) as items:
        shown = [item for item in items if visible(item.name) and item.name not in _DOCUMENTS]
        return [(item.name, is_pseudonymous_uid(item.name) and item.is_dir()) for item in shown]


def _entry(series: str, item: "os.DirEntry[str]") -> Entry:
    status = item.stat(follow_symlinks=False)
    stem, suffix = os.path.splitext(item.name)
    ours = suffix == ".dcm" and is_pseudonymous_uid(stem) and stat.S_ISREG(status.st_mode)
    return Entry(series, stem, status.st_size) if ours else Entry(series, item.name, -1)


def _manifest_rows(folder: Path) -> list[dict[str, Any]]:
    manifest = read_json(folder / MANIFEST)
    rows: list[dict[str, Any]] = manifest["instances"] if manifest else []
    return rows
