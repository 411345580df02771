"""Watch: a study is complete when the watermark has passed its newest arrival, and the receiver's start, by the quiet time."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dicomrx.jobs import Job
from dicomrx.settings import Settings
from dicomrx.spool import completion, evidence
from dicomrx.spool.clock import utc
from dicomrx.spool.completion import Rules
from dicomrx.spool.layout import Spool
from dicomrx.spool.studies import Study, is_marked, newest_arrival, open_studies
from dicomrx.spool.watermark import Horizon, horizon

_NS: Final = 1_000_000_000

log = logging.getLogger(__name__)


class Watch:
    """Marks the studies that have been quiet, in spool time, for as long as `rules` want."""

    name = "watch"

    def __init__(self, spool: Spool, rules: Rules) -> None:
        self._spool = spool
        self._rules = rules
        self._shortest_ns = int(rules.shortest_s * _NS)
        self._waits: dict[str, tuple[tuple[int, int], int]] = {}
        """How long a study waits (ns), and of what newest arrival and how much evidence that was said."""
        self.watched: Sequence[Path] = ()

    def scan(self) -> Iterator[Job]:
        """The studies that look complete; `process` looks again, under the study's lock."""
        seen = horizon(self._spool)
        there = open_studies(self._spool)
        self._waits = {uid: self._waits[uid] for uid in there if uid in self._waits}
        for uid in there:
            arrived = newest_arrival(self._spool, uid)
            if (arrived is None or self._may_complete(seen, uid, arrived)) and not is_marked(self._spool, uid):
                yield Job(self._spool.studies, uid)

    def _may_complete(self, seen: Horizon, uid: str, arrived: int) -> bool:
        if not seen.completes(arrived, self._shortest_ns):
            return False
        said_of, quiet_ns = self._waits.get(uid, ((0, 0), 0))
        return said_of != (arrived, evidence.size(self._spool, uid)) or seen.completes(arrived, quiet_ns)

    def process(self, job: Job) -> None:
        """Write the marker, unless something has arrived since the scan, or what is known of the study says to wait longer."""
        with Study.locked(self._spool, job.name) as study:
            now = horizon(self._spool)
            arrived = study.newest_arrival()
            if arrived is None:  # lost, or never noted: the wait begins now
                study.arrived(self._spool.now())
                return
            if is_marked(self._spool, study.uid) or not now.completes(arrived, self._shortest_ns):
                return
            wait = completion.wait(self._spool, study, self._rules)
            self._waits[study.uid] = ((arrived, evidence.size(self._spool, study.uid)), wait.quiet_ns)
            if not now.completes(arrived, wait.quiet_ns):
                return
            facts = wait.marker(now.watermark, newest_arrival=utc(arrived), receiver_start=utc(now.receiver_start))
            if study.mark(facts):
                log.info("%s: complete (%s, confidence %s)", study.uid, wait.rule, wait.findings.confidence)

    def ready_in(self) -> float | None:
        """`--once` marks what is complete and does not wait for the rest."""
        return None


def rules_of(settings: Settings) -> Rules:
    """The rules as the settings want them."""
    return Rules(settings.timeout, dict(settings.timeout_ae), dict(settings.timeout_modality), settings.evidence_wait)


@contextmanager
def build(spool: Spool, settings: Settings) -> Iterator[Watch]:
    """The stage as its settings want it."""
    yield Watch(spool, rules_of(settings))
