"""`dicomrx demo --hospital`: every badly behaved sender at a real gateway, and whether each study came out as it must."""

import re
import threading
import time
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dicomrx import status as reading
from dicomrx.demo import senders
from dicomrx.demo.api_server import UPLOAD, DemoApi
from dicomrx.demo.faults import Arrival, Fault
from dicomrx.demo.scans import Scan, read
from dicomrx.demo.senders import Expected, Post
from dicomrx.demo.stages import QUIET_S, Stages
from dicomrx.errors import DicomrxError
from dicomrx.spool.layout import Spool
from dicomrx.spool.studies import open_studies

_PATIENCE_S: Final = 300.0
_LOOK_S: Final = 0.3
_FIRST: Final = Scan(900, 1, 1)
_GENERATION: Final = re.compile(r"\.(\d+)\.zip$")


@dataclass(frozen=True)
class Outcome:
    """What became of the studies of one behaviour; `wrong` is empty where all is as it must be."""

    behaviour: str
    studies: int
    generations: int
    wrong: list[str]


@dataclass
class Uploads:
    """What the API has, by the number of the study and of its generation."""

    api: DemoApi
    found: dict[int, dict[int, Counter[Scan]]] = field(default_factory=lambda: defaultdict(dict))
    _read: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def generations(self, study: int) -> dict[int, Counter[Scan]]:
        """The images of each generation of a study, each with how often it was uploaded."""
        with self._lock:
            for upload in self.api.accepted[self._read :]:
                self._read += 1
                self._add(upload.path)
            return self.found.get(study, {})

    def _add(self, path: Path) -> None:
        match = _GENERATION.search(path.name)
        with zipfile.ZipFile(path) as bundle:
            images = [read(bundle.read(name)) for name in bundle.namelist()]
        for image in images:
            self.found[image.study].setdefault(int(match[1]) if match else 0, Counter())[image] += 1


def run(stages: Stages, api: DemoApi, folder: Path, tell: Callable[[str], None]) -> list[Outcome]:
    """Let every sender behave badly, in three acts; returns what became of each. `tell` is told what goes on."""
    folder.mkdir()
    uploads = Uploads(api)
    post = Post(stages.port, folder, lambda study: len(uploads.generations(study)))
    with Spool.at(stages.settings.storage_dir, stages.settings.zip_dir) as spool, ThreadPoolExecutor(8) as pool:
        try:
            tell("waiting for every stage to run")
            post.send([_FIRST])
            _wait(lambda: bool(uploads.generations(_FIRST.study)), stages)
            found = {
                **_held_up(post, stages, spool, pool, tell),
                **_undisturbed(post, stages, spool, pool, tell),
                **_troubled(post, stages, api, spool, tell),
            }
            tell("waiting for the last studies")
            _wait(lambda: _at_rest(spool), stages)
        finally:
            post.stop.set()
    return [_judged(name, expected, uploads) for name, expected in found.items()]


def _held_up(post: Post, stages: Stages, spool: Spool, pool: ThreadPoolExecutor, tell: Callable[[str], None]) -> dict[str, Expected | str]:
    """Everybody has sent half when de-identification stands still for longer than a study must be quiet."""
    tell(f"{senders.CROWD} studies at once and four bad senders, while anonymize is held up")
    small = [
        senders.one_image_an_association,
        senders.two_studies_interleaved,
        senders.two_associations_and_two_titles,
        senders.resend_from_the_first_image,
    ]
    halves, held = threading.Barrier(len(small) + 1), threading.Event()

    def halfway() -> None:
        halves.wait(_PATIENCE_S)
        held.wait(_PATIENCE_S)

    futures = {each.__name__: pool.submit(each, post, halfway) for each in small}
    halves.wait(_PATIENCE_S)
    _wait(lambda: len(open_studies(spool)) > len(small) and not any(spool.incoming.iterdir()), stages)  # one sends two studies
    stages.hold("anonymize")
    held.set()
    futures["a_crowd"] = pool.submit(senders.a_crowd, post, lambda: None)
    results = _results(futures)
    time.sleep(1.5 * QUIET_S)
    stages.release("anonymize")
    return results


def _undisturbed(
    post: Post, stages: Stages, spool: Spool, pool: ThreadPoolExecutor, tell: Callable[[str], None]
) -> dict[str, Expected | str]:
    """Nothing waits: it is the senders alone who take their time."""
    _wait(lambda: _at_rest(spool), stages)
    tell("an association all day, a last series as large as the rest, an abort, late images after sending")
    behaviours = [
        senders.one_association_all_day,
        senders.a_last_series_as_large_as_all_the_rest,
        senders.abort_then_everything_again,
        senders.late_after_sending_then_everything_again,
    ]
    return _results({each.__name__: pool.submit(each, post) for each in behaviours})


def _troubled(post: Post, stages: Stages, api: DemoApi, spool: Spool, tell: Callable[[str], None]) -> dict[str, Expected | str]:
    """The API is down, then the receiver."""
    tell("late images while the API is down, and a receiver that is restarted between two images")
    _wait(lambda: _at_rest(spool), stages)

    def refuse(arrival: Arrival) -> Fault | None:
        return Fault(status=503, early=True) if arrival.path == UPLOAD else None

    def restart() -> None:
        stages.kill("scp")
        post.stop.wait(1.5 * QUIET_S)
        stages.start("scp")
        stages.wait()

    api.fault = refuse
    found = _result(lambda: senders.late_before_sending(post, lambda: _wait(lambda: any(spool.outbox.iterdir()), stages)))
    _wait(lambda: len(list(spool.outbox.iterdir())) > 1, stages)
    api.fault = lambda _: None
    restarted = _result(lambda: senders.receiver_restarted_between_two_images(post, restart))
    return {"late_before_sending": found, "receiver_restarted_between_two_images": restarted}


def _results(futures: dict[str, Future[Expected]]) -> dict[str, Expected | str]:
    return {name: _result(future.result) for name, future in futures.items()}


def _result(sending: Callable[[], Expected]) -> Expected | str:
    """What a behaviour expects, or why it could not be carried out."""
    try:
        return sending()
    except DicomrxError as error:
        return str(error)


def _wait(true: Callable[[], bool], stages: Stages) -> None:
    """Until something is so, or a stage has ended, or patience has."""
    deadline = time.monotonic() + _PATIENCE_S
    while not true() and stages.alive and time.monotonic() < deadline:
        time.sleep(_LOOK_S)


def _at_rest(spool: Spool) -> bool:
    status = reading.read(spool)
    return not any(queue.waiting for queue in status.stages)


def _judged(behaviour: str, expected: Expected | str, uploads: Uploads) -> Outcome:
    if isinstance(expected, str):
        return Outcome(behaviour, 0, 0, [f"it could not be carried out: {expected}"])
    wrong = [line for study, generations in expected.items() for line in _compared(study, generations, uploads.generations(study))]
    count = sum(len(uploads.generations(study)) for study in expected)
    return Outcome(behaviour, len(expected), count, wrong)


def _compared(study: int, expected: list[set[Scan]], found: dict[int, Counter[Scan]]) -> Iterator[str]:
    uploaded = sum(found.values(), Counter[Scan]())
    wanted = set().union(*expected)
    if lost := len(wanted - set(uploaded)):
        yield f"study {study}: {lost} images were not uploaded"
    if doubled := sum(count > 1 for count in uploaded.values()):
        yield f"study {study}: {doubled} images were uploaded more than once"
    if [set(found[number]) for number in sorted(found)] != expected:
        sizes = [[len(part) for part in parts] for parts in ([found[number] for number in sorted(found)], expected)]
        yield f"study {study}: its generations hold {sizes[0]} images, and should hold {sizes[1]}"
