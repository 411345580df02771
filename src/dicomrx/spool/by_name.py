"""What `dicomrx upload PATH...` means by a path: a study of this spool, wherever it lies."""

import os
from collections.abc import Sequence
from pathlib import Path

from dicomrx.errors import DicomrxError, NoInputError, PermissionRefused, TryAgainError, UnavailableError
from dicomrx.spool import locks, quarantine
from dicomrx.spool.completion import complete_by_hand
from dicomrx.spool.layout import RECEIPT, Spool, read_json
from dicomrx.spool.names import Frozen, is_pseudonymous_uid
from dicomrx.spool.sending import release
from dicomrx.spool.studies import Study, open_studies


def frozen_by_name(spool: Spool, wanted: str) -> list[Frozen]:
    """The frozen studies that `wanted` names, made pending if they were not; those that were sent before among them.

    `wanted` is a folder in studies/, outbox/, failed/ or sent/, a zip, a pseudonymous Study UID, or one with its generation. An
    unmarked study is first marked complete by hand. Raises NoInputError for what is not there, PermissionRefused for what is not
    of this spool.
    """
    if is_pseudonymous_uid(wanted):
        return _study(spool, wanted)
    path = Path(os.path.abspath(wanted))
    frozen = Frozen.parse(path.stem if path.suffix == ".zip" else path.name)
    if frozen is not None and os.sep not in wanted:
        return _generation(spool, frozen)
    parent = path.parent.resolve()  # of the folder alone: a link in it would lead out of the spool
    if parent == spool.studies.resolve() and is_pseudonymous_uid(path.name):
        return _study(spool, path.name)
    if frozen is not None and parent in {folder.resolve() for folder in (spool.outbox, spool.failed, spool.sent, spool.zips)}:
        return _generation(spool, frozen)
    if not path.exists():
        msg = f"{path.name} is neither a file nor a study of the spool {spool.root}"
        raise NoInputError(msg)
    msg = (
        f"refused: it is not a study of the spool {spool.root} and may still carry identities. "
        f"Copy the files into {spool.incoming} and they are de-identified and sent like any other"
    )
    raise PermissionRefused(msg)


def open_by_name(spool: Spool, wanted: str) -> list[str]:
    """The studies in `studies/` that `wanted` names: one by its pseudonymous UID, or `all`; raises NoInputError where it is not there."""
    there = open_studies(spool)
    if wanted != "all" and wanted not in there:
        msg = f"no open study of that name in {spool.studies}: `dicomrx status` shows their pseudonymous UIDs"
        raise NoInputError(msg)
    return there if wanted == "all" else [wanted]


def _study(spool: Spool, uid: str) -> list[Frozen]:
    with Study.locked(spool, uid) as study:
        if study.folder.is_dir() and study.freeze() is None and complete_by_hand(spool, study):
            study.freeze()
        generations = study.generations()
    if not generations:
        msg = f"no study {uid} in the spool {spool.root}"
        raise NoInputError(msg)
    return [frozen for path in generations for frozen in _generation(spool, Frozen(uid, int(path.name.rpartition(".")[2])))]


def _generation(spool: Spool, frozen: Frozen) -> list[Frozen]:
    if (spool.failed / frozen.name).is_dir():
        for item in quarantine.find(spool, frozen.name):
            quarantine.requeue(spool, item, 0)
    if (spool.outbox / frozen.name).is_dir():
        release(spool, spool.outbox / frozen.name)
        return [frozen]
    if (spool.sent / frozen.name).is_dir():
        return [frozen]
    msg = f"{frozen.name} is not in the spool {spool.root}"
    raise NoInputError(msg)


def sent_already(spool: Spool, frozen: Sequence[Frozen]) -> list[str]:
    """A line for each that was sent before."""
    receipts = ((one.name, read_json(spool.sent / one.name / RECEIPT)) for one in frozen)
    return [f"{name} was sent already, {receipt.get('sent_at')}: HTTP {receipt.get('status')}" for name, receipt in receipts if receipt]


def not_sent(spool: Spool, frozen: Sequence[Frozen]) -> DicomrxError | None:
    """The error to end with where something named was not sent."""
    left = [one.name for one in frozen if not (spool.sent / one.name).is_dir()]
    dead = [item for item in quarantine.items(spool) if item.path.parent == spool.failed and item.name in left]
    if dead:
        told = ", ".join(f"{item.name} ({item.reason})" for item in dead)
        return UnavailableError(f"not sent, and now in failed/: {told}; `dicomrx quarantine show NAME` tells why")
    told = ", ".join(name + (", which another process is sending" if _is_claimed(spool, name) else "") for name in left)
    return TryAgainError(f"not sent: {told}") if left else None


def _is_claimed(spool: Spool, name: str) -> bool:
    return locks.is_locked(spool.outbox / name)
