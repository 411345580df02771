"""What this user may not read is told, never left out in silence."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomrx.errors import DicomrxError, PermissionRefused
from dicomrx.sources import in_folder, opened

NOBODY = 65534


@pytest.fixture
def as_somebody(tmp_path: Path) -> Iterator[None]:
    """As a user to whom rights apply."""
    if os.geteuid() != 0:
        yield
        return
    for folder in [tmp_path, *tmp_path.parents][:-2]:
        folder.chmod(folder.stat().st_mode | 0o011)
    os.chown(tmp_path, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def told(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): str(file) if isinstance(file, DicomrxError) else file.read().decode()
        for path, file in in_folder(folder)
    }


def test_files_and_folders_that_this_user_may_not_read_are_told(tmp_path: Path, as_somebody: None) -> None:
    for name in ("open/a", "shut/b", "listed/c", "d"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "link").symlink_to("d")
    (tmp_path / "shut").chmod(0)
    (tmp_path / "listed").chmod(0o400)
    (tmp_path / "d").chmod(0)
    found = told(tmp_path)
    may_not = {"shut": "look into", "listed/c": "read", "d": "read"}
    assert found.keys() == {"open/a", *may_not}
    assert found["open/a"] == "open/a"
    for name, what in may_not.items():
        assert f"may not {what}" in found[name]
    ((_, refused),) = opened(tmp_path / "d")
    assert isinstance(refused, PermissionRefused)
    for name in ("shut", "listed"):
        (tmp_path / name).chmod(0o700)  # so that they can be removed
