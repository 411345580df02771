"""Anonymize: from `incoming/` to `studies/`, de-identified; the original goes to the vault first, the input goes last."""

import gc
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from traceback import clear_frames
from typing import BinaryIO, Final, NamedTuple

from dicomrx import deid
from dicomrx.errors import Reject, Taken
from dicomrx.filing import Filing, Made
from dicomrx.jobs import Job
from dicomrx.profiles import Profiles
from dicomrx.rewriting import Written, rewrite
from dicomrx.settings import Settings
from dicomrx.spool import incoming
from dicomrx.spool.evidence import Sighting
from dicomrx.spool.layout import Spool
from dicomrx.spool.ledger import Fate
from dicomrx.spool.names import Arrival
from dicomrx.spool.spares import Spares
from dicomrx.vault import Original, Patient, Placeholders, State, Who, identify, open_bound

_ADOPTION_WAIT_S: Final = 1.0
# So many share one wait for the disk; more would gain little, and hold their studies' locks for longer.
_BATCH: Final = 64
# So many are left to another process that has the first of them: what a series has in common is then worked out by one, mostly.
_STRETCH: Final = 256
# Pixels of so many bytes are hashed and written in threads. Not while the next is de-identified: to hand over the interpreter's lock in
# the midst of that costs more than it gains, as it does for less bytes.
_LARGE: Final = 1 << 18
_WRITERS: Final = 2
# Hardly anything made here waits for the collector of garbage; looking for it after every 700 objects takes 3 % of the time.
_GARBAGE: Final = 20_000

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
        self._spares = Spares(spool, _BATCH)
        self._filing = Filing(spool, state.vault, self._spares)
        self._adoption = incoming.Adoption(spool)
        self._memory = deid.Memory()
        self._left_out = False  # by the latest scan
        self._ahead = 0  # as many arrivals are another's
        self._dummies: Counter[tuple[str, str]] = Counter()  # of a batch: in how many images of a study, where
        self._patients: dict[tuple[deid.Identity, str, str | None], Patient] = {}
        self.watched: Sequence[Path] = (spool.incoming,)

    def scan(self) -> Iterator[Job]:
        """The arrivals, in their order; what others dropped is adopted first. Where there are none, nobody's header is remembered.

        Where another process is at work, it is left a stretch; after a scan in which that happened the next one leaves out nothing.
        """
        self._spares.tend()
        self._adoption.run()
        leaps, self._left_out, self._ahead = not self._left_out, False, 0
        job = None
        for name in incoming.backlog(self._spool):
            job = Job(self._spool.incoming, name)
            if self._ahead and leaps:
                self._ahead -= 1
                self._left_out = True
            else:
                yield job
        if job is None:
            self._memory.clear()

    def ready_in(self) -> float | None:
        """What was left to others is looked at again at once; what someone dropped becomes ready within seconds."""
        if self._left_out:
            return 0.0
        return _ADOPTION_WAIT_S if self._adoption.pending() else None

    def process(self, job: Job) -> None:
        """De-identify one arrival and file it, or find that it is a duplicate; raises Reject."""
        for error in self.process_all([job]).values():
            raise error

    def process_all(self, jobs: Sequence[Job]) -> Mapping[Job, Exception]:
        """The same for several, each made durable together with the others."""
        self._patients.clear()
        failed: dict[Job, Exception] = {}
        claimed: list[_Claimed] = []
        begun: list[_Begun] = []
        made: list[Made] = []
        with ExitStack() as held:
            for job in jobs:  # all of them first: another process finds its own batch behind this one, and not between
                with _noting(failed, job):
                    claimed.append(_claim(job, held))
            if not claimed and len(jobs) == _BATCH:
                self._ahead = _STRETCH - _BATCH
            for taken in claimed:
                with _noting(failed, taken.job):
                    begun.append(self._begin(taken, held))
            for one, written in zip(begun, _written(begun), strict=True):
                with _noting(failed, one.job), self._refusing(one.source):
                    made.append(one.made(written()))
            outcomes = self._filing.file(made)
        for (study, places), count in self._dummies.items():
            log.warning("%s: the second look put dummies in %s of %d images", study, places, count)
        self._dummies.clear()
        return failed | {one.job: error for one in begun if isinstance(error := outcomes.get(one.source.arrival), Exception)}

    def _begin(self, claimed: "_Claimed", held: ExitStack) -> "_Begun":
        """De-identify an arrival, as long as `held` is."""
        job, arrival, file = claimed
        instance = deid.read(file, self._memory)
        key = self._state.uid_key
        names = Names(*(deid.pseudonymous_uid(key, uid) for uid in (instance.study_uid, instance.series_uid, instance.sop_uid)))
        source = _Source(arrival, file, names, _sighting(arrival, instance, names))
        with self._refusing(source):
            original, output = self._deidentified(source, instance)
        part, fd = self._spares.open()
        held.callback(os.close, fd)
        held.callback(part.unlink, missing_ok=True)
        return _Begun(job, source, part, fd, original, partial(rewrite, file, instance, output, fd, original.keywords["pixels"]))

    def _deidentified(self, source: "_Source", instance: deid.Instance) -> tuple["partial[Original]", deid.Output]:
        """What is made of an instance, and its original but for the digests of the two."""
        deid.check(instance, self._burned_in)
        patient = self._patient(instance)
        profile = self._profiles.for_ae(instance.calling_ae)
        context = deid.Context(patient.pseudonym, self._state.uid_key, date_shift=self._state.date_shift(patient))
        output = deid.deidentify(instance, context, profile)
        found = deid.look_again(instance, output, patient.pseudonym, profile)
        if found:
            self._dummies[source.names.study, ", ".join(sorted(set(found)))] += 1
        return partial(
            Original,
            study=source.names.study,
            series=source.names.series,
            instance=source.names.instance,
            patient=patient,
            profile=profile.label,
            transfer_syntax=instance.transfer_syntax,
            dataset=instance.dataset_offset,
            pixels=deid.shared_pixels(instance, output),
        ), output

    @contextmanager
    def _refusing(self, source: "_Source") -> Iterator[None]:
        """Note for its study an arrival that is rejected."""
        try:
            yield
        except Reject:
            self._filing.refuse(source.names.study, source.arrival, source.sighting)
            raise

    def _patient(self, instance: deid.Instance) -> Patient:
        """Whose it is, looked up once a batch: it may be that a patient is forgotten by the next."""
        says = (instance.identity, instance.study_uid, instance.calling_ae)
        if says not in self._patients:
            patient = self._state.patient(who_of(instance, self._issuers, self._placeholders))
            self._spool.binding.note_number(patient.number)
            self._patients[says] = patient
        return self._patients[says]


class _Claimed(NamedTuple):
    """An arrival that no other process has."""

    job: Job
    arrival: Arrival
    file: BinaryIO


def _claim(job: Job, held: ExitStack) -> _Claimed:
    """Claim an arrival, as long as `held` is."""
    arrival = Arrival.parse(job.name)
    if arrival is None:
        raise Reject("bad-name", "not an arrival")
    file = held.enter_context(incoming.claimed(job.at))
    if file is None:
        raise Taken
    return _Claimed(job, arrival, file)


@dataclass(frozen=True)
class _Source:
    """An arrival that is claimed as `file`, and what it tells."""

    arrival: Arrival
    file: BinaryIO
    names: Names
    sighting: Sighting


@dataclass(frozen=True)
class _Begun:
    """An arrival that is de-identified; `write` writes its output to `part`, open as `fd`."""

    job: Job
    source: _Source
    part: Path
    fd: int
    original: "partial[Original]"
    write: Callable[[], Written]

    def made(self, written: Written) -> Made:
        """What was made of it."""
        original = self.original(output=written.output, dataset_sha256=written.dataset)
        return Made(self.source.arrival, self.source.file, self.part, self.fd, original, self.source.sighting)


def _written(begun: Iterable[_Begun]) -> list[Callable[[], Written]]:
    """Write the large outputs, in threads; the others are written when they are asked for."""
    with ThreadPoolExecutor(_WRITERS) as writers:
        try:
            return [writers.submit(one.write).result if len(one.original.keywords["pixels"]) >= _LARGE else one.write for one in begun]
        except RuntimeError as error:  # no thread to be had
            raise MemoryError from error


@contextmanager
def _noting(failed: dict[Job, Exception], job: Job) -> Iterator[None]:
    """Note an error: it is the runner's to judge, and no other arrival's business."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  as it says
        clear_frames(error.__traceback__)  # they may hold all the memory that there is for the others
        failed[job] = error


def _sighting(arrival: Arrival, instance: deid.Instance, names: Names) -> Sighting:
    told = (instance.number, instance.modality, instance.calling_ae or "")
    return Sighting.of(arrival, Fate.FILED, (names.series, names.instance), told)


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


@contextmanager
def build(spool: Spool, settings: Settings) -> Iterator[Anonymize]:
    """The stage as its settings want it, over a state that is bound to this spool."""
    gc.set_threshold(_GARBAGE)
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
