"""Print docs/reference/mreg.md, from the commands themselves. `make generate` runs this program."""

import inspect
import sys
from collections.abc import Iterator, Sequence

import click
from modelreg.cli import main
from modelreg.cli._frame import is_global

from docs.generators.markdown import cell, prose

_HEAD = """<!-- Generated from the commands by `make generate`. Edit client/modelreg/cli. -->

# The command mreg

`mreg` is the command line of the [Python client](../clients/python.md). `pip install ./client` in the folder of the
repository installs both: the client is not on PyPI before its first release. `make run` puts `mreg` into `.venv/bin`.

- **[References](references.md)** name models: `NAME` is the latest version, `NAME:VERSION` one version, `NAME@ALIAS`
  what an alias points to, each also after `PROJECT/`. The id of a model works, too.
- **[Filters](filters.md)** are those of the API.
- **Data** go to stdout, everything else to stderr.
- **On a terminal**, lists are tables, and transfers show a bar. `NO_COLOR` turns colors off. Elsewhere, the values of a
  line have tabs between them, sizes are in bytes and times in UTC, and a transfer prints a line every 30 seconds.
- **Names** come from other people: control characters, and those that change the direction of a text, are escaped.

## Formats

`--format` may stand anywhere on the line.

| Format | Prints |
| --- | --- |
| `human` | Texts for people. They may change with every release. |
| `json` | The JSON of the API under `/v1`, with all pages of a list in one |
| `jsonl` | The same, a line for each item of a list |
| `quiet` | Only ids, or the paths of what was pulled |

Formats but `human`, and exit codes, change only with a new major version. `pull`, `push --dry-run` and `cache` have no
counterpart in the API, and print JSON of their own.

## Exit codes

| Code | Meaning |
| --- | --- |
| 0 | Success, also if the reader of a pipe is gone |
| 1 | Failure; of `diff --exit-code`: the models differ |
| 2 | Wrong usage: an option, a reference, a filter, or a value that the registry refuses |
| 3 | Not found, or not in the cache with `--offline` |
| 4 | Authentication failed, or a permission is missing |
| 5 | A conflict: it exists, it was changed meanwhile, or a requirement is not met |
| 6 | Damaged bytes, or a damaged audit log |
| 7 | The model is quarantined |
| 75 | A temporary error: the registry is not reachable or busy. Try again. |
| 130 | Ctrl-C |
| 143 | SIGTERM |

An error is a line that says what is wrong and a line that says what to do next, with the request id if a registry
responded. `--debug` adds a traceback.

## Global options

"""


def document() -> str:
    """Return the page in Markdown, with a section for each command."""
    with click.Context(main, info_name="mreg") as context:
        shared = [found for found in main.params if is_global(found)]
        return (
            _HEAD + _table(context, shared) + "".join(_section(name, found) for name, found in _commands("mreg", main))
        )


def _commands(prefix: str, group: click.Group) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        yield f"{prefix} {name}", command
        if isinstance(command, click.Group):
            yield from _commands(f"{prefix} {name}", command)


def _section(name: str, command: click.Command) -> str:
    with click.Context(command, info_name=name) as context:
        usage = " ".join(command.collect_usage_pieces(context))
        own = [found for found in command.params if isinstance(found, click.Option) and not is_global(found)]
        table = _table(context, own)
    return f"\n## {name}\n\n```text\n{name} {usage}\n```\n\n{_help(command)}\n" + (f"\n{table}" if table else "")


def _help(command: click.Command) -> str:
    """Return the help as Markdown, with its preformatted paragraphs as code."""
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    texts = []
    for paragraph in paragraphs:
        if paragraph.startswith("\b\n"):
            texts.append(f"```text\n{inspect.cleandoc(paragraph[2:])}\n```")
        else:
            texts.append(prose(paragraph))
    return "\n\n".join(texts)


def _table(context: click.Context, options: Sequence[click.Parameter]) -> str:
    rows = [record for found in options if (record := found.get_help_record(context))]
    if not rows:
        return ""
    lines = ["| Option | Description |\n", "| --- | --- |\n"]
    lines += [f"| `{cell(option)}` | {prose(cell(description))} |\n" for option, description in rows]
    return "".join(lines)


if __name__ == "__main__":
    sys.stdout.write(document())
