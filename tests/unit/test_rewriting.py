"""One pass over an instance makes the same file, and the same digests, as reading and writing it piece by piece."""

import contextlib
import io
import os
import subprocess
import sys
import zlib
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from dicomrx import deid, rewriting
from dicomrx.errors import Reject
from dicomrx.jobs import Job
from dicomrx.rewriting import rewrite
from dicomrx.vault import Own
from dicomrx.vault.segments import FRAME
from tests.spool_rig import receive
from tests.unit.deid_files import CONTEXT, DEFLATED, EXPLICIT, bundled, element, file_of, joined, needed
from tests.unit.test_deid_fuzz import EXAMPLES, files
from tests.unit.test_restore_exact import JPEG, Gateway, encapsulated

CHUNK = rewriting._CHUNK
RED, LUT, PIXELS = 0x00281201, 0x00283006, 0x7FE00010


def is_as_written_piece_by_piece(path: Path, target: Path, profile: deid.Profile = deid.BASIC) -> bool:
    with path.open("rb") as file:
        instance = deid.read(file)
        output = deid.deidentify(instance, CONTEXT, profile)
        wanted = io.BytesIO()
        deid.write(output, wanted)
        pixels = deid.shared_pixels(instance, output)
        with target.open("wb") as made:
            written = rewrite(file, instance, output, made.fileno(), pixels)
    data, original = wanted.getvalue(), path.read_bytes()
    told, dataset = written
    if isinstance(told, Own):
        told = sha256(original[pixels.start : pixels.stop].join(told)).hexdigest()
    digests = sha256(data).hexdigest(), sha256(original[instance.dataset_offset :]).hexdigest()
    return target.read_bytes() == data and (told, dataset) == digests


def made_file(*parts: bytes, deflated: bool = False) -> bytes:
    data = joined(needed()) + b"".join(parts)
    if not deflated:
        return file_of(data, EXPLICIT)
    deflate = zlib.compressobj(wbits=-15)
    return file_of(deflate.compress(data) + deflate.flush(), DEFLATED)


RANDOM = os.urandom(3 * CHUNK + 2)
FILES = {
    "no pixels": made_file(),
    "short": made_file(element(PIXELS, "OW", RANDOM[:100])),
    "one chunk": made_file(element(PIXELS, "OW", RANDOM[:CHUNK])),
    "many chunks, with a tail": made_file(element(PIXELS, "OW", RANDOM), element(0xFFFCFFFC, "OB", bytes(CHUNK))),
    "two big values": made_file(element(LUT, "OW", RANDOM[:70_000]), element(PIXELS, "OW", RANDOM)),
    "two that stand in the wrong order": made_file(element(LUT, "OW", RANDOM[:100_000]), element(RED, "OW", RANDOM[:70_000])),
    "two big values, one not much bigger": made_file(element(LUT, "OW", RANDOM[:100_000]), element(PIXELS, "OW", RANDOM[: CHUNK + 2])),
    "encapsulated": file_of(joined(needed()) + encapsulated(RANDOM[:CHUNK], RANDOM[CHUNK:]), JPEG),
    "deflated": made_file(element(PIXELS, "OW", RANDOM), deflated=True),
}


def test_two_that_stand_in_the_wrong_order_are_both_in_the_output(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(FILES["two that stand in the wrong order"])
    with path.open("rb") as file:
        big = [part for part in deid.parts(deid.deidentify(deid.read(file), CONTEXT)) if not isinstance(part, bytes)]
    assert [len(part) for part in big] == [70_000, 100_000]


@pytest.mark.parametrize("file", FILES.values(), ids=FILES.keys())
def test_a_file_of_any_shape_is_as_written_piece_by_piece(tmp_path: Path, file: bytes) -> None:
    (tmp_path / "file").write_bytes(file)
    assert is_as_written_piece_by_piece(tmp_path / "file", tmp_path / "made")


@pytest.mark.parametrize(
    ("pixels", "header", "own"),
    [
        (0, 0, False),
        (1 << 13, 0, False),
        (1 << 17, 0, True),
        (1 << 17, 1 << 12, False),
        (32 * FRAME, FRAME - 2000, True),
        (33 * FRAME, FRAME, False),
    ],
)
def test_pixels_are_hashed_once_where_they_are_many_times_the_header(tmp_path: Path, pixels: int, header: int, own: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(made_file(element(LUT, "OW", RANDOM[:header]), element(PIXELS, "OW", bytes(pixels))))
    with path.open("rb") as file, (tmp_path / "made").open("wb") as made:
        instance = deid.read(file)
        output = deid.deidentify(instance, CONTEXT)
        assert isinstance(rewrite(file, instance, output, made.fileno(), deid.shared_pixels(instance, output)).output, Own) is own


def test_every_bundled_file_is_as_written_piece_by_piece(tmp_path: Path) -> None:
    done = 0
    for path in bundled():
        try:
            assert is_as_written_piece_by_piece(path, tmp_path / "made"), path
        except Reject:
            continue
        done += 1
    assert done > 50


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(files())
def test_whatever_is_made_is_as_written_piece_by_piece(tmp_path_factory: pytest.TempPathFactory, file: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "file").write_bytes(file)
    with contextlib.suppress(Reject):
        assert is_as_written_piece_by_piece(folder / "file", folder / "made")


def test_an_original_that_has_become_shorter_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(FILES["many chunks, with a tail"])
    with path.open("rb") as file, (tmp_path / "made").open("wb") as made:
        instance = deid.read(file)
        output = deid.deidentify(instance, CONTEXT)
        os.truncate(path, 2 * CHUNK)
        with pytest.raises(Reject, match="truncated"):
            rewrite(file, instance, output, made.fileno(), deid.shared_pixels(instance, output))


BATCH = """
import resource, signal, sys
from pathlib import Path
from dicomrx.errors import Taken
from dicomrx.jobs import Job
from tests.unit.test_rewriting import batch

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
gateway, paths = batch(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, resource.RLIM_INFINITY))
jobs = [Job(path.parent, path.name) for path in paths]
failed = gateway.stage.process_all(jobs)
assert [type(failed.get(job)) for job in jobs] == [type(None), OSError, type(None), type(None)], failed
assert len(list(gateway.spool.studies.glob("*/*/*.dcm"))) == 3
assert [path.exists() for path in paths] == [False, True, False, False]
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
failed = gateway.stage.process_all(jobs)
assert [type(failed.get(job)) for job in jobs] == [Taken, type(None), Taken, Taken], failed
assert len(list(gateway.spool.studies.glob("*/*/*.dcm"))) == 4
"""


def batch(root: Path) -> tuple[Gateway, list[Path]]:
    """Four arrivals of one study: three with large pixels, the second with the largest, and a small one."""
    gateway = Gateway(root)
    sizes = (CHUNK // 2, 3 * CHUNK, CHUNK // 2 + 2, 100)
    files = [made_file(element(PIXELS, "OW", RANDOM[:size])).replace(b"1.2.3.4.3", b"1.2.3.5.%d" % n) for n, size in enumerate(sizes)]
    return gateway, [gateway.spool.incoming / receive(gateway.intake, file, 1, n).name for n, file in enumerate(files, 1)]


def test_an_output_that_finds_no_room_fails_alone(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", BATCH, tmp_path], check=True)


def test_a_batch_comes_back_byte_for_byte(tmp_path: Path) -> None:
    gateway, paths = batch(tmp_path)
    originals = sorted(path.read_bytes() for path in paths)
    assert gateway.stage.process_all([Job(path.parent, path.name) for path in paths]) == {}
    made = sorted(gateway.spool.studies.glob("*/*/*.dcm"))
    assert sorted(original for path in made for original in gateway.originals(path)) == originals
    for path in made:
        (record,) = gateway.state.vault.find(path.stem)
        with path.open("rb") as file:
            assert gateway.state.vault.output_sha256(record, partial(deid.at_pixels, file)) == sha256(path.read_bytes()).hexdigest()
