"""The command that prints the settings."""

import json

import click

from registry_service.cli.errors import user_errors
from registry_service.settings import CommonSettings, GatewaySettings, Settings, load


@click.command
@user_errors
def config() -> None:
    """Print the effective settings, secrets masked."""
    for settings in (load(Settings), load(GatewaySettings)):
        for name, value in settings.model_dump(mode="json").items():
            if name not in CommonSettings.model_fields or isinstance(settings, GatewaySettings):
                click.echo(f"{name.upper()}={value if isinstance(value, str) else json.dumps(value)}")
