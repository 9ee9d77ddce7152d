"""The command `model-registry`."""

import getpass
import json
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import copy as copy_of
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import ParamSpec

import click

from registry_service import __version__, jobs, logs
from registry_service.certificates import Certificate, CertificateError, ClientTls
from registry_service.domain.access import Grant, Role
from registry_service.domain.caller import acting_as_registry
from registry_service.domain.errors import RegistryError, UnavailableError
from registry_service.domain.source_error import SourceError
from registry_service.domain.tokens import Token
from registry_service.embedded.process import EmbeddedError
from registry_service.intel_migration.imports import Outcome
from registry_service.observability import metrics
from registry_service.observability.telemetry import NotInstalledError
from registry_service.services.backup import CopyReport
from registry_service.services.verification import Finding
from registry_service.settings import (
    CommonSettings,
    DatabaseSettings,
    GatewaySettings,
    IntelSourceSettings,
    ListenSettings,
    Settings,
    SettingsError,
    TlsSettings,
    load,
    loopback_address,
)
from registry_service.storage.sql.schema import SchemaError
from registry_service.supervisor.all_in_one import up as run_all
from registry_service.supervisor.gateway import gateway_config, run_gateway
from registry_service.supervisor.runtime import keep_freed_memory
from registry_service.supervisor.server import serve as run_server
from registry_service.supervisor.server import serve_workers
from registry_service.transport.grpc.health_servicer import LIVENESS
from registry_service.transport.grpc.probe import health_status
from registry_service.transport.grpc.server import PortTakenError
from registry_service.transport.http_probe import gateway_status
from registry_service.wiring import (
    build_verification,
    migrate_database,
    open_backup,
    open_intel_import,
    open_registry,
    open_restore,
)

P = ParamSpec("P")

_CHECK_SECONDS = 5


def _user_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Turn errors that the user can fix into a message and exit code 1."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except SettingsError as error:
            raise click.ClickException(f"settings:\n{error}") from error
        except UnavailableError as error:
            raise click.ClickException(f"{error}\n{_root_cause(error)}") from error
        except (
            CertificateError,
            EmbeddedError,
            NotInstalledError,
            PortTakenError,
            RegistryError,
            SchemaError,
            SourceError,
            OSError,
        ) as error:
            # An OSError here concerns a file or folder of the settings, as it only passes through at the start.
            raise click.ClickException(str(error)) from error

    return run


def _root_cause(error: BaseException) -> BaseException:
    """Return the first error of a chain, such as a rejected certificate or an unknown host."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="model-registry")
def main() -> None:
    """A model registry: gRPC first, REST through Envoy, on Postgres and S3.

    Settings come from the environment; see docs/reference/settings.md or `model-registry config`.
    """


@main.command()
@click.option(
    "--data-dir", type=click.Path(path_type=Path), help="Folder of all data and logs.", show_default="per user"
)
@click.option("--rest-port", type=click.IntRange(1, 65535), help="Port of the REST API.  [default: 32002]")
@click.option("--grpc-port", type=click.IntRange(1, 65535), help="Port of the gRPC API.  [default: 50051]")
@_user_errors
def up(data_dir: Path | None, rest_port: int | None, grpc_port: int | None) -> None:
    """Run everything on this machine.

    The command runs Postgres, the gRPC server with artifacts in a local folder, and the REST gateway.
    """
    server = {} if grpc_port is None else {"grpc_port": grpc_port}
    gateway = {} if rest_port is None else {"server_port": rest_port}
    settings = load(Settings, psql_hostname="embedded", artifact_store="local", artifact_dir="embedded", **server)
    upstream = f"{loopback_address(settings.grpc_ip_address)}:{settings.grpc_port}"
    run_all(
        (data_dir or _default_data_dir()).expanduser().resolve(),
        dict(server),
        load(GatewaySettings, grpc_upstreams=upstream, **gateway),
        click.echo,
    )


@main.command()
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    help="Number of server processes; those that exit or hang are restarted.  [default: serve in this process]",
)
@click.option("--worker", type=int, hidden=True, help="Number of this process among several workers.")
@click.option("--socket", type=click.Path(path_type=Path), hidden=True, help="Unix socket of the liveness probe.")
@_user_errors
def serve(workers: int | None, worker: int | None, socket: Path | None) -> None:
    """Run the gRPC server.

    The server uses the Postgres of PSQL_*, and the artifact store of MINIO_* or ARTIFACT_DIR.
    """
    keep_freed_memory()
    settings = load(Settings)
    logs.configure(settings.min_log_level)
    if worker is None:
        migrate_database(settings)
    elif metrics.is_shared():
        metrics.share(worker)
    if workers is None:
        run_server(settings, private_socket=socket)
    else:
        serve_workers(settings, workers)


@main.command()
@click.option(
    "--access-log/--no-access-log", default=True, show_default=True, help="Write a JSON line for each request."
)
@click.option("--print", "print_only", is_flag=True, help="Print Envoy's configuration, and do not run Envoy.")
@_user_errors
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


@main.command()
@_user_errors
def migrate() -> None:
    """Migrate the database to the schema of this version. The server also does so at its start."""
    settings = load(DatabaseSettings)
    logs.configure(settings.min_log_level)
    click.echo(f"The database is at revision {migrate_database(settings)}.")


@main.command()
@click.option("--dry-run", is_flag=True, help="Print what would be removed, and remove nothing.")
@_user_errors
def gc(dry_run: bool) -> None:
    """Remove unreferenced objects and expired uploads. The server also does so periodically."""
    settings = load(Settings)
    logs.configure(settings.min_log_level)
    with open_registry(settings) as registry, acting_as_registry():
        report = registry.services.garbage_collector.collect(dry_run=dry_run)
    for kind, names in (
        ("upload", report.uploads),
        ("object", report.objects),
        ("unfinished object", report.unfinished),
        ("failed object", report.failed),
    ):
        for name in names:
            click.echo(f"{kind} {name}")
    verb = "would be removed" if dry_run else "removed"
    click.echo(f"{len(report.uploads)} expired uploads and {len(report.objects)} objects {verb}.")
    if report.failed:
        raise click.ClickException(f"{len(report.failed)} objects could not be deleted.")


_data_dir = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Data folder of `up`, to use in place of PSQL_* and MINIO_*.",
)


@main.command("import-intel")
@click.option("--source-host", "source_psql_hostname", help="Host of the Intel deployment's Postgres.")
@click.option("--source-port", "source_psql_port", type=click.IntRange(1, 65535), help="Port of that Postgres.")
@click.option("--source-database", "source_psql_database", help="Database of the Intel deployment.")
@click.option("--source-user", "source_psql_user", help="User of that database.")
@click.option("--source-bucket", "source_minio_bucket_name", help="Bucket of the Intel deployment's artifacts.")
@click.option("--copy", is_flag=True, help="Copy every artifact, even if it can stay in the Intel deployment's bucket.")
@click.option("--dry-run", is_flag=True, help="Print what would be done, without reading artifacts.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each model, and a last one of totals.")
@_data_dir
@_user_errors
def import_intel(data_dir: Path | None, copy: bool, dry_run: bool, as_json: bool, **source: object) -> None:
    """Import the models of a deployment of Intel's Model Registry.

    The Intel deployment is not changed. Set SOURCE_* to its address and credentials;
    passwords have no options. The command can be repeated. It exits with 1 if a model
    could not be imported.
    """
    given = {name: value for name, value in source.items() if value is not None}
    counts = dict.fromkeys(Outcome, 0)
    copied = 0
    with ExitStack() as stack:
        settings = stack.enter_context(jobs.open_settings(data_dir, allow_empty=True))
        migrate_database(settings)
        registry = stack.enter_context(open_registry(settings))
        import_models = stack.enter_context(
            open_intel_import(registry, settings, load(IntelSourceSettings, **given), copy=copy)
        )
        for result in import_models.run(dry_run=dry_run):
            counts[result.outcome] += 1
            copied += result.copied and result.outcome is not Outcome.FAILED
            if as_json:
                click.echo(json.dumps(asdict(result), ensure_ascii=False))
            elif result.outcome is not Outcome.UNCHANGED:
                click.echo(" ".join(filter(None, (result.outcome, result.model_id, result.reason))))
    if as_json:
        click.echo(json.dumps({"dry_run": dry_run, "copied": copied, **counts}))
    else:
        totals = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        click.echo(
            f"{sum(counts.values())} models{' would be' if dry_run else ''}: {totals}; {copied} artifacts copied."
        )
    if counts[Outcome.FAILED]:
        raise SystemExit(1)


# The command's first name.
_adopt = copy_of(import_intel)
_adopt.hidden = True
main.add_command(_adopt, "adopt")


@main.command()
@click.option(
    "--to", "folder", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the backup."
)
@click.option("--trust-copies", is_flag=True, help="Check objects that the folder has by size, and not by SHA-256.")
@_data_dir
@_user_errors
def backup(folder: Path, trust_copies: bool, data_dir: Path | None) -> None:
    """Back up the registry to a folder, while it is in use.

    A further backup to the same folder copies only objects that are new, or damaged
    in the folder. The previous backup stays complete until the new one is. The
    command exits with 1 if an object of the registry is missing or damaged.
    """
    with (
        jobs.open_settings(data_dir) as settings,
        open_backup(settings, folder.resolve(), is_thorough=not trust_copies) as back_up,
    ):
        _echo_report("backed up", back_up())


@main.command()
@click.option(
    "--from", "folder", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of the backup."
)
@click.option("--accept-damage", is_flag=True, help="Restore the rest if the backup has missing or damaged objects.")
@_data_dir
@_user_errors
def restore(folder: Path, accept_damage: bool, data_dir: Path | None) -> None:
    """Restore a backup into an empty database.

    The command checks the whole backup first, and copies only the objects that the
    artifact store lacks. An interrupted restore can be repeated. The command exits
    with 1 if the backup lacks an object.
    """
    with (
        jobs.open_settings(data_dir, allow_empty=True) as settings,
        open_restore(settings, folder.resolve(), accepts_damage=accept_damage) as restore_all,
    ):
        _echo_report("restored", restore_all())


def _echo_report(verb: str, report: CopyReport) -> None:
    for problem in report.problems:
        click.echo(f"object {problem}")
    for damage in report.mended:
        click.echo(f"repaired: {damage}")
    click.echo(
        f"{report.objects - len(report.problems)} of {report.objects} objects {verb},"
        f" {report.copied} of them ({report.copied_bytes} bytes) copied."
    )
    click.echo(f"The audit log ends with event {report.log_head.sequence}, hash {report.log_head.hash}.")
    if report.problems:
        raise SystemExit(1)


@main.command()
@click.option("--model", "model_ids", multiple=True, metavar="ID", help="Check only this model. Can be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each finding, and a last one of totals.")
@_data_dir
@_user_errors
def verify(model_ids: tuple[str, ...], as_json: bool, data_dir: Path | None) -> None:
    """Check all artifacts and the audit log.

    The command checks the SHA-256 of every artifact and the hash chain of the audit
    log, and finds unreferenced objects. It exits with 1 if something is missing or
    damaged.
    """
    counts = dict.fromkeys(Finding, 0)
    size = 0
    with jobs.open_settings(data_dir) as settings, open_registry(settings) as registry, acting_as_registry():
        for result in build_verification(registry).run(model_ids):
            counts[result.finding] += 1
            size += result.size
            if as_json:
                click.echo(json.dumps(asdict(result), ensure_ascii=False))
            elif result.finding is not Finding.INTACT:
                click.echo(f"{result.finding} {result.subject}: {result.detail}")
    if as_json:
        click.echo(json.dumps({"bytes": size, **counts}))
    else:
        click.echo(f"{', '.join(f'{count} {finding}' for finding, count in counts.items())}; {size} bytes read.")
    if any(count and finding.is_wrong for finding, count in counts.items()):
        raise SystemExit(1)


@main.command()
@click.option("--rest", is_flag=True, help="Check the gateway on SERVER_PORT instead.")
@click.option("--live", is_flag=True, help="Check only that it responds, and not its dependencies.")
@_user_errors
def check(rest: bool, live: bool) -> None:
    """Print the health of the server.

    The command checks the gRPC server on GRPC_PORT. It exits with 1 unless the health is SERVING.
    """
    if rest:
        gateway = load(GatewaySettings)
        host = loopback_address(gateway.server_ip_address)
        path = "/live" if live else "/health"
        status = gateway_status(host, gateway.server_port, _CHECK_SECONDS, _probe_tls(gateway), path=path)
    else:
        settings = load(ListenSettings)
        host = loopback_address(settings.grpc_ip_address)
        service = LIVENESS if live else ""
        status = health_status(f"{host}:{settings.grpc_port}", _CHECK_SECONDS, _probe_tls(settings), service=service)
    click.echo(status)
    if status != "SERVING":
        raise SystemExit(1)


@main.group()
def token() -> None:
    """Create, list and revoke tokens.

    Servers accept tokens with AUTH_MODE=token and AUTH_MODE=oidc. With --data-dir, the
    tokens are those of `up` on this folder, whether it runs or not. Without it, they
    are those of the Postgres at PSQL_HOSTNAME, or those of `up` on its default folder
    if PSQL_HOSTNAME is not set.
    """


_token_data_dir = click.option(
    "--data-dir", type=click.Path(path_type=Path), help="Data folder of `up`.", show_default="per user"
)


@token.command("create")
@click.option(
    "--role", type=click.Choice([role.value for role in Role]), required=True, help="Role of the token's caller."
)
@click.option("--project", help="Id of the only project that the token may access.  [default: all]")
@click.option("--name", default="", help="Name of the caller in the audit log.  [default: the token's id]")
@click.option("--expires", help="Lifetime (12h, 30d, 8w) or date of expiry (2030-01-31).  [default: never]")
@_token_data_dir
@_user_errors
def create_token(role: str, project: str | None, name: str, expires: str | None, data_dir: Path | None) -> None:
    """Create a token and print its secret, which cannot be shown again."""
    with _acting_as_os_user(), jobs.open_tokens(_tokens_dir(data_dir)) as tokens:
        created, secret = tokens.create(Grant(Role(role), project), name=name, expires=expires or "")
    click.echo(f"{_describe(created)}\nSecret (shown only once): {secret}")


@token.command("list")
@_token_data_dir
@_user_errors
def list_tokens(data_dir: Path | None) -> None:
    """List all tokens, without their secrets."""
    with jobs.open_tokens(_tokens_dir(data_dir)) as tokens:
        for each in tokens.list():
            click.echo(_describe(each))


@token.command("revoke")
@click.argument("token_id", metavar="ID_OR_NAME")
@_token_data_dir
@_user_errors
def revoke_token(token_id: str, data_dir: Path | None) -> None:
    """Revoke a token. Servers still accept it for a few seconds."""
    with _acting_as_os_user(), jobs.open_tokens(_tokens_dir(data_dir)) as tokens:
        click.echo(_describe(tokens.revoke(token_id)))


def _tokens_dir(data_dir: Path | None) -> Path | None:
    """Return the data folder whose tokens to use; None for those of the Postgres at PSQL_HOSTNAME."""
    if data_dir is None and os.environ.get("PSQL_HOSTNAME"):
        return None
    return (data_dir or _default_data_dir()).expanduser().resolve()


@contextmanager
def _acting_as_os_user() -> Iterator[None]:
    """Record changes in the audit log under the name of the operating system's user."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = f"uid {os.getuid()}"
    with acting_as_registry(f"{name}@{platform.node()}"):
        yield


def _describe(token: Token) -> str:
    scope = "all projects" if token.grant.project_id is None else f"project {token.grant.project_id}"
    expiry = "never expires" if token.expire_time is None else f"expires {token.expire_time:%Y-%m-%d %H:%M:%S} UTC"
    if token.revoke_time is not None:
        expiry = f"revoked {token.revoke_time:%Y-%m-%d %H:%M:%S} UTC"
    elif not token.is_valid:
        expiry = f"expired {token.expire_time:%Y-%m-%d %H:%M:%S} UTC"
    used = "never used" if token.last_use_time is None else f"last used {token.last_use_time:%Y-%m-%d %H:%M} UTC"
    return f"{token.id}  {token.name}  {token.grant.role.value} in {scope}, {expiry}, {used}"


@main.command()
@_user_errors
def config() -> None:
    """Print the effective settings, secrets masked."""
    for settings in (load(Settings), load(GatewaySettings)):
        for name, value in settings.model_dump(mode="json").items():
            if name not in CommonSettings.model_fields or isinstance(settings, GatewaySettings):
                click.echo(f"{name.upper()}={value if isinstance(value, str) else json.dumps(value)}")


def _probe_tls(settings: TlsSettings) -> ClientTls | None:
    """Return the TLS of a probe of a server with these settings; None without TLS.

    Raises:
        CertificateError: CLIENT_CERT is missing, and clients must have a certificate.
    """
    trust = settings.ca_cert or settings.server_cert
    if not settings.enable_https_mode or trust is None:
        return None
    if settings.client_cert is None or settings.client_private_key is None:
        if settings.client_ca_cert is not None:
            raise CertificateError("CLIENT_CERT: must be set with CLIENT_CA_CERT, because `check` is a client too")
        return ClientTls(trust)
    return ClientTls(trust, Certificate(settings.client_cert, settings.client_private_key))


def _default_data_dir() -> Path:
    """Return the default data folder of `up`: by XDG Base Directory for a user, below /var/lib for root."""
    if os.geteuid() == 0:
        return Path("/var/lib/model-registry")
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share") / "model-registry"
