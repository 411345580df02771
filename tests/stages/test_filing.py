"""Promise 4: what becomes of an instance that is there already, wherever that lies; of large images as of small ones, told otherwise."""

import contextlib
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from dicomrx import deid
from dicomrx.cli.restoring import from_vault
from dicomrx.errors import Reject
from dicomrx.jobs import Job
from dicomrx.profiles import Profiles
from dicomrx.restore import Kind, restore
from dicomrx.spool import evidence, outbox, quarantine
from dicomrx.spool.intake import Intake
from dicomrx.spool.layout import MANIFEST, RECEIPT, Spool
from dicomrx.spool.ledger import Fate
from dicomrx.spool.outbox import Outgoing
from dicomrx.stages.anonymize import Anonymize
from dicomrx.vault import Record, open_bound
from tests.spool_rig import freeze, mark, receive
from tests.unit.deid_files import element, file_of, joined, needed

OTHER_PROFILE = "RESEARCH"
PIXELS = os.urandom(1 << 18)
SIZES = {"in a thread": len(PIXELS), "large": len(PIXELS) // 2, "small": 1 << 13}


def image(pixels: bytes, *, name: bytes = b"Quixano^Alonso", calling: bytes = b"CT1") -> bytes:
    """Its file meta is longer or shorter with the title that calls, which chooses the profile too."""
    facts = {0x00080020: ("DA", b"20240102"), 0x00100010: ("PN", name), 0x00100020: ("LO", b"HID-778899")}
    return file_of(joined(needed() | facts) + element(0x7FE00010, "OW", pixels) + element(0xFFFCFFFC, "OB", bytes(10)), calling=calling)


class Site:
    """The stage over a spool and a state, in this process, and what becomes of a study afterwards."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spool = Spool.open(root / "storage", root / "zips", make=True)
        self.state = open_bound(root / "state", self.spool)
        profiles = Profiles(deid.BASIC, {OTHER_PROFILE: deid.named_profile("research")})
        self.stage = Anonymize(self.spool, self.state, profiles=profiles, burned_in="pass", issuers={}, placeholders=())
        self.intake = Intake(self.spool)
        self.sent = 0

    def send(self, file: bytes) -> Fate:
        """What becomes of it."""
        self.sent += 1
        path = self.spool.incoming / receive(self.intake, file, 1, self.sent).name
        with contextlib.suppress(Reject):
            self.stage.process(Job(path.parent, path.name))
        return evidence.read(self.spool, self.study)[-1].fate

    @property
    def study(self) -> str:
        return deid.pseudonymous_uid(self.state.uid_key, "1.2.3.4.1")

    def records(self) -> int:
        return len(self.state.vault.find(deid.pseudonymous_uid(self.state.uid_key, "1.2.3.4.3")))

    def made(self) -> Path:
        (path,) = self.spool.studies.glob("*/*/*.dcm")
        return path

    def copy(self, name: str) -> Path:
        return Path(shutil.copy(self.made(), self.root / name))

    def freeze(self) -> Path:
        assert mark(self.spool, self.study)
        frozen = freeze(self.spool, self.study)
        assert frozen is not None
        return self.spool.outbox / frozen.name

    def fail(self) -> None:
        quarantine.put_aside(self.spool, self.freeze(), "upload", "http-400")

    def deliver(self) -> None:
        """Send the study, of which manifest and receipt are left."""
        path = self.made()
        output = path.read_bytes()
        row = {"series": path.parent.name, "instance": path.stem, "size": len(output), "sha256": sha256(output).hexdigest()}
        self.freeze()
        (frozen,) = outbox.frozen_studies(self.spool)
        with Outgoing.claimed(self.spool, frozen) as outgoing:
            assert outgoing is not None
            outgoing.write(MANIFEST, {"instances": [row]})
            outgoing.write(RECEIPT, {"status": 201})
            sent = outgoing.settle()
        outbox.clean(self.spool, sent)
        assert not list(sent.glob("*/*.dcm"))

    def crash_before_filing(self) -> None:
        """As a kill between the vault's record and the filing leaves it, but for the input."""
        shutil.rmtree(self.spool.studies / self.study)

    def tamper_with(self, record: Record, *, last: bool = False) -> None:
        """Change a byte of its first frame, or of its last."""
        path = self.state.path / "vault" / record.location.segment
        whole = bytearray(path.read_bytes())
        whole[record.location.end - 20 if last else whole.index(b"}", record.location.start) + 50] ^= 1
        path.write_bytes(whole)

    def forget_everybody(self) -> None:
        with contextlib.closing(sqlite3.connect(self.state.path / "identities.sqlite")) as database, database:
            database.execute("DELETE FROM patients")

    def restored(self, made: Path, *, every: bool = False) -> list[bytes]:
        out = self.root / "restored"
        with from_vault(self.state.path, every=every, kind=Kind.FILE) as originals:
            report = restore(made, out / "out.dcm", originals)
        found = [path.read_bytes() for path in sorted(out.glob("*"), key=lambda path: len(path.name))] if report.restored else []
        shutil.rmtree(out, ignore_errors=True)
        return found

    def close(self) -> None:
        self.intake.stop(cut=False)
        self.state.close()
        self.spool.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with contextlib.closing(Site(tmp_path)) as site:
        yield site


@pytest.fixture(params=list(SIZES.values()), ids=list(SIZES))
def pixels(request: pytest.FixtureRequest) -> bytes:
    return PIXELS[: request.param]


PLACES: dict[str, Callable[[Site], object]] = {
    "open": lambda _: None,
    "marked": lambda site: mark(site.spool, site.study),
    "frozen": Site.freeze,
    "failed": Site.fail,
    "manifest and receipt": Site.deliver,
}
everywhere = pytest.mark.parametrize("move", PLACES.values(), ids=PLACES.keys())


def test_of_a_large_image_the_vault_has_the_outputs_own_bytes_and_of_a_small_one_its_digest(site: Site, pixels: bytes) -> None:
    assert site.send(image(pixels)) is Fate.FILED
    (record,) = site.state.vault.find(site.made().stem)
    digest = sha256(site.made().read_bytes()).hexdigest()
    assert record.output_sha256 == (digest if len(pixels) == SIZES["small"] else None)
    with site.made().open("rb") as file:
        assert site.state.vault.output_sha256(record, lambda: deid.at_pixels(file)) == digest


@everywhere
@pytest.mark.parametrize("calling", [b"CT1", b"ANOTHER_SCANNER", b"", OTHER_PROFILE.encode()])
def test_a_resend_is_dropped_whoever_sends_it_and_whatever_would_be_made_of_it_now(
    site: Site, pixels: bytes, move: Callable[[Site], object], calling: bytes
) -> None:
    assert site.send(image(pixels)) is Fate.FILED
    move(site)
    assert site.send(image(pixels, calling=calling)) is Fate.DUPLICATE
    assert site.records() == 1


@everywhere
@pytest.mark.parametrize("at", [0, SIZES["small"] // 2, -1])
def test_the_same_header_with_another_pixel_is_a_conflict(site: Site, pixels: bytes, move: Callable[[Site], object], at: int) -> None:
    other = bytearray(pixels)
    other[at] ^= 1
    assert site.send(image(pixels)) is Fate.FILED
    move(site)
    assert site.send(image(bytes(other))) is Fate.QUARANTINED
    assert site.records() == 1


@everywhere
def test_another_data_set_that_becomes_the_same_goes_to_the_vault_alone(site: Site, pixels: bytes, move: Callable[[Site], object]) -> None:
    one, other = image(pixels), image(pixels, name=b"Quixano^Alonso^^Don")
    assert site.send(one) is Fate.FILED
    kept = site.copy("kept.dcm")
    move(site)
    for _ in range(2):
        assert site.send(other) is Fate.DUPLICATE
        assert site.records() == 2
    assert site.restored(kept) == [one]
    assert site.restored(kept, every=True) == [one, other]


def test_an_original_whose_filing_a_crash_prevented_is_filed_and_not_kept_twice(site: Site, pixels: bytes) -> None:
    assert site.send(image(pixels)) is Fate.FILED
    for calling in (b"CT1", b"ANOTHER_SCANNER"):
        site.crash_before_filing()
        assert site.send(image(pixels, calling=calling)) is Fate.FILED
        assert site.records() == 1
    assert site.restored(site.made()) == [image(pixels)]


def test_what_a_crash_and_another_profile_made_of_one_is_told_apart(site: Site, pixels: bytes) -> None:
    one, other = image(pixels), image(pixels, calling=OTHER_PROFILE.encode())
    assert site.send(one) is Fate.FILED
    first = site.copy("first.dcm")
    site.crash_before_filing()
    assert site.send(other) is Fate.FILED
    assert site.records() == 2
    second = site.copy("second.dcm")
    assert site.restored(first) == site.restored(first, every=True) == [one]
    assert site.restored(second) == site.restored(second, every=True) == [other]
    for again in (one, other):
        assert site.send(again) is Fate.DUPLICATE
    second.write_bytes(second.read_bytes().replace(b"sub-001", b"sub-009"))
    assert site.restored(second) == [one], "of a file that was changed since, all that there is"
    assert site.restored(second, every=True) == [one, other]
    second.write_bytes(second.read_bytes().replace(pixels[-1024:], bytes(1024)))
    assert site.restored(second) == []


def test_originals_of_one_header_are_told_apart_by_their_pixels(site: Site, pixels: bytes) -> None:
    """The second was filed because a crash, or somebody who took the first one away, came between."""
    one, other = image(pixels), image(pixels[::-1])
    assert site.send(one) is Fate.FILED
    first = site.copy("first.dcm")
    site.crash_before_filing()
    assert site.send(other) is Fate.FILED
    second = site.copy("second.dcm")
    assert site.restored(first) == site.restored(first, every=True) == [one]
    assert site.restored(second) == site.restored(second, every=True) == [other]
    second.write_bytes(second.read_bytes().replace(pixels[:1024][::-1], bytes(1024)))
    assert site.restored(second) == []


def test_a_forgotten_patients_large_image_is_no_proof_and_is_not_dropped(site: Site) -> None:
    """Its record cannot be opened any more, so nobody can tell what it was made into."""
    assert site.send(image(PIXELS)) is Fate.FILED
    first = site.copy("first.dcm")
    site.forget_everybody()
    assert site.send(image(PIXELS)) is Fate.QUARANTINED
    site.crash_before_filing()
    assert site.send(image(PIXELS)) is Fate.FILED
    assert site.records() == 2
    assert site.restored(site.made()) == [image(PIXELS)]
    assert site.restored(first) == [], "it was forgotten, though the same image came again"


def test_a_forgotten_patients_large_image_is_not_missed_where_the_file_is_anothers(site: Site) -> None:
    other = image(PIXELS, name=b"Quixano^Alonso^^Don")
    assert site.send(image(PIXELS)) is Fate.FILED
    site.forget_everybody()
    site.crash_before_filing()
    assert site.send(other) is Fate.FILED
    assert site.records() == 2
    assert site.restored(site.made()) == site.restored(site.made(), every=True) == [other]


@pytest.mark.parametrize("last", [False, True])
def test_a_record_that_was_tampered_with_proves_nothing_and_its_original_is_kept_again(site: Site, *, last: bool) -> None:
    assert site.send(image(PIXELS)) is Fate.FILED
    (record,) = site.state.vault.find(site.made().stem)
    site.tamper_with(record, last=last)
    assert site.state.vault.output_sha256(record, lambda: None) is None
    assert site.send(image(PIXELS)) is Fate.DUPLICATE
    assert site.records() == 2
    assert site.restored(site.made()) == [image(PIXELS)]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("number", [0, 1])
def test_of_two_that_became_the_same_the_one_that_was_tampered_with_is_missed(
    site: Site, pixels: bytes, number: int, *, last: bool
) -> None:
    one, other = image(pixels), image(pixels, name=b"Quixano^Alonso^^Don")
    assert (site.send(one), site.send(other)) == (Fate.FILED, Fate.DUPLICATE)
    site.tamper_with(site.state.vault.find(site.made().stem)[number], last=last)
    assert site.restored(site.made()) == ([one] if number else []), "it is the first that is given"
    assert site.restored(site.made(), every=True) == []


def test_where_a_record_was_tampered_with_no_other_original_is_given_in_its_place(site: Site) -> None:
    one, other = image(PIXELS), image(PIXELS, name=b"Quixano^Sancho", calling=OTHER_PROFILE.encode())
    assert site.send(one) is Fate.FILED
    first = site.copy("first.dcm")
    site.crash_before_filing()
    assert site.send(other) is Fate.FILED
    second = site.copy("second.dcm")
    assert site.restored(second) == [other]
    site.tamper_with(site.state.vault.find(site.made().stem)[-1])
    assert site.restored(first, every=True) == [one]
    assert site.restored(second) == []


def test_the_log_tells_how_many_became_what_and_for_who_wants_it_all_where_each_image_is(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "dicomrx.filing")
    assert [site.send(image(PIXELS)) for _ in range(2)] == [Fate.FILED, Fate.DUPLICATE]
    (run,) = site.spool.receiver_runs()
    where = f"{site.made().parent.name}/{site.made().stem}"
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("DEBUG", f"{run}-1-1: filed: {where}"),
        ("INFO", f"{site.study}: 1 filed"),
        ("DEBUG", f"{run}-1-2: duplicate: {where}"),
        ("INFO", f"{site.study}: 1 duplicate"),
    ]
