"""A spool and small hands to work in it: what the stages do, without DICOM."""

import hashlib
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from dicomrx.spool import durable, evidence, incoming
from dicomrx.spool.evidence import Sighting
from dicomrx.spool.intake import Intake
from dicomrx.spool.layout import Spool
from dicomrx.spool.ledger import Fate
from dicomrx.spool.names import Arrival, Frozen
from dicomrx.spool.spares import Spares
from dicomrx.spool.studies import Addition, Study, file_all

STUDY, OTHER_STUDY = "2.25.100", "2.25.200"
SERIES = "2.25.10"
INSTANCE, SECOND = "2.25.1", "2.25.2"
NS = 1_000_000_000
HAND = {"rule": "hand", "quiet_s": 0, "watermark": None, "evidence": {}}


def open_spool(root: Path) -> Spool:
    return Spool.open(root / "storage", root / "zips", make=True)


def die(spool: Spool, intake: Intake | None = None) -> None:
    """Let go of everything as a killed process does: locks are free, nothing is tidied."""
    if intake is not None:
        intake._run.close(keep=True)
    for name in ("scratch", "zip_scratch"):
        run = spool.__dict__.pop(name, None)
        if run is not None:
            run.close(keep=True)


def advance(seconds: float, *spools: Spool) -> None:
    """Let spool time pass, for the spools given and those opened later."""
    clock = spools[0].run_dir / "clock"
    for anchor in clock.iterdir():
        if not anchor.name.startswith("."):
            anchor.write_text(str(int(anchor.read_text()) + int(seconds * NS)))
    for spool in spools:
        spool.__dict__.pop("_clock", None)


def receive(intake: Intake, data: bytes = b"identity", association: int = 1, number: int = 1) -> Arrival:
    reception = intake.begin(association, number)
    reception.write(data)
    arrival = reception.keep()
    reception.drop()
    return arrival


def drop(spool: Spool, name: str, data: bytes = b"dropped", age_s: float = 0.0) -> Path:
    """What somebody else puts into `incoming/`; `age_s` is how old they say it is."""
    path = spool.incoming / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    if age_s:  # a stage that is awake may have taken it by now
        then = time.time() - age_s
        os.utime(path, (then, then))
    return path


def finished(spares: Spares, data: bytes) -> Path:
    """An output that is written and fsynced, and has no name yet."""
    part, fd = spares.open()
    durable.write_all(fd, data)
    durable.end_here(fd)
    assert durable.sync_all([fd]) == [None]
    os.close(fd)
    return part


def file_together(spool: Spool, outputs: Mapping[Arrival, tuple[str, str, bytes]], spares: Spares | None = None) -> dict[Arrival, Fate]:
    """What anonymize does with a batch of arrivals, of each of which this study's instance and output was made; none is there twice."""
    spares = spares or Spares(spool, 4)
    fates: dict[Arrival, Fate] = {}
    with ExitStack() as held:
        mine = {arrival: what for arrival, what in outputs.items() if held.enter_context(incoming.claimed(spool.incoming / arrival.name))}
        made = {arrival: finished(spares, data) for arrival, (_, _, data) in mine.items()}
        with Study.all_locked(spool, {study for study, _, _ in mine.values()}) as studies:
            additions = {}
            for uid, study in studies.items():
                parts = {}
                some = {arrival: (instance, data) for arrival, (of, instance, data) in mine.items() if of == uid}
                for arrival, (instance, data) in some.items():
                    known = hashlib.sha256(data).hexdigest() in study.filed(SERIES, instance)
                    fates[arrival] = Fate.DUPLICATE if known else Fate.FILED
                    if not known:
                        parts[SERIES, instance] = made[arrival]
                additions[study] = Addition(parts, max(arrival.end for arrival in some))
            file_all(additions)
            incoming.finish(spool, fates, spares)
        for part in made.values():
            part.unlink()
    return fates


def file_one(
    spool: Spool,
    arrival: Arrival,
    study: str = STUDY,
    instance: str = INSTANCE,
    data: bytes = b"output",
    spares: Spares | None = None,
) -> Fate | None:
    """The same with one; None where another has it."""
    return file_together(spool, {arrival: (study, instance, data)}, spares).get(arrival)


def filed(spool: Spool, study: str = STUDY, instance: str = INSTANCE, data: bytes = b"output") -> Path:
    """An instance in a study, as if it had arrived now."""
    part = finished(Spares(spool, 4), data)
    with Study.locked(spool, study) as held:
        file_all({held: Addition({(SERIES, instance): part}, spool.now())})
        path = held.folder / SERIES / f"{instance}.dcm"
    part.unlink()
    return path


def see(
    spool: Spool,
    instance: str = INSTANCE,
    number: int | str = 1,
    *,
    modality: str = "CT",
    calling: str = "CT1",
    fate: Fate = Fate.FILED,
    arrival: Arrival | None = None,
) -> None:
    """What anonymize notes of an instance of the study, for the watch to weigh."""
    arrival = arrival or Arrival(1, 2, "0123abcd", 0, 1)
    with Study.locked(spool, STUDY):
        evidence.note(spool, STUDY, Sighting.of(arrival, fate, (SERIES, instance), (str(number), modality, calling)))


def mark(spool: Spool, study: str = STUDY) -> bool:
    with Study.locked(spool, study) as held:
        return held.mark(HAND)


def freeze(spool: Spool, study: str = STUDY) -> Frozen | None:
    with Study.locked(spool, study) as held:
        return held.freeze()


def frozen(spool: Spool, study: str = STUDY, instance: str = INSTANCE, data: bytes = b"output") -> Frozen:
    filed(spool, study, instance, data)
    assert mark(spool, study)
    result = freeze(spool, study)
    assert result is not None
    return result


def tree(root: Path) -> dict[str, tuple[int, int, int]]:
    """Every name under `root` with inode, size and modification time: equal means that nothing was done."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        found[str(path.relative_to(root))] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))
