"""The command that runs everything on this machine."""

from pathlib import Path

import click

from registry_service.cli.data_dir import default_data_dir
from registry_service.cli.errors import user_errors
from registry_service.settings import GatewaySettings, Settings, load, loopback_address
from registry_service.supervisor.all_in_one import up as run_all


@click.command
@click.option(
    "--data-dir", type=click.Path(path_type=Path), help="Folder of all data and logs.", show_default="per user"
)
@click.option("--rest-port", type=click.IntRange(1, 65535), help="Port of the REST API.  [default: 32002]")
@click.option("--grpc-port", type=click.IntRange(1, 65535), help="Port of the gRPC API.  [default: 50051]")
@user_errors
def up(data_dir: Path | None, rest_port: int | None, grpc_port: int | None) -> None:
    """Run everything on this machine.

    The command runs Postgres, the gRPC server with artifacts in a local folder, and the REST gateway.
    """
    server = {} if grpc_port is None else {"grpc_port": grpc_port}
    gateway = {} if rest_port is None else {"server_port": rest_port}
    settings = load(Settings, psql_hostname="embedded", artifact_store="local", artifact_dir="embedded", **server)
    upstream = f"{loopback_address(settings.grpc_ip_address)}:{settings.grpc_port}"
    run_all(
        (data_dir or default_data_dir()).expanduser().resolve(),
        dict(server),
        load(GatewaySettings, grpc_upstreams=upstream, **gateway),
        click.echo,
    )
