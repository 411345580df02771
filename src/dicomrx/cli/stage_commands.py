"""`dicomrx all`, `scp`, `anonymize`, `watch`, `upload`: the pipeline, together and stage by stage."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from dicomrx.cli import options
from dicomrx.cli.options import path_argument, path_option, with_settings, within_reach
from dicomrx.errors import UsageError
from dicomrx.settings import Resolution, refuse_plain_http

Once = Annotated[bool, typer.Option("--once", help="do what is ready, then end (for cron)")]
Worker = Annotated[bool, typer.Option("--worker", hidden=True)]
NoSend = Annotated[bool, typer.Option("--no-send", help="only freeze and zip")]
Explain = Annotated[
    Path | None,
    path_option(
        "--explain", metavar="FILE", callback=within_reach, help="print what happens to each element of this file, and write nothing"
    ),
]
Describe = Annotated[bool, typer.Option("--describe", help="print the profile with every rule, and write nothing")]
Complete = Annotated[
    str | None,
    typer.Option("--complete", metavar="STUDY", help="mark this open study (pseudonymous UID, or all) now, whatever is on its way"),
]
Paths = Annotated[list[str] | None, path_argument(metavar="PATH", help="studies to send: folder, zip or pseudonymous Study UID")]


@with_settings(*options.ALL)
def run_all(resolution: Resolution, *, once: Once = False) -> None:
    """Run every stage together, each in a process of its own. AUTO_UPLOAD decides whether complete studies are also sent."""
    from dicomrx.cli import running
    from dicomrx.profiles import Profiles

    settings = resolution.settings
    with running.logged(settings, "all"):
        Profiles.of(settings)
        if settings.auto_upload:
            refuse_plain_http(settings)
        with running.opened(settings, make=True) as spool:
            send = [] if settings.auto_upload else ["--no-send"]
            if once:
                passes = [["anonymize", "--once"], ["watch", "--once"], ["upload", "--once", *send]]
                raise typer.Exit(running.supervise(passes, settings, once=True))
            with running.only_one(spool, "all"):
                raise typer.Exit(running.supervise([["scp"], ["anonymize"], ["watch"], ["upload", *send]], settings))


@with_settings(*options.SCP)
def scp(resolution: Resolution) -> None:
    """Receive: C-ECHO and C-STORE into `incoming/`."""
    from dicomrx.cli import receiving

    raise typer.Exit(receiving.receive(resolution.settings))


@with_settings(*options.ANONYMIZE)
def anonymize(
    resolution: Resolution, *, once: Once = False, explain: Explain = None, describe: Describe = False, worker: Worker = False
) -> None:
    """De-identify: from `incoming/` to `studies/`, the originals to the vault."""
    if once + describe + (explain is not None) > 1:
        msg = "--once, --explain and --describe exclude each other"
        raise UsageError(msg)
    if describe or explain is not None:
        from dicomrx.cli import explaining

        lines = explaining.described(resolution.settings) if explain is None else explaining.explained(explain, resolution.settings)
        for line in lines:
            print(line)
        return
    from dicomrx.cli import staging

    raise typer.Exit(staging.run_stage("anonymize", resolution.settings, once=once, worker=worker))


@with_settings(*options.WATCH)
def watch(resolution: Resolution, *, once: Once = False, complete: Complete = None) -> None:
    """Mark studies complete that have been quiet for long enough; or those named, at once."""
    from dicomrx.cli import staging

    if complete is not None:
        raise typer.Exit(staging.complete_named(complete, resolution.settings))
    raise typer.Exit(staging.run_stage("watch", resolution.settings, once=once))


@with_settings(*options.UPLOAD)
def upload(resolution: Resolution, *, paths: Paths = None, once: Once = False, no_send: NoSend = False) -> None:
    """Freeze complete studies, zip them and send them; or send the studies named, beside a running daemon too."""
    from dicomrx.cli import staging

    settings = replace(resolution.settings, auto_upload=not no_send)
    if paths:
        raise typer.Exit(staging.upload_named(paths, settings))
    raise typer.Exit(staging.run_stage("upload", settings, once=once))
