"""Every setting through the real command: environment > command line > file > default, and a word to whom it surprises."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dicomrx.settings import TABLE

# Three values that each setting takes: in the file, on the command line, in the environment.
SAMPLES: dict[str, tuple[str, str, str]] = {
    "port": ("1001", "1002", "1003"),
    "host": ("127.0.0.1", "127.0.0.2", "127.0.0.3"),
    "ae_title": ("FILE", "FLAG", "ENV"),
    "calling_ae": ("A1", "A2", "A3,B3"),
    "allow_hosts": ("10.0.0.1", "10.0.0.2", "10.0.0.0/8,192.168.1.7"),
    "max_connections": ("5", "6", "7"),
    "engine": ("pynetdicom", "lane", "pynetdicom"),
    "tls_cert": ("f-tls.pem", "c-tls.pem", "e-tls.pem"),
    "tls_key": ("f-tls.key", "c-tls.key", "e-tls.key"),
    "tls_ca": ("f-tls-ca.pem", "c-tls-ca.pem", "e-tls-ca.pem"),
    "storage_dir": ("f-spool", "c-spool", "e-spool"),
    "state_dir": ("f-state", "c-state", "e-state"),
    "zip_dir": ("f-zips", "c-zips", "e-zips"),
    "spool_group": ("adm", "sys", "users"),
    "min_free": ("1G", "2G", "5%"),
    "durable": ("false", "true", "false"),
    "timeout": ("10", "20", "30.5"),
    "timeout_ae": ("CT=10", "CT=20", "CT=30.5,PACS=3"),
    "timeout_modality": ("CT=10", "MR=20", "US=30.5,CT=3"),
    "evidence_wait": ("10", "20", "30.5"),
    "burned_in": ("pass", "quarantine", "pass"),
    "issuers": ("CT=A", "CT=B", "CT=C,MR=D"),
    "placeholders": ("NOTFALL", "TRAUMA", "John Doe,Jane Doe"),
    "pseudonym": ("F%d", "C-%02d", "E-%04d-x"),
    "profile": ("research", "basic", "basic+retain-uids"),
    "ae_profiles": ("CT=research", "CT=basic", "CT=basic,MR=research"),
    "workers": ("1", "2", "3"),
    "auto_upload": ("true", "false", "true"),
    "api_url": ("https://f.example/api", "https://c.example/api", "https://e.example/api"),
    "api_username": ("file-user", "flag-user", "env-user"),
    "api_password": ("file-secret", "flag-secret", "env-secret"),
    "api_token": ("file-token", "flag-token", "env-token"),
    "api_ca": ("f-ca.pem", "c-ca.pem", "e-ca.pem"),
    "api_cert": ("f-cert.pem", "c-cert.pem", "e-cert.pem"),
    "api_key": ("f-key.pem", "c-key.pem", "e-key.pem"),
    "require_https": ("true", "false", "true"),
    "max_retries": ("1", "2", "0"),
    "retry_delay": ("1", "2", "0"),
    "on_ambiguous": ("hold", "resend", "hold"),
    "keep_days": ("1", "30", "0"),
    "cleanup_after_upload": ("true", "false", "true"),
    "manifest_in_zip": ("true", "false", "true"),
    "log_level": ("DEBUG", "ERROR", "WARNING"),
    "log_file": ("f.log", "c.log", "e.log"),
}
ONE_VALUE_YET = {"vault_days"}


def dicomrx(tmp_path: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dicomrx", *arguments]
    return subprocess.run(command, env={**os.environ, **env}, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)


def shown(tmp_path: Path, *arguments: str, **env: str) -> dict[str, dict[str, object]]:
    done = dicomrx(tmp_path, "config", "--json", *arguments, **env)
    assert done.returncode == 0, done.stderr
    return {row["name"]: row for row in json.loads(done.stdout)["settings"]}


def flags() -> list[str]:
    typed: list[str] = []
    for name, (_, value, _) in SAMPLES.items():
        row = TABLE[name]
        typed += [row.flag if value == "true" else f"--no-{row.flag_word}"] if row.kind == "bool" else [row.flag, value]
    return typed


def toml(tmp_path: Path) -> Path:
    lines = []
    for name, (value, _, _) in SAMPLES.items():
        row = TABLE[name]
        quoted = {"list": json.dumps(value.split(",")), "int": value, "float": value, "bool": value}.get(row.kind, json.dumps(value))
        lines.append(f"{row.flag_word} = {quoted}")
    path = tmp_path / "dicomrx.toml"
    path.write_text("\n".join(lines))
    path.chmod(0o600)
    return path


def test_every_setting_has_samples() -> None:
    assert SAMPLES.keys() | ONE_VALUE_YET | {"config"} == TABLE.keys()


def test_file_wins_over_default_flag_over_file_environment_over_flag(tmp_path: Path) -> None:
    path = toml(tmp_path)
    env = {TABLE[name].env: value for name, (_, _, value) in SAMPLES.items()}
    layers = [
        shown(tmp_path, "--config", str(path)),
        shown(tmp_path, "--config", str(path), *flags()),
        shown(tmp_path, "--config", str(path), *flags(), **env),
    ]
    for name, values in SAMPLES.items():
        row = TABLE[name]
        for found, value, origin in zip(layers, values, ("file", "command line", "environment"), strict=True):
            assert found[row.flag_word]["origin"] == origin, name
            assert row.secret or found[row.flag_word]["value"] == value, name
        assert len(layers[2][row.flag_word]["overrode"]) == 2, name  # type: ignore[arg-type]
    assert not [secret for secret in ("file-secret", "flag-secret", "env-secret", "env-token") if secret in json.dumps(layers)]


@pytest.mark.parametrize("name", [name for name in SAMPLES if not TABLE[name].secret])
def test_the_line_that_answers_a_typed_flag_that_loses_names_the_variable(name: str) -> None:
    from dicomrx.settings import resolve

    _, typed, env = SAMPLES[name]
    row = TABLE[name]
    value: object = typed == "true" if row.kind == "bool" else typed.split(",") if row.kind == "list" else typed
    (line,) = resolve({name: value}, {row.env: env, "DICOM_RECEIVER_API_URL": "https://e.example/api"}).warnings
    assert row.env in line
    assert row.flag_word in line
    assert "wins" in line


def test_the_line_comes_at_once_on_stderr_and_strict_config_ends_with_78(tmp_path: Path) -> None:
    done = dicomrx(tmp_path, "config", "--port", "4242", DICOM_RECEIVER_PORT="11112")
    assert done.returncode == 0
    assert "--port 4242 ignored: DICOM_RECEIVER_PORT=11112 wins" in done.stderr
    assert dicomrx(tmp_path, "config", "--port", "4242", "--strict-config", DICOM_RECEIVER_PORT="11112").returncode == 78


def test_unknown_variables_are_told_with_the_nearest_name_and_empty_ones_do_not_count(tmp_path: Path) -> None:
    done = dicomrx(tmp_path, "config", DICOM_RECEIVER_PROT="1", DICOM_RECEIVER_PORT="")
    assert "DICOM_RECEIVER_PORT" in done.stderr
    assert "11112" in done.stdout


def test_a_secret_from_a_file_and_directly_is_78_and_nothing_shows_it(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hush-hush\n")
    (tmp_path / "secret").chmod(0o600)
    both = dicomrx(tmp_path, "config", DICOM_RECEIVER_API_PASSWORD="hush", DICOM_RECEIVER_API_PASSWORD_FILE=str(tmp_path / "secret"))
    assert both.returncode == 78
    one = dicomrx(tmp_path, "config", "--json", DICOM_RECEIVER_API_PASSWORD_FILE=str(tmp_path / "secret"))
    assert one.returncode == 0
    assert "hush" not in one.stdout + one.stderr + both.stdout + both.stderr


def test_what_is_known_but_not_carried_out_is_refused(tmp_path: Path) -> None:
    done = dicomrx(tmp_path, "config", DICOM_RECEIVER_VAULT_DAYS="30")
    assert done.returncode == 78
    assert "DICOM_RECEIVER_VAULT_DAYS" in done.stderr


def test_log_level_and_log_file_work(tmp_path: Path) -> None:
    spool = ["--storage", str(tmp_path / "spool"), "--state-dir", str(tmp_path / "state"), "--zip-dir", str(tmp_path / "zips")]
    log = tmp_path / "dicomrx.log"
    assert dicomrx(tmp_path, "anonymize", "--once", *spool, "--log-file", str(log), "--log-level", "WARNING").returncode == 0
    assert "back it up" in log.read_text()
    assert log.stat().st_mode & 0o077 == 0
    assert dicomrx(tmp_path, "anonymize", "--once", *spool, "--log-file", str(tmp_path / "no" / "such" / "log")).returncode == 73


def test_a_reader_that_has_had_enough_is_no_finding(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as out:
        done = subprocess.run(
            [sys.executable, "-m", "dicomrx", "config"],
            cwd=tmp_path,
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (74, "")


@pytest.mark.parametrize("command", [["status"], ["watch", "--once"], ["anonymize", "--once"], ["quarantine", "list"]])
def test_a_command_that_needs_no_secret_reads_none(tmp_path: Path, command: list[str]) -> None:
    spool = ["--storage", str(tmp_path / "spool"), "--zip-dir", str(tmp_path / "zips")]
    assert dicomrx(tmp_path, "anonymize", "--once", *spool, "--state-dir", str(tmp_path / "state")).returncode == 0
    env = {"DICOM_RECEIVER_API_PASSWORD_FILE": "/nonexistent/secret", "DICOM_RECEIVER_STATE_DIR": str(tmp_path / "state")}
    done = dicomrx(tmp_path, *command, *spool, **env)
    assert done.returncode == 0, done.stderr
    assert dicomrx(tmp_path, "upload", "--once", *spool, **env).returncode == 78


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
@pytest.mark.needs_tool("setpriv")
def test_a_spool_that_this_user_may_not_read_is_named_and_ends_with_77(tmp_path: Path) -> None:
    spool = ["--storage", str(tmp_path / "spool"), "--zip-dir", str(tmp_path / "zips"), "--state-dir", str(tmp_path / "state")]
    assert dicomrx(tmp_path, "anonymize", "--once", *spool).returncode == 0
    for folder in [tmp_path, *tmp_path.parents][:-2]:
        folder.chmod(folder.stat().st_mode | 0o011)
    other = ["setpriv", "--reuid", "65534", "--clear-groups", sys.executable, "-m", "dicomrx"]
    done = subprocess.run([*other, "status", *spool[:4]], capture_output=True, text=True, check=False, timeout=60)
    if "No module named" in done.stderr or done.returncode == 126:
        pytest.skip("the other user may not read this checkout")
    assert done.returncode == 77, done.stderr
    assert str(tmp_path / "spool") in done.stderr


@pytest.mark.needs_tool("setpriv")
@pytest.mark.parametrize("command", [["map", "import"], ["anonymize", "--explain"]])
def test_a_file_that_this_user_may_not_read_ends_with_77_and_not_as_wrong_usage(tmp_path: Path, command: list[str]) -> None:
    path = tmp_path / "shut"
    path.write_text("patient_id,pseudonym")
    path.chmod(0)
    powerless = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*powerless, sys.executable, "-m", "dicomrx", *command, str(path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 77, done.stderr
    assert str(path) in done.stderr
