"""Anonymize: from `incoming/` to `studies/`, de-identified; the original goes to the vault first, the input goes last."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import BinaryIO, Final

from pydicom import Dataset

from dicomrx import deid
from dicomrx.errors import Reject
from dicomrx.runner import Job
from dicomrx.settings import Settings
from dicomrx.spool import durable, evidence, incoming
from dicomrx.spool.evidence import Sighting
from dicomrx.spool.layout import Spool
from dicomrx.spool.ledger import Fate
from dicomrx.spool.names import Arrival
from dicomrx.spool.studies import Study
from dicomrx.vault import Original, Patient, State, identity_key, open_bound

_CHUNK: Final = 1 << 20
_ADOPTION_WAIT_S: Final = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Names:
    """The pseudonymous UIDs of one instance: its place in the spool."""

    study: str
    series: str
    instance: str


class Anonymize:
    """De-identifies and files arrivals.

    `issuers` names, for calling AE titles, the issuer of a PatientID that comes without one.
    """

    name = "anonymize"

    def __init__(self, spool: Spool, state: State, *, profile: str, burned_in: str, issuers: Mapping[str, str]) -> None:
        self._spool = spool
        self._state = state
        self._profile = profile
        self._burned_in = burned_in
        self._issuers = issuers
        self._adoption = incoming.Adoption(spool)
        self.watched: Sequence[Path] = (spool.incoming,)

    def scan(self) -> Iterator[Job]:
        """The arrivals, in their order; what others dropped is adopted first."""
        self._adoption.run()
        for arrival in incoming.arrivals(self._spool):
            yield Job(self._spool.incoming / arrival.name)

    def ready_in(self) -> float | None:
        """What someone dropped becomes ready within seconds."""
        return _ADOPTION_WAIT_S if self._adoption.pending() else None

    def process(self, job: Job) -> None:
        """De-identify one arrival and file it, or find that it is a duplicate; raises Reject."""
        arrival = Arrival.parse(job.path.name)
        if arrival is None:
            raise Reject("bad-name", "not an arrival")
        with incoming.claimed(job.path) as file:
            if file is not None:
                self._take(arrival, file)

    def _take(self, arrival: Arrival, file: BinaryIO) -> None:
        instance = deid.read(file)
        key = self._state.uid_key
        names = Names(*(deid.pseudonymous_uid(key, uid) for uid in (instance.study_uid, instance.series_uid, instance.sop_uid)))
        try:
            fate = self._file(arrival, file, instance, names)
        except Reject:
            with Study.locked(self._spool, names.study) as study:
                evidence.note(self._spool, study.uid, _sighting(arrival, Fate.QUARANTINED, instance, names))
                study.arrived(arrival.end)
            raise
        log.info("%s: %s in study %s", arrival.id, fate, names.study)

    def _file(self, arrival: Arrival, file: BinaryIO, instance: deid.Instance, names: Names) -> Fate:
        deid.check(instance, self._burned_in)
        patient = self._state.patient(self._identity(instance))
        self._spool.binding.note_number(patient.number)
        output = deid.deidentify(instance, deid.Context(pseudonym=patient.pseudonym, uid_key=self._state.uid_key))
        self._second_look(arrival, instance, output, patient)
        part = self._spool.new_path()
        try:
            made = _write(part, output)
            original = Original(
                study=names.study,
                series=names.series,
                instance=names.instance,
                patient=patient,
                profile=self._profile,
                output_sha256=made,
                dataset_sha256=_dataset_digest(file, instance),
                transfer_syntax=instance.transfer_syntax,
            )
            with Study.locked(self._spool, names.study) as study:
                fate = self._decide(study, original, file)
                evidence.note(self._spool, study.uid, _sighting(arrival, fate, instance, names))
                if fate is Fate.FILED:
                    study.file(part, names.series, names.instance, arrival.end)
                else:
                    study.arrived(arrival.end)
                incoming.finish(self._spool, arrival, fate)
                return fate
        finally:
            part.unlink(missing_ok=True)

    def _second_look(self, arrival: Arrival, instance: deid.Instance, output: Dataset, patient: Patient) -> None:
        found = deid.look_again(instance, output, patient.pseudonym)
        if found:
            log.warning("%s: the second look put dummies in %s", arrival.id, ", ".join(sorted(set(found))))

    def _identity(self, instance: deid.Instance) -> str:
        who = instance.identity
        issuer = who.issuer or self._issuers.get(instance.calling_ae or "", "")
        return identity_key(
            patient_id=who.patient_id, issuer=issuer, name=who.name, birth_date=who.birth_date, study_uid=instance.study_uid
        )

    def _decide(self, study: Study, original: Original, file: BinaryIO) -> Fate:
        """To be filed, or proven to be filed already (design: promise 4); the study's lock is held.

        A vault record alone proves nothing: a crash may have come between it and the filing.
        """
        filed = study.filed(original.series, original.instance)
        known = self._state.vault.find(original.instance)
        same = self._state.vault.same(original)
        mine = [record for record in known if record.same == same]
        if filed:
            if any(record.output_sha256 in filed for record in mine):
                return Fate.DUPLICATE
            if original.output_sha256 not in filed:
                raise Reject("conflict", "an instance with this UID and another content is filed already")
        position = next((record.position for record in mine if record.output_sha256 == original.output_sha256), None)
        if position is None:
            file.seek(0)
            position = self._state.vault.append(original, file)
        self._spool.binding.note_position(*position)
        return Fate.DUPLICATE if filed else Fate.FILED


def _sighting(arrival: Arrival, fate: Fate, instance: deid.Instance, names: Names) -> Sighting:
    told = (instance.number, instance.modality, instance.calling_ae or "")
    return Sighting.of(arrival, fate, (names.series, names.instance), told)


def _write(part: Path, output: Dataset) -> str:
    """Write the output, fsynced; returns its SHA-256."""
    fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o660)
    with os.fdopen(fd, "r+b") as out:
        deid.write(output, out)
        out.flush()
        durable.sync(out.fileno())
        out.seek(0)
        return file_digest(out, "sha256").hexdigest()


def _dataset_digest(file: BinaryIO, instance: deid.Instance) -> str:
    """SHA-256 of the dataset as it came over the wire, behind the file meta."""
    file.seek(instance.dataset_offset)
    digest = sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def build(spool: Spool, settings: Settings) -> Iterator[Anonymize]:
    """The stage as its settings want it, over a state that is bound to this spool."""
    with open_bound(settings.state_dir, spool) as state:
        if state.new_key_path is not None:
            log.warning("made the site's key %s: back it up, without it nothing can be restored", state.new_key_path)
        yield Anonymize(spool, state, profile=settings.profile, burned_in=settings.burned_in, issuers=dict(settings.issuers))
