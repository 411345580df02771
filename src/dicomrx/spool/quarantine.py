"""`quarantine/` and `failed/`: what no stage could handle, beside a reason, and the way back."""

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from dicomrx.errors import NoInputError
from dicomrx.spool import durable, locks
from dicomrx.spool.layout import REASON, Spool, read_json
from dicomrx.spool.ledger import Fate
from dicomrx.spool.names import Arrival, Frozen
from dicomrx.spool.sending import release

_PLAIN: Final = re.compile(r"[^a-z0-9-]+")


@dataclass(frozen=True)
class Item:
    """Something put aside: where it lies and why."""

    path: Path
    stage: str
    reason: str
    detail: str
    at: str

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        return self.path.stem if self.path.suffix == ".dcm" else self.path.name


def put_aside(spool: Spool, path: Path, stage: str, reason: str, detail: str = "") -> Path | None:
    """Move an input to `quarantine/<stage>/<reason>/` under a name of ours, its reason beside it; a frozen study to `failed/`.

    Returns None where it is gone, or in another process's hands. The reason is durable before the move: after a crash
    between the two the input is rejected again and finds it.
    """
    with contextlib.ExitStack() as stack:
        if not _held(path, stack):
            return None
        if path.parent == spool.outbox:
            return _dead_letter(spool, path, stage, reason, detail)
        return _quarantine(spool, path, stage, reason, detail)


def _held(path: Path, stack: contextlib.ExitStack) -> bool:
    """Claim a file or folder that is to move; what cannot be opened (a link, a device, no rights) nobody works on."""
    try:
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return True
        fd = locks.claim(path)
    except FileNotFoundError:
        return False
    except PermissionError:
        return True
    if fd is not None:
        stack.callback(os.close, fd)
    return fd is not None


def _arrival(spool: Spool, path: Path) -> Arrival | None:
    """The arrival that `path` is; a name that somebody else gave is never kept."""
    arrival = Arrival.parse(path.name) if path.parent == spool.incoming else None
    return arrival if arrival is not None and spool.ledger.knows(arrival.run) else None


def _quarantine(spool: Spool, path: Path, stage: str, reason: str, detail: str) -> Path:
    arrival = _arrival(spool, path)
    stem = arrival.name.removesuffix(".dcm") if arrival else f"{spool.scratch.run}-{spool.new_path('').name}"
    folder = spool.quarantine / stage / _PLAIN.sub("-", reason.lower())
    durable.make_directory(folder)
    document = {"stage": stage, "reason": reason, "detail": detail, "arrival": arrival.id if arrival else None, "at": _utc_now()}
    with contextlib.suppress(FileExistsError):
        spool.write_json(folder / f"{stem}.json", document)
    if arrival:
        spool.ledger.note(arrival, Fate.QUARANTINED)
    target = folder / f"{stem}.dcm"
    durable.move(path, target)
    spool.clear_strikes(path.name)
    return target


def _dead_letter(spool: Spool, path: Path, stage: str, reason: str, detail: str) -> Path:
    frozen = Frozen.parse(path.name)
    study = frozen.study if frozen else path.name
    with spool.study_lock(study):
        durable.remove(path / REASON)  # of an earlier time, where a crash came before the move
        spool.write_json(path / REASON, {"stage": stage, "reason": reason, "detail": detail, "arrival": None, "at": _utc_now()})
        durable.move(path, spool.failed / path.name)
    spool.clear_strikes(path.name)
    return spool.failed / path.name


def items(spool: Spool) -> Iterator[Item]:
    """Everything put aside, quarantine first, then dead letters; what somebody else left beside these is none."""
    for path in sorted(spool.quarantine.glob("*/*/*.dcm")):
        yield _item(path, path.with_suffix(".json"))
    for path in sorted(spool.failed.iterdir()):
        if Frozen.parse(path.name) is not None:
            yield _item(path, path / REASON)


def _item(path: Path, reason: Path) -> Item:
    document = read_json(reason) or {}
    stage, why = (document.get("stage"), document.get("reason"))
    return Item(path, stage or path.parent.parent.name, why or path.parent.name, document.get("detail") or "", document.get("at") or "")


def find(spool: Spool, wanted: str) -> list[Item]:
    """What `wanted` names: one item, also as logs call it, all of a reason, or `all`; raises NoInputError where that is nothing."""
    chosen = [item for item in items(spool) if wanted in {"all", item.reason, item.name, item.path.name}]
    if not chosen:
        msg = f"nothing in quarantine is called {wanted!r}: `dicomrx quarantine list` shows the names and reasons"
        raise NoInputError(msg)
    return chosen


def requeue(spool: Spool, item: Item, number: int) -> Path:
    """Give a quarantined input new stamps in `incoming/`, or a dead letter its place in `outbox/`; its reason goes last.

    Raises NoInputError where somebody else was faster.
    """
    frozen = Frozen.parse(item.path.name)
    if frozen is not None:
        target = spool.outbox / item.path.name
        spool.clear_strikes(item.path.name)
        release(spool, item.path)
        with spool.study_lock(frozen.study):
            _take(item, target)
            durable.remove(target / REASON)
        return target
    now = spool.now()
    arrival = Arrival(now, now, spool.scratch.run, 0, number)
    spool.ledger.register(arrival.run)
    target = spool.incoming / arrival.name
    _take(item, target)
    old = Arrival.parse(item.path.name)
    if old:
        spool.ledger.note(old, Fate.REQUEUED)
    spool.ledger.note(arrival, Fate.ACKNOWLEDGED)
    durable.remove(item.path.with_suffix(".json"))
    return target


def _take(item: Item, target: Path) -> None:
    try:
        durable.move(item.path, target)
    except FileNotFoundError as error:
        msg = f"{item.name} is no longer where it was put aside: somebody else requeued it just now"
        raise NoInputError(msg) from error


def _utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
