"""The demo passes on what is right, and can fail on everything that it claims to look at."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from dicomrx.demo.checks import findings, rivals, values
from dicomrx.demo.evidence import Entry, Evidence
from dicomrx.demo.samples import EXCEPTIONS, REFUSED, UPLOADED, Sample, bundled
from tests.acceptance.pipeline import children, wait_until

NAME = "CompressedSamples"  # of the patient in CT_small.dcm
STUDY_DATE = "20040119"  # of the same file
FAILED = 1
# None of it may reach the demo.
SOMEBODYS_SETTINGS = {
    "DICOM_RECEIVER_PORT": "1",
    "DICOM_RECEIVER_STORAGE_DIR": "/nowhere/storage",
    "DICOM_RECEIVER_STATE_DIR": "/nowhere/state",
    "DICOM_RECEIVER_ZIP_DIR": "/nowhere/zips",
    "DICOM_RECEIVER_API_URL": "http://127.0.0.1:9/api",
    "DICOM_RECEIVER_AUTO_UPLOAD": "false",
    "DICOM_RECEIVER_BURNED_IN": "pass",
    "DICOM_RECEIVER_TIMEOUT": "86400",
    "DICOM_RECEIVER_CALLING_AE": "NOBODY",
    "DICOM_RECEIVER_LOG_LEVEL": "nonsense",
}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dicomrx", "demo", *arguments]


@dataclass(frozen=True)
class Run:
    root: Path
    code: int
    printed: str

    @property
    def table(self) -> dict[str, int]:
        rows = (re.match(r"\s*(\S+)\s+(\d+)(?:  |$)", line) for line in self.printed.splitlines())
        return {row[1]: int(row[2]) for row in rows if row}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        command("--keep", str(folder / "kept")),
        env={**os.environ, **SOMEBODYS_SETTINGS},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    return Run(folder / "kept", done.returncode, done.stdout + done.stderr)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return bundled()


@pytest.mark.slow
def test_the_demo_passes_in_less_than_a_minute_whatever_the_user_has_set(demo: Run) -> None:
    assert demo.code == 0, demo.printed
    passed = re.search(r"demo passed in (\d+) s", demo.printed)
    assert passed is not None
    assert int(passed[1]) < 60


@pytest.mark.slow
def test_the_printed_counts_are_those_of_the_files_that_pydicom_brings(demo: Run, samples: list[Sample]) -> None:
    table, groups = demo.table, rivals(samples)
    expected = Counter(sample.expected for sample in samples)
    assert table["sent"] == len(samples) + 1
    assert table["refused"] == expected[REFUSED] == 8
    assert table["acknowledged"] == table["sent"] - table["refused"]
    assert table["uploaded"] == len(groups) > 90
    assert table["acknowledged"] == table["uploaded"] + table["duplicates"] + table["quarantined"]
    contested = sum(len(group) - 1 for group in groups.values())
    # One was sent twice; of those with the same UIDs some become the same output, the others are conflicts.
    assert table["conflict"] + table["duplicates"] == contested + 1
    for reason in EXCEPTIONS.keys() - {REFUSED}:
        assert table[reason] == expected[reason] > 0
    assert table["restored"] == table["uploaded"] + table["duplicates"] - 1


@pytest.mark.slow
def test_several_patients_and_compressed_images_are_among_what_arrived(demo: Run, samples: list[Sample]) -> None:
    arrived = [dcmread(BytesIO(entry.data), stop_before_pixels=True) for entry in Evidence.read(demo.root).entries]
    assert len({made.PatientID for made in arrived}) > 10
    assert any(made.file_meta.TransferSyntaxUID.is_compressed for made in arrived)
    begun = [
        json.loads(line) for path in (demo.root / "spool/.run/associations").iterdir() for line in path.read_text().splitlines() if line
    ]
    assert {"DEMO_CT", "DEMO_MR", "DEMO_RT", "DEMO_PACS", "DEMO_AGAIN"} <= {row["calling"] for row in begun}
    at_once, most = 0, 0
    for row in begun:
        if row["calling"].startswith("DEMO_"):
            at_once += 1 if row["ended"] == "open" else -1
            most = max(most, at_once)
    assert most > 1


# What follows proves that the demo can fail: real files of a real run, spoiled one way each.


@dataclass
class Spoiled:
    """A copy of a run, and the sample and entry on which the spoiling is done."""

    root: Path
    samples: list[Sample]

    def sample(self, name: str = "test_files/CT_small.dcm") -> Sample:
        return next(sample for sample in self.samples if sample.name == name)

    def entry(self, name: str = "test_files/CT_small.dcm") -> Entry:
        return next(entry for entry in Evidence.read(self.root).entries if self.sample(name).key in entry.originals)

    def restored(self) -> Path:
        entry = self.entry()
        return self.root / "restored" / entry.bundle / entry.name

    def aside(self, reason: str) -> Path:
        return next((self.root / "spool/quarantine").glob(f"*/{reason}/*.dcm"))

    def rewrite(self, name: str | None, data: bytes | None = None) -> None:
        """Give the entry another name or other data in its zip, or take it out."""
        entry = self.entry()
        kept = [other for other in Evidence.read(self.root).entries if other.bundle == entry.bundle and other.name != entry.name]
        with zipfile.ZipFile(self.root / "api" / f"{entry.bundle}.zip", "w") as bundle:
            for other in kept:
                bundle.writestr(other.name, other.data)
            if name is not None:
                bundle.writestr(name, entry.data if data is None else data)

    def edit(self, change: Callable[..., None]) -> None:
        entry = self.entry()
        dataset = dcmread(BytesIO(entry.data))
        change(dataset)
        out = BytesIO()
        dataset.save_as(out)
        self.rewrite(entry.name, out.getvalue())

    def findings(self) -> list[str]:
        return findings(self.samples, Evidence.read(self.root))


@pytest.fixture
def spoiled(demo: Run, samples: list[Sample], tmp_path: Path) -> Spoiled:
    assert demo.code == 0, "the demo itself failed: see the first test"
    for part in ("api", "restored", "spool/quarantine"):
        shutil.copytree(demo.root / part, tmp_path / part)
    for part in ("all.log", "answers.json", "status.json"):
        shutil.copy(demo.root / part, tmp_path)
    return Spoiled(tmp_path, samples)


def lose(run: Spoiled) -> None:
    path = run.restored()
    run.rewrite(None)
    path.unlink()


def send_twice(run: Spoiled) -> None:
    bundle = run.entry().bundle
    shutil.copy(run.root / "api" / f"{bundle}.zip", run.root / "api" / f"9999{bundle[4:]}.zip")
    shutil.copytree(run.root / "restored" / bundle, run.root / "restored" / f"9999{bundle[4:]}")


def pack_twice(run: Spoiled) -> None:
    entry = run.entry()
    with zipfile.ZipFile(run.root / "api" / f"{entry.bundle}.zip", "a") as bundle, pytest.warns(UserWarning, match="Duplicate"):
        bundle.writestr(entry.name, entry.data)


def name_the_patient_in_a_folder(run: Spoiled) -> None:
    study, _, instance = run.entry().name.split("/")
    renamed, before = f"{study}/{NAME}^CT1/{instance}", run.restored()
    run.rewrite(renamed)
    after = run.root / "restored" / before.relative_to(run.root / "restored").parts[0] / renamed
    after.parent.mkdir()
    before.rename(after)


def name_the_patient_in_the_name_of_the_zip(run: Spoiled) -> None:
    bundle = run.entry().bundle
    (run.root / "api" / f"{bundle}.zip").rename(run.root / "api" / f"{bundle}-{NAME}.zip")
    (run.root / "restored" / bundle).rename(run.root / "restored" / f"{bundle}-{NAME}")


def name_the_patient_in_a_description(run: Spoiled) -> None:
    run.edit(lambda dataset: setattr(dataset, "StudyDescription", f"head of {NAME.upper()}, 2nd"))


def keep_a_date_in_a_nested_coded_string(run: Spoiled) -> None:
    run.edit(lambda dataset: setattr(dataset.DeidentificationMethodCodeSequence[0], "Laterality", STUDY_DATE))


def keep_a_date(run: Spoiled) -> None:
    run.edit(lambda dataset: setattr(dataset, "StudyDate", STUDY_DATE))


def keep_a_uid(run: Spoiled) -> None:
    run.edit(lambda dataset: setattr(dataset, "FrameOfReferenceUID", dcmread(run.sample().path).FrameOfReferenceUID))


def name_the_patient_in_the_preamble(run: Spoiled) -> None:
    entry = run.entry()
    run.rewrite(entry.name, f" {NAME} ".encode().ljust(128, b"\0") + entry.data[128:])


def name_the_patient_behind_the_end(run: Spoiled) -> None:
    entry = run.entry()
    run.rewrite(entry.name, entry.data + b"\0\0\0\0\0\0\0\0" + f" {NAME} ".encode())


def change_a_pixel(run: Spoiled) -> None:
    run.edit(lambda dataset: setattr(dataset, "PixelData", b"\1" + dataset.PixelData[1:]))


def restore_a_wrong_byte(run: Spoiled) -> None:
    path = run.restored()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def do_not_restore(run: Spoiled) -> None:
    run.restored().unlink()


def restore_something_else_beside_it(run: Spoiled) -> None:
    run.restored().with_name("notes.txt").write_text("something")


def lose_from_quarantine(run: Spoiled) -> None:
    run.aside("truncated").unlink()


def quarantine_for_another_reason(run: Spoiled) -> None:
    path = run.aside("burned-in")
    other = path.parent.with_name("unreadable")
    other.mkdir(exist_ok=True)
    path.rename(other / path.name)


def quarantine_an_image_that_should_arrive(run: Spoiled) -> None:
    path = run.restored()
    shutil.copy(path, run.aside("burned-in").with_name("extra.dcm"))
    lose(run)


def quarantine_as_conflict_what_has_no_rival(run: Spoiled) -> None:
    shutil.copy(run.restored(), run.aside("conflict").with_name("extra.dcm"))
    lose(run)


def upload_what_should_be_in_quarantine(run: Spoiled) -> None:
    path = run.aside("burned-in")
    shutil.copy(path, run.restored().with_name("2.25.4.dcm"))
    entry = run.entry()
    with zipfile.ZipFile(run.root / "api" / f"{entry.bundle}.zip", "a") as bundle:
        bundle.write(path, f"{entry.name.rpartition('/')[0]}/2.25.4.dcm")
    path.unlink()


def quarantine_what_nobody_sent(run: Spoiled) -> None:
    path = run.aside("burned-in")
    path.with_name("extra.dcm").write_bytes(path.read_bytes() + b"x")


def leave_one_unanswered(run: Spoiled) -> None:
    answers = json.loads((run.root / "answers.json").read_text())
    lost = run.sample("test_files/MR_truncated.dcm").number
    (run.root / "answers.json").write_text(json.dumps([[number, 0xA700 if number == lost else status] for number, status in answers]))


def accept_a_media_directory(run: Spoiled) -> None:
    answers = json.loads((run.root / "answers.json").read_text())
    (run.root / "answers.json").write_text(json.dumps([[number, 0 if status is None else status] for number, status in answers]))


def name_the_patient_in_the_log(run: Spoiled) -> None:
    with (run.root / "all.log").open("a") as log:
        log.write(f"2026-01-31T12:00:00.000Z INFO anonymize filed {NAME}\n")


def count_wrongly(run: Spoiled) -> None:
    status = json.loads((run.root / "status.json").read_text())
    status["fates"]["filed"] -= 1
    (run.root / "status.json").write_text(json.dumps(status))


def merge_two_patients(run: Spoiled) -> None:
    other = run.entry("test_files/693_J2KI.dcm")
    run.edit(lambda dataset: setattr(dataset, "PatientID", dcmread(BytesIO(other.data)).PatientID))


SPOILERS: dict[Callable[[Spoiled], None], str] = {
    lose: "is neither uploaded nor in quarantine as expected (uploaded): 0 uploaded",
    send_twice: "is doubled: it was uploaded 2 times",
    pack_twice: "is doubled: it was uploaded 2 times",
    name_the_patient_in_a_folder: "a value of the original in name",
    name_the_patient_in_the_name_of_the_zip: "a value of the original in name",
    name_the_patient_in_a_description: "a value of the original in StudyDescription",
    keep_a_date_in_a_nested_coded_string: "a value of the original in Laterality",
    keep_a_date: "a value of the original in StudyDate",
    keep_a_uid: "a value of the original in FrameOfReferenceUID",
    name_the_patient_in_the_preamble: "a value of the original in bytes outside the pixels",
    name_the_patient_behind_the_end: "cannot be read: unreadable",
    change_a_pixel: "its pixels are not those that were sent",
    restore_a_wrong_byte: "was restored to bytes that were never sent",
    do_not_restore: "was not restored",
    restore_something_else_beside_it: "`restore` wrote 1 files that belong to no upload",
    lose_from_quarantine: "is neither uploaded nor in quarantine as expected (truncated): 0 uploaded",
    quarantine_for_another_reason: "1 in quarantine as unreadable",
    quarantine_an_image_that_should_arrive: "as expected (uploaded): 0 uploaded, 1 in quarantine as burned-in",
    quarantine_as_conflict_what_has_no_rival: "as expected (uploaded): 0 uploaded, 1 in quarantine as conflict",
    upload_what_should_be_in_quarantine: "as expected (burned-in): 1 uploaded",
    quarantine_what_nobody_sent: "in quarantine as burned-in lies what was never sent",
    leave_one_unanswered: "was not acknowledged",
    accept_a_media_directory: "was accepted: 0 uploaded; it should have been refused",
    name_the_patient_in_the_log: "a log line or the status view holds a value of an original",
    count_wrongly: "filed, and there are",
    merge_two_patients: "more than one patient was uploaded under one pseudonym",
}


@pytest.mark.slow
def test_a_copy_that_nobody_spoiled_has_no_findings(spoiled: Spoiled) -> None:
    assert spoiled.findings() == []


@pytest.mark.slow
@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda spoil: spoil.__name__)
def test_the_demo_finds_what_is_wrong_and_says_it_without_an_identifying_value(spoiled: Spoiled, spoil: Callable[[Spoiled], None]) -> None:
    spoil(spoiled)
    found = spoiled.findings()
    assert any(SPOILERS[spoil] in line for line in found), found
    said = "\n".join(found).casefold()
    # Of other files only IDs, dates and UIDs: somebody there is called "Last Name".
    telling = {value for sample in spoiled.samples for value in values(sample) if re.search(r"\d", value)} | values(spoiled.sample())
    assert not [value for value in telling if re.search(rf"\b{re.escape(value)}\b", said)]


@pytest.mark.slow
def test_a_finding_tells_the_number_and_digest_of_its_instance(spoiled: Spoiled) -> None:
    sample = spoiled.sample()
    lose(spoiled)
    assert any(line.startswith(f"instance {sample.number} ({sample.key[:12]})") for line in spoiled.findings())


def test_what_is_expected_of_a_file_follows_from_its_bytes_and_not_from_the_pipeline(samples: list[Sample]) -> None:
    """A rough second opinion on the table, by pydicom alone: no UIDs, risky classes, truncated files."""
    no_uid = {"no-uid", "unreadable"}
    for sample in samples:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = dcmread(sample.path)
        has_uids = all(dataset.get(keyword) for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"))
        sop_class = str(dataset.file_meta.MediaStorageSOPClassUID)
        risky = sop_class in {f"1.2.840.10008.5.1.4.1.1.{branch}" for branch in ("3.1", "6.1", "7")}
        if sop_class == "1.2.840.10008.1.3.10":
            assert sample.expected == REFUSED, sample.name
        elif not has_uids:
            assert sample.expected in no_uid, sample.name
        elif risky:
            assert sample.expected in {"burned-in", "unreadable"}, sample.name
        else:
            assert sample.expected in {UPLOADED, "truncated", "malformed"}, sample.name
    assert len(samples) == 185


@pytest.mark.slow
def test_an_image_lost_while_the_demo_runs_makes_it_fail(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    with subprocess.Popen(command("--keep", str(kept)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        # In the largest study no two images share their UIDs: nothing can take the place of what is lost.
        series = kept / "spool/studies"
        wait_until(lambda: any(len(list(folder.glob("*.dcm"))) > 20 for folder in series.glob("*/*")), what="filed images")
        largest = max(series.glob("*/*"), key=lambda folder: len(list(folder.glob("*.dcm"))))
        next(largest.glob("*.dcm")).unlink()
        printed, _ = running.communicate(timeout=180)
    assert running.returncode == FAILED, printed
    assert re.search(r"WRONG: instance \d+ \([0-9a-f]{12}\) is neither uploaded nor in quarantine", printed), printed
    assert "demo FAILED" in printed


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=["ctrl-c", "sigterm", "sigkill"])
def test_however_the_demo_is_ended_all_its_children_end_with_it(tmp_path: Path, number: signal.Signals) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(command(), env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
        wait_until(lambda: list(temporary.glob("*/spool/studies/*")), what="a study on its way")
        below = children(running.pid)
        assert {"all", "scp", "anonymize", "watch", "upload"} <= below.keys()
        running.send_signal(number)
        running.communicate(timeout=60)
    pids = [pid for found in below.values() for pid in found]
    wait_until(lambda: not [pid for pid in pids if is_alive(pid)], 40, "children that end")
    if number != signal.SIGKILL:
        assert running.returncode == 130
        assert list(temporary.iterdir()) == []


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_folder_to_keep_that_is_not_empty_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    started = time.monotonic()
    done = subprocess.run(command("--keep", str(tmp_path)), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 73
    assert "is not empty" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert time.monotonic() - started < 30


def test_a_port_that_somebody_listens_on_is_refused_and_nothing_is_sent_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run(command("--port", str(taken.getsockname()[1])), capture_output=True, text=True, timeout=60, check=False)
        taken.setblocking(False)
        with pytest.raises(BlockingIOError):
            taken.accept()
    assert done.returncode == 75
    assert "name another with --port" in done.stderr
