"""Nobody's validator but dicom3tools' own: what is valid before is valid after (dciodvfy, dicom3tools)."""

import io
import re
import subprocess
import warnings
from pathlib import Path

import pytest

from dicomrx.deid import BASIC, Output, Profile, deidentify, look_again, named_profile, read, write
from dicomrx.errors import Reject
from tests.unit.deid_files import CONTEXT, bundled

pytestmark = [pytest.mark.foreign, pytest.mark.needs_tool("dciodvfy")]
# Values and item numbers are the file's; what is left is the kind of an error.
_PARTICULARS = re.compile(r"\s*=?\s*<.*?>|\[\d+\]")


def error_kinds(path: Path) -> set[str] | None:
    """The kinds of error that dciodvfy finds; None for a file that it dies of."""
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, timeout=60, check=False)
    if done.returncode < 0:
        return None
    lines = (done.stderr + done.stdout).decode("latin-1").splitlines()
    return {_PARTICULARS.sub("", line).strip() for line in lines if line.startswith("Error")}


def output_of(path: Path, profile: Profile = BASIC) -> Output | None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            instance = read(io.BytesIO(path.read_bytes()))
            output = deidentify(instance, CONTEXT, profile)
            look_again(instance, output, CONTEXT.pseudonym, profile)
        except Reject:
            return None
    return output


def written(output: Output, path: Path) -> Path:
    stream = io.BytesIO()
    write(output, stream)
    path.write_bytes(stream.getvalue())
    return path


@pytest.mark.parametrize("name", ["basic", "research"])
def test_no_bundled_file_gets_a_kind_of_error_that_it_had_not(name: str, tmp_path: Path) -> None:
    """None needs an exception: no X of Table E.1-1 takes an element that dciodvfy wants of these files."""
    judged, with_errors = 0, 0
    for path in bundled():
        output, before = output_of(path, named_profile(name)), error_kinds(path)
        if output is None or before is None:
            continue
        behind = error_kinds(written(output, tmp_path / "after.dcm"))
        assert behind is not None, path.name
        assert behind - before == set(), path.name
        judged += 1
        with_errors += bool(before)
    assert judged > 140
    assert with_errors > 50  # it is a strict judge, so its silence says something


def test_dciodvfy_would_see_what_went_missing(tmp_path: Path) -> None:
    path = next(path for path in bundled() if path.name == "CT_small.dcm")
    output, before = output_of(path), error_kinds(path)
    assert output is not None
    del output.dataset[0x00080060]
    output.dataset[0x00100030] = output.dataset[0x00100030]._replace(value=b"00010101")
    behind = error_kinds(written(output, tmp_path / "after.dcm"))
    assert before is not None
    assert behind is not None
    assert len(behind - before) >= 2
