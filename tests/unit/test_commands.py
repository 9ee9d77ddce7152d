import subprocess
import sys

import click
import pytest

from registry_service.cli import main

SERVER_ONLY = {"sqlalchemy", "registry_service.wiring", "registry_service.services"}


def test_every_command_has_a_help_text() -> None:
    context = click.Context(main)
    names = main.list_commands(context)
    assert {"up", "serve", "gateway", "check", "token"} <= set(names)
    for name in names:
        command = main.get_command(context, name)
        assert command is not None
        assert command.help


def test_an_unknown_command_is_refused() -> None:
    with pytest.raises(click.UsageError, match="No such command 'serves'"):
        main.resolve_command(click.Context(main), ["serves"])


@pytest.mark.parametrize("command", ["up", "gateway", "check"])
def test_processes_without_a_database_do_not_import_the_server(command: str) -> None:
    code = (
        "import click, sys; from registry_service.cli import main\n"
        f"main.get_command(click.Context(main), {command!r}); print(*sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert SERVER_ONLY.isdisjoint(run.stdout.split())


def test_imported_objects_are_kept_out_of_garbage_collections() -> None:
    code = (
        "import click, gc; from registry_service.cli import main\n"
        "main.get_command(click.Context(main), 'config')\n"
        "print(gc.isenabled(), len(gc.get_objects()) < gc.get_freeze_count() / 10)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True", "True"]
