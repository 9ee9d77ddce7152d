"""Check command lines of `model-registry` without running them."""

from collections.abc import Sequence

import click

from registry_service.cli import main


def parse(arguments: Sequence[str]) -> None:
    """Parse the command line of a command.

    Raises:
        click.UsageError: The program has no such command, or the command takes no such arguments.
    """
    name, command, rest = main.resolve_command(click.Context(main), list(arguments))
    assert command is not None
    command.make_context(name, rest)
