"""The power goes at every change of the disk in turn, on a real ext4: what was acknowledged is there after it, whole and once.

The file system is shut down by its own ioctl, which drops what is not synced; then it is mounted again, as after a boot.
"""

import ctypes
import fcntl
import hashlib
import os
import struct
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicomrx.spool import aio, durable, incoming, outbox
from dicomrx.spool.intake import Intake
from dicomrx.spool.layout import MANIFEST, RECEIPT, Spool, read_json
from dicomrx.spool.outbox import Outgoing, frozen_studies
from dicomrx.spool.sending import Step
from dicomrx.spool.spares import Spares
from dicomrx.spool.studies import Study, is_marked, open_studies
from tests.conftest import REQUIRE_TOOLS, needs_tool
from tests.spool_rig import HAND, STUDY, file_one, file_together, open_spool, receive

pytestmark = [pytest.mark.crash, pytest.mark.slow]

SHUTDOWN = 0x8004587D
LOSE_ALL, LOSE_DATA = 2, 1  # drop the journal too; keep the journal and drop the data
STRIDE = int(os.environ.get("DICOMRX_POWER_CUT_STRIDE", "7"))  # 1 cuts at every single point
PADDING = {"2.25.1": "x" * 20_000, "2.25.2": "x" * 9_000}  # files that are used again become shorter and longer
CONTENTS = [("2.25.100", "2.25.1"), ("2.25.100", "2.25.2"), ("2.25.200", "2.25.1")]


class Disk:
    """A loop-mounted ext4."""

    def __init__(self, folder: Path) -> None:
        self.image, self.point = folder / "image", folder / "disk"
        self.point.mkdir()
        with self.image.open("wb") as file:
            file.truncate(32 << 20)
        self._run("mkfs.ext4", "-q", self.image)

    @staticmethod
    def _run(*command: str | Path) -> None:
        subprocess.run(command, check=True, capture_output=True)

    def mount(self) -> None:
        self._run("mount", "-o", "loop", self.image, self.point)

    def unmount(self) -> None:
        self._run("umount", self.point)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    needs_tool("mkfs.ext4", "mount", "umount")
    disk = Disk(tmp_path)
    try:
        disk.mount()
    except subprocess.CalledProcessError:
        (pytest.fail if REQUIRE_TOOLS else pytest.skip)("a loop device cannot be mounted here: that takes root")
    disk.unmount()
    yield disk
    if os.path.ismount(disk.point):
        disk.unmount()


class Cutter:
    """Counts what changes the disk, and cuts the power before the `at`th change; 0 never does."""

    def __init__(self, disk: Disk, at: int, how: int) -> None:
        self._fd = os.open(disk.point, os.O_RDONLY)
        self.at, self.how, self.count = at, how, 0
        for name in ("fsync", "link", "unlink", "mkdir", "rmdir", "rename", "utime", "write", "ftruncate"):
            setattr(os, name, self._counting(getattr(os, name)))
        durable._libc = self  # type: ignore[assignment]
        aio._queue.cache_clear()  # made before the fork, it is the parent's
        aio.fsync = self._counting(aio.fsync)
        self._renameat2 = ctypes.CDLL(None, use_errno=True).renameat2

    def renameat2(self, *arguments: object) -> int:
        self._tick()
        return int(self._renameat2(*arguments))

    def _counting(self, real: Callable) -> Callable:
        def counted(*arguments: object, **named: object) -> object:
            self._tick()
            return real(*arguments, **named)

        return counted

    def _tick(self) -> None:
        self.count += 1
        if self.count == self.at:
            fcntl.ioctl(self._fd, SHUTDOWN, struct.pack("I", self.how))
            os._exit(9)


def output(study: str, instance: str) -> bytes:
    return f"{study} {instance} {PADDING[instance]}".encode()


def receive_all(spool: Spool, tell: Callable[[str], None]) -> None:
    intake = Intake(spool)
    for number, (study, instance) in enumerate(CONTENTS, 1):
        reception = intake.begin(1, number)
        reception.write(output(study, instance))
        reception.keep()
        reception.drop()
        tell(f"kept {study} {instance}")
    intake.stop(cut=False)


def work_off(spool: Spool, tell: Callable[[str], None]) -> None:
    """File, mark, freeze, send and clean what there is, as the stages do."""
    outputs = {}
    for arrival in incoming.arrivals(spool):
        study, instance, _ = (spool.incoming / arrival.name).read_text().split()
        outputs[arrival] = study, instance, output(study, instance)
    spares = Spares(spool, 4)
    for some in ([*outputs][:1], [*outputs][1:]):  # the first input's file becomes an output; the others are of two studies
        file_together(spool, {arrival: outputs[arrival] for arrival in some}, spares)
    for uid in open_studies(spool):
        with Study.locked(spool, uid) as study_held:
            if is_marked(spool, uid) or study_held.mark(HAND):
                study_held.freeze()
    for frozen in frozen_studies(spool):
        with Outgoing.claimed(spool, frozen) as outgoing:
            assert outgoing is not None
            if outgoing.document(RECEIPT) is None:
                rows = []
                for series, instance in outgoing.instances():
                    data = (outgoing.folder / series / f"{instance}.dcm").read_bytes()
                    rows.append({"series": series, "instance": instance, "sha256": hashlib.sha256(data).hexdigest()})
                outgoing.write(MANIFEST, {"instances": rows})
                outgoing.note(Step.SENDING, attempt=1)
                tell(f"sent {frozen.name} {hashlib.sha256(outgoing.manifest_bytes()).hexdigest()}")
                outgoing.write(RECEIPT, {"status": 201})
                tell(f"receipt {frozen.name}")
            outbox.clean(spool, outgoing.settle())


def run_until_the_cut(disk: Disk, at: int, how: int) -> tuple[list[str], int]:
    """The whole way of three instances in a process of its own; what it told, and how many changes it made if it lived."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(read)

            def tell(line: str) -> None:
                os.write(write, line.encode() + b"\n")

            with open_spool(disk.point) as spool:
                cutter = Cutter(disk, at, how)
                receive_all(spool, tell)
                work_off(spool, tell)
                tell(f"changes {cutter.count}")
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    with open(read) as file:
        told = file.read().splitlines()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == (9 if at else 0), f"the process ended with {status}"
    return told, int(told[-1].split()[1]) if not at else 0


def contents(disk: Disk) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Where each instance is, and the files under a final name that are not whole."""
    root = disk.point / "storage"
    found: Counter[tuple[str, str]] = Counter()
    torn = []
    for path in [
        *root.glob("incoming/*.dcm"),
        *root.glob("studies/*/*/*.dcm"),
        *root.glob("outbox/*/*/*.dcm"),
        *root.glob("sent/*/*/*.dcm"),
    ]:
        words = path.read_bytes().split()
        if len(words) != 3 or path.read_bytes() != output(words[0].decode(), words[1].decode()):
            torn.append(str(path.relative_to(root)))
        else:
            found[words[0].decode(), words[1].decode()] += 1
    for receipt in root.glob(f"*/*/{RECEIPT}"):
        manifest = read_json(receipt.parent / MANIFEST) or {"instances": []}
        study = receipt.parent.name.rpartition(".")[0]
        there = {path.stem for path in receipt.parent.glob("*/*.dcm")}  # counted above; cleaning takes one after another
        found.update((study, row["instance"]) for row in manifest["instances"] if row["instance"] not in there)
    return found, torn


def wrongs(disk: Disk, told: list[str]) -> list[str]:
    """What breaks a promise after the cut, before and after everything has run to its end."""
    words = [line.split() for line in told]
    kept = [(study, instance) for what, study, instance in (word for word in words if len(word) == 3) if what == "kept"]
    found, torn = contents(disk)
    wrong = [f"torn: {name}" for name in torn]
    wrong += [f"lost: {content}" for content in kept if not found[content]]
    wrong += [
        f"receipt lost: {word[1]}"
        for word in words
        if word[0] == "receipt" and not list((disk.point / "storage").glob(f"*/{word[1]}/{RECEIPT}"))
    ]
    if wrong:
        return wrong
    again: list[str] = []
    with open_spool(disk.point) as spool:
        intake = Intake(spool)
        work_off(spool, again.append)
        intake.stop(cut=False)
        assert list(spool.receiving.iterdir()) == list(spool.incoming.iterdir()) == list(spool.outbox.iterdir()) == []
    found, _ = contents(disk)
    wrong += [f"not once: {content} {found[content]}" for content in kept if found[content] != 1]
    keys: dict[str, set[str]] = {}
    for _, name, key in (line.split() for line in told + again if line.startswith("sent")):
        keys.setdefault(name, set()).add(key)
    return wrong + [f"sent under two keys: {name}" for name, several in keys.items() if len(several) > 1]


def cut(disk: Disk, at: int, how: int) -> list[str]:
    disk._run("mkfs.ext4", "-q", "-F", disk.image)
    disk.mount()
    with open_spool(disk.point):
        pass
    subprocess.run(["sync", "-f", disk.point], check=True)
    told, _ = run_until_the_cut(disk, at, how)
    disk.unmount()
    disk.mount()
    try:
        return wrongs(disk, told)
    finally:
        disk.unmount()


def changes(disk: Disk) -> int:
    disk.mount()
    _, count = run_until_the_cut(disk, 0, LOSE_ALL)
    disk.unmount()
    return count


@pytest.mark.parametrize("how", [LOSE_ALL, LOSE_DATA])
def test_a_power_cut_at_any_point_loses_tears_and_doubles_nothing(disk: Disk, how: int) -> None:
    count = changes(disk)
    assert count > 100
    found = {at: wrong for at in range(1 + how, count + 1, STRIDE) if (wrong := cut(disk, at, how))}
    assert found == {}


def test_without_fsync_the_cuts_do_find_losses(disk: Disk) -> None:
    """The test above can fail: of that, this is the proof."""
    durable.set_durable(enabled=False)
    try:
        count = changes(disk)
        lost = [wrong for at in range(count // 5, count, count // 5) for wrong in cut(disk, at, LOSE_ALL)]
    finally:
        durable.set_durable(enabled=True)
    assert any(wrong.startswith("lost") for wrong in lost)


def test_without_fsync_a_power_cut_leaves_no_identity_under_the_name_of_an_output(disk: Disk) -> None:
    """Outputs may be lost then; but the names are on the disk before the bytes are."""
    disk.mount()
    child = os.fork()
    if child == 0:
        try:
            with open_spool(disk.point) as spool:
                spares, intake = Spares(spool, 4), Intake(spool)
                arrivals = [receive(intake, b"identity" * 1024, 1, number) for number in range(1, 9)]
                durable.set_durable(enabled=False)
                for number, arrival in enumerate(arrivals, 1):
                    file_one(spool, arrival, STUDY, f"2.25.{number}", b"output" * 1024, spares)
                fcntl.ioctl(os.open(disk.point, os.O_RDONLY), SHUTDOWN, struct.pack("I", LOSE_DATA))
                os._exit(9)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    disk.unmount()
    disk.mount()
    found = [path.read_bytes() for path in disk.point.glob("storage/studies/*/*/*.dcm")]
    assert found
    assert b"identity" not in b"".join(found)
