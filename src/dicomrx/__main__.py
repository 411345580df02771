"""`python -m dicomrx`, and the installed command: runs the command line and turns what it raises into an exit code."""

import os
import sys
import traceback
from pathlib import Path
from typing import Final

from dicomrx.errors import DicomrxError, UsageError
from dicomrx.text import safe

_BUG: Final = 70
_IO_ERROR: Final = 74
_TYPER_USAGE: Final = 2
_INTERRUPTED: Final = 130


def main() -> None:
    """Run the command line; always raises SystemExit."""
    if "DICOMRX_PARENT_PID" in os.environ:
        from dicomrx.supervise import die_with_parent

        die_with_parent(at_once=_is_receivers_worker())
    sys.exit(_run())


def _run() -> int:
    try:
        _command()
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # whoever reads has had enough; Typer's 1 would be a finding
            return _IO_ERROR
        code = end.code if isinstance(end.code, int) else 0
        return UsageError.exit_code if code == _TYPER_USAGE else code
    except DicomrxError as error:
        return _say(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001  the last resort
        return _unforeseen(error)
    return 0


def _command() -> None:
    """Do what the command line says; a receiver's worker does without what reads it: a quarter of its memory."""
    if _is_receivers_worker():
        from dicomrx.cli.receiving import work

        work()
    else:
        from dicomrx.cli.app import app

        app()


def _is_receivers_worker() -> bool:
    return sys.argv[1:] == ["scp", "--worker"]


def _unforeseen(error: Exception) -> int:
    """Tell the kind of an error and its place, not its message, which may quote a value."""
    if isinstance(error, OSError):
        return _say(f"{error.strerror or type(error).__name__} at {_where(error)}", _IO_ERROR)
    return _say(f"a bug: {type(error).__name__} at {_where(error)}", _BUG)


def _say(message: str, code: int) -> int:
    print(f"dicomrx: {safe(message, 500)}", file=sys.stderr)  # noqa: T201
    return code


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))


if __name__ == "__main__":
    main()
