"""The other contenders.

usage: theirs.py NAME OUT DURABLE FILE...

Each makes OUT/<number>.dcm of every file, as its own documentation says; where it is to be durable it is synced for them, file by file.
"""
# ruff: noqa: PLC0415, TID251  each has but its own libraries, and none syncs by itself

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from anonymizing import turn

# All that the C++ tools are asked for: they do less.
_REPLACED = {"0010,0010": "sub-001", "0010,0020": "sub-001"}
_EMPTIED = ("0008,0050", "0008,0080", "0008,0081", "0008,0090", "0008,1030", "0010,0030", "0010,1040")


def pydicom():
    from piping.naive import deidentified

    return lambda source, target: deidentified(source).save_as(target, enforce_file_format=True)


def dicognito():
    from dicognito.anonymizer import Anonymizer
    from pydicom import dcmread

    anonymizer = Anonymizer()

    def one(source, target):
        dataset = dcmread(source)
        anonymizer.anonymize(dataset)
        dataset.save_as(target)

    return one


def dicom_anonymizer():
    from dicomanonymizer import anonymize_dicom_file

    return anonymize_dicom_file


def deid():
    from deid.config import DeidRecipe
    from deid.dicom import get_identifiers, replace_identifiers

    recipe = DeidRecipe()

    def one(source, target):
        (made,) = replace_identifiers([source], ids=get_identifiers([source]), deid=recipe, remove_private=True)
        made.save_as(target)

    return one


def each(make, sources, out, *, sync):
    """One file after the other, in this process."""
    one = make()
    with contextlib.redirect_stdout(sys.stderr):
        one(sources[0], f"{out}/warm")

    def work():
        for number, source in enumerate(sources):
            target = f"{out}/{number}.dcm"
            one(source, target)
            if sync:
                sync_file(target)

    turn.take(work)


def dcmodify(copies, _out):
    changes = [word for tag, value in _REPLACED.items() for word in ("-m", f"({tag})={value}")]
    changes += [word for tag in _EMPTIED for word in ("-m", f"({tag})=")]
    return ["dcmodify", "-nb", "-ie", "-imt", "-ep", *changes, *map(str, sorted(copies.iterdir()))]


def gdcmanon(copies, out):
    changes = [word for tag, value in _REPLACED.items() for word in ("--replace", f"{tag}={value}")]
    changes += [word for tag in _EMPTIED for word in ("--empty", tag)]
    return ["gdcmanon", "--dumb", *changes, "-i", str(copies), "-o", str(out)]


def at_once(make, sources, out, *, sync):
    """One call for all of them: over copies in a folder of their own, or in place."""
    copies = out if make is dcmodify else out.with_suffix(".in")
    copies.mkdir(exist_ok=True)
    for number, source in enumerate(sources):
        shutil.copyfile(source, copies / f"{number}.dcm")

    def work():
        subprocess.run(make(copies, out), check=True, capture_output=True)
        for target in out.iterdir() if sync else ():
            sync_file(target)

    turn.take(work)


def sync_file(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


EACH = {"pydicom": pydicom, "dicognito": dicognito, "dicom-anonymizer": dicom_anonymizer, "deid": deid}
AT_ONCE = {"dcmodify": dcmodify, "gdcmanon": gdcmanon}


def main():
    name, out, sync, *sources = sys.argv[1:]
    if name in EACH:
        each(EACH[name], sources, Path(out), sync=sync == "1")
    else:
        at_once(AT_ONCE[name], sources, Path(out), sync=sync == "1")


if __name__ == "__main__":
    main()
