"""Upload: freeze what is complete, zip it, send it, keep the receipt."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from dicomrx import archive
from dicomrx.api import Accepted, ApiClient, DestinationRefused, UploadDeferred, UploadRejected, check_destination
from dicomrx.errors import Reject, UnavailableError
from dicomrx.runner import Job
from dicomrx.settings import Settings
from dicomrx.spool import outbox
from dicomrx.spool.layout import MANIFEST, MARKER, RECEIPT, Spool
from dicomrx.spool.names import Frozen
from dicomrx.spool.outbox import Outgoing
from dicomrx.spool.studies import Study, is_marked, open_studies

log = logging.getLogger(__name__)


class Upload:
    """Freezes and zips complete studies, and sends them where there is a `client`.

    `cleanup` removes what was sent, after a durable receipt; `manifest_in_zip` sends the manifest along.
    """

    name = "upload"

    def __init__(self, spool: Spool, client: ApiClient | None, *, profile: str, cleanup: bool, manifest_in_zip: bool = False) -> None:
        self._spool = spool
        self._client = client
        self._profile = profile
        self._cleanup = cleanup
        self._manifest_in_zip = manifest_in_zip
        self._leftovers = cleanup
        self.watched: Sequence[Path] = (spool.outbox,)

    def scan(self) -> Iterator[Job]:
        """The frozen studies, oldest first; complete ones are frozen on the way."""
        for uid in open_studies(self._spool):
            if is_marked(self._spool, uid):
                self.freeze(uid)
        self._clean_leftovers()
        for frozen in outbox.frozen_studies(self._spool):
            if self._client is not None or not (self._spool.zips / f"{frozen.name}.zip").exists():
                yield Job(self._spool.outbox / frozen.name)

    def _clean_leftovers(self) -> None:
        """Once a run: what was sent before a crash, or before cleanup was switched on."""
        if self._leftovers:
            for sent in sorted(self._spool.sent.iterdir()):
                outbox.clean(self._spool, sent)
        self._leftovers = False

    def freeze(self, uid: str) -> Frozen | None:
        """Freeze one marked study, if it is still exactly its marker."""
        with Study.locked(self._spool, uid) as study:
            return study.freeze()

    def process(self, job: Job) -> None:
        """Do what is left for one frozen study: manifest, zip, send, receipt, settle, clean."""
        frozen = Frozen.parse(job.path.name)
        if frozen is None:
            raise Reject("bad-name", "not a frozen study")
        with Outgoing.claimed(self._spool, frozen) as outgoing:
            if outgoing is None:
                return
            if outgoing.document(RECEIPT) is None:
                self._prepare(outgoing)
                if self._client is None:
                    return
                self._send(outgoing, self._client)
            sent = outgoing.settle()
            if self._cleanup:
                outbox.clean(self._spool, sent)

    def _prepare(self, outgoing: Outgoing) -> None:
        """Make the zip, and before it the manifest: neither is ever made twice, so that a repeat sends the same bytes."""
        if outgoing.is_zipped():
            return
        with outgoing.making_zip() as part, part.open("x+b") as file:
            packed = archive.pack(outgoing.folder, outgoing.frozen.study, outgoing.instances(), file)
            rows = [{"series": row.series, "instance": row.instance, "size": row.size, "sha256": row.sha256} for row in packed]
            outgoing.write(MANIFEST, self._manifest(outgoing, rows))
            if self._manifest_in_zip:
                archive.add(file, f"{outgoing.frozen.study}/{MANIFEST}", outgoing.manifest_bytes())
        log.info("%s: zipped, %d instances", outgoing.frozen.name, len(rows))

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
        key = sha256(outgoing.manifest_bytes()).hexdigest()
        steps = outgoing.attempts()
        number = 1 + max((step["attempt"] for step in steps), default=0)
        unsure = any(step.get("ambiguous") for step in steps) or (bool(steps) and "began" in steps[-1])
        outgoing.note_attempt({"attempt": number, "began": _utc_now(), "key": key})
        try:
            with outgoing.zip.open("rb") as file:
                answer = client.upload(file, filename=outgoing.zip.name, key=key, may_have_arrived=unsure)
        except (UploadDeferred, UploadRejected, DestinationRefused) as error:
            outgoing.note_attempt({"attempt": number, "ended": _utc_now(), "error": str(error), "ambiguous": error.ambiguous})
            if isinstance(error, UploadDeferred) and error.unreachable:
                raise UnavailableError(str(error)) from error  # nor would it take the next study
            raise
        outgoing.note_attempt({"attempt": number, "ended": _utc_now(), "status": answer.status})
        outgoing.write(RECEIPT, self._receipt(outgoing, client, key, number, answer))
        log.info("%s: sent", outgoing.frozen.name)

    def _receipt(self, outgoing: Outgoing, client: ApiClient, key: str, attempts: int, answer: Accepted) -> dict[str, Any]:
        digest, size = archive.digest(outgoing.zip)
        return {
            "study": outgoing.frozen.study,
            "generation": outgoing.frozen.generation,
            "key": key,
            "zip": {"name": outgoing.zip.name, "size": size, "sha256": digest},
            "destination": client.destination,
            "attempts": attempts,
            "sent_at": _utc_now(),
            "status": answer.status,
            "answer": answer.answer,
        }

    def ready_in(self) -> float | None:
        """What was deferred waits for the next pass, not for this one."""
        return None


def _utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def build(spool: Spool, settings: Settings) -> Iterator[Upload]:
    """The stage as its settings want it: without AUTO_UPLOAD it only freezes and zips."""
    make = partial(Upload, spool, profile=settings.profile, cleanup=settings.cleanup_after_upload, manifest_in_zip=settings.manifest_in_zip)
    if not settings.auto_upload:
        yield make(None)
        return
    has_credentials = bool(settings.api_token or settings.api_password)
    warning = check_destination(settings.api_url, has_credentials=has_credentials, require_https=settings.require_https)
    if warning:
        log.warning("%s", warning)
    with ApiClient(
        settings.api_url,
        username=settings.api_username,
        password=settings.api_password,
        token=settings.api_token,
        max_retries=settings.max_retries,
        retry_delay=settings.retry_delay,
    ) as client:
        yield make(client)
