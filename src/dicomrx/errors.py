"""Everything dicomrx raises on purpose.

DicomrxError
├── ConfigError          78  a setting, or how spool and state belong together
├── UsageError           64  the command line
├── NoInputError         66  what was named is not there
├── UnavailableError     69  the destination does not answer
├── CannotCreateError    73  an output cannot be made
├── DiskFullError        74  no space is left on a disk
├── TryAgainError        75  already runs, or work was left
├── PermissionRefused    77  not ours to read or to send
└── Outcome                  of one job of a stage
    ├── Defer            75  not now: leave it where it is and try again
    ├── Taken                another has it in hand, or had it: it is theirs to tell how it ended
    └── Reject               never: quarantine it with a reason
"""

import errno
from typing import ClassVar, Final

FULL_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
# The machine is unwell, not the input: such errors defer, so that a full disk empties nothing into quarantine.
MACHINE_ERRNOS: Final = FULL_ERRNOS | frozenset(
    {
        errno.EIO,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOLCK,
        errno.ESTALE,
    }
)


class DicomrxError(Exception):
    """An error whose message is written for an operator and carries no identifying value."""

    exit_code: ClassVar[int] = 70


class ConfigError(DicomrxError):
    """A setting is wrong, or spool and state do not belong together."""

    exit_code = 78


class UsageError(DicomrxError):
    """The command line asks for what the command cannot do."""

    exit_code = 64


class NoInputError(DicomrxError):
    """What was named is not there."""

    exit_code = 66


class UnavailableError(DicomrxError):
    """The destination cannot be reached, or refuses us."""

    exit_code = 69


class CannotCreateError(DicomrxError):
    """An output cannot be made where it was asked for."""

    exit_code = 73


class DiskFullError(DicomrxError):
    """No space is left on a disk that a command needs to begin."""

    exit_code = 74


class TryAgainError(DicomrxError):
    """It runs already, or work was left behind: the same call may do later."""

    exit_code = 75


class PermissionRefused(DicomrxError):
    """What was named is not ours to read, to send or to open with this key."""

    exit_code = 77


class Outcome(DicomrxError):
    """How a job of a stage ended, other than done."""

    exit_code = 75


class Defer(Outcome):
    """The job stays where it is; `retry_in` seconds is a hint for the next try."""

    def __init__(self, message: str, retry_in: float | None = None) -> None:
        super().__init__(message)
        self.retry_in = retry_in


class Taken(Outcome):
    """Another process or thread has the job in hand, or has done it: neither done nor left behind by this one."""


class Reject(Outcome):
    """The job can never be done: `reason` names a quarantine folder, `detail` is for a person; neither identifies anyone."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


def is_machine_error(error: BaseException) -> bool:
    """True where the machine, not the input, is to blame."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in MACHINE_ERRNOS)


def pem_trouble(error: OSError, content: str = "certificate, or no private key,") -> str:
    """Why a file that should hold `content` in PEM cannot be used, in words where OpenSSL has none for it."""
    reason: str | None = getattr(error, "reason", None)
    if reason in {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"}:
        return "the certificate and the private key do not belong together"
    if reason == "NO_CERTIFICATE_OR_CRL_FOUND" or "PEM lib" in str(error):
        return f"there is no {content} in PEM"
    return reason or error.strerror or type(error).__name__
