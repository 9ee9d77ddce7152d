"""Print docs/reference/command-line.md, from the commands themselves. `make generate` runs this program."""

import inspect
import sys
from collections.abc import Iterator

import click

from docs.generators.markdown import cell, prose
from registry_service.cli import main

_HEAD = """<!-- Generated from the commands by `make generate`. Edit registry_service/cli/. -->

# Command line

`make install` puts the program into `.venv/bin`; the container image runs it as its entry point. Commands take their
[settings](settings.md) from the environment. They exit with 0 on success, 1 on failure and 2 for a wrong option.
"""


def document() -> str:
    """Return the page in Markdown, with a section for each command."""
    return _HEAD + "".join(_section(name, command) for name, command in _commands("model-registry", main))


def _commands(prefix: str, group: click.Group) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        if isinstance(command, click.Group):
            yield from _commands(f"{prefix} {name}", command)
        else:
            yield f"{prefix} {name}", command


def _section(name: str, command: click.Command) -> str:
    lines = [f"\n## {name}\n", f"\n{prose(inspect.cleandoc(command.help or ''))}\n"]
    with click.Context(command, info_name=name) as context:
        rows = [
            record
            for parameter in command.params
            if not getattr(parameter, "hidden", False) and (record := parameter.get_help_record(context))
        ]
    if rows:
        lines += ["\n| Option | Description |\n", "| --- | --- |\n"]
        lines += [f"| `{cell(option)}` | {prose(cell(description))} |\n" for option, description in rows]
    return "".join(lines)


if __name__ == "__main__":
    sys.stdout.write(document())
