import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

import dicomrx.errors
from dicomrx.settings import NAMES

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-dev.lock")
PIN = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>[^ ;]+) \\\n(?P<hashes>(?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE)
UNITS = sorted(path.name for path in (ROOT / "systemd").glob("*.service"))


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def pins(lock: str) -> dict[str, Version]:
    return {match["name"]: Version(match["version"]) for match in PIN.finditer((ROOT / lock).read_text())}


def directives(name: str, text: str) -> list[str]:
    return re.findall(rf"^{name}[ =](.*)$", text, re.MULTILINE)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_versions_and_hashes_and_nothing_of_the_machine_that_made_it(lock: str) -> None:
    text = (ROOT / lock).read_text()
    rest = [line for line in PIN.sub("", text).splitlines() if line and not line.lstrip().startswith("#")]
    assert rest == []
    assert not re.search(r"://|@ |--(?:extra-)?index|--find-links|/(?:opt|home|root|tmp|work|usr)/", text)


@pytest.mark.parametrize(("lock", "extra"), [("requirements.lock", None), ("requirements-dev.lock", "dev")])
def test_a_lock_holds_all_that_the_project_asks_for(lock: str, extra: str | None) -> None:
    wanted = [*project()["project"]["dependencies"], *project()["build-system"]["requires"]]
    if extra:
        wanted += project()["project"]["optional-dependencies"][extra]
    locked = pins(lock)
    for text in wanted:
        requirement = Requirement(text)
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), text


def test_what_runs_is_what_is_tested() -> None:
    assert pins("requirements.lock").items() <= pins("requirements-dev.lock").items()


def test_the_installed_version_is_the_one_of_pyproject() -> None:
    assert version("dicomrx") == project()["project"]["version"]


@pytest.mark.parametrize("script", project()["project"]["scripts"])
def test_a_command_leads_to_a_function(script: str) -> None:
    module, _, function = project()["project"]["scripts"][script].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_the_ci_script_is_bash_and_executable() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0


def moves_a_file(call: ast.Call) -> bool:
    """True for `path.rename(...)` and its like, which ruff cannot tell by their type; False for `durable.rename(...)`."""
    if not isinstance(call.func, ast.Attribute) or (isinstance(call.func.value, ast.Name) and call.func.value.id == "durable"):
        return False
    one_argument = len(call.args) == 1 and not call.keywords  # str.replace takes two
    return call.func.attr in {"rename", "hardlink_to", "symlink_to"} or (call.func.attr == "replace" and one_argument)


def test_only_the_durable_module_of_the_spool_links_and_renames() -> None:
    package = Path(dicomrx.errors.__file__).parent
    files = [path for path in package.rglob("*.py") if path.relative_to(package) != Path("spool", "durable.py")]
    calls = [(path, node) for path in files for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert [f"{path}:{call.lineno}" for path, call in calls if moves_a_file(call)] == []


# The container


def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text().replace("\\\n", " ")


def test_the_image_copies_only_what_exists_and_what_dockerignore_lets_in() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [line.split()[:-1] for line in directives("COPY", dockerfile()) if not line.startswith("--from=")]
    sources = {source for line in copied for source in line}
    assert sources == let_in
    # The wheel is tested with src away.
    assert all((ROOT / source).exists() for source in sources - {"src"})


def test_the_image_runs_as_a_numbered_user_that_is_not_root() -> None:
    assert directives("USER", dockerfile())[-1] == "10001:10001"
    assert dockerfile().index("\nUSER ") > dockerfile().rindex("\nRUN ")


def test_the_image_keeps_spool_and_zips_in_one_volume_and_the_state_in_another() -> None:
    assert directives("VOLUME", dockerfile()) == ['["/var/lib/dicomrx/spool", "/var/lib/dicomrx/state"]']
    settings = dict(re.findall(r"DICOM_RECEIVER_(\w+)=(\S+)", dockerfile()))
    assert settings == {
        "STORAGE_DIR": "/var/lib/dicomrx/spool/storage",
        "ZIP_DIR": "/var/lib/dicomrx/spool/zips",
        "STATE_DIR": "/var/lib/dicomrx/state",
    }


def test_the_image_ends_by_sigterm_and_installs_only_what_is_locked() -> None:
    assert directives("STOPSIGNAL", dockerfile()) == ["SIGTERM"]
    for line in re.findall(r"pip install.*", dockerfile()):
        assert "--require-hashes" in line or "--no-deps --no-build-isolation" in line


@pytest.fixture
def receiver() -> Iterator[AE]:
    ae = AE(ae_title="DICOMRCV")
    ae.add_supported_context(Verification)
    yield ae
    ae.shutdown()


def health(port: object, **settings: str) -> int:
    script = ROOT / "docker" / "healthcheck.py"
    environment = {**os.environ, "DICOM_RECEIVER_PORT": str(port), "DICOM_RECEIVER_AE_TITLE": "", **settings}
    return subprocess.run([sys.executable, script], env=environment, timeout=30, check=False).returncode


def listen(ae: AE) -> int:
    server = ae.start_server(("127.0.0.1", 0), block=False)
    assert server is not None
    return int(server.server_address[1])


def test_the_health_check_passes_where_an_echo_is_answered(receiver: AE) -> None:
    receiver.require_called_aet = True
    assert health(listen(receiver)) == 0


def test_the_health_check_passes_where_its_title_is_refused(receiver: AE) -> None:
    receiver.require_calling_aet = ["CT1"]
    assert health(listen(receiver)) == 0


def test_the_health_check_knows_what_the_configuration_file_says(receiver: AE, tmp_path: Path) -> None:
    file = tmp_path / "dicomrx.toml"
    file.write_text(f'port = {listen(receiver)}\napi-password-file = "for others than the check"\n')
    assert health("", DICOM_RECEIVER_CONFIG=str(file)) == 0
    receiver.shutdown()
    assert health("", DICOM_RECEIVER_CONFIG=str(file)) == 1


def test_the_health_check_fails_where_nobody_listens(receiver: AE) -> None:
    port = listen(receiver)
    receiver.shutdown()
    assert health(port) == 1


# systemd


def unit(name: str) -> str:
    return (ROOT / "systemd" / name).read_text()


@pytest.mark.needs_tool("systemd-analyze")
def test_systemd_finds_no_fault_in_the_units(tmp_path: Path) -> None:
    names = sorted(path.name for path in (ROOT / "systemd").iterdir() if path.suffix in {".service", ".target", ".timer"})
    for name in names:
        # verify wants the program to exist; where the project is to be installed it does not yet.
        (tmp_path / name).write_text(unit(name).replace("/opt/dicomrx/bin/dicomrx", shutil.which("true") or ""))
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}
    command = ["systemd-analyze", "verify", *names]
    run = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("name", UNITS)
def test_only_the_anonymizer_sees_identities_and_it_has_no_network(name: str) -> None:
    text = unit(name)
    writable = " ".join(directives("ReadWritePaths", text)).split()
    hidden = directives("InaccessiblePaths", text)
    assert "/var/lib/dicomrx/spool" in writable
    if name == "dicomrx-anonymize.service":
        assert writable[1:] == ["/var/lib/dicomrx/state"]
        assert directives("PrivateNetwork", text) == ["yes"]
    else:
        assert hidden == ["/var/lib/dicomrx/state"]
        assert writable == ["/var/lib/dicomrx/spool"]


@pytest.mark.parametrize("name", UNITS)
def test_only_what_sends_is_handed_the_password(name: str) -> None:
    assert bool(directives("LoadCredential", unit(name))) == ("upload" in name)


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_is_hardened_and_leaves_the_clock_of_the_spool_readable(name: str) -> None:
    text = unit(name)
    for line in ("ProtectSystem=strict", "NoNewPrivileges=yes", "CapabilityBoundingSet=", "UMask=0077", "User=dicomrx"):
        assert line in text.splitlines()
    # The spool's clock reads the boot id in /proc/sys, which ProcSubset=pid would hide.
    assert directives("ProcSubset", text) == []
    # The stages share a user: one that ends must not take away what the others have in shared memory.
    assert directives("RemoveIPC", text) == []


@pytest.mark.parametrize("name", [name for name in UNITS if "once" not in name])
def test_a_stage_is_started_again_unless_a_person_is_needed(name: str) -> None:
    assert directives("Restart", unit(name)) == ["on-failure"]
    assert directives("RestartPreventExitStatus", unit(name)) == ["64 77 78"]
    assert directives("StartLimitIntervalSec", unit(name)) == ["0"]


def test_the_example_settings_lie_where_the_units_may_write() -> None:
    settings = dict(line.split("=", 1) for line in unit("dicomrx.env.example").splitlines() if line.startswith("DICOM_RECEIVER_"))
    assert settings["DICOM_RECEIVER_STORAGE_DIR"].startswith("/var/lib/dicomrx/spool/")
    assert settings["DICOM_RECEIVER_ZIP_DIR"].startswith("/var/lib/dicomrx/spool/")
    assert settings["DICOM_RECEIVER_STATE_DIR"] == "/var/lib/dicomrx/state"


@pytest.mark.parametrize("name", ["Dockerfile", "README-docker.md", "systemd/dicomrx.env.example"])
def test_a_setting_named_here_exists(name: str) -> None:
    named = set(re.findall(r"DICOM_RECEIVER_([A-Z_]+)", (ROOT / name).read_text()))
    assert named
    assert {setting.lower() for setting in named} <= set(NAMES)


# The tests themselves


@pytest.mark.parametrize(("promised", "outcome"), [("", "1 skipped"), ("1", "1 error")])
def test_a_missing_tool_is_a_fault_only_where_tools_are_promised(promised: str, outcome: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text("import pytest\n\n@pytest.mark.needs_tool('no-such-program')\ndef test_it(): ...\n")
    environment = {**os.environ, "DICOMRX_REQUIRE_TOOLS": promised}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(tmp_path), str(tmp_path)]
    run = subprocess.run(command, cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE, check=False)
    assert outcome in run.stdout
    assert "1 passed" not in run.stdout
