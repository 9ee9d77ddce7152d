"""The command `model-registry`."""

import gc
from importlib import import_module

import click
from typing_extensions import override

from registry_service import __version__

_COMMANDS = {
    "up": "up:up",
    "serve": "serve:serve",
    "gateway": "gateway:gateway",
    "migrate": "data:migrate",
    "gc": "data:gc",
    "import-intel": "data:import_intel",
    "adopt": "data:former_import_intel",
    "backup": "data:backup",
    "restore": "data:restore",
    "verify": "data:verify",
    "check": "probes:check",
    "token": "tokens:token",
    "config": "configuration:config",
}
"""The module and the variable of each command."""


class _Commands(click.Group):
    """The commands, each of which is imported when it is used: those that need no database start twice as fast."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, variable = _COMMANDS[cmd_name].partition(":")
        # Imports create objects that stay: a garbage collector that ignores them saves a quarter of the CPU time of a
        # server's start.
        gc.disable()
        try:
            command = getattr(import_module(f"{__name__}.{module}"), variable)
        finally:
            gc.freeze()
            gc.enable()
        if not isinstance(command, click.Command):
            raise TypeError(f"{cmd_name} is not a command")
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="model-registry")
def main() -> None:
    """A model registry: gRPC first, REST through Envoy, on Postgres and S3.

    Settings come from the environment; see docs/reference/settings.md or `model-registry config`.
    """
