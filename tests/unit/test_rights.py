"""Rights: an input that may not be read is its own fault, a folder of ours that may not be written is the machine's."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from dicomrx.errors import Reject, is_machine_error
from dicomrx.jobs import Job
from dicomrx.runner import Runner
from dicomrx.spool import incoming, locks, quarantine
from dicomrx.spool.layout import Spool
from tests.spool_rig import open_spool


def test_an_input_that_may_not_be_read_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(locks, "claim", refuse)
    with pytest.raises(Reject, match="not-readable"), incoming.claimed(tmp_path / "x"):
        pass


def test_a_link_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(Reject, match="not-a-file"), incoming.claimed(tmp_path / "link"):
        pass


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_rejected_and_not_kept_open(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "x")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(Reject, match="not-a-file"), incoming.claimed(tmp_path / "x"):
        pass
    assert os.listdir("/proc/self/fd") == before


class Forbidden:
    """A stage whose outputs cannot be written."""

    name = "forbidden"
    watched: Sequence[Path] = ()

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def scan(self) -> Iterable[Job]:
        return [Job(path.parent, path.name) for path in sorted(self._spool.incoming.iterdir())]

    def process(self, job: Job) -> None:
        with incoming.claimed(job.path):
            raise PermissionError(13, "Permission denied", "studies")

    def ready_in(self) -> float | None:
        return None


def test_a_folder_of_ours_that_may_not_be_written_quarantines_nothing(tmp_path: Path) -> None:
    assert is_machine_error(PermissionError(13, os.strerror(13)))
    with open_spool(tmp_path) as spool:
        (spool.incoming / "one.dcm").write_bytes(b"x")
        tally = Runner(Forbidden(spool), spool).once()
        assert (tally.deferred, tally.rejected) == (1, 0)
        assert not list(quarantine.items(spool))
