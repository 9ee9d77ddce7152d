"""The command `completion`."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from modelreg.cli._frame import Command

_HELP = """Print the completion script of a shell.

\b
  bash:  eval "$(mreg completion bash)"          in ~/.bashrc
  zsh:   eval "$(mreg completion zsh)"           in ~/.zshrc
  fish:  mreg completion fish | source           in ~/.config/fish/config.fish
"""


@click.command("completion", cls=Command, help=_HELP)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell."""
    root = context.find_root()
    program = root.info_name or "mreg"
    kind = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}[shell]
    # Not `source`, which starts bash to look at its version.
    script = kind(root.command, {}, program, f"_{program}_COMPLETE".replace("-", "_").upper())
    click.echo(script.source_template % script.source_vars())
