"""Sends DICOM files by C-STORE, each data set as it lies in its file, of any SOP class and in any transfer syntax."""

from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from dicomrx.errors import UnavailableError
from dicomrx.network.client import Association
from dicomrx.network.filemeta import FileMeta, read_meta
from dicomrx.network.wire import VERIFICATION

_MAX_CONTEXTS: Final = 128  # odd numbers of one byte, PS3.8 9.3.2.2
_MAX_BATCH: Final = 1000
_IMPLICIT_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2"


class Sent(NamedTuple):
    """What became of one file: the peer's `status` (0 is success), or None and the `reason` why it was not sent."""

    path: Path
    status: int | None
    reason: str = ""


class _Batch:
    """Files that one association can carry: at most 128 pairs of SOP class and transfer syntax."""

    def __init__(self) -> None:
        self.files: list[tuple[Path, FileMeta]] = []
        self.contexts: dict[tuple[str, str], int] = {}

    def takes(self, meta: FileMeta) -> bool:
        pair = (meta.sop_class, meta.transfer_syntax)
        return len(self.files) < _MAX_BATCH and (pair in self.contexts or len(self.contexts) < _MAX_CONTEXTS)

    def add(self, path: Path, meta: FileMeta) -> None:
        self.contexts.setdefault((meta.sop_class, meta.transfer_syntax), 2 * len(self.contexts) + 1)
        self.files.append((path, meta))


def send(
    paths: Iterable[Path], host: str, port: int, *, calling: str = "DICOMRX", called: str = "DICOMRCV", timeout_s: float = 60.0
) -> Generator[Sent, None, None]:
    """Send files in their order over as many associations as their classes and syntaxes need; tells of each as it is answered.

    Raises UnavailableError where the peer cannot be reached, refuses, or breaks off: files not told of were not acknowledged.
    """
    batch = _Batch()
    for path in paths:
        with path.open("rb") as file:
            meta = read_meta(file)
        if meta is None:
            yield Sent(path, None, "it has no file meta information that tells SOP class, instance and transfer syntax")
            continue
        if not batch.takes(meta):
            yield from _send(batch, (host, port), (calling, called), timeout_s)
            batch = _Batch()
        batch.add(path, meta)
    yield from _send(batch, (host, port), (calling, called), timeout_s)


def _send(batch: _Batch, address: tuple[str, int], titles: tuple[str, str], timeout_s: float) -> Iterator[Sent]:
    if not batch.files:
        return
    offers = [(number, sop_class, [syntax]) for (sop_class, syntax), number in batch.contexts.items()]
    with Association.connect(address, titles, offers, timeout_s) as association:
        for path, meta in batch.files:
            number = batch.contexts[meta.sop_class, meta.transfer_syntax]
            if number not in association.contexts:
                yield Sent(path, None, "the peer does not take its SOP class in its transfer syntax")
                continue
            with path.open("rb") as file:
                file.seek(meta.offset)
                yield Sent(path, association.store(number, meta.sop_class, meta.sop_instance, file))


def echo(host: str, port: int, *, calling: str = "DICOMRX", called: str = "DICOMRCV", timeout_s: float = 10.0) -> bool:
    """True where the peer answers a C-ECHO in time with success."""
    try:
        with Association.connect((host, port), (calling, called), [(1, VERIFICATION, [_IMPLICIT_LITTLE_ENDIAN])], timeout_s) as association:
            return 1 in association.contexts and association.echo(1) == 0
    except UnavailableError:
        return False
