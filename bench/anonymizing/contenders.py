"""Who de-identifies: how each is started, what it has made, and why one cannot take part here."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydicom import dcmread

from anonymizing.images import FAMILY_NAME
from dicomrx.spool import durable
from dicomrx.spool.intake import Intake
from dicomrx.spool.layout import Spool

_HERE = Path(__file__).parent
_REQUIREMENTS = _HERE / "requirements.txt"
_OTHERS = _HERE.parents[1] / ".venv-bench"
_PATIENCE_S = 300


class Failed(Exception):
    """It has no figure; the message says why."""


class Figures(NamedTuple):
    """What one run gave; the peak is of the largest process."""

    images_per_s: float
    mb_per_s: float
    cpu_ms_per_image: float
    peak_mb: float


@dataclass(frozen=True)
class Contender:
    """`share`: it is given one of so many images, for it is slow; `start` prepares a folder and gives the command of each process."""

    name: str
    title: str
    start: Callable[["Contender", list[Path], Path, bool], list[list[str]]]
    share: int = 1
    deidentifies: bool = True
    program: str = sys.executable

    @property
    def missing(self) -> str:
        """Why it cannot take part, or nothing."""
        return "" if shutil.which(self.program) else f"{Path(self.program).name} is not on this machine"


def _whole(processes):
    def start(_contender, sources, folder, sync):
        _fill(folder, sources)
        warm = [folder / f"warm{number}" for number in range(processes)]
        for each in warm:
            each.mkdir()
            _fill(each, sources[:2])
        return [[str(_HERE / "ours.py"), "whole", str(folder), str(each), str(int(sync))] for each in warm]

    return start


def _fill(root, sources):
    """A spool below `root`, as the receiver leaves it."""
    durable.set_durable(enabled=False)
    with Spool.open(root / "spool", root / "zips", make=True) as spool:
        intake = Intake(spool)
        association = intake.new_association()
        for number, path in enumerate(sources):
            reception = intake.begin(association, number + 1)
            reception.write(path.read_bytes())
            reception.keep()
            reception.drop()
        intake.stop(cut=False)


def _rewriting(_contender, sources, folder, sync):
    return [[str(_HERE / "ours.py"), "rewriting", str(_out(folder)), str(int(sync)), *map(str, sources)]]


def _bare(_contender, sources, folder, sync):
    for name in ("in", "parts", "out"):
        (folder / name).mkdir()
    for source in sources:
        shutil.copyfile(source, folder / "in" / source.name)
    shutil.copyfile(sources[0], folder / "in" / "warm")
    return [[str(_HERE / "bare.py"), str(folder), str(int(sync))]]


def _theirs(contender, sources, folder, sync):
    return [[str(_HERE / "theirs.py"), contender.name, str(_out(folder)), str(int(sync)), *map(str, sources)]]


def _out(folder):
    made = folder / "out"
    made.mkdir()
    return made


WHOLE, TWO, REWRITING, BARE = "whole", "two", "rewriting", "bare"
PYDICOM, DICOGNITO, DEID, GDCM = "pydicom", "dicognito", "deid", "gdcmanon"
_ELSEWHERE = str(_OTHERS / "bin" / "python")
CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender(WHOLE, "dicomrx anonymize, one process", _whole(1)),
        Contender(TWO, "dicomrx anonymize, two processes", _whole(2)),
        Contender(REWRITING, "dicomrx, the rewriting alone", _rewriting),
        Contender(BARE, "bare loop, no DICOM", _bare, deidentifies=False),
        Contender(PYDICOM, "pydicom, walk and save", _theirs, share=12),
        Contender(DICOGNITO, "dicognito", _theirs, share=32, program=_ELSEWHERE),
        Contender("dicom-anonymizer", "dicom-anonymizer", _theirs, share=32, program=_ELSEWHERE),
        Contender(DEID, "deid, get and replace", _theirs, share=32, program=_ELSEWHERE),
        Contender("dcmodify", "dcmodify (C++, nine elements)", _theirs, program="dcmodify"),
        Contender(GDCM, "gdcmanon --dumb (C++, nine elements)", _theirs, program="gdcmanon"),
    )
}


def install_others(names):
    """Make the environment of those contenders that have one of their own, where it is missing; who cannot be had is skipped later."""
    if any(CONTENDERS[name].program == _ELSEWHERE for name in names) and not Path(_ELSEWHERE).exists():
        subprocess.run([sys.executable, "-m", "venv", str(_OTHERS)], check=True)
        pip = [_ELSEWHERE, "-m", "pip", "--disable-pip-version-check", "-qq", "install", "--requirement", str(_REQUIREMENTS)]
        if subprocess.run(pip, check=False).returncode:
            shutil.rmtree(_OTHERS)


def pinned():
    """Name and version of each of them."""
    return dict(line.split("==") for line in _REQUIREMENTS.read_text().splitlines() if "==" in line)


def run(contender, sources, folder, *, sync):
    """One run in `folder`, from a command to the last output; raises Failed."""
    commands = contender.start(contender, sources, folder, sync)
    python = contender.program if contender.program == _ELSEWHERE else sys.executable
    if sync:
        os.sync()  # what lies there already is nobody's debt
    with contextlib.ExitStack() as stack:
        processes = [_process(stack, [python, *command]) for command in commands]
        for process in processes:
            if process.stdout.readline() != "ready\n":
                raise Failed("it did not start")
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        told = [process.communicate(timeout=_PATIENCE_S)[0] for process in processes]
    if not all(told):
        raise Failed("it ended before it was done")
    taken = [json.loads(each) for each in told]
    _prove(contender, folder, len(sources))
    seconds = max(each["ended"] for each in taken) - min(each["began"] for each in taken)
    cpu_s = sum(each["cpu_s"] for each in taken)
    megabytes = sum(path.stat().st_size for path in sources) / 1e6
    peak = max(each["peak_mb"] for each in taken)
    return Figures(len(sources) / seconds, megabytes / seconds, 1000 * cpu_s / len(sources), peak)


def _process(stack, command):
    process = stack.enter_context(
        subprocess.Popen(
            command,
            env=os.environ | {"PYTHONPATH": str(_HERE.parent)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    )
    stack.callback(process.kill)
    return process


def _prove(contender, folder, count):
    """Raise Failed unless there are so many outputs, and the patient's name is not in the one that is looked at."""
    made = [*folder.glob("spool/studies/*/*/*.dcm"), *folder.glob("out/*.dcm")]
    if len(made) != count:
        raise Failed(f"{len(made)} of {count} outputs were made")
    if contender.deidentifies and FAMILY_NAME in str(dcmread(made[0], specific_tags=["PatientName"]).get("PatientName", "")):
        raise Failed("it left the patient's name")
