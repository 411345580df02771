"""When a study is complete: how long it must have been quiet, and what speaks for and against its being whole."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from dicomrx.spool import evidence
from dicomrx.spool.clock import utc
from dicomrx.spool.evidence import Sighting, sender_of
from dicomrx.spool.layout import Spool
from dicomrx.spool.ledger import Fate
from dicomrx.spool.studies import Entry, Study

QUIET: Final = "quiet"
CEILING: Final = "ceiling"
HAND: Final = "hand"

_NS: Final = 1_000_000_000
_MOST_GAPS: Final = 20  # of a series, in a marker
_CUT_SHORT: Final = frozenset({"aborted", "lost", "cut"})


@dataclass(frozen=True)
class Rules:
    """How long, in seconds, a study must have been quiet: as long as the slowest of its instances.

    An instance waits the longest of what holds for its calling AE title and its modality, or `quiet_s` where neither has a rule. What
    speaks against a study lengthens its wait to `evidence_wait_s`.
    """

    quiet_s: float
    by_ae: Mapping[str, float] = field(default_factory=dict)
    by_modality: Mapping[str, float] = field(default_factory=dict)
    evidence_wait_s: float = 0.0

    @property
    def shortest_s(self) -> float:
        """Before so much quiet no study is complete, whatever is known of it."""
        return min([self.quiet_s, *self.by_ae.values(), *self.by_modality.values()])

    @property
    def depends(self) -> bool:
        """True where it depends on the study how long it waits."""
        return bool(self.by_ae or self.by_modality or self.evidence_wait_s)

    def timeout_s(self, sightings: Iterable[Sighting], *, whole: bool) -> float:
        """What the instances of a study wait; the longest of all rules where not all of them are known."""
        if not whole:
            return max([self.quiet_s, *self.by_ae.values(), *self.by_modality.values()])
        kinds = {(sighting.sender, sighting.modality) for sighting in sightings}
        return max((self._instance_s(*kind) for kind in kinds), default=self.quiet_s)

    def _instance_s(self, sender: str, modality: str) -> float:
        by_sender = {sender_of(calling_ae): seconds for calling_ae, seconds in self.by_ae.items()}
        ruled = [table[key] for table, key in ((by_sender, sender), (self.by_modality, modality)) if key in table]
        return max(ruled, default=self.quiet_s)


@dataclass(frozen=True)
class Findings:
    """What is known of a study: `whole` where every instance it holds was told of.

    `gaps` are the InstanceNumbers missing between the lowest and the highest of each series, as ranges with both ends;
    `quarantined` counts instances; `associations` counts those seen by how they ended, and `last` is how the last one did.
    """

    whole: bool
    timeout_s: float
    gaps: Mapping[str, list[tuple[int, int]]]
    quarantined: int
    associations: Mapping[str, int]
    last: str | None

    @property
    def doubts(self) -> list[str]:
        """What says that more may come, for a person."""
        found = []
        if self.gaps:
            missing = sum(last - first + 1 for ranges in self.gaps.values() for first, last in ranges)
            found.append(f"{missing} instance numbers are missing in {len(self.gaps)} series")
        if self.last in _CUT_SHORT:
            found.append(f"its last association was {self.last}")
        return found

    @property
    def confidence(self) -> str:
        """`high`; `low` where something is missing, was cut short or lies in quarantine; `unknown` where not all was told of."""
        if self.doubts or self.quarantined:
            return "low"
        return "high" if self.whole else "unknown"

    def as_evidence(self) -> dict[str, Any]:
        """For the marker; no AE title is in it, for it may leave with the manifest."""
        return {
            "whole": self.whole,
            "gaps": {series: [list(each) for each in ranges[:_MOST_GAPS]] for series, ranges in self.gaps.items()},
            "quarantined": self.quarantined,
            "associations": dict(self.associations),
            "last_association": self.last,
        }


@dataclass(frozen=True)
class Wait:
    """How long a study must have been quiet, by which rule, and what is known of it."""

    rule: str
    quiet_s: float
    findings: Findings

    @property
    def quiet_ns(self) -> int:
        """The same in spool time."""
        return int(self.quiet_s * _NS)

    def marker(self, watermark: int, **evidence: object) -> dict[str, Any]:
        """What a marker says beside the files."""
        confidence = "unknown" if self.rule == HAND else self.findings.confidence
        return {
            "rule": self.rule,
            "confidence": confidence,
            "quiet_s": self.quiet_s,
            "watermark": utc(watermark),
            "evidence": {**self.findings.as_evidence(), **evidence},
        }


def wait(spool: Spool, study: Study, rules: Rules) -> Wait:
    """How long this study waits, as far as is known now."""
    found = findings(spool, study.uid, study.entries(), rules)
    if found.doubts and rules.evidence_wait_s > found.timeout_s:
        return Wait(CEILING, rules.evidence_wait_s, found)
    return Wait(QUIET, found.timeout_s, found)


def complete_by_hand(spool: Spool, study: Study) -> bool:
    """Mark a study whose lock is held, whatever may be on its way; returns whether it is marked now. Raises Defer as `mark` does."""
    found = findings(spool, study.uid, study.entries(), Rules(0.0))
    return study.mark(Wait(HAND, 0.0, found).marker(spool.now(), newest_arrival=utc(study.newest_arrival() or 0)))


def findings(spool: Spool, uid: str, entries: Iterable[Entry], rules: Rules) -> Findings:
    """What is known of a study that holds `entries`."""
    sightings = evidence.read(spool, uid)
    told = {(each.series, each.instance) for each in sightings if each.fate is not Fate.QUARANTINED}
    whole = all((entry.series, entry.instance) in told for entry in entries)
    met = dict.fromkeys((each.run, each.association) for each in reversed(sightings) if each.association)  # the last one first
    ends = spool.ledger.ends(met, spool.receiver_runs())
    return Findings(
        whole=whole,
        timeout_s=rules.timeout_s(sightings, whole=whole),
        gaps=_gaps(sightings),
        quarantined=len(_quarantined(sightings)),
        associations=Counter(ends.values()),
        last=ends[next(iter(met))] if met else None,
    )


def _gaps(sightings: Iterable[Sighting]) -> dict[str, list[tuple[int, int]]]:
    numbers: dict[str, set[int]] = {}
    for each in sightings:
        if each.number is not None and each.fate is not Fate.QUARANTINED:
            numbers.setdefault(each.series, set()).add(each.number)
    found = {
        series: [(low + 1, high - 1) for low, high in pairwise(sorted(present)) if high - low > 1]
        for series, present in sorted(numbers.items())
    }
    return {series: ranges for series, ranges in found.items() if ranges}


def _quarantined(sightings: Iterable[Sighting]) -> set[str]:
    """The instances put aside and not filed since."""
    aside: set[str] = set()
    for each in sightings:
        if each.fate is Fate.QUARANTINED:
            aside.add(each.instance)
        elif each.fate is Fate.FILED:
            aside.discard(each.instance)
    return aside
