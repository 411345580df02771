"""Spool and state belong together: each carries the other's id, and the spool how far the state had come."""

from pathlib import Path

from dicomrx.errors import ConfigError
from dicomrx.spool import locks
from dicomrx.spool.layout import Spool
from dicomrx.vault.state import State


def open_bound(path: Path, spool: Spool) -> State:
    """Open the state that belongs to this spool, or make and bind one for a new spool.

    Raises ConfigError where either half is without the other, is another's, or the state is older than its spool: no number
    is ever given twice.
    """
    if spool.binding.state_id is not None and not State.exists(path.absolute()):
        msg = (
            f"the spool {spool.root} is bound to a state, but there is none at {path.absolute()}: "
            "put it back from its newest backup, or name it with --state-dir"
        )
        raise ConfigError(msg)
    state = State.open(path, create=True)
    try:
        _bind(state, spool)
        _refuse_older(state, spool)
    except BaseException:
        state.close()
        raise
    return state


def _bind(state: State, spool: Spool) -> None:
    """Bind two halves that are both new, or complete what a crash left; both are locked, so that no third one comes between."""
    with locks.locked(state.path / ".lock"), spool.binding.locked():
        ours, theirs = spool.binding.state_id, state.spool_id
        if ours is None and theirs is None:
            state.bind(spool.binding.spool_id)  # the state's half first: a crash before the other is completed below
        elif theirs != spool.binding.spool_id or ours not in {None, state.id}:
            msg = (
                f"the spool {spool.root} and the state {state.path} do not belong together: name the right pair with --storage and "
                f"--state-dir; where the state's own spool is lost for good, remove {state.path / 'spool'} and start with a new, "
                "empty spool"
            )
            raise ConfigError(msg)
        spool.binding.bind(state.id)


def _refuse_older(state: State, spool: Spool) -> None:
    # The spool's notes are read first: other processes go on meanwhile, and the state is ahead of them at any moment.
    noted, number = dict(spool.binding.positions()), spool.binding.highest_number()
    there = state.vault.positions()
    behind = [name for name, end in noted.items() if there.get(name, 0) < end]
    if behind or state.highest_number() < number:
        msg = (
            f"the state {state.path} is older than its spool {spool.root}: it lacks numbers or originals that were in use. "
            "Put back the newest backup of the state; nothing was renumbered"
        )
        raise ConfigError(msg)
