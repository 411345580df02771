"""Watch: a study is complete when the watermark has passed its newest arrival, and the receiver's start, by the quiet time."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dicomrx.runner import Job
from dicomrx.settings import Settings
from dicomrx.spool.clock import utc
from dicomrx.spool.layout import Spool
from dicomrx.spool.studies import Study, is_marked, open_studies
from dicomrx.spool.watermark import horizon

_NS: Final = 1_000_000_000

log = logging.getLogger(__name__)


class Watch:
    """Marks the studies that have been quiet for `quiet_s` seconds of spool time."""

    name = "watch"

    def __init__(self, spool: Spool, quiet_s: float) -> None:
        self._spool = spool
        self._quiet_s = quiet_s
        self._quiet_ns = int(quiet_s * _NS)
        self.watched: Sequence[Path] = ()

    def scan(self) -> Iterator[Job]:
        """The studies that look complete; `process` looks again, under the study's lock."""
        seen = horizon(self._spool)
        for uid in open_studies(self._spool):
            arrived = Study(self._spool, uid).newest_arrival()
            if not is_marked(self._spool, uid) and (arrived is None or seen.completes(arrived, self._quiet_ns)):
                yield Job(self._spool.studies / uid)

    def process(self, job: Job) -> None:
        """Write the marker, unless something has arrived since the scan."""
        with Study.locked(self._spool, job.path.name) as study:
            now = horizon(self._spool)
            arrived = study.newest_arrival()
            if arrived is None:  # lost, or never noted: the wait begins now
                study.arrived(self._spool.now())
                return
            if is_marked(self._spool, study.uid) or not now.completes(arrived, self._quiet_ns):
                return
            rule = {
                "rule": "quiet",
                "quiet_s": self._quiet_s,
                "watermark": utc(now.watermark),
                "evidence": {"newest_arrival": utc(arrived), "receiver_start": utc(now.receiver_start)},
            }
            if study.mark(rule):
                log.info("%s: complete", study.uid)

    def ready_in(self) -> float | None:
        """`--once` marks what is complete and does not wait for the rest."""
        return None


@contextmanager
def build(spool: Spool, settings: Settings) -> Iterator[Watch]:
    """The stage as its settings want it."""
    yield Watch(spool, settings.timeout)
