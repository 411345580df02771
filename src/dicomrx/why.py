"""Why a study is where it is: what it waits for, since when, until when at the latest, and what would end the wait."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from dicomrx import status
from dicomrx.spool import completion, evidence, incoming, locks, progress, watermark
from dicomrx.spool.clock import utc
from dicomrx.spool.completion import Findings, Rules, Wait
from dicomrx.spool.layout import Spool
from dicomrx.spool.studies import Entry, Study, is_marked
from dicomrx.spool.watermark import Horizon
from dicomrx.status import StudyState
from dicomrx.text import safe

_RECEPTION_NS: Final = 3600 * 1_000_000_000  # the receiver's deadline for one instance
_ENDS: Final = {
    watermark.DEAD: "the next start of a receiver; where it is gone for good, `dicomrx watch --complete` with this study or all",
    watermark.STARTING: "its start, within seconds",
    watermark.FOREIGN: "`dicomrx anonymize`, which adopts them once they are quiet, or within an hour puts them into quarantine",
    watermark.NO_ROOM: "room on its disk; or, if you know that the study was sent wholly, `dicomrx watch --complete` with it",
}


@dataclass(frozen=True)
class Reason:
    """One thing that is waited for; `until` is at the latest, None where nothing bounds it. Times are UTC."""

    what: str
    since: str | None
    until: str | None
    ends: str


@dataclass(frozen=True)
class Answer:
    """What there is to say of one study: `state` is that of its newest part, `generations` are those that have left `studies/`."""

    study: str
    state: str
    instances: int
    waits: list[Reason]
    generations: list[StudyState]
    confidence: str
    evidence: dict[str, Any]

    @property
    def until(self) -> str | None:
        """When it is complete at the latest; None where nothing bounds it."""
        ends = [reason.until for reason in self.waits]
        return None if None in ends else max((end for end in ends if end), default=None)

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        return {**asdict(self), "until": self.until}

    def lines(self) -> Iterator[str]:
        """The same in plain words."""
        yield f"{self.study}: {self.state}, {self.instances} instances"
        for reason in self.waits:
            yield f"  waits: {reason.what}"
            until = f"at the latest until {reason.until}" if reason.until else "nothing bounds it"
            yield f"    since {reason.since}; {until}" if reason.since else f"    {until}"
            yield f"    ended by {reason.ends}"
        for each in self.generations:
            yield f"  generation {each.generation}: {each.state}, {each.instances} instances{f' ({safe(each.note)})' if each.note else ''}"
        if self.evidence["quarantined"]:
            yield f"  in quarantine: {self.evidence['quarantined']} of its instances (`dicomrx quarantine list`)"


def explain(spool: Spool, uid: str, rules: Rules) -> Answer | None:
    """The answer for the study with this pseudonymous UID; None where the spool knows none."""
    study = Study(spool, uid)
    try:
        entries = study.entries()
    except FileNotFoundError:
        entries = None
    generations = status.generations(spool, uid)
    found = completion.findings(spool, uid, entries or [], rules)
    if entries is not None:
        state, waits = ("complete", [_upload(spool)]) if is_marked(spool, uid) else ("open", list(_waits(spool, study, entries, rules)))
        count = len(entries)
    elif generations:
        state, count = generations[-1].state, generations[-1].instances
        waits = list(_unsent(spool, generations))
    elif evidence.size(spool, uid):
        state, count, waits = "quarantined", 0, []
    else:
        return None
    return Answer(uid, state, count, waits, generations, found.confidence, found.as_evidence())


def _waits(spool: Spool, study: Study, entries: list[Entry], rules: Rules) -> Iterator[Reason]:
    """What keeps an open study from being marked, upstream first; the same looks as those of `watch`."""
    seen = watermark.horizon(spool)
    arrived = study.newest_arrival() or spool.now()
    wait = completion.wait(spool, study, rules)
    target = seen.quiet_since(arrived) + wait.quiet_ns
    if seen.trouble is not None and not seen.completes(arrived, wait.quiet_ns):
        yield Reason(seen.trouble, None, None, _ENDS[seen.trouble])
    yield from _on_their_way(spool, target)
    if spool.now() < target:
        yield _quiet(seen, arrived, wait)
    if any(entry.size < 0 for entry in entries):
        yield Reason("files that are not dicomrx's lie in its folder", None, None, "moving them away")
    if not locks.is_locked(spool.stage_lock("watch")):
        yield Reason("`dicomrx watch` does not run", None, None, "its start, or `dicomrx watch --once`")


def _on_their_way(spool: Spool, target: int) -> Iterator[Reason]:
    """Instances, of whatever study, that began before this one has been quiet for long enough."""
    receptions = [begin for begin in watermark.in_reception(spool) if begin < target]
    if receptions:
        what = f"{len(receptions)} instances in reception: any of them may belong to it"
        yield Reason(what, utc(receptions[0]), utc(receptions[-1] + _RECEPTION_NS), "their end; one may take an hour at most")
    waiting = [arrival.begin for arrival in incoming.arrivals(spool) if arrival.begin < target]
    if waiting:
        runs = locks.is_locked(spool.stage_lock("anonymize"))
        ends = "`dicomrx anonymize`, which works them off" if runs else "`dicomrx anonymize`, which does not run: start it"
        yield Reason(f"{len(waiting)} instances in incoming/: any of them may belong to it", utc(waiting[0]), None, ends)


def _quiet(seen: Horizon, arrived: int, wait: Wait) -> Reason:
    since = seen.quiet_since(arrived)
    what = f"{wait.quiet_s:g} s of quiet, {_because(wait.findings) if wait.rule == completion.CEILING else 'as its rules want'}"
    origin = "its newest arrival" if since == arrived else "the receiver's start, before which quiet proves nothing"
    ends = f"time alone, counted from {origin}; whatever arrives for it begins the wait anew"
    return Reason(what, utc(since), utc(since + wait.quiet_ns), ends)


def _because(found: Findings) -> str:
    return f"because {' and '.join(found.doubts)}: the ceiling of EVIDENCE_WAIT"


def _upload(spool: Spool) -> Reason:
    stopped = progress.stopped(spool)
    what = f"it is still to be sent, and no study is: {safe(stopped)}" if stopped else "it is still to be zipped and sent"
    runs = locks.is_locked(spool.stage_lock("upload"))
    return Reason(
        what, None, None, f"`dicomrx upload`{'' if runs else ', which does not run: start it'}; `all` sends only with AUTO_UPLOAD"
    )


def _unsent(spool: Spool, generations: list[StudyState]) -> Iterator[Reason]:
    if any(each.state in {"pending", "sending"} for each in generations):
        yield _upload(spool)
    for each in generations:
        if each.state == "held":
            yield Reason("its upload is held: the API may have it already", None, None, each.note)
    if any(each.state == "failed" for each in generations):
        yield Reason("the API refused a generation of it", None, None, "`dicomrx quarantine requeue` with its name, once it is mended")
