import os
import signal
import subprocess
import sys
from pathlib import Path

from dicomrx.spool import locks, runs
from dicomrx.spool.runs import RunDirectory

_HOLDER = """
import sys, time
from pathlib import Path
from dicomrx.spool import locks
from dicomrx.spool.runs import RunDirectory
fd = locks.claim(Path(sys.argv[1]))
run = RunDirectory(Path(sys.argv[2]))
print(run.path, flush=True)
time.sleep(60)
"""


def test_claims_and_run_directories_of_a_killed_process_are_free(tmp_path: Path) -> None:
    path, folder = tmp_path / "input", tmp_path / "runs"
    path.write_bytes(b"")
    with subprocess.Popen([sys.executable, "-c", _HOLDER, str(path), str(folder)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        run = Path(holder.stdout.readline().strip())
        assert locks.claim(path) is None
        assert locks.is_locked(run)
        assert list(runs.dead(folder, patience_s=600)) == []  # it waits for readers, never for a living owner
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert not locks.is_locked(run)
    fd = locks.claim(path)
    assert fd is not None
    os.close(fd)
    runs.sweep(folder)
    assert list(folder.iterdir()) == []


def test_a_sweep_takes_the_dead_and_leaves_the_living(tmp_path: Path) -> None:
    with RunDirectory(tmp_path) as living:
        dead = RunDirectory(tmp_path)
        dead.new_path().write_bytes(b"unfinished")
        dead.close(keep=True)
        (tmp_path / ".half-started").mkdir()
        runs.sweep(tmp_path)
        assert list(tmp_path.iterdir()) == [living.path]


def test_a_closed_run_directory_is_gone_unless_it_is_to_be_found(tmp_path: Path) -> None:
    tidy, left = RunDirectory(tmp_path), RunDirectory(tmp_path)
    tidy.close()
    left.close(keep=True)
    assert list(tmp_path.iterdir()) == [left.path]
