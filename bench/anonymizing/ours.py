"""Our contenders.

usage: ours.py whole ROOT WARM DURABLE       works off ROOT/spool, as `dicomrx anonymize` does: vault, hashes, second look
       ours.py rewriting OUT DURABLE FILE... the rewriting alone: no vault, no hash, no second look
"""
# ruff: noqa: TID251  what the others are given

import contextlib
import os
import sys
from pathlib import Path

from anonymizing import turn
from dicomrx import deid, logs
from dicomrx.runner import Runner
from dicomrx.settings import Settings
from dicomrx.spool import durable
from dicomrx.spool.layout import Spool
from dicomrx.stages import STAGES


@contextlib.contextmanager
def stage(root):
    """The stage and its spool, both below `root`."""
    definition = STAGES["anonymize"]
    with (
        Spool.open(root / "spool", root / "zips", make=True) as spool,
        definition.build(spool, Settings(state_dir=root / "state")) as built,
    ):
        yield Runner(built, spool, cpu_s=definition.cpu_s, memory=definition.memory)


def whole(root, warm):
    logs.setup("INFO", None, "anonymize")  # as it is by default
    with stage(Path(warm)) as runner:
        runner.once()
    with stage(Path(root)) as runner:
        turn.take(runner.once)


def rewriting(out, sources, *, sync):
    contexts = {}
    memory = deid.Memory()

    def one(source, target):
        with source.open("rb") as file, target.open("xb") as made:
            instance = deid.read(file, memory)
            deid.check(instance, "quarantine")
            if instance.identity not in contexts:
                contexts[instance.identity] = deid.Context(f"sub-{len(contexts):03}", bytes(32), date_shift=1000)
            deid.write(deid.deidentify(instance, contexts[instance.identity], deid.BASIC), made)
            if sync:
                made.flush()
                os.fsync(made.fileno())

    one(sources[0], out / "warm")
    turn.take(lambda: [one(source, out / f"{number}.dcm") for number, source in enumerate(sources)])


def main():
    kind, place, *rest = sys.argv[1:]
    if kind == "whole":
        warm, sync = rest
        durable.set_durable(enabled=sync == "1")
        whole(place, warm)
    else:
        sync, *sources = rest
        rewriting(Path(place), list(map(Path, sources)), sync=sync == "1")


if __name__ == "__main__":
    main()
