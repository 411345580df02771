"""How stages run: as a daemon, once, or on what was named; outcomes become exit codes."""

import logging
from collections.abc import Sequence

from dicomrx.cli.running import logged, only_one, opened, set_up_logs, stopping, supervise, workers
from dicomrx.errors import Defer, TryAgainError
from dicomrx.jobs import Chosen, Job, Tally
from dicomrx.runner import Runner
from dicomrx.settings import Settings
from dicomrx.spool.by_name import frozen_by_name, not_sent, open_by_name, sent_already
from dicomrx.spool.completion import complete_by_hand
from dicomrx.spool.layout import Spool
from dicomrx.spool.studies import Study, is_marked
from dicomrx.stages import STAGES
from dicomrx.supervise import gravest

log = logging.getLogger(__name__)


def run_stage(name: str, settings: Settings, *, once: bool, worker: bool = False) -> int:
    """Run a stage, alone or as a group of workers; returns the exit code."""
    definition = STAGES[name]
    with logged(settings, name), opened(settings, make=definition.makes_spool) as spool:
        if once or worker:
            return _run(name, spool, settings, once=once)
        with only_one(spool, name):
            count = workers(settings) if definition.parallel else 1
            if count == 1:
                return _run(name, spool, settings, once=False)
            return supervise([[name, "--worker"]] * count, settings)


def _threads(name: str, settings: Settings) -> int:
    """Two at least, unless WORKERS says one: a large study must not hold back the small ones behind it."""
    return (settings.workers or max(2, workers(settings))) if STAGES[name].threaded else 1


def _run(name: str, spool: Spool, settings: Settings, *, once: bool) -> int:
    with STAGES[name].build(spool, settings) as stage:
        definition = STAGES[name]
        runner = Runner(stage, spool, definition.rescan_s, _threads(name, settings), definition.cpu_s, definition.memory)
        with stopping(runner.stop):
            if once:
                return exit_code(runner.once())
            runner.forever()
    return 0


def exit_code(tally: Tally) -> int:
    """What `--once` ends with: what went to quarantine is said, not counted."""
    if tally.unavailable is not None:
        return tally.unavailable.exit_code
    return TryAgainError.exit_code if tally.deferred else 0


def upload_named(paths: Sequence[str], settings: Settings) -> int:
    """Send the studies named, and only those; beside a running daemon too."""
    set_up_logs(settings, "upload")
    with opened(settings, make=False) as spool, STAGES["upload"].build(spool, settings) as stage:
        named = [frozen for path in paths for frozen in frozen_by_name(spool, path)]
        for line in sent_already(spool, named):
            print(line)
        runner = Runner(Chosen(stage, [Job(spool.outbox, frozen.name) for frozen in named]), spool, threads=_threads("upload", settings))
        with stopping(runner.stop):
            code = exit_code(runner.once())
        left = not_sent(spool, named) if settings.auto_upload else None
        if left is not None and gravest([code, left.exit_code]) == left.exit_code:
            raise left
        return code


def complete_named(wanted: str, settings: Settings) -> int:
    """Mark one open study, or all, complete by hand; what still comes is their next generation. Returns the exit code."""
    set_up_logs(settings, "watch")
    with opened(settings, make=False) as spool:
        left = 0
        for uid in open_by_name(spool, wanted):
            with Study.locked(spool, uid) as study:
                try:
                    marked = is_marked(spool, uid) or (study.folder.is_dir() and complete_by_hand(spool, study))
                except Defer as later:
                    left += 1
                    log.warning("%s", later)
                else:
                    log.info("%s: %s", uid, "complete (hand)" if marked else "nothing of it is left here")
        return TryAgainError.exit_code if left else 0
