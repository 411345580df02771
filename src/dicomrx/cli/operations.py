"""`dicomrx restore`, `verify`, `status`, `config`, `quarantine`, `map`, `demo`: what operators ask for."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from dicomrx.cli.options import path_argument, path_option, with_settings
from dicomrx.errors import CannotCreateError, NoInputError, UsageError
from dicomrx.settings import TABLE, Resolution, rows
from dicomrx.text import safe

AsJson = Annotated[bool, typer.Option("--json", help="for programs")]
Name = Annotated[str, typer.Argument(help="a name or a reason that `list` shows, or all")]

quarantine = typer.Typer(no_args_is_help=True, help="What no stage could handle: list it, look at the reason, give it another try.")
patient_map = typer.Typer(no_args_is_help=True, help="Which patient has which number.")


@with_settings("state_dir")
def restore(
    resolution: Resolution,
    *,
    anon: Annotated[Path, path_argument(metavar="ANON", help="anonymized file, folder or zip")],
    out: Annotated[Path, path_argument(metavar="OUT", help="where the originals go")],
    map_file: Annotated[Path | None, path_option("--map-file", help="patient_info_map.json of the older tool")] = None,
    every: Annotated[bool, typer.Option("--all", help="every original that became the same file, where there are several")] = False,
) -> None:
    """Give the originals back, byte for byte, to those who hold the key."""
    from dicomrx import restore as restoring
    from dicomrx.cli import running
    from dicomrx.cli.restoring import from_map, from_vault

    running.set_up_logs(resolution.settings, "restore")
    if resolution.settings.zip_dir.resolve() in (out.resolve(), *out.resolve().parents):
        msg = f"{out} belongs to dicomrx: restore to a place outside the spool, the zips and the state"
        raise CannotCreateError(msg)
    kind = restoring.Kind.of(anon)
    source = from_map(map_file) if map_file else from_vault(resolution.settings.state_dir, every=every, kind=kind)
    with running.ended_by_signals(), source as originals:
        report = restoring.restore(anon, out, originals)
    for name, error in report.failed:
        typer.echo(f"not restored: {safe(name)}: {safe(error)}", err=True)
    typer.echo(f"{report.restored} restored, {len(report.failed)} not, {report.skipped} skipped (no DICOM files)")
    if report.failed or not report.restored:
        raise typer.Exit(max((error.exit_code for _, error in report.failed), default=NoInputError.exit_code))


@with_settings("state_dir", "profile", "ae_profiles")
def verify(
    resolution: Resolution,
    *,
    paths: Annotated[list[Path], path_argument(metavar="PATH", help="de-identified files, folders or zips", show_default=False)],
) -> None:
    """Search de-identified files, their names and zips for every value that was removed from their originals."""
    from dicomrx.cli import running, verifying

    running.set_up_logs(resolution.settings, "verify")
    report = verifying.verify(resolution.settings, paths)
    for name, where in report.survivors:
        typer.echo(f"SURVIVOR in {safe(name)}: {where}")
    for name, error in report.unproven:
        typer.echo(f"proves nothing: {safe(name)}: {safe(error)}", err=True)
    typer.echo(f"{report.clean} clean, {len({name for name, _ in report.survivors})} with survivors, {len(report.unproven)} not proven")
    if report.survivors:
        raise typer.Exit(1)
    if report.unproven:
        raise typer.Exit(max(error.exit_code for _, error in report.unproven))
    if not report.clean:
        msg = "nothing is proven: there is no DICOM file in what was named"
        raise NoInputError(msg)


@with_settings()
def status(
    resolution: Resolution,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="keep showing it, until Ctrl-C")] = False,
    sent: Annotated[bool, typer.Option("--sent", help="what was ever sent, by its receipts; the data may be gone")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the whole pipeline, read from the spool alone."""
    from rich.console import Console

    from dicomrx import status as reading
    from dicomrx import tui
    from dicomrx.spool.layout import Spool

    if watch and (as_json or sent):
        msg = "--watch excludes --json and --sent"
        raise UsageError(msg)
    settings = resolution.settings
    console = Console(highlight=False, markup=False, emoji=False)
    with Spool.at(settings.storage_dir, settings.zip_dir) as spool:
        if sent:
            _show_sent(list(reading.sent(spool)), as_json=as_json)
        elif as_json:
            typer.echo(json.dumps(reading.read(spool).as_json(), indent=1))
        elif watch:
            tui.watch(lambda: reading.read(spool), console)
        else:
            console.print(tui.render(reading.read(spool), console.height - 1 if console.is_terminal else tui.UNBOUNDED))


def _show_sent(receipts: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"version": 1, "sent": receipts}, indent=1))
        return
    for receipt in receipts:
        zipped = receipt.get("zip", {})
        told = (
            f"{receipt.get('study')}.{receipt.get('generation')}",
            receipt.get("sent_at"),
            f"HTTP {receipt.get('status')}",
            f"{receipt['instances']} images",
            f"{zipped.get('size')} bytes",
            f"sha256 {zipped.get('sha256')}",
            receipt.get("destination"),
        )
        typer.echo("  ".join(map(safe, told)))
    typer.echo(f"{len(receipts)} sent", err=True)


@with_settings(*TABLE)
def config(resolution: Resolution, *, as_json: AsJson = False) -> None:
    """Show every setting, its value, where it came from and what it overrode; secrets masked."""
    found = rows(resolution)
    if as_json:
        typer.echo(json.dumps({"version": 1, "settings": [row._asdict() for row in found]}, indent=1))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold dim")
    for heading in ("setting", "value", "from", "overrode"):
        table.add_column(heading, overflow="fold")
    for row in found:
        table.add_row(row.name, Text(row.value), row.origin, Text(", ".join(row.overrode)))
    Console(highlight=False, markup=False, emoji=False).print(table)


def demo(
    *,
    keep: Annotated[Path | None, path_option("--keep", metavar="DIR", help="new folder that gets everything and stays")] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="port of the demo's own receiver; 0: any free one")] = 0,
    hospital: Annotated[
        bool, typer.Option("--hospital", help="badly behaved senders instead, and whether each study came out whole")
    ] = False,
) -> None:
    """Run the whole pipeline on this machine: real images over the network to an API of its own, checked at the end."""
    from dicomrx.cli import running
    from dicomrx.demo.command import run, run_hospital

    with running.ended_by_signals():
        code = run_hospital(keep, port) if hospital else run(keep, port)
    raise typer.Exit(code)


@quarantine.command("list")
@with_settings()
def quarantine_list(resolution: Resolution) -> None:
    """List what was put aside, with its reason; dead letters of the upload among it."""
    from dicomrx.cli import running
    from dicomrx.spool.quarantine import items

    with running.opened(resolution.settings, make=False) as spool:
        found = list(items(spool))
    for item in found:
        typer.echo(f"{safe(item.stage)}/{safe(item.reason)}  {safe(item.name)}  {safe(item.at)}")
    typer.echo(f"{len(found)} in quarantine", err=True)


@quarantine.command("show")
@with_settings()
def quarantine_show(resolution: Resolution, *, name: Name) -> None:
    """Show where something was put aside and why."""
    from dicomrx.cli import running
    from dicomrx.spool.quarantine import find

    with running.opened(resolution.settings, make=False) as spool:
        for item in find(spool, name):
            typer.echo(f"{safe(item.path, 500)}\n  {safe(item.stage)}: {safe(item.reason)}: {safe(item.detail, 500)}\n  {safe(item.at)}")


@quarantine.command("requeue")
@with_settings()
def quarantine_requeue(resolution: Resolution, *, name: Name) -> None:
    """Give something another try: back to `incoming/` with new stamps, a dead letter back to `outbox/`."""
    from dicomrx.cli import running
    from dicomrx.spool.quarantine import find, requeue

    with running.opened(resolution.settings, make=False) as spool:
        chosen = find(spool, name)
        for number, item in enumerate(chosen, 1):
            requeue(spool, item, number)
    typer.echo(f"{len(chosen)} requeued")


@patient_map.command("import")
@with_settings("state_dir", "placeholders", "pseudonym")
def map_import(
    resolution: Resolution,
    *,
    file: Annotated[Path, path_argument(metavar="FILE", help="CSV: patient_id,issuer,pseudonym; or patient_info_map.json")],
) -> None:
    """Take over a site's own numbering, the whole file or nothing; later patients get numbers above the highest."""
    from dicomrx.cli import numbering, running
    from dicomrx.vault import Format, Placeholders, State

    settings = resolution.settings
    running.set_up_logs(settings, "map")
    found = numbering.read(file, Format(settings.pseudonym), Placeholders(settings.placeholders))
    with State.open(settings.state_dir, create=True) as state:
        if state.new_key_path is not None:
            typer.echo(f"made the site's key {state.new_key_path}: back it up, without it nothing can be restored", err=True)
        state.use_format(settings.pseudonym)
        new = state.assign(found.assignments)
    typer.echo(f"{new} imported, {len(found.assignments) - new} known already")
    if found.left_out:
        typer.echo(f"{found.left_out} studies of the map not imported: no PatientID, or no pseudonym, is noted for them", err=True)
