"""The command `completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from modelreg.cli._frame import Command

_SHELLS = ("bash", "zsh", "fish")


@click.command("completion", cls=Command)
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
      bash:  eval "$(mreg completion bash)"                 in ~/.bashrc
      zsh:   eval "$(mreg completion zsh)"                  in ~/.zshrc
      fish:  mreg completion fish | source                  in ~/.config/fish/config.fish
    """
    root = context.find_root()
    program = root.info_name or "mreg"
    kind = get_completion_class(shell)
    assert kind is not None
    # Not `source`, which starts bash to look at its version.
    script = kind(root.command, {}, program, f"_{program}_COMPLETE".replace("-", "_").upper())
    click.echo(script.source_template % script.source_vars())
