"""Badly behaved senders, as hospitals have them: what each sends over real C-STORE, and into which generations it must come out."""

import contextlib
import io
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from dicomrx.demo.gateway import AE_TITLE, LOOPBACK
from dicomrx.demo.scans import SOP_CLASS, SYNTAX, Scan, scans, write
from dicomrx.demo.stages import QUIET_S, SLOW_AE
from dicomrx.errors import UnavailableError
from dicomrx.network.client import Association
from dicomrx.network.filemeta import read_meta
from dicomrx.network.wire import VERIFICATION

CROWD: Final = 300
_LANES: Final = 4
_STORE, _ECHO = 1, 3
_IMPLICIT: Final = "1.2.840.10008.1.2"
_TIMEOUT_S: Final = 60.0
_LOOK_S: Final = 0.3

Expected = dict[int, list[set[Scan]]]
"""The generations of each study, by its number."""


@dataclass
class Post:
    """Where a sender stands: the receiver's port, a folder for its files, and eyes for what has been uploaded so far."""

    port: int
    folder: Path
    uploaded: Callable[[int], int]
    """How many generations of a study the API has."""
    stop: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def association(self, calling: str = "DEMO_CT") -> Iterator[Association]:
        """An association, released at the end of the block."""
        offers = [(_STORE, SOP_CLASS, [SYNTAX]), (_ECHO, VERIFICATION, [_IMPLICIT])]
        with Association.connect((LOOPBACK, self.port), (calling, AE_TITLE), offers, _TIMEOUT_S) as association:
            yield association

    def send(self, images: Iterable[Scan], calling: str = "DEMO_CT") -> None:
        """Send images over one association."""
        with self.association(calling) as association:
            for image in images:
                self.store(association, image)

    def store(self, association: Association, image: Scan, through: Callable[[BinaryIO], BinaryIO] | None = None) -> None:
        """Send one image, a large one `through` a reader of its own; raises UnavailableError where it is not acknowledged."""
        path = write(self.folder, image, large=through is not None)
        with path.open("rb") as file:
            meta = read_meta(file)
            file.seek(meta.offset if meta else 0)
            if association.store(_STORE, SOP_CLASS, image.uid, through(file) if through else file) != 0:
                msg = "an image was refused"
                raise UnavailableError(msg)

    def wait_for(self, study: int, generations: int = 1, association: Association | None = None) -> None:
        """Until the API has so many generations of a study; an association is kept from being idle."""
        while self.uploaded(study) < generations and not self.stop.wait(_LOOK_S):
            if association is not None:
                association.echo(_ECHO)


class _InterruptedError(Exception):
    """The sender breaks off."""


class _Pausing(io.BytesIO):
    """Pauses before each of its first reads, for twice the quiet time in all: the image is in reception all the while."""

    pauses = 4

    def read(self, size: int | None = -1, /) -> bytes:
        if self.pauses:
            self.pauses -= 1
            time.sleep(QUIET_S / 2)
        return super().read(size)


class _Breaking(_Pausing):
    """Breaks off when a part has been sent."""

    def read(self, size: int | None = -1, /) -> bytes:
        if not self.pauses:
            raise _InterruptedError
        self.pauses -= 1
        return io.BytesIO.read(self, size)


def one_image_an_association(post: Post, halfway: Callable[[], None]) -> Expected:
    """Each image over an association of its own."""
    images = scans(1, range(1, 7))
    for image in images[:3]:
        post.send([image])
    halfway()
    for image in images[3:]:
        post.send([image])
    return {1: [set(images)]}


def two_studies_interleaved(post: Post, halfway: Callable[[], None]) -> Expected:
    """Two studies, image by image in turn, over one association."""
    first, second = scans(2, range(1, 5)), scans(3, range(1, 5))
    with post.association() as association:
        for number, pair in enumerate(zip(first, second, strict=True)):
            if number == 2:  # noqa: PLR2004  half of them
                halfway()
            for image in pair:
                post.store(association, image)
    return {2: [set(first)], 3: [set(second)]}


def two_associations_and_two_titles(post: Post, halfway: Callable[[], None]) -> Expected:
    """One series from the scanner, the other from the archive, to which a longer TIMEOUT applies."""
    first, second = scans(4, range(1, 4)), scans(4, range(1, 4), series=2)
    post.send(first)
    halfway()
    post.send(second, SLOW_AE)
    return {4: [{*first, *second}]}


def resend_from_the_first_image(post: Post, halfway: Callable[[], None]) -> Expected:
    """Half a study, then all of it again."""
    images = scans(5, range(1, 7))
    post.send(images[:3])
    halfway()
    post.send(images)
    return {5: [set(images)]}


def a_crowd(post: Post, halfway: Callable[[], None]) -> Expected:
    """Hundreds of studies at once: the first image of each, then the second of each."""
    studies = range(1000, 1000 + CROWD)

    def lane(mine: range) -> None:
        with post.association(SLOW_AE) as association:
            for number in (1, 2):
                for study in mine:
                    post.store(association, Scan(study, 1, number))

    lanes = [threading.Thread(target=lane, args=(studies[start::_LANES],), daemon=True) for start in range(_LANES)]
    for each in lanes:
        each.start()
    halfway()
    for each in lanes:
        each.join()
    return {study: [{Scan(study, 1, 1), Scan(study, 1, 2)}] for study in studies}


def one_association_all_day(post: Post) -> Expected:
    """One study after the other over an association that is never released: each completes all the same."""
    first, second = scans(6, range(1, 4)), scans(7, range(1, 4))
    with post.association("DEMO_MR") as association:
        for images in (first, second):
            for image in images:
                post.store(association, image)
            post.wait_for(images[0].study, association=association)
    return {6: [set(first)], 7: [set(second)]}


def a_last_series_as_large_as_all_the_rest(post: Post) -> Expected:
    """Its only image is longer in reception than a study must be quiet."""
    images, large = scans(8, range(1, 5)), Scan(8, 2, 1)
    with post.association() as association:
        for image in images:
            post.store(association, image)
        post.store(association, large, lambda file: _Pausing(file.read()))
    return {8: [{*images, large}]}


def abort_then_everything_again(post: Post) -> Expected:
    """Aborted in the middle of the fourth of six images; the sender tries again when the study has long been quiet."""
    images = scans(9, range(1, 7))
    with contextlib.suppress(_InterruptedError), post.association() as association:
        for image in images[:3]:
            post.store(association, image)
        post.store(association, images[3], lambda file: _Breaking(file.read()))
    post.stop.wait(1.5 * QUIET_S)
    post.send(images)
    return {9: [set(images)]}


def late_after_sending_then_everything_again(post: Post) -> Expected:
    """Two more images after the study was sent are a supplement; all of them again are nothing."""
    images = scans(10, range(1, 7))
    post.send(images[:4])
    post.wait_for(10)
    post.send(images[4:])
    post.wait_for(10, 2)
    post.send(images)
    return {10: [set(images[:4]), set(images[4:])]}


def late_before_sending(post: Post, frozen: Callable[[], None]) -> Expected:
    """Two more images while the study is frozen and waits for the API."""
    images = scans(11, range(1, 6))
    post.send(images[:3])
    frozen()
    post.send(images[3:])
    return {11: [set(images[:3]), set(images[3:])]}


def receiver_restarted_between_two_images(post: Post, restart: Callable[[], None]) -> Expected:
    """The receiver is gone for longer than a study must be quiet, in the middle of an association."""
    images = scans(12, range(1, 7))
    with post.association() as association:
        for image in images[:3]:
            post.store(association, image)
        restart()
    post.send(images[3:])
    return {12: [set(images)]}
