"""What the spool shows of the whole pipeline: counts and ages, pseudonyms only."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from dicomrx.spool import durable, quarantine, refused
from dicomrx.spool.incoming import look
from dicomrx.spool.layout import MARKER, RECEIPT, Spool, read_json
from dicomrx.spool.ledger import Fate
from dicomrx.spool.names import Frozen, part_begin
from dicomrx.spool.outbox import read_attempts
from dicomrx.spool.studies import Study, entries, open_studies
from dicomrx.spool.watermark import horizon

RECENT: Final = 50
_NS: Final = 1_000_000_000


@dataclass(frozen=True)
class Queue:
    """What waits for one stage: how much, and for how long the oldest of it has (seconds, None where nothing waits)."""

    stage: str
    running: bool
    waiting: int
    oldest_s: float | None


@dataclass(frozen=True)
class StudyState:
    """One study, or one generation of it, and where it is."""

    study: str
    generation: int | None
    state: str
    instances: int
    age_s: float
    note: str


@dataclass(frozen=True)
class Refused:
    """One peer that the receiver turned away for one reason, and the setting that decided; `last` is UTC."""

    peer: str
    calling: str
    called: str
    setting: str
    why: str
    count: int
    last: str


@dataclass(frozen=True)
class Status:
    """The whole pipeline at one moment."""

    spool: str
    stages: list[Queue]
    studies: list[StudyState]
    sent: int
    quarantine: dict[str, int]
    fates: dict[str, int]
    blocked: str | None
    free_bytes: int
    refused: list[Refused]

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        return {"version": 1, **asdict(self)}


def read(spool: Spool) -> Status:
    """Look once, upstream first."""
    now = spool.now()
    parts = [begin for run in spool.receiving.iterdir() for begin in _part_begins(run)]
    lying = look(spool)
    waiting = [arrival.begin for arrival in lying.arrivals] + [now] * len(lying.foreign)
    seen = horizon(spool)
    studies = list(_open(spool, now)) + list(_frozen(spool.outbox, "outbox")) + list(_frozen(spool.failed, "failed"))
    sent = _newest(spool.sent)
    fates: Counter[Fate] = spool.ledger.counts()
    return Status(
        spool=str(spool.root),
        stages=[
            _queue(spool, "scp", [(now - begin) / _NS for begin in parts]),
            _queue(spool, "anonymize", [(now - begin) / _NS for begin in waiting]),
            _queue(spool, "watch", [study.age_s for study in studies if study.state == "open"]),
            _queue(spool, "upload", [study.age_s for study in studies if study.state in {"complete", "pending", "sending"}]),
        ],
        studies=studies + list(_sent(sent[:RECENT])),
        sent=len(sent),
        quarantine=dict(Counter(f"{item.stage}/{item.reason}" for item in quarantine.items(spool))),
        fates={fate.value: fates[fate] for fate in Fate},
        blocked=seen.blocked,
        free_bytes=spool.free_bytes(),
        refused=[Refused(**row) for row in refused.read(spool)],
    )


def _queue(spool: Spool, stage: str, ages: list[float]) -> Queue:
    oldest = max(0.0, *ages) if ages else None  # what came while we looked began after "now"
    return Queue(stage, durable.is_locked(spool.stage_lock(stage)), len(ages), oldest)


def _part_begins(run: Path) -> list[int]:
    try:
        return [begin for begin in map(part_begin, os.listdir(run)) if begin is not None]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _open(spool: Spool, now: int) -> Iterator[StudyState]:
    for uid in open_studies(spool):
        folder = spool.studies / uid
        try:
            arrived = Study(spool, uid).newest_arrival() or now
            count = len(entries(folder))
        except FileNotFoundError:  # frozen, or made, this instant
            continue
        state = "complete" if (folder / MARKER).exists() else "open"
        yield StudyState(uid, None, state, count, max(0.0, (now - arrived) / _NS), "")


def _frozen(parent: Path, state: str) -> Iterator[StudyState]:
    for age_s, path, frozen in _newest(parent):
        try:
            steps = read_attempts(path)
            count = len(entries(path))
        except FileNotFoundError:
            continue
        last = steps[-1] if steps else {}
        shown = state
        if state == "outbox":
            shown = "sending" if "began" in last else "pending"
        reason = read_json(path / "reason.json") or {}
        note = reason.get("reason") or last.get("error") or ""
        yield StudyState(frozen.study, frozen.generation, shown, count, age_s, note)


def _sent(found: list[tuple[float, Path, Frozen]]) -> Iterator[StudyState]:
    for age_s, path, frozen in found:
        receipt = read_json(path / RECEIPT) or {}
        manifest = read_json(path / "manifest.json") or {}
        yield StudyState(
            frozen.study, frozen.generation, "sent", len(manifest.get("instances", ())), age_s, f"HTTP {receipt.get('status')}"
        )


def _newest(parent: Path) -> list[tuple[float, Path, Frozen]]:
    """The frozen studies in `parent`, newest first, with their age in seconds since they came there."""
    found = []
    for entry in os.scandir(parent):
        frozen = Frozen.parse(entry.name)
        if frozen is not None:
            try:
                found.append((entry.stat().st_ctime, Path(entry.path), frozen))
            except FileNotFoundError:
                continue
    now = time.time()
    return [(max(0.0, now - changed), path, frozen) for changed, path, frozen in sorted(found, key=lambda row: -row[0])]
