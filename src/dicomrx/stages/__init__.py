"""The stages, in the order in which an instance meets them: a sixth is a file beside this one and a line in `STAGES`."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

from dicomrx.runner import Stage
from dicomrx.settings import Settings
from dicomrx.spool.layout import Spool
from dicomrx.stages import anonymize, upload, watch

Build = Callable[[Spool, Settings], AbstractContextManager[Stage]]


@dataclass(frozen=True)
class Definition:
    """How a stage is built from the settings, and whether several of its processes share the work.

    `makes_spool`: it may be the first to run, and makes a missing spool.
    """

    build: Build
    parallel: bool = False
    makes_spool: bool = False


STAGES: Final[Mapping[str, Definition]] = {
    "anonymize": Definition(anonymize.build, parallel=True, makes_spool=True),
    "watch": Definition(watch.build),
    "upload": Definition(upload.build),
}
