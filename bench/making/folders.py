"""Where a bench works: folders of its own, gone at the end."""

import contextlib
import shutil
import tempfile
from pathlib import Path

_SHARED = Path("/dev/shm")
_DISK = Path("/var/tmp")


def fits_in_memory(size):
    """True where there is a tmpfs with room for so many bytes."""
    return _SHARED.is_dir() and shutil.disk_usage(_SHARED).free > size


def in_memory(size=0):
    """A folder in tmpfs, or on a disk where so many bytes do not fit."""
    return _made(_SHARED if fits_in_memory(size) else None)


def on_disk():
    return _made(_DISK)


@contextlib.contextmanager
def _made(where):
    with tempfile.TemporaryDirectory(prefix="dicomrx-bench-", dir=where, ignore_cleanup_errors=True) as name:
        yield Path(name)
