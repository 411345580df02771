import contextlib
import logging
import os
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomrx import logs
from dicomrx.errors import CannotCreateError, ConfigError

SECRET = "HUBER^ANNA"
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ \S+ .+")
logger = logging.getLogger("dicomrx.test")


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before = root.level, list(root.handlers), logging.raiseExceptions
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    with warnings.catch_warnings():
        yield
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    for handler in [one for one in root.handlers if one not in before[1]]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(before[0])
    logging.raiseExceptions = before[2]
    for name in ("pydicom", "pynetdicom"):
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "dicomrx.log"
    logs.setup("INFO", path, "anonymize")
    return path


def test_a_line_has_time_level_stage_and_message_on_stderr_and_in_the_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    logs.setup("INFO", tmp_path / "log", "watch")
    logger.info("study %s is complete", "2.25.7")
    written = (tmp_path / "log").read_text()
    assert written == capsys.readouterr().err
    assert LINE.fullmatch(written.rstrip("\n"))
    assert written.endswith("Z INFO watch study 2.25.7 is complete\n")


def test_the_level_decides(log: Path) -> None:
    logger.debug("quiet")
    logs.setup("WARNING", log, "anonymize")
    logger.info("quiet too")
    logger.warning("loud")
    assert [line.split(" ", 3)[3] for line in log.read_text().splitlines()] == ["loud"]


def test_a_second_setup_replaces_the_first(log: Path) -> None:
    logs.setup("INFO", log, "again")
    logger.info("once")
    assert len(log.read_text().splitlines()) == 1


def test_no_message_forges_a_line_or_drives_a_terminal(log: Path) -> None:
    logger.info("from %s", "PACS\n2026-01-01T00:00:00.000Z INFO anonymize all is well\x1b[2J")
    logger.info("x" * 100_000)
    assert len(log.read_text().splitlines()) == 2
    assert "\x1b" not in log.read_text()
    assert max(map(len, log.read_text().splitlines())) < 2100


def test_an_exception_is_told_by_type_and_place_not_by_its_message(log: Path) -> None:
    def inner() -> None:
        raise ValueError(SECRET)

    def outer() -> None:
        try:
            inner()
        except ValueError as error:
            raise KeyError(SECRET) from error

    try:
        outer()
    except KeyError as error:
        logger.exception("a job failed: %s", error)  # noqa: TRY401  what this is about
    (line,) = log.read_text().splitlines()
    assert SECRET not in line
    assert "a job failed: KeyError [KeyError < test_logs.py:" in line
    assert re.search(r"ValueError < test_logs\.py:\d+ inner < test_logs\.py:\d+ outer", line)


def test_our_own_errors_speak(log: Path) -> None:
    logger.error("cannot start", exc_info=ConfigError("--port: must be a whole number"))
    assert "--port: must be a whole number" in log.read_text()


def test_an_error_of_the_machine_is_told_without_its_file(log: Path) -> None:
    try:
        Path(f"/nowhere/{SECRET}.dcm").read_bytes()
    except OSError:
        logger.exception("cannot read")
    assert "FileNotFoundError: No such file or directory" in log.read_text()
    assert SECRET not in log.read_text()


def test_arguments_that_do_not_fit_lose_neither_the_line_nor_a_value(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger.info("two %s and %d", SECRET, SECRET)
    assert "two %s and %d (its arguments do not fit)" in log.read_text()
    assert SECRET not in log.read_text() + capsys.readouterr().err


@pytest.mark.parametrize("name", ["pydicom", "pynetdicom.association", "pynetdicom.events"])
def test_pydicom_and_pynetdicom_are_never_heard(log: Path, name: str) -> None:
    assert not logging.getLogger(name).isEnabledFor(logging.CRITICAL)
    logging.getLogger(name).setLevel(logging.DEBUG)
    logging.getLogger(name).critical("bad value %s", SECRET)
    logging.getLogger(name).setLevel(logging.NOTSET)
    assert log.read_text() == ""


@pytest.mark.parametrize("name", ["httpx", "httpcore.http11", "watchdog.observers", "stamina", "py.warnings"])
def test_of_other_libraries_only_the_place_of_a_warning_is_told(log: Path, name: str) -> None:
    logging.getLogger(name).info(SECRET)
    assert log.read_text() == ""
    logging.getLogger(name).warning("retrying with %s", SECRET)
    assert f"WARNING anonymize {name}: test_logs:" in log.read_text()
    assert SECRET not in log.read_text()


def test_a_warning_of_pydicom_is_not_printed(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pydicom import config
    from pydicom.valuerep import validate_value

    validate_value("DA", SECRET, config.WARN)
    assert SECRET not in capsys.readouterr().err + log.read_text()


def test_what_nobody_caught_in_a_thread_is_logged_without_its_message(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ValueError(SECRET)

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    assert "ERROR anonymize a thread ended by an error [ValueError < test_logs.py:" in log.read_text()
    assert SECRET not in log.read_text() + capsys.readouterr().err


def test_what_nobody_caught_in_a_program_is_logged_without_its_message() -> None:
    program = f"from dicomrx import logs; logs.setup('INFO', None, 'scp'); raise ValueError({SECRET!r})"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert "CRITICAL scp ended by an error that nothing caught [ValueError < <string>:1 <module>]" in ended.stderr
    assert SECRET not in ended.stderr


def test_a_log_file_that_cannot_be_opened_is_said_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(CannotCreateError, match=r"LOG_FILE .*nowhere/log cannot be opened: No such file") as caught:
        logs.setup("INFO", tmp_path / "nowhere" / "log", "scp")
    assert caught.value.exit_code == 73


def test_the_log_file_is_for_its_owner_and_is_appended_to(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        logs.setup("INFO", tmp_path / "log", "scp")
    finally:
        os.umask(before)
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
    logger.info("one")
    logs.setup("INFO", tmp_path / "log", "scp")
    logger.info("two")
    assert len((tmp_path / "log").read_text().splitlines()) == 2


def test_a_rotated_log_file_is_opened_anew(log: Path) -> None:
    logger.info("old")
    log.rename(log.with_suffix(".1"))
    logger.info("new")
    assert "new" in log.read_text()
    assert "new" not in log.with_suffix(".1").read_text()


def test_lines_of_several_processes_stay_whole(tmp_path: Path) -> None:
    program = (
        "import sys, logging; from pathlib import Path; from dicomrx import logs; logs.setup('INFO', Path(sys.argv[1]), sys.argv[2]);"
        "[logging.getLogger('dicomrx').info('%s', sys.argv[2] * 1500) for _ in range(300)]"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "log")]
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(subprocess.Popen([*command, name], stderr=subprocess.DEVNULL)) for name in "ä山"]
        assert [child.wait() for child in children] == [0, 0]
    lines = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 600
    assert all(re.fullmatch(r"\S+ INFO (ä ä{1500}|山 山{1500})", line) for line in lines)
