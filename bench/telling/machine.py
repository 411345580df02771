"""What figures depend on: the machine and the programs; nothing that tells whose machine it is."""

import os
import platform
import shutil
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

_LIBRARIES = ("dicomrx", "pydicom", "pynetdicom", "isal", "cryptography")


def facts(**more):
    """Name and value of each fact; `more` is what this bench adds."""
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]} {platform.machine()}",
        "Python": platform.python_version(),
        **{name: version(name) for name in _LIBRARIES},
        **more,
    }


def told(program):
    """The version that a program tells, or that it is missing."""
    if shutil.which(program) is None:
        return "not on this machine"
    words = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.split()
    return next((word.strip("v:,") for word in words if word.lstrip("v")[:1].isdigit()), "of unknown version")


def _processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
