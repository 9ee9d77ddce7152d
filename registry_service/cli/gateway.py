"""The command that runs the REST gateway."""

import click

from registry_service import logs
from registry_service.cli.errors import user_errors
from registry_service.settings import GatewaySettings, load
from registry_service.supervisor.gateway import gateway_config, run_gateway


@click.command
@click.option(
    "--access-log/--no-access-log", default=True, show_default=True, help="Write a JSON line for each request."
)
@click.option("--print", "print_only", is_flag=True, help="Print Envoy's configuration, and do not run Envoy.")
@user_errors
def gateway(access_log: bool, print_only: bool) -> None:
    """Run the REST gateway.

    The gateway is Envoy. It passes requests on to the gRPC servers of GRPC_UPSTREAMS.
    """
    settings = load(GatewaySettings)
    if print_only:
        click.echo(gateway_config(settings, access_log=access_log))
        return
    logs.configure(settings.min_log_level)
    run_gateway(settings, access_log=access_log)
