"""How commands run: spool opened, logging set up, signals turned into a clean stop, outcomes into exit codes."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from dicomrx import logs
from dicomrx.errors import ConfigError, Defer, DicomrxError, TryAgainError
from dicomrx.runner import Chosen, Job, Runner, Tally
from dicomrx.settings import Settings, as_env
from dicomrx.spool import durable
from dicomrx.spool.by_name import frozen_by_name, not_sent, open_by_name, sent_already
from dicomrx.spool.completion import complete_by_hand
from dicomrx.spool.layout import Spool
from dicomrx.spool.studies import Study, is_marked
from dicomrx.stages import STAGES
from dicomrx.supervise import Child, Supervisor, gravest

_MAX_WORKERS: Final = 8

log = logging.getLogger(__name__)


@contextmanager
def opened(settings: Settings, *, make: bool) -> Iterator[Spool]:
    """The spool of these settings, for a command that works in it."""
    durable.set_durable(enabled=settings.durable)
    _refuse_nested(settings)
    with Spool.open(settings.storage_dir, settings.zip_dir, make=make, group=settings.spool_group) as spool:
        yield spool


def _refuse_nested(settings: Settings) -> None:
    spool, state = settings.storage_dir.resolve(), settings.state_dir.resolve()
    if spool == state or spool in state.parents or state in spool.parents:
        msg = f"spool {spool} and state {state} must lie apart: the state has other rights and another backup (--storage, --state-dir)"
        raise ConfigError(msg)


@contextmanager
def only_one(spool: Spool, stage: str) -> Iterator[None]:
    """Hold the lock of a stage's daemon; raises TryAgainError where another has it."""
    fd = durable.try_lock(spool.stage_lock(stage))
    if fd is None:
        msg = f"{stage} already runs on the spool {spool.root}"
        raise TryAgainError(msg)
    try:
        yield
    finally:
        os.close(fd)


@contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on SIGTERM or SIGINT, from a thread: a handler interrupts code that may hold the very lock `stop` needs."""

    def handle(_number: int, _frame: object) -> None:
        threading.Thread(target=stop, daemon=True).start()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def set_up_logs(settings: Settings, stage: str) -> None:
    """Log as the settings want it."""
    logs.setup(settings.log_level, settings.log_file, stage)


@contextmanager
def logged(settings: Settings, stage: str) -> Iterator[None]:
    """Log a daemon as the settings want it, and in LOG_FILE also what it ends of: nobody may be there to read stderr."""
    set_up_logs(settings, stage)
    try:
        yield
    except (DicomrxError, OSError) as error:
        logs.note_end(error)
        raise


def run_stage(name: str, settings: Settings, *, once: bool, worker: bool = False) -> int:
    """Run a stage, alone or as a group of workers; returns the exit code."""
    definition = STAGES[name]
    with logged(settings, name), opened(settings, make=definition.makes_spool) as spool:
        if once or worker:
            return _run(name, spool, settings, once=once)
        with only_one(spool, name):
            count = _workers(settings) if definition.parallel else 1
            if count == 1:
                return _run(name, spool, settings, once=False)
            return supervise([worker_command(name, settings)] * count, settings)


def worker_command(name: str, settings: Settings) -> list[str]:
    """The command line of one of several processes of a stage."""
    send = ["--no-send"] if name == "upload" and not settings.auto_upload else []
    return [name, "--worker", *send]


def _workers(settings: Settings) -> int:
    return settings.workers or min(os.cpu_count() or 1, _MAX_WORKERS)


def _threads(name: str, settings: Settings) -> int:
    """Two at least, unless WORKERS says one: a large study must not hold back the small ones behind it."""
    return (settings.workers or max(2, _workers(settings))) if STAGES[name].threaded else 1


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


def run_passes(passes: Sequence[Sequence[str]], settings: Settings) -> int:
    """Run commands one after another, whatever each ends with; returns the gravest exit code."""
    return gravest([supervise([command], settings, once=True) for command in passes])


def _environment(command: Sequence[str], settings: Settings) -> dict[str, str]:
    """What a child needs to see exactly these settings; the API's secrets are for the uploader alone."""
    if command[0] != "upload":
        settings = replace(settings, api_password=None, api_token=None)
    return as_env(settings, os.environ)


def supervise(commands: Sequence[Sequence[str]], settings: Settings, *, once: bool = False) -> int:
    """Run commands of ours as child processes that see exactly these settings."""
    supervisor = Supervisor([Child(command, _environment(command, settings)) for command in commands])
    with stopping(supervisor.stop):
        return supervisor.once() if once else supervisor.forever()


def upload_named(paths: Sequence[str], settings: Settings) -> int:
    """Send the studies named, and only those; beside a running daemon too."""
    set_up_logs(settings, "upload")
    with opened(settings, make=False) as spool, STAGES["upload"].build(spool, settings) as stage:
        named = [frozen for path in paths for frozen in frozen_by_name(spool, path)]
        for line in sent_already(spool, named):
            print(line)
        runner = Runner(Chosen(stage, [Job(spool.outbox / frozen.name) for frozen in named]), spool, threads=_threads("upload", settings))
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
