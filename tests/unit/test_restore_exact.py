"""Promise 12 for whatever is accepted: through the real stage, state and files every original comes back byte for byte, or nothing does.

DICOMRX_EXAMPLES sets how many data sets are made, as for `test_deid_fuzz`.
"""

import contextlib
import io
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from dicomrx import deid
from dicomrx.cli.restoring import from_vault
from dicomrx.errors import PermissionRefused, Reject
from dicomrx.jobs import Job
from dicomrx.profiles import Profiles
from dicomrx.restore import Kind, restore
from dicomrx.spool import durable
from dicomrx.spool.intake import Intake
from dicomrx.spool.layout import Spool
from dicomrx.stages.anonymize import Anonymize
from dicomrx.vault import open_bound
from tests.spool_rig import receive
from tests.unit.deid_files import (
    BIG_ENDIAN,
    CONTEXT,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    PROFILES,
    bundled,
    element,
    file_of,
    item,
    joined,
    needed,
)
from tests.unit.test_deid_fuzz import EXAMPLES, files

STRIDE = 1 if os.environ.get("DICOMRX_FULL") == "1" else 7
JPEG = "1.2.840.10008.1.2.4.50"
PIXELS = bytes(range(256)) * 512


class Gateway:
    """The stage over a spool and a state, in this process; arrivals come as the receiver leaves them."""

    def __init__(self, root: Path, profile: deid.Profile = deid.BASIC) -> None:
        self.spool = Spool.open(root / "storage", root / "zips", make=True)
        self.state = open_bound(root / "state", self.spool)
        self.stage = Anonymize(self.spool, self.state, profiles=Profiles(profile, {}), burned_in="pass", issuers={}, placeholders=())
        self.intake = Intake(self.spool)
        self.taken = 0

    def take(self, file: bytes) -> Path | None:
        """The de-identified file, the only one there; None where it was refused."""
        shutil.rmtree(self.spool.studies)
        self.spool.studies.mkdir()
        self.taken += 1
        path = self.spool.incoming / receive(self.intake, file, 1, self.taken).name
        try:
            self.stage.process(Job(path.parent, path.name))
        except Reject:
            path.unlink()
            return None
        (made,) = self.spool.studies.glob("*/*/*.dcm")
        return made

    def vault_size(self) -> int:
        return sum(self.state.vault.positions().values())

    def originals(self, made: Path) -> Iterator[bytes]:
        """What the vault has of a file, the newest first."""
        with made.open("rb") as file:
            output = sha256(file.read()).hexdigest()
            for record in reversed(self.state.vault.find(made.stem)):
                if self.state.vault.output_sha256(record, partial(deid.at_pixels, file)) == output:
                    out = io.BytesIO()
                    self.state.vault.restore(record, out, deid.at_pixels(file))
                    yield out.getvalue()

    def close(self) -> None:
        self.intake.stop(cut=False)
        self.state.close()
        self.spool.close()


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Gateway]]:
    """A gateway, and another after every thirty files: what is made here bears one UID, and each look-up reads all of one UID.

    Each has the next profile, the last all options.
    """
    with contextlib.ExitStack() as stack:
        current: list[Gateway] = []

        def gateway() -> Gateway:
            if not current or current[-1].taken >= 30:
                profile = PROFILES[len(current) % len(PROFILES)]
                current.append(stack.enter_context(contextlib.closing(Gateway(tmp_path_factory.mktemp("gateway"), profile))))
            return current[-1]

        durable.set_durable(enabled=False)
        stack.callback(durable.set_durable, enabled=True)
        yield gateway


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
@given(files())
def test_whatever_is_accepted_comes_back_byte_for_byte(site: Callable[[], Gateway], file: bytes) -> None:
    gateway = site()
    made = gateway.take(file)
    assert made is None or file in gateway.originals(made)


@pytest.mark.parametrize("profile", [PROFILES[0], PROFILES[-1]], ids=lambda profile: profile.label)
def test_every_bundled_file_that_is_accepted_comes_back_byte_for_byte_by_the_command(tmp_path: Path, profile: deid.Profile) -> None:
    with contextlib.closing(Gateway(tmp_path / "gateway", profile)) as gateway:
        restore_all_bundled(gateway, tmp_path / "out")


def restore_all_bundled(gateway: Gateway, folder: Path) -> None:
    accepted, sizes = 0, []
    for path in bundled():
        file, before = path.read_bytes(), gateway.vault_size()
        made = gateway.take(file)
        if made is None:
            continue
        accepted += 1
        instance = deid.read(io.BytesIO(file))
        if len(file) > 1 << 16 and 0x7FE00010 in instance.dataset and not instance.encoding.deflated:
            sizes.append((gateway.vault_size() - before) / len(file))
        out = folder / path.name
        out.mkdir(parents=True)
        with from_vault(gateway.state.path, every=True, kind=Kind.FILE) as originals:  # some of them differ in what is removed alone
            report = restore(made, out, originals)
        assert (report.restored, report.failed) == (1, []), path.name
        assert file in [each.read_bytes() for each in out.iterdir()], path.name
    assert accepted >= 100
    assert len(sizes) >= 5
    assert max(sizes) < 0.25


def encapsulated(*fragments: bytes) -> bytes:
    body = item(b"") + b"".join(map(item, fragments)) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return struct.pack("<HH2sxxI", 0x7FE0, 0x0010, b"OB", 0xFFFFFFFF) + body


def whole(syntax: str, pixels: bytes) -> bytes:
    """A file with a name, pixels, and padding behind them."""
    head = joined(needed() | {0x00100010: ("PN", b"Quixano^Alonso")}, syntax)
    data = head + pixels + element(0xFFFCFFFC, "OB", bytes(10), syntax)
    return file_of(data, syntax, preamble=b"\x55" * 128)


LEAN = {
    "explicit": whole(EXPLICIT, element(0x7FE00010, "OW", PIXELS)),
    "implicit": whole(IMPLICIT, element(0x7FE00010, "OW", PIXELS, IMPLICIT)),
    "big endian": whole(BIG_ENDIAN, element(0x7FE00010, "OW", PIXELS, BIG_ENDIAN)),
    "encapsulated": whole(JPEG, encapsulated(PIXELS[:50_000], PIXELS[50_000:])),
    "float": whole(EXPLICIT, element(0x7FE00008, "OF", PIXELS)),
    "double": whole(EXPLICIT, element(0x7FE00009, "OD", PIXELS)),
}


@pytest.mark.parametrize("file", LEAN.values(), ids=LEAN.keys())
def test_the_pixels_of_every_kind_stay_out_of_the_vault(site: Callable[[], Gateway], file: bytes) -> None:
    gateway = site()
    before = gateway.vault_size()
    made = gateway.take(file)
    assert made is not None
    assert gateway.vault_size() - before < 2000
    assert next(gateway.originals(made)) == file


def test_pixels_that_are_short_or_deflated_are_kept(site: Callable[[], Gateway]) -> None:
    deflate = zlib.compressobj(wbits=-15)
    deflated = file_of(deflate.compress(joined(needed()) + element(0x7FE00010, "OW", PIXELS)) + deflate.flush(), DEFLATED)
    assert deid.outline(io.BytesIO(deflated)) == ("1.2.3.4.3", None)
    gateway = site()
    for file in (whole(EXPLICIT, element(0x7FE00010, "OW", PIXELS[:1000])), deflated):
        made = gateway.take(file)
        assert made is not None
        (record, *_) = reversed(gateway.state.vault.find(made.stem))
        assert record.location.header["pixels"] == [0, 0]
        assert next(gateway.originals(made)) == file


def test_pixels_that_the_output_has_not_are_kept() -> None:
    """Whatever a profile does to pixels, what it changed is in the vault."""
    file = LEAN["explicit"]
    instance = deid.read(io.BytesIO(file))
    output = deid.deidentify(instance, CONTEXT)
    assert deid.shared_pixels(instance, output) == range(file.index(PIXELS), file.index(PIXELS) + len(PIXELS))
    pixels = output.dataset[0x7FE00010]
    for other in (PIXELS[:-1] + b"\0", PIXELS[:-1], PIXELS, deid.read(io.BytesIO(file)).dataset[0x7FE00010].value):
        output.dataset[0x7FE00010] = pixels._replace(value=other)
        assert not deid.shared_pixels(instance, output)
    del output.dataset[0x7FE00010]
    assert not deid.shared_pixels(instance, output)


def test_two_originals_of_one_output_both_come_back_from_its_pixels(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "site")
    one, other = (LEAN["explicit"].replace(b"Quixano^Alonso", name) for name in (b"Quixano^Alonso", b"Quixano^Sancho"))
    made = [path.read_bytes() for path in (gateway.take(one), gateway.take(other)) if path]
    (path,) = gateway.spool.studies.glob("*/*/*.dcm")
    with from_vault(gateway.state.path, every=True, kind=Kind.FILE) as originals:
        restore(path, tmp_path / "out.dcm", originals)
    assert (len(made), made[0]) == (2, made[1])
    assert [(tmp_path / name).read_bytes() for name in ("out.dcm", "out.2.dcm")] == [one, other]
    gateway.close()


def test_a_file_that_kept_its_uids_is_known_by_them(tmp_path: Path) -> None:
    """As a profile that keeps UIDs leaves it: named by a pseudonym, the original's UID inside."""
    gateway = Gateway(tmp_path / "site")
    made = gateway.take(LEAN["explicit"])
    assert made is not None
    kept = tmp_path / "kept.dcm"
    kept.write_bytes(LEAN["explicit"].replace(b"Quixano^Alonso", b"sub-001       "))
    with from_vault(gateway.state.path, every=False, kind=Kind.FILE) as originals:
        assert restore(kept, tmp_path / "out.dcm", originals).restored == 1
    assert (tmp_path / "out.dcm").read_bytes() == LEAN["explicit"]
    gateway.close()


@pytest.mark.parametrize("size", [1024, 1 << 16])
def test_every_tampered_byte_of_a_segment_or_of_the_pixels_is_refused(tmp_path: Path, size: int) -> None:
    gateway = Gateway(tmp_path / "site")
    file = whole(EXPLICIT, element(0x7FE00010, "OW", PIXELS[:1024] + bytes(size - 1024)))
    made = gateway.take(file)
    assert made is not None
    gateway.close()
    (segment,) = (gateway.state.path / "vault").glob("*.seg")
    sound, output = segment.read_bytes(), made.read_bytes()

    def code() -> int:
        with from_vault(gateway.state.path, every=False, kind=Kind.FILE) as originals:
            report = restore(made, tmp_path / "out.dcm", originals)
        assert not list(tmp_path.glob("*out*"))
        ((_, error),) = report.failed
        return error.exit_code

    (gateway.state.path / "vault" / "index.sqlite").unlink()
    for at in range(0, len(sound), STRIDE):
        segment.write_bytes(sound[:at] + bytes([sound[at] ^ 1 << at % 8]) + sound[at + 1 :])
        assert code() == PermissionRefused.exit_code, at
    segment.write_bytes(sound)
    first = output.index(PIXELS[:1024])
    for at in range(first, first + 1024, 31):
        made.write_bytes(output[:at] + bytes([output[at] ^ 1 << at % 8]) + output[at + 1 :])
        assert code() == PermissionRefused.exit_code, at
    made.write_bytes(output)
    with from_vault(gateway.state.path, every=False, kind=Kind.FILE) as originals:
        restore(made, tmp_path / "out.dcm", originals)
    assert (tmp_path / "out.dcm").read_bytes() == file


@pytest.mark.parametrize("cut", [0, 131, 140, 200, 350])
def test_a_file_that_is_cut_short_is_said_to_be_unreadable(site: Callable[[], Gateway], tmp_path: Path, cut: int) -> None:
    gateway = site()
    made = gateway.take(LEAN["explicit"])
    assert made is not None
    (tmp_path / "cut.dcm").write_bytes(made.read_bytes()[:cut])
    with from_vault(gateway.state.path, every=False, kind=Kind.FILE) as originals:
        report = restore(tmp_path / "cut.dcm", tmp_path / "out.dcm", originals)
    assert report.restored == 0
    assert not list(tmp_path.glob("*out*"))
