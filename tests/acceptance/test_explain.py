"""`dicomrx anonymize --explain` and `--describe`: they tell what would happen, and nothing happens."""

import os
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from pydicom.data.data_manager import DATA_ROOT

from dicomrx.deid import pseudonymous_uid
from dicomrx.vault import State
from tests import factories
from tests.acceptance.pipeline import Pipeline

BUNDLED = Path(DATA_ROOT) / "test_files"


def tree(root: Path) -> dict[str, tuple[int, int, str]]:
    """Every file and folder below: its mode, the time it was changed, its content."""
    found: dict[str, tuple[int, int, str]] = {}
    for path in [root, *sorted(root.rglob("*"))]:
        facts = path.lstat()
        found[str(path)] = (facts.st_mode, facts.st_mtime_ns, sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
    return found


def filed(pipeline: Pipeline) -> Path:
    """A file that is de-identified, so that its patient has a number."""
    path = factories.write(pipeline.root / "one.dcm", factories.dataset())
    (pipeline.storage / "incoming").mkdir(parents=True)
    (pipeline.storage / "incoming" / "one.dcm").write_bytes(path.read_bytes())
    pipeline.run("anonymize", "--once")
    return path


def test_without_a_state_nothing_is_made_and_made_up_values_are_called_so(pipeline: Pipeline) -> None:
    path = factories.write(pipeline.root / "one.dcm", factories.dataset())
    before = tree(pipeline.root)
    done = pipeline.run("anonymize", "--explain", str(path), DICOM_RECEIVER_LOG_FILE=str(pipeline.root / "log"))
    assert tree(pipeline.root) == before
    assert "a key of this moment" in done.stderr
    assert "Quixano^Alonso -> sub-000" in done.stdout
    assert done.stdout.splitlines()[-1] == "result: de-identified, as sub-000"
    assert pipeline.run("anonymize", "--explain", str(path)).stdout != done.stdout


def test_a_known_patient_is_shown_as_filed_and_spool_and_state_stay_as_they_were(pipeline: Pipeline) -> None:
    path = filed(pipeline)
    before = tree(pipeline.root)
    done = pipeline.run("anonymize", "--explain", str(path))
    assert tree(pipeline.root) == before
    assert done.stderr == ""
    assert "Quixano^Alonso -> sub-001" in done.stdout
    with State.open(pipeline.state, create=False) as state:
        assert pseudonymous_uid(state.uid_key, factories.uid(3, 1, 1, 1)) in done.stdout


def test_an_unknown_patient_gets_no_number(pipeline: Pipeline) -> None:
    filed(pipeline)
    other = factories.write(pipeline.root / "two.dcm", factories.dataset(2, name="Panza^Sancho", patient_id="HID-1"))
    before = tree(pipeline.root)
    done = pipeline.run("anonymize", "--explain", str(other))
    assert tree(pipeline.root) == before
    assert "no number yet" in done.stderr
    assert "Panza^Sancho -> sub-000" in done.stdout
    with State.open(pipeline.state, create=False) as state:
        assert state.highest_number() == 1


def test_a_patient_whose_id_is_anothers_is_said_to_be_quarantined(pipeline: Pipeline) -> None:
    filed(pipeline)
    other = factories.write(pipeline.root / "two.dcm", factories.dataset(2, name="Panza^Sancho", birth_date="19500101"))
    before = tree(pipeline.root)
    done = pipeline.run("anonymize", "--explain", str(other))
    assert tree(pipeline.root) == before
    assert done.stdout.splitlines()[-1].startswith("result: quarantined, identity-conflict")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
@pytest.mark.needs_tool("setpriv")
def test_a_state_of_another_user_is_no_hindrance(pipeline: Pipeline) -> None:
    path = filed(pipeline)
    for folder in [pipeline.root, *pipeline.root.parents][:-2]:
        folder.chmod(folder.stat().st_mode | 0o011)
    path.chmod(0o644)
    other = ["setpriv", "--reuid", "65534", "--clear-groups", sys.executable, "-m", "dicomrx", "anonymize", "--explain", str(path)]
    done = subprocess.run(other, env=pipeline.env, cwd="/", capture_output=True, text=True, check=False, timeout=60)
    if "No module named" in done.stderr or done.returncode == 126:
        pytest.skip("the other user may not read this checkout")
    assert done.returncode == 0, done.stderr
    assert "this user may not read the state" in done.stderr
    assert "a key of this moment" in done.stderr
    assert "Quixano^Alonso -> sub-000" in done.stdout


@pytest.mark.parametrize("profile", ["basic", "research"])
def test_what_is_printed_fits_a_terminal_and_cannot_drive_it(pipeline: Pipeline, profile: str) -> None:
    made = factories.dataset(name="Quixano\x1b[31m^Alonso")
    made.ImageComments = "\x07a long comment\n" * 50
    done = pipeline.run("anonymize", "--explain", str(factories.write(pipeline.root / "one.dcm", made)), "--profile", profile)
    for file in ("test-SR.dcm", "reportsi.dcm", "rtplan.dcm", "JPEG2000.dcm"):
        done.stdout += pipeline.run("anonymize", "--explain", str(BUNDLED / file), "--profile", profile).stdout
    lines = done.stdout.splitlines()
    assert len(lines) > 1000
    assert [line for line in lines if not line.isprintable() or len(line) > 100] == []
    assert "\\x1b[31m" in done.stdout


def test_an_instance_that_would_be_quarantined_is_no_error(pipeline: Pipeline) -> None:
    made = factories.dataset()
    made.BurnedInAnnotation = "YES"
    done = pipeline.run("anonymize", "--explain", str(factories.write(pipeline.root / "one.dcm", made)))
    assert done.stdout.splitlines()[-1] == "result: quarantined, burned-in: BurnedInAnnotation (0028,0301) is YES"
    text = pipeline.root / "text.dcm"
    text.write_text("no DICOM file")
    done = pipeline.run("anonymize", "--explain", str(text))
    assert done.stdout == "result: quarantined, unreadable: not a DICOM file: no DICM behind the preamble\n"


def test_what_is_not_there_or_asked_for_together_is_said_by_the_exit_code(pipeline: Pipeline) -> None:
    assert "is no file" in pipeline.run("anonymize", "--explain", "nowhere.dcm", code=66).stderr
    pipeline.run("anonymize", "--explain", "nowhere.dcm", "--once", code=64)
    pipeline.run("anonymize", "--describe", "--once", code=64)
    pipeline.run("anonymize", "--describe", "--profile", "unheard", code=78)
    assert list(pipeline.root.iterdir()) == []


def test_the_profile_is_that_of_the_calling_title(pipeline: Pipeline) -> None:
    chosen = ("--profile", "research", "--ae-profiles", "SCANNER=basic+retain-uids")
    described = pipeline.run("anonymize", "--describe", *chosen).stdout
    assert list(pipeline.root.iterdir()) == []
    assert described.startswith("profile: research, written into files as dicomrx research 2026c\n")
    assert "\nprofile of SCANNER: basic, written into files as dicomrx basic+uid 2026c\n" in described
    assert "\nmethod 113105: Clean Descriptors Option\n" in described
    assert re.search(r"^clean  \(0008,1030\) StudyDescription LO: PS3.15 Table E.1-1: X; clean-descriptors: C$", described, re.MULTILINE)
    assert re.search(r"^keep  \(0019,xx0C\) SIEMENS MR HEADER: B Value IS: private", described, re.MULTILINE)
    assert max(map(len, described.splitlines())) <= 100
