"""Anonymize: from `incoming/` to `studies/`, de-identified; the original goes to the vault first, the input goes last."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

from dicomrx import deid
from dicomrx.errors import Reject
from dicomrx.profiles import Profiles
from dicomrx.runner import Job
from dicomrx.settings import Settings
from dicomrx.spool import durable, evidence, incoming
from dicomrx.spool.evidence import Sighting
from dicomrx.spool.layout import Spool
from dicomrx.spool.ledger import Fate
from dicomrx.spool.names import Arrival
from dicomrx.spool.studies import Study
from dicomrx.vault import Original, Patient, Placeholders, Position, State, Who, identify, open_bound

_CHUNK: Final = 1 << 20
_ADOPTION_WAIT_S: Final = 1.0
# So many share one wait for the disk; more would gain little, and hold their studies' locks for longer.
_BATCH: Final = 32

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Names:
    """The pseudonymous UIDs of one instance: its place in the spool."""

    study: str
    series: str
    instance: str


class Anonymize:
    """De-identifies and files arrivals.

    `issuers` names, for calling AE titles, the issuer of a PatientID that comes without one; `placeholders` are words that stand
    for no patient.
    """

    name = "anonymize"
    batch = _BATCH

    def __init__(
        self, spool: Spool, state: State, *, profiles: Profiles, burned_in: str, issuers: Mapping[str, str], placeholders: Iterable[str]
    ) -> None:
        self._spool = spool
        self._state = state
        self._profiles = profiles
        self._burned_in = burned_in
        self._issuers = issuers
        self._placeholders = Placeholders(placeholders)
        self._adoption = incoming.Adoption(spool)
        self._memory = deid.Memory()
        self._patients: dict[tuple[deid.Identity, str, str | None], Patient] = {}
        self.watched: Sequence[Path] = (spool.incoming,)

    def scan(self) -> Iterator[Job]:
        """The arrivals, in their order; what others dropped is adopted first. Where there are none, nobody's header is remembered."""
        self._adoption.run()
        job = None
        for arrival in incoming.arrivals(self._spool):
            job = Job(self._spool.incoming / arrival.name)
            yield job
        if job is None:
            self._memory.clear()

    def ready_in(self) -> float | None:
        """What someone dropped becomes ready within seconds."""
        return _ADOPTION_WAIT_S if self._adoption.pending() else None

    def process(self, job: Job) -> None:
        """De-identify one arrival and file it, or find that it is a duplicate; raises Reject."""
        for error in self.process_all([job]).values():
            raise error

    def process_all(self, jobs: Sequence[Job]) -> Mapping[Job, Exception]:
        """The same for several, each made durable together with the others."""
        self._patients.clear()
        failed: dict[Job, Exception] = {}
        with ExitStack() as held:
            taken = []
            for job in jobs:
                try:
                    taken += self._take(job, held)
                except Exception as error:  # noqa: BLE001  the runner's to judge, and no other arrival's business
                    failed[job] = error
            for some in _rounds(taken):
                failed.update(self._file_all(some))
        return failed

    def _take(self, job: Job, held: ExitStack) -> list["_Taken"]:
        """Claim an arrival and de-identify it, as long as `held` is; nothing where another process has it."""
        arrival = Arrival.parse(job.path.name)
        if arrival is None:
            raise Reject("bad-name", "not an arrival")
        file = held.enter_context(incoming.claimed(job.path))
        if file is None:
            return []
        instance = deid.read(file, self._memory)
        key = self._state.uid_key
        names = Names(*(deid.pseudonymous_uid(key, uid) for uid in (instance.study_uid, instance.series_uid, instance.sop_uid)))
        try:
            return [self._deidentified(job, arrival, file, instance, names, held)]
        except Reject:
            with Study.locked(self._spool, names.study) as study:
                evidence.note(self._spool, study.uid, _sighting(arrival, Fate.QUARANTINED, instance, names))
                study.arrived(arrival.end)
            raise

    def _deidentified(self, job: Job, arrival: Arrival, file: BinaryIO, instance: deid.Instance, names: Names, held: ExitStack) -> "_Taken":
        deid.check(instance, self._burned_in)
        patient = self._patient(instance)
        profile = self._profiles.for_ae(instance.calling_ae)
        context = deid.Context(patient.pseudonym, self._state.uid_key, date_shift=self._state.date_shift(patient))
        output = deid.deidentify(instance, context, profile)
        found = deid.look_again(instance, output, patient.pseudonym, profile)
        if found:
            log.warning("%s: the second look put dummies in %s", arrival.id, ", ".join(sorted(set(found))))
        part = self._spool.new_path()
        held.callback(part.unlink, missing_ok=True)
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o660)
        held.callback(os.close, fd)
        original = Original(
            study=names.study,
            series=names.series,
            instance=names.instance,
            patient=patient,
            profile=profile.label,
            output_sha256=_write(fd, output),
            dataset_sha256=_dataset_digest(file, instance),
            transfer_syntax=instance.transfer_syntax,
            pixels=deid.shared_pixels(instance, output),
        )
        return _Taken(job, arrival, file, part, fd, original, _sighting(arrival, Fate.FILED, instance, names))

    def _patient(self, instance: deid.Instance) -> Patient:
        """Whose it is, looked up once a batch: it may be that a patient is forgotten by the next."""
        says = (instance.identity, instance.study_uid, instance.calling_ae)
        if says not in self._patients:
            patient = self._state.patient(who_of(instance, self._issuers, self._placeholders))
            self._spool.binding.note_number(patient.number)
            self._patients[says] = patient
        return self._patients[says]

    def _file_all(self, taken: Sequence["_Taken"]) -> Mapping[Job, Exception]:
        """File arrivals of different instances, all together; what cannot be done together is tried one by one."""
        try:
            return self._file(taken)
        except Exception as error:  # noqa: BLE001  the runner's to judge
            with suppress(OSError):
                self._state.vault.sync()  # what is lost of this batch is appended again with it
            if len(taken) == 1:
                return {taken[0].job: error}
            return {job: error for one in taken for job, error in self._file_all([one]).items()}

    def _file(self, taken: Sequence["_Taken"]) -> Mapping[Job, Exception]:
        durable.sync_files([one.fd for one in taken])
        failed: dict[Job, Exception] = {}
        with Study.all_locked(self._spool, {one.original.study for one in taken}) as studies:
            fates: dict[Arrival, Fate] = {}
            positions: dict[str, int] = {}
            for one in taken:
                try:
                    fates[one.arrival], (segment, end) = self._decide(studies[one.original.study], one)
                    positions[segment] = max(end, positions.get(segment, 0))
                except Reject as never:
                    failed[one.job] = never
            self._state.vault.sync()
            for segment, end in positions.items():
                self._spool.binding.note_position(segment, end)
            for study in studies.values():
                self._place(study, [one for one in taken if one.original.study == study.uid], fates)
            incoming.finish(self._spool, fates)
        for one in taken:
            if one.arrival in fates:
                log.info("%s: %s in study %s", one.arrival.id, fates[one.arrival], one.original.study)
        return failed

    def _decide(self, study: Study, one: "_Taken") -> tuple[Fate, Position]:
        """To be filed, or proven to be filed already (design: promise 4), with how far the vault had come by then, once it is synced.

        A vault record alone proves nothing: a crash may have come between it and the filing.
        """
        original = one.original
        filed = study.filed(original.series, original.instance)
        known = self._state.vault.find(original.instance)
        same = self._state.vault.same(original)
        mine = [record for record in known if record.same == same]
        if filed:
            proven = next((record for record in mine if record.output_sha256 in filed), None)
            if proven is not None:
                return Fate.DUPLICATE, proven.position
            if original.output_sha256 not in filed:
                raise Reject("conflict", "an instance with this UID and another content is filed already")
        position = next((record.position for record in mine if record.output_sha256 == original.output_sha256), None)
        if position is None:
            one.file.seek(0)
            position = self._state.vault.append(original, one.file, flush=False)
        return Fate.DUPLICATE if filed else Fate.FILED, position

    def _place(self, study: Study, taken: Sequence["_Taken"], fates: Mapping[Arrival, Fate]) -> None:
        """Note what arrived for a study, and file what is to be filed."""
        for one in taken:
            evidence.note(self._spool, study.uid, replace(one.sighting, fate=fates.get(one.arrival, Fate.QUARANTINED)))
        end = max(one.arrival.end for one in taken)
        parts = {(one.original.series, one.original.instance): one.part for one in taken if fates.get(one.arrival) is Fate.FILED}
        if parts:
            study.file(parts, end)
        else:
            study.arrived(end)


@dataclass(frozen=True)
class _Taken:
    """An arrival that is claimed and de-identified: `part`, open as `fd`, is its output, which nobody has synced yet."""

    job: Job
    arrival: Arrival
    file: BinaryIO
    part: Path
    fd: int
    original: Original
    sighting: Sighting


def _rounds(taken: Sequence[_Taken]) -> list[list[_Taken]]:
    """In none of them is an instance twice: what is filed first decides about what comes after."""
    rounds: list[list[_Taken]] = []
    met: Counter[str] = Counter()
    for one in taken:
        if met[one.original.instance] == len(rounds):
            rounds.append([])
        rounds[met[one.original.instance]].append(one)
        met[one.original.instance] += 1
    return rounds


def _sighting(arrival: Arrival, fate: Fate, instance: deid.Instance, names: Names) -> Sighting:
    told = (instance.number, instance.modality, instance.calling_ae or "")
    return Sighting.of(arrival, fate, (names.series, names.instance), told)


def who_of(instance: deid.Instance, issuers: Mapping[str, str], placeholders: Placeholders) -> Who:
    """Whose the instance says it is; `issuers` as `Anonymize` has them."""
    says = instance.identity
    return identify(
        patient_id=says.patient_id,
        issuer=says.issuer or issuers.get(instance.calling_ae or "", ""),
        name=says.name,
        birth_date=says.birth_date,
        study_uid=instance.study_uid,
        placeholders=placeholders,
    )


def _write(fd: int, output: deid.Output) -> str:
    """Write the output, not yet synced; returns its SHA-256."""
    digest = sha256()
    for piece in deid.pieces(output):
        digest.update(piece)
        durable.write_all(fd, piece)
    return digest.hexdigest()


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
    profiles = Profiles.of(settings)
    with open_bound(settings.state_dir, spool) as state:
        state.use_format(settings.pseudonym)
        if state.new_key_path is not None:
            log.warning("made the site's key %s: back it up, without it nothing can be restored", state.new_key_path)
        yield Anonymize(
            spool,
            state,
            profiles=profiles,
            burned_in=settings.burned_in,
            issuers=dict(settings.issuers),
            placeholders=settings.placeholders,
        )
