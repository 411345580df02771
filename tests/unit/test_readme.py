"""README promises only what is there."""

from pathlib import Path

from typer.main import get_command

from dicomrx import settings
from dicomrx.cli.app import app

README = Path(__file__).parents[2] / "README.md"


def test_the_table_of_settings_is_the_table_of_settings() -> None:
    assert settings.markdown().strip() in README.read_text()


def test_every_command_is_in_the_table_of_commands() -> None:
    text = README.read_text()
    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert commands
    for name in commands:
        assert f"`dicomrx {name}" in text, name


def test_every_command_has_help() -> None:
    for command in get_command(app).commands.values():  # type: ignore[attr-defined]
        assert command.help
