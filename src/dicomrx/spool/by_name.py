"""What `dicomrx upload PATH...` means by a path: a study of this spool, wherever it lies."""

import os
from pathlib import Path

from dicomrx.errors import NoInputError, PermissionRefused, TryAgainError
from dicomrx.spool import quarantine
from dicomrx.spool.completion import complete_by_hand
from dicomrx.spool.layout import Spool
from dicomrx.spool.names import Frozen, is_pseudonymous_uid
from dicomrx.spool.studies import Study, open_studies


def frozen_by_name(spool: Spool, wanted: str) -> list[Frozen]:
    """The frozen studies that `wanted` names, made pending if they were not; empty where all of it was sent before.

    `wanted` is a folder in studies/, outbox/ or failed/, a zip, or a pseudonymous Study UID. An unmarked study is first marked
    complete by hand. Raises NoInputError for what is not there, PermissionRefused for what is not of this spool.
    """
    if is_pseudonymous_uid(wanted):
        return _study(spool, wanted)
    path = Path(os.path.abspath(wanted))
    frozen = Frozen.parse(path.stem if path.suffix == ".zip" else path.name)
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
        generations = [path for path in study.generations() if path.parent != spool.sent]
        known = study.generations()
    if not known:
        msg = f"no study {uid} in the spool {spool.root}"
        raise NoInputError(msg)
    return [frozen for path in generations for frozen in _generation(spool, Frozen(uid, int(path.name.rpartition(".")[2])))]


def _generation(spool: Spool, frozen: Frozen) -> list[Frozen]:
    if (spool.failed / frozen.name).is_dir():
        for item in quarantine.find(spool, frozen.name):
            quarantine.requeue(spool, item, 0)
    if (spool.outbox / frozen.name).is_dir():
        return [frozen]
    if (spool.sent / frozen.name).is_dir():
        return []
    msg = f"{frozen.name} is not in the spool {spool.root}"
    raise NoInputError(msg)


def still_pending(spool: Spool, frozen: list[Frozen]) -> TryAgainError | None:
    """The error to end with where something named was not sent."""
    left = [one.name for one in frozen if not (spool.sent / one.name).is_dir()]
    return TryAgainError(f"not sent: {', '.join(left)}") if left else None
