"""The spool's tree: where everything lies, and how it is made, checked and opened."""

import contextlib
import errno
import grp
import json
import os
import shutil
import stat
import threading
from collections.abc import Iterator, Mapping
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Self

from dicomrx.errors import CannotCreateError, NoInputError, PermissionRefused, is_machine_error
from dicomrx.spool import durable, locks, runs
from dicomrx.spool.binding import Binding
from dicomrx.spool.clock import SpoolClock
from dicomrx.spool.ledger import Ledger
from dicomrx.spool.names import Arrival, part_begin, run_start, visible
from dicomrx.spool.runs import RunDirectory

FOLDERS: Final = ("receiving", "incoming", "studies", "outbox", "sent", "failed", "quarantine")
MARKER: Final = ".complete"
ARRIVED: Final = ".arrived"
MANIFEST: Final = "manifest.json"
RECEIPT: Final = "receipt.json"
REASON: Final = "reason.json"
ATTEMPTS: Final = "attempts.jsonl"

_IN_HAND: Final = "in-hand"
_NOT_OURS_BUT_HARMLESS: Final = frozenset({"incoming", "lost+found"})
_HIDDEN_FOLDERS: Final = ("tmp", "locks", "clock", "arrivals", "associations", "evidence", "strikes", "sending", "refused")


class Spool:
    """An open spool. One per process: it holds the run directory for what this process has not finished.

    Made by `Spool.open`; paths are attributes, verbs are in the modules beside this one.
    """

    def __init__(self, root: Path, zips: Path) -> None:
        self.root = root
        self.zips = zips
        self.receiving, self.incoming, self.studies, self.outbox, self.sent, self.failed, self.quarantine = (
            root / name for name in FOLDERS
        )
        self.run_dir = root / ".run"
        self.ledger = Ledger(self.run_dir / "arrivals", self.run_dir / "associations")
        self.binding = Binding(self.run_dir)

    @classmethod
    def open(cls, root: Path, zips: Path, *, make: bool = False, group: str | None = None) -> Self:
        """Open the spool at `root`, with `zips` as its folder for zips.

        `make` makes a missing one. Raises NoInputError where there is none, CannotCreateError where another's things lie there,
        it cannot be made, or the file system does not do what a spool needs.
        """
        spool = cls(root.absolute(), zips.absolute()) if make else cls.at(root, zips)
        try:
            if not (spool.run_dir / "id").is_file():
                spool._refuse_foreign()  # noqa: SLF001  its own class
            spool._build(group)  # noqa: SLF001  its own class
        except OSError as error:
            spool.close()
            if isinstance(error, PermissionError):
                raise PermissionRefused(_not_ours(spool.root, error)) from error
            if is_machine_error(error) and error.errno != errno.EROFS:
                raise
            msg = f"cannot use the spool {spool.root}: {error.strerror} at {error.filename}"
            raise CannotCreateError(msg) from error
        except CannotCreateError:
            spool.close()
            raise
        return spool

    @classmethod
    def at(cls, root: Path, zips: Path) -> Self:
        """Look at the spool at `root` without making or changing anything.

        Raises NoInputError where there is none, PermissionRefused where this user may not look.
        """
        spool = cls(root.absolute(), zips.absolute())
        try:
            there = (spool.run_dir / "id").is_file()
        except PermissionError as error:
            raise PermissionRefused(_not_ours(spool.root, error)) from error
        if not there:
            msg = f"no spool at {spool.root}: `dicomrx all`, `scp` or `anonymize` makes one; --storage names it"
            raise NoInputError(msg)
        return spool

    def _refuse_foreign(self) -> None:
        there = sorted(self.root.iterdir()) if self.root.is_dir() else []
        others = [path.name for path in there if visible(path.name) and path.name not in _NOT_OURS_BUT_HARMLESS]
        if others:
            msg = f"{self.root} is no spool and not empty ({len(others)} other entries): name an empty or new folder with --storage"
            raise CannotCreateError(msg)

    def _build(self, group: str | None) -> None:
        durable.make_directory(self.root)
        _tighten(self.root, group)
        for name in _HIDDEN_FOLDERS:
            durable.make_directory(self.run_dir / name)
        self.binding.create()
        for name in FOLDERS:
            durable.make_directory(self.root / name)
        if not self.zips.is_dir():  # one that was there has rights of its own
            durable.make_directory(self.zips)
            _tighten(self.zips, group)
        os.scandir(self.zips).close()  # where that may not be it is told here, and not by the first who looks into it
        self._refuse_unfit()

    def _refuse_unfit(self) -> None:
        device = self.root.stat().st_dev
        split = [name for name in (*FOLDERS, ".run") if (self.root / name).stat().st_dev != device]
        if split:
            msg = f"{self.root} is split over file systems ({', '.join(split)}): a spool is ONE file system, so that a rename moves a file"
            raise CannotCreateError(msg)
        probe = self.new_path(".probe")
        probe.touch()
        try:
            durable.link(probe, probe.with_suffix(".link"))
            durable.move(probe.with_suffix(".link"), probe.with_suffix(".moved"))
        except OSError as error:
            if is_machine_error(error):
                raise
            msg = f"the file system of {self.root} lacks hard links or renames that refuse to overwrite ({error.strerror})"
            raise CannotCreateError(msg) from error
        for path in (probe, probe.with_suffix(".moved")):
            path.unlink()

    @cached_property
    def scratch(self) -> RunDirectory:
        """Where this process writes what is not finished; made at first use, held until `close`."""
        return RunDirectory(self.run_dir / "tmp")

    @cached_property
    def zip_scratch(self) -> RunDirectory:
        """The same on the zips' file system."""
        return RunDirectory(self.zips / ".tmp")

    def new_path(self, suffix: str = ".part") -> Path:
        """A path for an unfinished file of this process."""
        return self.scratch.new_path(suffix)

    def close(self) -> None:
        """Remove what this process left unfinished and give its locks back."""
        for name in ("scratch", "zip_scratch"):
            run = self.__dict__.pop(name, None)
            if run is not None:
                run.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def _clock(self) -> SpoolClock:
        return SpoolClock(self.run_dir / "clock", lambda: self.scratch, self._newest_stamp)

    def now(self) -> int:
        """Spool time in nanoseconds."""
        return self._clock.now()

    def _newest_stamp(self) -> int:
        """The newest stamp anywhere: read once a boot, to anchor the clock."""
        arrivals = (Arrival.parse(path.name) for path in self.incoming.iterdir())
        ends = [arrival.end for arrival in arrivals if arrival and self.ledger.knows(arrival.run)]
        starts = [run_start(path.name) or 0 for path in self.receiving.iterdir()]
        begins = [part_begin(path.name) or 0 for path in self.receiving.glob("*/*.part")]
        arrived = [path.stat().st_mtime_ns for path in self.studies.glob(f"*/{ARRIVED}")]
        return max(ends + starts + begins + arrived, default=0)

    @contextlib.contextmanager
    def study_lock(self, *studies: str) -> Iterator[None]:
        """Hold the locks of some studies, of 256: to look up, file, mark or freeze, never during a zip or an upload."""
        with contextlib.ExitStack() as held:
            for first_byte in sorted({sha256(study.encode()).hexdigest()[:2] for study in studies}):  # ascending: nobody waits in a circle
                held.enter_context(locks.locked(self.run_dir / "locks" / first_byte))
            yield

    def stage_lock(self, stage: str) -> Path:
        """The lock that the daemon of a stage holds while it lives."""
        return self.run_dir / "locks" / f"{stage}.stage"

    def receiver_runs(self) -> set[str]:
        """The runs of the receiver that lives."""
        runs = [path for path in self.receiving.iterdir() if run_start(path.name) is not None]
        return {path.name.rpartition(".")[2] for path in runs if locks.is_locked(path)}

    def free_bytes(self) -> int:
        """Room left on the spool's file system for this user."""
        disk = os.statvfs(self.root)
        return disk.f_bavail * disk.f_frsize

    def total_bytes(self) -> int:
        """Size of the spool's file system."""
        return shutil.disk_usage(self.root).total

    def write_json(self, target: Path, document: Mapping[str, Any]) -> None:
        """Write a versioned document durably under a name that is not taken; raises FileExistsError."""
        text = json.dumps({"version": 1, **document}, indent=1, sort_keys=True, ensure_ascii=True)
        durable.publish(text.encode() + b"\n", target, self.scratch)

    def in_hand(self, *paths: Path | str) -> None:
        """Note what this thread works on, so that the death of its process is a strike against each of these inputs."""
        thread = threading.current_thread()
        name = _IN_HAND if thread is threading.main_thread() else f"{_IN_HAND}-{thread.native_id}"
        (self.scratch.path / name).write_bytes(b"\0".join(map(os.fsencode, paths)))

    def strike(self, name: str) -> int:
        """One more failure of an input, durably; returns how many there are now."""
        path = self.run_dir / "strikes" / name
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o660)
        try:
            durable.write_all(fd, b"x")
            durable.sync(fd)
            return os.fstat(fd).st_size
        finally:
            os.close(fd)

    def strikes(self, name: str) -> int:
        """How often an input has failed."""
        path = self.run_dir / "strikes" / name
        return path.stat().st_size if path.exists() else 0

    def struck(self) -> set[str]:
        """The inputs that have failed: few, mostly none."""
        return set(os.listdir(self.run_dir / "strikes"))

    def clear_strikes(self, name: str) -> None:
        """Forget an input's failures: it is done, or put aside."""
        (self.run_dir / "strikes" / name).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what dead processes left unfinished; what one had in hand gets a strike."""
        for path in runs.dead(self.run_dir / "tmp"):
            for hand in path.glob(f"{_IN_HAND}*"):
                for held in map(Path, map(os.fsdecode, hand.read_bytes().split(b"\0"))):
                    if held.name and os.path.lexists(held):
                        self.strike(held.name)
            durable.remove_tree(path)
        if self.zips.is_dir():
            runs.sweep(self.zips / ".tmp")


def _tighten(folder: Path, group: str | None) -> None:
    """The owner alone, or one group: whatever the rights were."""
    if os.geteuid() not in {0, folder.stat().st_uid}:
        return
    if group is None:
        folder.chmod(0o700)
        return
    try:
        os.chown(folder, -1, grp.getgrnam(group).gr_gid)
    except (KeyError, PermissionError) as error:
        msg = f"cannot give {folder} to the group {group!r}: make the group, or add this user to it (SPOOL_GROUP)"
        raise CannotCreateError(msg) from error
    folder.chmod(stat.S_ISGID | 0o770)


def _not_ours(root: Path, error: PermissionError) -> str:
    return f"this user may not use the spool {root} ({error.filename}): run as its owner, or share it with a group (SPOOL_GROUP)"


def read_json(path: Path) -> dict[str, Any] | None:
    """A document of the spool, or None where it is not there."""
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return document
