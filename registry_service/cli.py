"""The command `model-registry`."""

import json
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec

import click

from registry_service import __version__, logs, running
from registry_service.bootstrap import migrate_database, open_registry
from registry_service.config import (
    DatabaseSettings,
    GatewaySettings,
    ListenSettings,
    LogSettings,
    Settings,
    SettingsError,
    load,
    loopback_of,
)
from registry_service.domain.errors import RegistryError
from registry_service.embedded.envoy import envoy_command, envoy_log_level, render
from registry_service.embedded.process import EmbeddedError
from registry_service.storage.sql.schema import SchemaError
from registry_service.transport.grpc.probe import health_status
from registry_service.transport.grpc.server import PortTakenError
from registry_service.transport.http_routes import http_routes

P = ParamSpec("P")


def _explained(command: Callable[P, None]) -> Callable[P, None]:
    """Turns what a person can mend into a message and a non-zero exit."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except SettingsError as error:
            raise click.ClickException(f"settings:\n{error}") from error
        except (EmbeddedError, PortTakenError, RegistryError, SchemaError, OSError) as error:
            # An OSError is a file or folder of the settings: only start-up comes this far.
            raise click.ClickException(str(error)) from error

    return run


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="model-registry")
def main() -> None:
    """A model registry: gRPC first, REST through Envoy, on Postgres and S3.

    Settings come from the environment; see the README's table or `model-registry config`.
    """


@main.command()
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where everything is kept.", show_default="per user")
@click.option("--rest-port", type=click.IntRange(1, 65535), help="Port of the REST API.  [default: 32002]")
@click.option("--grpc-port", type=click.IntRange(1, 65535), help="Port of the gRPC API.  [default: 50051]")
@_explained
def up(data_dir: Path | None, rest_port: int | None, grpc_port: int | None) -> None:
    """Run everything on this machine: Postgres, artifacts in a folder, gRPC and REST."""
    server = {} if grpc_port is None else {"grpc_port": grpc_port}
    gateway = {} if rest_port is None else {"server_port": rest_port}
    own = load(Settings, psql_hostname="embedded", artifact_store="local", artifact_dir="embedded", **server)
    running.up(
        (data_dir or _default_data_dir()).expanduser().resolve(),
        dict(server),
        load(GatewaySettings, grpc_upstreams=f"{loopback_of(own.grpc_ip_address)}:{own.grpc_port}", **gateway),
        click.echo,
    )


@main.command()
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Server processes.")
@click.option("--worker", is_flag=True, hidden=True, help="Be one of several.")
@_explained
def serve(workers: int, worker: bool) -> None:
    """Run the gRPC server against the Postgres and the S3 of the settings."""
    settings = load(Settings)
    logs.configure(settings.min_log_level)
    if worker:
        running.serve(settings, reuse_port=True)
        return
    migrate_database(settings)
    if workers == 1:
        running.serve(settings)
    else:
        running.serve_workers(settings, workers)


@main.command()
@click.option("--access-log/--no-access-log", default=True, show_default=True, help="A JSON line for each request.")
@click.option("--print", "print_only", is_flag=True, help="Print Envoy's configuration instead of running it.")
@_explained
def gateway(access_log: bool, print_only: bool) -> None:
    """Run the REST gateway, Envoy, in front of the gRPC servers of GRPC_UPSTREAMS."""
    settings = load(GatewaySettings)
    routes = http_routes()
    config = render(
        settings,
        descriptor_set=routes.descriptor_set,
        path_variables=routes.path_variables,
        services=routes.services,
        paths=routes.paths,
        openapi=routes.openapi,
        reads=routes.reads,
        access_log=access_log,
    )
    if print_only:
        click.echo(config)
        return
    # In our place, so that signals and the exit code are Envoy's own.
    command = envoy_command(
        config, concurrency=settings.gateway_concurrency, log_level=envoy_log_level(settings.min_log_level)
    )
    os.execv(command[0], command)  # noqa: S606


@main.command()
@_explained
def migrate() -> None:
    """Bring the database to this program's schema (the server does so at its start, too)."""
    settings = load(DatabaseSettings)
    logs.configure(settings.min_log_level)
    click.echo(f"The database is at revision {migrate_database(settings)}.")


@main.command()
@click.option("--dry-run", is_flag=True, help="Only tell what would be removed.")
@_explained
def gc(dry_run: bool) -> None:
    """Remove what deletions, refusals and crashes left behind (the server does so, too)."""
    settings = load(Settings)
    logs.configure(settings.min_log_level)
    with open_registry(settings) as registry:
        report = registry.use_cases.sweep(dry_run=dry_run)
    for kind, names in (("upload", report.uploads), ("object", report.objects), ("failed object", report.failed)):
        for name in names:
            click.echo(f"{kind} {name}")
    verb = "would be removed" if dry_run else "removed"
    click.echo(f"{len(report.uploads)} expired uploads and {len(report.objects)} objects {verb}.")
    if report.failed:
        raise click.ClickException(f"{len(report.failed)} objects could not be deleted now.")


@main.command()
@_explained
def check() -> None:
    """Tell whether the server of GRPC_PORT is healthy; exits with 1 where it is not."""
    settings = load(ListenSettings)
    host = loopback_of(settings.grpc_ip_address)
    trust = (settings.ca_cert or settings.server_cert) if settings.enable_https_mode else None
    status = health_status(f"{host}:{settings.grpc_port}", timeout_seconds=5, trust=trust)
    click.echo(status)
    if status != "SERVING":
        raise SystemExit(1)


@main.command()
@_explained
def config() -> None:
    """Print the effective settings, secrets masked."""
    for settings in (load(Settings), load(GatewaySettings)):
        for name, value in settings.model_dump(mode="json").items():
            if name not in LogSettings.model_fields or isinstance(settings, GatewaySettings):
                click.echo(f"{name.upper()}={value if isinstance(value, str) else json.dumps(value)}")


def _default_data_dir() -> Path:
    """Where a user's services keep their data (XDG Base Directory); the system's place for root."""
    if os.geteuid() == 0:
        return Path("/var/lib/model-registry")
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share") / "model-registry"
