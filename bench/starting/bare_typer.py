"""A program that does nothing, with as many commands as dicomrx: what Typer alone costs."""

import typer

app = typer.Typer(name="bare", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def _nothing(*, flag: bool = False):
    """Do nothing."""
    print(flag)


for _name in ("all", "scp", "anonymize", "watch", "upload", "restore", "verify", "why", "status", "config", "demo"):
    app.command(_name)(_nothing)
for _group, _names in (("quarantine", ("list", "show", "requeue")), ("map", ("export", "import"))):
    _typer = typer.Typer(no_args_is_help=True, help="Do nothing.")
    for _name in _names:
        _typer.command(_name)(_nothing)
    app.add_typer(_typer, name=_group)

if __name__ == "__main__":
    app()
