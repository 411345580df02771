"""What the spool shows of the whole pipeline: counts and ages, pseudonyms only."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from dicomrx.network.refusals import Refused
from dicomrx.spool import locks, quarantine, refused
from dicomrx.spool.incoming import look
from dicomrx.spool.layout import MANIFEST, MARKER, REASON, RECEIPT, Spool, read_json
from dicomrx.spool.ledger import Fate
from dicomrx.spool.names import Frozen
from dicomrx.spool.progress import progress, stopped
from dicomrx.spool.sending import Record, Step
from dicomrx.spool.studies import Study, count, newest_arrival, open_studies
from dicomrx.spool.watermark import horizon, in_reception

RECENT: Final = 50
_NS: Final = 1_000_000_000

Row = tuple[float, Path, Frozen]
"""A frozen study, and for how many seconds it has been where it is."""


@dataclass(frozen=True)
class Queue:
    """What waits for one stage: how much, and for how long the oldest of it has (seconds, None where nothing waits)."""

    stage: str
    running: bool
    waiting: int
    oldest_s: float | None


@dataclass(frozen=True)
class StudyState:
    """One study, or one generation of it, and where it is; while it is sent, how many bytes of its zip are."""

    study: str
    generation: int | None
    state: str
    instances: int
    age_s: float
    note: str
    sent_bytes: int | None = None
    total_bytes: int | None = None


@dataclass(frozen=True)
class Status:
    """The whole pipeline at one moment; `stopped` is why the destination takes nothing of what waits for it."""

    spool: str
    stages: list[Queue]
    studies: list[StudyState]
    sent: int
    quarantine: dict[str, int]
    fates: dict[str, int]
    blocked: str | None
    free_bytes: int
    refused: list[Refused]
    stopped: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        return {"version": 1, **asdict(self)}


def read(spool: Spool) -> Status:
    """Look once, upstream first."""
    now = spool.now()
    parts = in_reception(spool)
    lying = look(spool)
    waiting = [arrival.begin for arrival in lying.arrivals] + [now] * len(lying.foreign)
    seen = horizon(spool)
    studies = [*_open(spool, now), *_pending(spool, _newest(spool.outbox)), *_failed(_newest(spool.failed))]
    settled = _newest(spool.sent)
    fates: Counter[Fate] = spool.ledger.counts()
    return Status(
        spool=str(spool.root),
        stages=[
            _queue(spool, "scp", [(now - begin) / _NS for begin in parts]),
            _queue(spool, "anonymize", [(now - begin) / _NS for begin in waiting]),
            _queue(spool, "watch", [study.age_s for study in studies if study.state == "open"]),
            _queue(spool, "upload", [study.age_s for study in studies if study.state in {"complete", "pending", "sending", "held"}]),
        ],
        studies=studies + list(_sent(settled[:RECENT])),
        sent=len(settled),
        quarantine=dict(Counter(f"{item.stage}/{item.reason}" for item in quarantine.items(spool))),
        fates={fate.value: fates[fate] for fate in Fate},
        blocked=seen.trouble,
        free_bytes=spool.free_bytes(),
        stopped=stopped(spool) if any(study.state == "pending" for study in studies) else None,
        refused=[Refused(**row) for row in refused.read(spool)],
    )


def _queue(spool: Spool, stage: str, ages: list[float]) -> Queue:
    oldest = max(0.0, *ages) if ages else None  # what came while we looked began after "now"
    return Queue(stage, locks.is_locked(spool.stage_lock(stage)), len(ages), oldest)


def _open(spool: Spool, now: int) -> Iterator[StudyState]:
    for uid in open_studies(spool):
        folder = spool.studies / uid
        try:
            arrived = newest_arrival(spool, uid) or now
            instances = count(folder)
        except FileNotFoundError:  # frozen, or made, this instant
            continue
        state = "complete" if (folder / MARKER).exists() else "open"
        yield StudyState(uid, None, state, instances, max(0.0, (now - arrived) / _NS), "")


def generations(spool: Spool, uid: str) -> list[StudyState]:
    """Where the generations of a study are, oldest first."""
    shown: Mapping[Path, Callable[[list[Row]], Iterator[StudyState]]] = {
        spool.outbox: partial(_pending, spool),
        spool.sent: _sent,
        spool.failed: _failed,
    }
    rows = [(path.parent, row) for path in Study(spool, uid).generations() if (row := _row(path)) is not None]
    return [state for parent, row in rows for state in shown[parent]([row])]


def _pending(spool: Spool, found: list[Row]) -> Iterator[StudyState]:
    for age_s, path, frozen in found:
        try:
            record = Record.read(path)
            instances = count(path)
        except FileNotFoundError:
            continue
        seen = progress(spool, frozen.name)
        held = record.last.get("step") == Step.HELD
        state = "sending" if seen else "held" if held else "pending"
        yield StudyState(frozen.study, frozen.generation, state, instances, age_s, _note(record, frozen, state), *(seen or ()))


def _note(record: Record, frozen: Frozen, state: str) -> str:
    """What a person should know, or do."""
    if state == "held":
        return f"may have arrived: `dicomrx upload {frozen.name}` sends it again"
    if record.interrupted and state != "sending":
        return "interrupted, may have arrived: sent again with the same key"
    return str(record.last.get("error", ""))


def _failed(found: list[Row]) -> Iterator[StudyState]:
    for age_s, path, frozen in found:
        try:
            instances = count(path)
        except FileNotFoundError:
            continue
        reason = read_json(path / REASON) or {}
        yield StudyState(frozen.study, frozen.generation, "failed", instances, age_s, reason.get("reason") or "")


def sent(spool: Spool) -> Iterator[dict[str, Any]]:
    """What was ever sent, the newest first: the receipts, which outlive the data, each with its number of instances."""
    for _, path, _ in _newest(spool.sent):
        yield {**(read_json(path / RECEIPT) or {}), "instances": _instances(path)}


def _instances(path: Path) -> int:
    return len((read_json(path / MANIFEST) or {}).get("instances", ()))


def _sent(found: list[Row]) -> Iterator[StudyState]:
    for age_s, path, frozen in found:
        receipt = read_json(path / RECEIPT) or {}
        yield StudyState(frozen.study, frozen.generation, "sent", _instances(path), age_s, f"HTTP {receipt.get('status')}")


def _newest(parent: Path) -> list[Row]:
    """The frozen studies in `parent`, newest first."""
    rows = [row for name in os.listdir(parent) if (row := _row(parent / name)) is not None]
    return sorted(rows, key=lambda row: row[0])


def _row(path: Path) -> Row | None:
    frozen = Frozen.parse(path.name)
    try:
        return (max(0.0, time.time() - path.stat().st_ctime), path, frozen) if frozen is not None else None
    except FileNotFoundError:
        return None
