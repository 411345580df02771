"""`dicomrx why`: a study by whatever name the asker has, and the answer in plain words."""

import json
from pathlib import Path
from typing import Annotated

import typer

from dicomrx.cli.options import WATCH, with_settings
from dicomrx.errors import NoInputError, PermissionRefused
from dicomrx.settings import Resolution

Study = Annotated[
    str,
    typer.Argument(
        metavar="STUDY", help="pseudonymous Study UID; where the state may be read also a patient's pseudonym or an original UID"
    ),
]


@with_settings("state_dir", *WATCH)
def why(
    resolution: Resolution,
    *,
    study: Study,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Say what a study waits for, since when, until when at the latest, and what would end the wait."""
    from dicomrx import why as explaining
    from dicomrx.cli import running
    from dicomrx.spool.layout import Spool
    from dicomrx.stages.watch import rules_of

    settings = resolution.settings
    running.set_up_logs(settings, "why")
    with Spool.at(settings.storage_dir, settings.zip_dir) as spool:
        answers = [explaining.explain(spool, uid, rules_of(settings)) for uid in _pseudonymous(study, settings.state_dir)]
    known = [answer for answer in answers if answer is not None]
    if not known:  # the name is not repeated: it may be an original one
        msg = f"no study of that name in the spool {spool.root}: `dicomrx status` shows those there are"
        raise NoInputError(msg)
    if as_json:
        typer.echo(json.dumps({"version": 1, "studies": [answer.as_json() for answer in known]}, indent=1))
        return
    for answer in known:
        typer.echo("\n".join(answer.lines()))


def _pseudonymous(wanted: str, state_dir: Path) -> list[str]:
    """The pseudonymous UIDs that `wanted` may mean."""
    from dicomrx import deid
    from dicomrx.spool.names import is_pseudonymous_uid
    from dicomrx.vault import State

    as_is = [wanted] if is_pseudonymous_uid(wanted) else []
    try:
        with State.open(state_dir, create=False) as state:
            if (patient := state.number(wanted)) is not None:
                return sorted(state.vault.studies(patient))
            return [*as_is, deid.pseudonymous_uid(state.uid_key, wanted)]
    except (NoInputError, PermissionRefused):
        if as_is:
            return as_is
        raise
