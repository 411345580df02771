"""The log: one safe line a record, on stderr and in LOG_FILE, without anything that a dataset or a foreign library says."""

import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterable
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import WatchedFileHandler
from pathlib import Path
from traceback import extract_tb
from types import TracebackType
from typing import Final

from dicomrx.errors import CannotCreateError, DicomrxError
from dicomrx.text import safe

_OURS: Final = "dicomrx"
_DATASETS: Final = ("pydicom", "pynetdicom")  # whatever they say may quote a dataset
_LINE_MAX: Final = 2000  # four bytes a character at most: a line fits one buffer, so it is one write
_FRAMES: Final = 12
_OFF: Final = logging.CRITICAL + 1

logger: Final = logging.getLogger(__name__)


def setup(level: str, file: Path | None, stage: str) -> None:
    """Log records of `level` and above to stderr, and to `file` if given; a second call replaces the first.

    Of other libraries only warnings are told, by place and not by text. What nobody caught is logged, not printed.
    Raises `CannotCreateError` where `file` cannot be opened for appending.
    """
    handlers = [logging.StreamHandler(sys.stderr), *([_open(file)] if file else [])]
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler.formatter, _Line)]:
        root.removeHandler(old)
        old.close()
    for handler in handlers:
        handler.setFormatter(_Line(stage))
        handler.addFilter(_is_told)
        root.addHandler(handler)
    root.setLevel(level)
    for name in _DATASETS:
        logging.getLogger(name).setLevel(_OFF)  # spares them the formatting; the filter holds where they turn it on again
    logging.raiseExceptions = False  # the alternative prints a record's arguments
    warnings.simplefilter("ignore")  # pydicom's quote values
    _catch_the_uncaught()


def note_end(error: BaseException) -> None:
    """Log in LOG_FILE alone what ends the program: stderr is told by who prints it, in plain words."""
    record = logger.makeRecord(logger.name, logging.CRITICAL, __file__, 0, "ended: %s", (error,), None)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _LogFile):
            handler.handle(record)


def describe(error: BaseException) -> str:
    """What may be told of an exception: our own message, otherwise its type and error number."""
    kind = type(error).__name__
    if isinstance(error, DicomrxError):
        return safe(error, _LINE_MAX)
    if isinstance(error, OSError) and error.errno is not None:
        return f"{kind}: {os.strerror(error.errno)}"
    return kind


class _Line(logging.Formatter):
    """`2026-01-31T12:00:00.000Z INFO anonymize message`."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self.stage = stage

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
        text = f"{record.levelname} {self.stage} {_message(record)}"
        if record.exc_info and record.exc_info[1]:
            text += f" [{_trace(record.exc_info[1])}]"
        return f"{time}Z {safe(text, _LINE_MAX)}"


def _message(record: logging.LogRecord) -> str:
    if not _is_ours(record):
        return f"{record.name}: {record.module}:{record.lineno} (its text may quote values and is not logged)"
    if not isinstance(record.args, tuple) or not record.args:
        return record.getMessage()
    told = tuple(describe(arg) if isinstance(arg, BaseException) else arg for arg in record.args)
    try:
        return str(record.msg) % told
    except (TypeError, ValueError):
        return f"{record.msg} (its arguments do not fit)"


def _trace(error: BaseException) -> str:
    """The exception and what led to it, innermost frame first: places only, never a message that is not ours."""
    told = []
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        told.append(describe(cause) + _frames(cause.__traceback__))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "; from ".join(told)


def _frames(traceback: TracebackType | None) -> str:
    frames = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(extract_tb(traceback))]
    return "".join(f" < {frame}" for frame in _some(frames))


def _some(frames: list[str]) -> Iterable[str]:
    return frames if len(frames) <= _FRAMES else [*frames[: _FRAMES // 2], "...", *frames[-_FRAMES // 2 :]]


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] == _OURS


def _is_told(record: logging.LogRecord) -> bool:
    return _is_ours(record) or (record.levelno >= logging.WARNING and record.name.partition(".")[0] not in _DATASETS)


class _LogFile(WatchedFileHandler):
    """Appends, whoever else does; readable by its owner alone; opened anew after a rotation."""

    def _open(self) -> TextIOWrapper:
        fd = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return open(fd, "a", encoding="utf-8", errors="backslashreplace")  # noqa: PTH123  from a descriptor


def _open(file: Path) -> logging.Handler:
    try:
        return _LogFile(file)
    except OSError as error:
        raise CannotCreateError(f"LOG_FILE {safe(file)} cannot be opened: {os.strerror(error.errno or 0)}") from None


def _catch_the_uncaught() -> None:
    def of_program(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            return
        logger.critical("ended by an error that nothing caught", exc_info=(kind, error, traceback))

    def of_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            logger.error("a thread ended by an error", exc_info=(args.exc_type, args.exc_value, args.exc_traceback))

    def of_nobody(args: "sys.UnraisableHookArgs") -> None:
        if args.exc_value is not None:
            logger.error("an error that could not be raised", exc_info=(args.exc_type, args.exc_value, args.exc_traceback))

    sys.excepthook = of_program
    threading.excepthook = of_thread
    sys.unraisablehook = of_nobody
