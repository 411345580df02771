"""The stages, in the order in which an instance meets them: a sixth is a file beside this one and a line in `STAGES`."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import Final

from dicomrx.jobs import Stage
from dicomrx.runner import RESCAN_S
from dicomrx.settings import Settings
from dicomrx.spool.layout import Spool

Build = Callable[[Spool, Settings], AbstractContextManager[Stage]]


@dataclass(frozen=True)
class Definition:
    """How a stage is built from the settings, and whether several of its processes, or threads of one process, share the work.

    `name`: of its module here, too, which is imported where the stage is built: what one needs makes no other start late.
    `makes_spool`: it may be the first to run, and makes a missing spool. `rescan_s`: how often it looks where no event calls it.
    `cpu_s`, `memory`: the most that one attempt may take of the processor, and have of memory (bytes), where a file may be made to cost
    much; 0: as much as it needs.
    """

    name: str
    parallel: bool = False
    threaded: bool = False
    makes_spool: bool = False
    rescan_s: float = RESCAN_S
    cpu_s: float = 0.0
    memory: int = 0

    @property
    def build(self) -> Build:
        """The function of that name in the stage's module."""
        build: Build = import_module(f"{__name__}.{self.name}").build
        return build


# No event tells that a study has been quiet for long enough, nor of a marker; where a look costs much, the runner rests for longer.
STAGES: Final[Mapping[str, Definition]] = {
    definition.name: definition
    for definition in (
        Definition("anonymize", parallel=True, makes_spool=True, cpu_s=300.0, memory=2 << 30),
        Definition("watch", rescan_s=0.25),
        Definition("upload", threaded=True, rescan_s=0.5),
    )
}
