"""How commands run: spool opened, logging set up, signals turned into a clean stop, children kept running."""

import logging
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from dicomrx import logs
from dicomrx.errors import FULL_ERRNOS, ConfigError, DicomrxError, DiskFullError, TryAgainError
from dicomrx.settings import Settings, as_env
from dicomrx.spool import durable, locks
from dicomrx.spool.layout import FOLDERS, Spool
from dicomrx.supervise import Child, Supervisor

MAX_WORKERS: Final = 8
_FULL_BYTES: Final = 1 << 20

log = logging.getLogger(__name__)


@contextmanager
def opened(settings: Settings, *, make: bool) -> Iterator[Spool]:
    """The spool of these settings, for a command that works in it."""
    durable.set_durable(enabled=settings.durable)
    _refuse_nested(settings)
    with Spool.open(settings.storage_dir, settings.zip_dir, make=make, group=settings.spool_group) as spool:
        yield spool


def _refuse_nested(settings: Settings) -> None:
    spool, state, zips = (path.resolve() for path in (settings.storage_dir, settings.state_dir, settings.zip_dir))
    if spool == state or spool in state.parents or state in spool.parents:
        msg = f"spool {spool} and state {state} must lie apart: the state has other rights and another backup (--storage, --state-dir)"
        raise ConfigError(msg)
    if zips == spool or any(zips.is_relative_to(spool / name) for name in (*FOLDERS, ".run")):
        msg = f"the zips {zips} would lie among what the stages of the spool {spool} read: name another folder (--storage, --zip-dir)"
        raise ConfigError(msg)


@contextmanager
def only_one(spool: Spool, stage: str) -> Iterator[int]:
    """Hold the lock of a stage's daemon, by the descriptor; raises TryAgainError where another has it."""
    fd = locks.try_lock(spool.stage_lock(stage))
    if fd is None:
        msg = f"{stage} already runs on the spool {spool.root}"
        raise TryAgainError(msg)
    try:
        yield fd
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


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP, unless ignored (nohup), end a command as Ctrl-C does: with its children, and without what it has not finished."""
    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
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
        with _naming_full_disk(settings):
            yield
    except (DicomrxError, OSError) as error:
        logs.note_end(error)
        raise


@contextmanager
def _naming_full_disk(settings: Settings) -> Iterator[None]:
    """A write that fails for want of space does not tell where: look at the disks that there are."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_ERRNOS:
            raise
        folders = (settings.storage_dir, settings.state_dir, settings.zip_dir)
        full = [folder for folder in folders if _free_bytes(folder) < _FULL_BYTES] or folders  # a quota, perhaps
        msg = f"no space is left on the disk of {' and of '.join(map(str, full))}: make some, then start again"
        raise DiskFullError(msg) from error


def _free_bytes(folder: Path) -> int:
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def workers(settings: Settings) -> int:
    """How many processes a stage has, that may have several."""
    return settings.workers or min(os.cpu_count() or 1, MAX_WORKERS)


def environment(command: Sequence[str], settings: Settings) -> dict[str, str]:
    """What a child needs to see exactly these settings; the API's secrets are for the uploader alone."""
    if command[0] != "upload":
        settings = replace(settings, api_password=None, api_token=None)
    return as_env(settings, os.environ)


def supervise(commands: Sequence[Sequence[str]], settings: Settings, *, once: bool = False) -> int:
    """Run commands of ours as child processes that see exactly these settings: together, or one after another to its end (`once`)."""
    supervisor = Supervisor([Child(command, environment(command, settings)) for command in commands])
    with stopping(supervisor.stop):
        return supervisor.once() if once else supervisor.forever()
