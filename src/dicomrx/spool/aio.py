"""fsync of many files at once, by the kernel's asynchronous I/O: the waits for the disk fall together, and are one call.

In Linux since 4.18: io_submit(2), IOCB_CMD_FSYNC. Forbidden to some containers.
"""

import contextlib
import ctypes
import errno
import functools
import os
import platform
import sys
import threading
from collections.abc import Sequence
from typing import Final, NamedTuple

_FSYNC: Final = 2
_MOST: Final = 128


class _Calls(NamedTuple):
    """Numbers of system calls: the C library has no functions for them."""

    setup: int
    submit: int
    getevents: int


_CALLS: Final = {"x86_64": _Calls(206, 209, 208), "aarch64": _Calls(0, 2, 4)}

_lock: Final = threading.Lock()
_libc = ctypes.CDLL(None, use_errno=True)


class _Command(ctypes.Structure):
    """`struct iocb`; of a little endian machine."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("key", ctypes.c_uint32),
        ("flags", ctypes.c_int32),
        ("opcode", ctypes.c_uint16),
        ("priority", ctypes.c_int16),
        ("fd", ctypes.c_uint32),
        ("unused", ctypes.c_uint64 * 5),
    )


class _Event(ctypes.Structure):
    """`struct io_event`: `result` is 0, or an errno below it."""

    _fields_ = (("data", ctypes.c_uint64), ("command", ctypes.c_uint64), ("result", ctypes.c_int64), ("unused", ctypes.c_int64))


def fsync(fds: Sequence[int]) -> list[OSError | None]:
    """What became of each, of the first so many that the kernel took on; the others are as they were."""
    with _lock:
        queue = _queue()
        if queue is None:
            return []
        try:
            return queue.fsync(fds[:_MOST])
        except BaseException:  # none of what is still to come may be taken for another's
            _queue.cache_clear()
            raise


class _Queue:
    """A context of the kernel's; raises OSError where there is none to be had."""

    def __init__(self) -> None:
        calls = _CALLS.get(platform.machine()) if sys.maxsize > 1 << 32 else None
        if calls is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        self._calls = calls
        self._context = ctypes.c_ulong()
        _call(calls.setup, _MOST, ctypes.byref(self._context))
        for number in (calls.submit, calls.getevents):  # where one is forbidden, not even nothing may be asked for
            _call(number, self._context, 0, 0, None, None)

    def fsync(self, fds: Sequence[int]) -> list[OSError | None]:
        commands = [_Command(data=number, opcode=_FSYNC, fd=fd) for number, fd in enumerate(fds)]
        pointers = (ctypes.POINTER(_Command) * len(fds))(*map(ctypes.pointer, commands))
        try:
            waiting = _call(self._calls.submit, self._context, len(fds), pointers)
        except OSError:
            return []
        outcomes: list[OSError | None] = [None] * waiting
        events = (_Event * len(fds))()
        while waiting:
            with contextlib.suppress(InterruptedError):
                came = _call(self._calls.getevents, self._context, waiting, waiting, events, None)
                for event in events[:came]:
                    if event.result:
                        outcomes[event.data] = OSError(-event.result, os.strerror(-event.result))
                waiting -= came
        return outcomes


@functools.cache
def _queue() -> _Queue | None:
    """This process's own, made once."""
    try:
        return _Queue()
    except OSError:
        return None


def _call(number: int, *arguments: object) -> int:
    words = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *words)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
