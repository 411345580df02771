"""A stage of your own: forgets the instances of studies that were sent more than a week ago; receipt and manifest stay.

Run it beside a running gateway, as a daemon or from cron:

    python examples/own_stage.py /var/lib/dicomrx/spool/storage /var/lib/dicomrx/spool/zips [--once]

It needs no more than this file. To make it a command of its own (`dicomrx prune`), put the class and a `build` like that of `watch` into
`dicomrx/stages/prune.py`, a line into `dicomrx/stages/__init__.py` and a command like that of `watch` into `dicomrx/cli/stage_commands.py`
and `app.py`; for `all` to run it, its name into `run_all` there.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from dicomrx.jobs import Job
from dicomrx.runner import Runner
from dicomrx.spool import outbox
from dicomrx.spool.layout import RECEIPT, Spool

KEEP_S = 7 * 24 * 3600


class Prune:
    """Cleans what has been in `sent/` for `keep_s` seconds."""

    name = "prune"

    def __init__(self, spool: Spool, keep_s: float = KEEP_S) -> None:
        self._spool = spool
        self._keep_s = keep_s
        self.watched: Sequence[Path] = (spool.sent,)

    def scan(self) -> Iterator[Job]:
        """Sent studies that are old enough and still hold instances."""
        for sent in sorted(self._spool.sent.iterdir()):
            old = time.time() - (sent / RECEIPT).stat().st_mtime >= self._keep_s
            if old and any(path.is_dir() for path in sent.iterdir()):
                yield Job(sent.parent, sent.name)

    def process(self, job: Job) -> None:
        """Remove the instances and the zip of one study; doing it twice does no harm."""
        outbox.clean(self._spool, job.path)

    def ready_in(self) -> float | None:
        """`--once` waits for nothing."""
        return None


def main() -> None:
    """Run the stage on the spool and the zip folder that the command line names."""
    spool_dir, zip_dir, *rest = sys.argv[1:]
    with Spool.open(Path(spool_dir), Path(zip_dir)) as spool:
        runner = Runner(Prune(spool), spool)
        if "--once" in rest:
            print(runner.once())
        else:
            runner.forever()


if __name__ == "__main__":
    main()
