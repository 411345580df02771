"""Upload: freeze what is complete, zip it, seal it, send it, keep the receipt."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from dicomrx import archive
from dicomrx.api import ApiClient, DestinationRefused, Journal, Tls, UploadDeferred, warning_of
from dicomrx.errors import FULL_ERRNOS, Defer, Outcome, Reject, Taken, UnavailableError
from dicomrx.jobs import Job
from dicomrx.settings import Settings, exposed_key, refuse_plain_http
from dicomrx.spool import outbox
from dicomrx.spool.layout import MANIFEST, MARKER, RECEIPT, Spool
from dicomrx.spool.names import Frozen
from dicomrx.spool.outbox import Outgoing
from dicomrx.spool.progress import note_stopped
from dicomrx.spool.sending import Record, Seal, Step
from dicomrx.spool.studies import Study, is_marked, open_studies

_CLEANING_S: Final = 3600.0
_OTHER_ZIP_RETRY_S: Final = 60.0
_HELD_RETRY_S: Final = 3600.0
_FULL_RETRY_S: Final = 30.0

log = logging.getLogger(__name__)


class Upload:
    """Freezes and zips complete studies, and sends them where there is a `client`; safe for threads.

    `keep_days`: for how long data and zips of sent studies are kept, None for ever. `hold`: what the API may have already is
    not sent again before somebody says so. `manifest_in_zip` sends the manifest along.
    """

    name = "upload"

    def __init__(
        self,
        spool: Spool,
        client: ApiClient | None,
        *,
        profile: str,
        keep_days: int | None = None,
        hold: bool = False,
        manifest_in_zip: bool = False,
    ) -> None:
        self._spool = spool
        self._client = client
        self._profile = profile
        self._keep_days = keep_days
        self._hold = hold
        self._manifest_in_zip = manifest_in_zip
        self._next_cleaning = 0.0
        self._proven: dict[str, tuple[int, ...]] = {}
        self._parts = spool.zip_scratch  # made here, before threads share it
        self.watched: Sequence[Path] = (spool.outbox,)

    def scan(self) -> Iterator[Job]:
        """The frozen studies, oldest first; complete ones are frozen on the way."""
        for uid in open_studies(self._spool):
            if is_marked(self._spool, uid):
                self.freeze(uid)
        self._clean()
        for frozen in outbox.frozen_studies(self._spool):
            if self._client is not None or not (self._spool.zips / f"{frozen.name}.zip").exists():
                yield Job(self._spool.outbox, frozen.name)

    def _clean(self) -> None:
        """At the start and then every hour; so also what a crash, or a setting of before, has left."""
        if self._keep_days is not None and time.monotonic() >= self._next_cleaning:
            self._next_cleaning = time.monotonic() + _CLEANING_S
            outbox.clean_older(self._spool, self._keep_days)

    def freeze(self, uid: str) -> Frozen | None:
        """Freeze one marked study, if it is still exactly its marker."""
        with Study.locked(self._spool, uid) as study:
            return study.freeze()

    def process(self, job: Job) -> None:
        """Do what is left for one frozen study: manifest, zip, seal, send, receipt, settle, clean."""
        frozen = Frozen.parse(job.name)
        if frozen is None:
            raise Reject("bad-name", "not a frozen study")
        with Outgoing.claimed(self._spool, frozen) as outgoing:
            if outgoing is None:
                raise Taken
            if outgoing.document(RECEIPT) is None and not self._bring_to_receipt(outgoing):
                return
            sent = outgoing.settle()
            self._proven.pop(frozen.name, None)
            if self._keep_days == 0:
                outbox.clean(self._spool, sent)

    def _bring_to_receipt(self, outgoing: Outgoing) -> bool:
        """Zip and send, as far as that was not done; False where nothing is to be sent."""
        record = outgoing.taken_up()
        if record.sent is None:
            self._refuse_held(outgoing, record)
            self._prepare(outgoing, record)
            if self._client is None:
                return False
            try:
                self._send(outgoing, self._client)
            except UnavailableError as error:
                note_stopped(self._spool, str(error).removeprefix("not sent: "))
                raise
            except Outcome:  # about this study: the API does answer
                note_stopped(self._spool, None)
                raise
            note_stopped(self._spool, None)
        outgoing.write_receipt()
        log.info("%s: sent", outgoing.frozen.name)
        return True

    def _refuse_held(self, outgoing: Outgoing, record: Record) -> None:
        if not self._hold or not record.to_hold:
            return
        if record.last["step"] != Step.HELD:
            outgoing.note(Step.HELD)
        msg = f"held, for the API may have it already: look there, then `dicomrx upload {outgoing.frozen.name}` sends it again"
        raise Defer(msg, _HELD_RETRY_S)

    def _prepare(self, outgoing: Outgoing, record: Record) -> None:
        """Make manifest and zip, and seal it, where that was not done: a repeat sends the bytes that were sealed, or none."""
        if self._has_sealed_zip(outgoing, record.seal):
            return
        with _having_room(outgoing, record), outgoing.making_zip() as file:
            zipped = archive.Writer(file)
            packed = zipped.pack(outgoing.folder, outgoing.frozen.study, outgoing.instances())
            rows = [{"series": row.series, "instance": row.instance, "size": row.size, "sha256": row.sha256} for row in packed]
            outgoing.write(MANIFEST, self._manifest(outgoing, rows))
            if self._manifest_in_zip:
                zipped.add(f"{outgoing.frozen.study}/{MANIFEST}", BytesIO(outgoing.manifest_bytes()))
            _refuse_changed(outgoing, rows)
            _seal(outgoing, record, Seal(*zipped.finish()))
        log.info("%s: zipped, %d instances", outgoing.frozen.name, len(rows))

    def _has_sealed_zip(self, outgoing: Outgoing, seal: Seal | None) -> bool:
        """True where the zip is there as it was sealed; one that was changed since is removed."""
        name = outgoing.frozen.name
        if not outgoing.zip.exists():
            return False
        if seal is None:  # which is always noted first
            msg = f"{outgoing.zip} is there before it was made, perhaps left by an earlier spool: move it away"
            raise Defer(msg, _OTHER_ZIP_RETRY_S)
        status = outgoing.zip.stat()
        state = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if self._proven.get(name) != state:
            if archive.digest(outgoing.zip) != seal:
                log.warning("%s: the zip is not the one that was sealed: made anew from the instances", name)
                outgoing.remove_zip()
                return False
            self._proven[name] = state
        return True

    def _manifest(self, outgoing: Outgoing, rows: list[dict[str, Any]]) -> dict[str, Any]:
        frozen = outgoing.frozen
        return {
            "study": frozen.study,
            "generation": frozen.generation,
            "parent": frozen.generation - 1 or None,
            "profile": self._profile,
            "complete": {key: value for key, value in (outgoing.document(MARKER) or {}).items() if key != "files"},
            "instances": rows,
        }

    def _send(self, outgoing: Outgoing, client: ApiClient) -> None:
        record = outgoing.taken_up()
        key = sha256(outgoing.manifest_bytes()).hexdigest()
        journal = _Journal(outgoing, key, record.attempts)
        self._spool.in_hand()  # a death from here on says nothing against the study
        try:
            with outgoing.reading_zip() as file:
                answer = client.upload(
                    file,
                    filename=outgoing.zip.name,
                    key=key,
                    may_have_arrived=record.ambiguous,
                    resend=not self._hold,
                    journal=journal,
                )
        except UploadDeferred as error:
            if error.unreachable:
                raise UnavailableError(str(error)) from error  # nor would it take the next study
            raise
        facts = {"attempt": journal.attempts, "key": key, "destination": client.destination}
        outgoing.note(Step.SENT, **facts, status=answer.status, answer=answer.answer)

    def ready_in(self) -> float | None:
        """What was deferred waits for the next pass, not for this one."""
        return None


class _Journal(Journal):
    """Records each request of an upload in the study's folder."""

    def __init__(self, outgoing: Outgoing, key: str, attempts: int) -> None:
        self.attempts = attempts
        self._key = key
        self._outgoing = outgoing

    def begins(self) -> None:
        self.attempts += 1
        self._outgoing.note(Step.SENDING, attempt=self.attempts, key=self._key)

    def failed(self, error: Exception, *, ambiguous: bool) -> None:
        facts = {"attempt": self.attempts, "error": str(error), "ambiguous": ambiguous}
        self._outgoing.note(Step.FAILED, **facts, refused=isinstance(error, DestinationRefused))


@contextmanager
def _having_room(outgoing: Outgoing, record: Record) -> Iterator[None]:
    """Tell a full disk in the study's record, and leave it alone for a while: each try takes the last room from the other stages."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_ERRNOS:
            raise
        msg = f"no room for its zip in {outgoing.zip.parent}: make some, or put ZIP_DIR on another disk"
        if record.last.get("error") != msg:
            with suppress(OSError):
                outgoing.note(Step.FAILED, error=msg, ambiguous=False)
        raise Defer(msg, _FULL_RETRY_S) from error


def _refuse_changed(outgoing: Outgoing, rows: list[dict[str, Any]]) -> None:
    """Raise Reject where the instances are no longer what the manifest says: the disk, or somebody, has changed them."""
    manifest = outgoing.document(MANIFEST) or {}
    if manifest.get("instances") != rows:
        raise Reject(
            "instances-changed",
            "files in the study's folder are not what its manifest.json says: something changed them after they were frozen. "
            "Bring them back from a backup, then requeue",
        )


def _seal(outgoing: Outgoing, record: Record, seal: Seal) -> None:
    """Record what the zip is, before it has its name; raises Reject where the API may have got other bytes."""
    if record.seal == seal:
        return
    if record.ambiguous and not record.released:
        raise Reject(
            "zip-changed",
            "the zip is gone or changed and, made anew, is not the one that the API may have got already. "
            f"Look there; `dicomrx upload {outgoing.frozen.name}` sends it as it is now",
        )
    outgoing.note(Step.SEALED, zip=seal._asdict())


def _profile(settings: Settings) -> str:
    """What a manifest says of the profile: never a path, and each instance's own DeidentificationMethod tells more."""
    return "by calling AE title" if settings.ae_profiles else Path(settings.profile).name


@contextmanager
def build(spool: Spool, settings: Settings) -> Iterator[Upload]:
    """The stage as its settings want it: without AUTO_UPLOAD it only freezes and zips."""
    make = partial(
        Upload,
        spool,
        profile=_profile(settings),
        keep_days=0 if settings.cleanup_after_upload else settings.keep_days,
        hold=settings.on_ambiguous == "hold",
        manifest_in_zip=settings.manifest_in_zip,
    )
    if not settings.auto_upload:
        log.info("complete studies are zipped and not sent: `dicomrx upload` sends them, or AUTO_UPLOAD")
        yield make(None)
        return
    refuse_plain_http(settings)
    if (settings.api_token or settings.api_password) and (warning := warning_of(settings.api_url)):
        log.error("%s", warning)
    with ApiClient(
        settings.api_url,
        username=settings.api_username,
        password=settings.api_password,
        token=settings.api_token,
        max_retries=settings.max_retries,
        retry_delay=settings.retry_delay,
        tls=Tls(settings.api_ca, settings.api_cert, settings.api_key),
    ) as client:
        warning = exposed_key(settings, "api")
        if warning is not None:
            log.warning("%s", warning)
        yield make(client)
