"""The audit log: whole lines from many processes, on disk before an original has a name, or nothing is decrypted."""

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dicomrx.errors import PermissionRefused
from dicomrx.vault.audit import AuditLog
from tests.unit.test_restore_exact import LEAN, Gateway

# Notes so many lines, each longer than a page.
NOTE = """
import sys
from pathlib import Path
from dicomrx.vault.audit import AuditLog
for number in range(20):
    AuditLog(Path(sys.argv[1])).note("restore", {"process": int(sys.argv[2]), "number": number, "padding": "x" * 5000})
"""

# Under a limit of the file's size, which fails in the middle of a line as a full disk does.
FULL = """
import resource, signal, sys
from pathlib import Path
from dicomrx.errors import PermissionRefused
from dicomrx.vault.audit import AuditLog
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = AuditLog(Path(sys.argv[1]))
log.note("restore", {})
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    log.note("restore", {"padding": "x" * 5000})
except PermissionRefused as error:
    print(error)
"""

RESTORE = """
import sys
from pathlib import Path
from dicomrx.cli.restoring import from_vault
from dicomrx.restore import Kind, restore
with from_vault(Path(sys.argv[1]), every=False, kind=Kind.FILE) as originals:
    assert restore(Path(sys.argv[2]), Path(sys.argv[3]), originals).restored == 1
"""


def test_lines_of_many_processes_are_whole_and_none_is_lost(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    with ThreadPoolExecutor(4) as pool:
        done = pool.map(lambda number: subprocess.run([sys.executable, "-c", NOTE, log, str(number)], check=True), range(4))
        assert len(list(done)) == 4
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {(line["process"], line["number"]) for line in lines} == {(process, number) for process in range(4) for number in range(20)}


def test_a_line_that_a_crash_cut_short_spoils_none_after_it(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    AuditLog(log).note("restore", {})
    log.write_bytes(log.read_bytes() + b'{"version": 1, "at')
    AuditLog(log).note("verify", {})
    first, torn, last = log.read_text().splitlines()
    assert (json.loads(first)["what"], torn, json.loads(last)["what"]) == ("restore", '{"version": 1, "at', "verify")


def test_a_full_disk_is_said_and_leaves_no_half_line(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    done = subprocess.run([sys.executable, "-c", FULL, log], check=True, capture_output=True, text=True)
    assert "nothing is decrypted without it" in done.stdout
    (line,) = log.read_text().splitlines()
    assert json.loads(line)["what"] == "restore"
    assert log.read_text().endswith("}\n")


@pytest.mark.parametrize("place", ["a folder", "a link", "nowhere"])
def test_a_log_that_cannot_be_written_is_refused(tmp_path: Path, place: str) -> None:
    log = tmp_path / "state" / "audit.log"
    if place != "nowhere":
        log.parent.mkdir()
    if place == "a folder":
        log.mkdir()
    if place == "a link":
        log.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionRefused, match=r"audit\.log"):
        AuditLog(log).note("restore", {})
    assert not (tmp_path / "elsewhere").exists()


def test_a_line_says_when_and_who(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "alice\n{")
    AuditLog(tmp_path / "audit.log").note("restore", {"patient": "sub-001"})
    (line,) = (tmp_path / "audit.log").read_text().splitlines()
    noted = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d.*\+00:00", noted["at"])
    assert (noted["version"], noted["what"], noted["patient"]) == (1, "restore", "sub-001")
    assert (noted["by"]["uid"], noted["by"]["sudo_user"]) == (os.getuid(), "alice\n{")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write into another's state")
def test_a_log_that_root_begins_is_its_owners(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    AuditLog(tmp_path / "audit.log").note("restore", {})
    found = (tmp_path / "audit.log").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (65534, 65534, 0o600)


@pytest.mark.needs_tool("strace")
def test_the_note_is_on_disk_before_anything_is_written_of_the_original(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "site")
    made = gateway.take(LEAN["explicit"])
    gateway.close()
    trace, out = tmp_path / "trace", tmp_path / "out.dcm"
    strace = ["strace", "-f", "--seccomp-bpf", "-y", "-e", "trace=write,fsync,link,linkat", "-o", str(trace)]
    subprocess.run([*strace, sys.executable, "-c", RESTORE, gateway.state.path, str(made), out], check=True)
    lines = trace.read_text().splitlines()
    noted = next(number for number, line in enumerate(lines) if re.search(r"fsync\(\d+<[^>]*audit\.log", line))
    original = next(number for number, line in enumerate(lines) if re.search(r"write\(\d+<[^>]*/\.[^>]*\.part", line))
    named = next(number for number, line in enumerate(lines) if re.search(r"link(at)?\(", line) and "out.dcm" in line)
    assert noted < original < named
