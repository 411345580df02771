"""Settings as flags: one Typer option a row of the table, so that help, flags and environment cannot drift apart."""

import functools
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from dicomrx.errors import PermissionRefused
from dicomrx.settings import TABLE, Setting, resolve
from dicomrx.settings.values import to_text
from dicomrx.text import safe

_STRICT: Final = "strict_config"


def within_reach(paths: Any) -> Any:
    """What was typed for a path or several, as it is; raises PermissionRefused for one whose folder this user may not look into."""
    for path in paths if isinstance(paths, list) else [paths]:
        try:
            Path(path or "").stat()
        except PermissionError as error:
            msg = f"this user may not look into the folder of {path}"
            raise PermissionRefused(msg) from error
        except OSError:  # whether it has to be there, the command knows
            pass
    return paths


# For paths: who may not read what they name is told so by the command, with 77; Typer would call it wrong usage.
path_argument: Final = functools.partial(typer.Argument, readable=False, callback=within_reach)
path_option: Final = functools.partial(typer.Option, readable=False)

COMMON: Final = ("storage_dir", "zip_dir", "spool_group", "durable", "log_level", "log_file", "config")
SCP: Final = (
    "port",
    "host",
    "ae_title",
    "calling_ae",
    "allow_hosts",
    "max_connections",
    "engine",
    "tls_cert",
    "tls_key",
    "tls_ca",
    "min_free",
    "workers",
)
ANONYMIZE: Final = ("state_dir", "profile", "ae_profiles", "burned_in", "issuers", "placeholders", "pseudonym", "vault_days", "workers")
WATCH: Final = ("timeout", "timeout_ae", "timeout_modality", "evidence_wait")
UPLOAD: Final = (
    "api_url",
    "api_username",
    "api_password",
    "api_token",
    "api_ca",
    "api_cert",
    "api_key",
    "require_https",
    "max_retries",
    "retry_delay",
    "on_ambiguous",
    "cleanup_after_upload",
    "keep_days",
    "manifest_in_zip",
    "profile",
    "ae_profiles",
    "workers",
)
ALL: Final = (*SCP, *ANONYMIZE, *WATCH, *UPLOAD, "auto_upload")


def with_settings(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each of the named settings, and call it with the `Resolution` first.

    What the resolution has to say (a typed flag that loses, an unknown variable) goes to stderr at once.
    """
    rows = [TABLE[name] for name in dict.fromkeys((*names, *COMMON))]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(*args: Any, **kwargs: Any) -> None:
            flags = {row.name: kwargs.pop(row.name) for row in rows}
            files = {f"{row.name}_file": kwargs.pop(f"{row.name}_file") for row in rows if row.secret}
            resolution = resolve({**flags, **files}, os.environ, strict_config=kwargs.pop(_STRICT), secrets=bool(files))
            for line in resolution.warnings:
                print(f"dicomrx: {safe(line, 400)}", file=sys.stderr)
            os.umask(0o007 if resolution.settings.spool_group else 0o077)
            command(resolution, *args, **kwargs)

        own = [parameter for name, parameter in inspect.signature(command).parameters.items() if name != "resolution"]
        added = [option for row in rows for option in _parameters(row)] + [_strict()]
        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*own, *added)]
        # What Typer reads instead of the signature of `command`.
        vars(run)["__signature__"] = inspect.Signature(parameters)
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _parameters(row: Setting) -> list[inspect.Parameter]:
    options = [_option(row.name, _type(row), _declaration(row), _help(row), None if row.kind == "bool" else row.kind.upper())]
    if row.secret:
        options.append(_option(f"{row.name}_file", str | None, f"{row.flag}-file", f"file that holds it; also {row.env}_FILE", "PATH"))
    return options


def _option(name: str, kind: Any, declaration: str, text: str, metavar: str | None = None) -> inspect.Parameter:
    annotation = Annotated[kind, typer.Option(declaration, help=text, show_default=False, metavar=metavar)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _strict() -> inspect.Parameter:
    text = "a typed flag that loses to the environment is an error (78)"
    annotation = Annotated[bool, typer.Option("--strict-config", help=text, show_default=False)]
    return inspect.Parameter(_STRICT, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)


def _type(row: Setting) -> Any:
    if row.kind == "bool":
        return bool | None
    return list[str] | None if row.kind == "list" else str | None


def _declaration(row: Setting) -> str:
    return f"{row.flag}/--no-{row.flag_word}" if row.kind == "bool" else row.flag


def _help(row: Setting) -> str:
    default = "" if row.default in (None, ()) else f" (default: {to_text(row.default)})"
    return f"{row.meaning}{default}; {row.env} wins over it"
