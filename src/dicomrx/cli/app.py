"""The commands of `dicomrx`."""

import typer

from dicomrx.cli import asking, operations, stage_commands

app = typer.Typer(
    name="dicomrx",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Receive DICOM, de-identify it, and upload each complete study once; give the originals back to those who hold the key.",
)

app.command("all")(stage_commands.run_all)
app.command("scp")(stage_commands.scp)
app.command("anonymize")(stage_commands.anonymize)
app.command("watch")(stage_commands.watch)
app.command("upload")(stage_commands.upload)
app.command("restore")(operations.restore)
app.command("verify")(operations.verify)
app.command("why")(asking.why)
app.command("status")(operations.status)
app.command("config")(operations.config)
app.command("demo")(operations.demo)
app.add_typer(operations.quarantine, name="quarantine")
app.add_typer(operations.patient_map, name="map")
