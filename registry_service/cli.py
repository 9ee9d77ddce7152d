"""The command `model-registry`."""

import getpass
import json
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import ParamSpec

import click

from registry_service import __version__, logs, running
from registry_service.certificates import Certificate, CertificateError, ClientTls
from registry_service.domain.access import Grant, Role
from registry_service.domain.caller import acting_as_registry
from registry_service.domain.errors import RegistryError, UnavailableError
from registry_service.domain.legacy import SourceError
from registry_service.domain.tokens import Token
from registry_service.embedded.process import EmbeddedError
from registry_service.observability import metrics
from registry_service.observability.telemetry import NotInstalledError
from registry_service.services.adopting import Outcome
from registry_service.services.backing_up import CopyReport
from registry_service.services.verifying import Finding
from registry_service.settings import (
    DatabaseSettings,
    GatewaySettings,
    ListenSettings,
    LogSettings,
    Settings,
    SettingsError,
    SourceSettings,
    TlsSettings,
    load,
    loopback_of,
)
from registry_service.storage.sql.schema import SchemaError
from registry_service.transport.grpc.health_servicer import LIVENESS
from registry_service.transport.grpc.probe import health_status
from registry_service.transport.grpc.server import PortTakenError
from registry_service.transport.rest.probe import gateway_status
from registry_service.wiring import (
    build_verification,
    migrate_database,
    open_adoption,
    open_backup,
    open_registry,
    open_restore,
)

P = ParamSpec("P")

_CHECK_SECONDS = 5


def _explained(command: Callable[P, None]) -> Callable[P, None]:
    """Turns what a person can mend into a message and a non-zero exit."""

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
            # An OSError is a file or folder of the settings: only start-up comes this far.
            raise click.ClickException(str(error)) from error

    return run


def _root_cause(error: BaseException) -> BaseException:
    """Returns what it all began with: a certificate that was refused, a host that is unknown."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


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
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    help="Run so many server processes, and replace those that end or hang.  [default: be the one server process]",
)
@click.option("--worker", type=int, hidden=True, help="Be this one of several.")
@click.option("--socket", type=click.Path(path_type=Path), hidden=True, help="Where the supervisor asks us.")
@_explained
def serve(workers: int | None, worker: int | None, socket: Path | None) -> None:
    """Run the gRPC server against the Postgres and the S3 of the settings."""
    running.keep_freed_memory()
    settings = load(Settings)
    logs.configure(settings.min_log_level)
    if worker is None:
        migrate_database(settings)
    elif metrics.is_shared():
        metrics.share(worker)
    if workers is None:
        running.serve(settings, private_socket=socket)
    else:
        running.serve_workers(settings, workers)


@main.command()
@click.option("--access-log/--no-access-log", default=True, show_default=True, help="A JSON line for each request.")
@click.option("--print", "print_only", is_flag=True, help="Print Envoy's configuration instead of running it.")
@_explained
def gateway(access_log: bool, print_only: bool) -> None:
    """Run the REST gateway, Envoy, in front of the gRPC servers of GRPC_UPSTREAMS."""
    settings = load(GatewaySettings)
    if print_only:
        click.echo(running.gateway_config(settings, access_log=access_log))
        return
    logs.configure(settings.min_log_level)
    running.gateway(settings, access_log=access_log)


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
    with open_registry(settings) as registry, acting_as_registry():
        report = registry.use_cases.sweep(dry_run=dry_run)
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
        raise click.ClickException(f"{len(report.failed)} objects could not be deleted now.")


_data_dir = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Work on the data of an `up`, rather than by PSQL_* and MINIO_*.",
)


@main.command()
@click.option("--source-host", "source_psql_hostname", help="Host of the original's Postgres.")
@click.option("--source-port", "source_psql_port", type=click.IntRange(1, 65535), help="Its port.")
@click.option("--source-database", "source_psql_database", help="The original's database.")
@click.option("--source-user", "source_psql_user", help="User of that database.")
@click.option("--source-bucket", "source_minio_bucket_name", help="The original's bucket.")
@click.option("--copy", is_flag=True, help="Copy every artifact, even where it could stay in its place.")
@click.option("--dry-run", is_flag=True, help="Only tell what would be done; reads no artifact.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line for each model, and one for all.")
@_data_dir
@_explained
def adopt(data_dir: Path | None, copy: bool, dry_run: bool, as_json: bool, **source: object) -> None:
    """Take over the models of a deployment of the original, which is not changed.

    Settings SOURCE_* tell where it is; its passwords come from there alone. Can
    be repeated. Exits with 1 where a model could not be taken.
    """
    given = {name: value for name, value in source.items() if value is not None}
    counts = dict.fromkeys(Outcome, 0)
    copied = 0
    with ExitStack() as stack:
        settings = stack.enter_context(running.opened_settings(data_dir, is_new=True))
        migrate_database(settings)
        registry = stack.enter_context(open_registry(settings))
        adopt_models = stack.enter_context(open_adoption(registry, settings, load(SourceSettings, **given), copy=copy))
        for adoption in adopt_models(dry_run=dry_run):
            counts[adoption.outcome] += 1
            copied += adoption.copied and adoption.outcome is not Outcome.FAILED
            if as_json:
                click.echo(json.dumps(asdict(adoption), ensure_ascii=False))
            elif adoption.outcome is not Outcome.UNCHANGED:
                click.echo(" ".join(filter(None, (adoption.outcome, adoption.model_id, adoption.reason))))
    if as_json:
        click.echo(json.dumps({"dry_run": dry_run, "copied": copied, **counts}))
    else:
        told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        click.echo(f"{sum(counts.values())} models{' would be' if dry_run else ''}: {told}; {copied} artifacts copied.")
    if counts[Outcome.FAILED]:
        raise SystemExit(1)


@main.command()
@click.option("--to", "folder", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder.")
@click.option("--trust-copies", is_flag=True, help="Compare only the sizes of the objects that the folder has already.")
@_data_dir
@_explained
def backup(folder: Path, trust_copies: bool, data_dir: Path | None) -> None:
    """Back the registry up to a folder, while it is used.

    Again to the same folder: only objects that are new, or damaged in the
    folder, are copied, and the backup before it stays whole until this one is. Exits
    with 1 where an object of the registry is missing or damaged.
    """
    with (
        running.opened_settings(data_dir) as settings,
        open_backup(settings, folder.resolve(), is_thorough=not trust_copies) as back_up,
    ):
        _tell("backed up", back_up())


@main.command()
@click.option("--from", "folder", type=click.Path(path_type=Path, exists=True), required=True, help="Folder.")
@click.option("--accept-damage", is_flag=True, help="Restore the rest where the backup has lost objects.")
@_data_dir
@_explained
def restore(folder: Path, accept_damage: bool, data_dir: Path | None) -> None:
    """Restore a backup into an empty database, and the objects that the store lacks.

    Checks the whole backup first. Can be repeated when it broke off. Exits with 1
    where the backup lacks an object.
    """
    with (
        running.opened_settings(data_dir, is_new=True) as settings,
        open_restore(settings, folder.resolve(), accepts_damage=accept_damage) as restore_all,
    ):
        _tell("restored", restore_all())


def _tell(verb: str, report: CopyReport) -> None:
    for problem in report.problems:
        click.echo(f"object {problem}")
    for damage in report.mended:
        click.echo(f"mended: {damage}")
    click.echo(
        f"{report.objects - len(report.problems)} of {report.objects} objects {verb},"
        f" {report.copied} of them ({report.copied_bytes} bytes) copied."
    )
    click.echo(f"The audit log ends with event {report.log_head.sequence}, hash {report.log_head.hash}.")
    if report.problems:
        raise SystemExit(1)


@main.command()
@click.option("--model", "model_ids", multiple=True, metavar="ID", help="Check only this model. Can be repeated.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line for each finding, and one for all.")
@_data_dir
@_explained
def verify(model_ids: tuple[str, ...], as_json: bool, data_dir: Path | None) -> None:
    """Re-hash every artifact, check the audit log, and look for objects that nobody knows.

    Exits with 1 where something is missing or damaged.
    """
    counts = dict.fromkeys(Finding, 0)
    size = 0
    with running.opened_settings(data_dir) as settings, open_registry(settings) as registry, acting_as_registry():
        for found in build_verification(registry)(model_ids):
            counts[found.finding] += 1
            size += found.size
            if as_json:
                click.echo(json.dumps(asdict(found), ensure_ascii=False))
            elif found.finding is not Finding.INTACT:
                click.echo(f"{found.finding} {found.subject}: {found.detail}")
    if as_json:
        click.echo(json.dumps({"bytes": size, **counts}))
    else:
        click.echo(f"{', '.join(f'{count} {finding}' for finding, count in counts.items())}; {size} bytes read.")
    if any(count and finding.is_wrong for finding, count in counts.items()):
        raise SystemExit(1)


@main.command()
@click.option("--rest", is_flag=True, help="Ask the gateway of SERVER_PORT instead.")
@click.option("--live", is_flag=True, help="Ask only whether the gRPC server answers, whatever its dependencies do.")
@_explained
def check(rest: bool, live: bool) -> None:
    """Tell whether the server of GRPC_PORT is healthy; exits with 1 where it is not."""
    if rest and live:
        raise click.UsageError("--rest and --live exclude each other.")
    if rest:
        gateway = load(GatewaySettings)
        host = loopback_of(gateway.server_ip_address)
        status = gateway_status(host, gateway.server_port, _CHECK_SECONDS, _probe_tls(gateway))
    else:
        settings = load(ListenSettings)
        host = loopback_of(settings.grpc_ip_address)
        service = LIVENESS if live else ""
        status = health_status(f"{host}:{settings.grpc_port}", _CHECK_SECONDS, _probe_tls(settings), service=service)
    click.echo(status)
    if status != "SERVING":
        raise SystemExit(1)


@main.group()
def token() -> None:
    """Make, list and revoke the tokens that AUTH_MODE=token and oidc take.

    They are those of `up` in --data-dir, whether it runs or not; without that option those of the Postgres of
    PSQL_HOSTNAME, or where it is not set, those of `up` in its own place.
    """


_token_data_dir = click.option(
    "--data-dir", type=click.Path(path_type=Path), help="Where `up` keeps everything.", show_default="per user"
)


@token.command("create")
@click.option("--role", type=click.Choice([role.value for role in Role]), required=True, help="What it allows.")
@click.option("--project", help="Id of the only project that it is for.  [default: all]")
@click.option("--name", default="", help="What its changes are written down with.  [default: its id]")
@click.option("--expires", help="When it ends: a span (12h, 30d, 8w) or a date (2030-01-31).  [default: never]")
@_token_data_dir
@_explained
def create_token(role: str, project: str | None, name: str, expires: str | None, data_dir: Path | None) -> None:
    """Make a token, and print it, once."""
    with _as_os_user(), running.tokens_of(_tokens_dir(data_dir)) as tokens:
        made, secret = tokens.create(Grant(Role(role), project), name=name, expires=expires or "")
    click.echo(f"{_described(made)}\nIt is shown this once: {secret}")


@token.command("list")
@_token_data_dir
@_explained
def list_tokens(data_dir: Path | None) -> None:
    """List all tokens, without their secrets."""
    with running.tokens_of(_tokens_dir(data_dir)) as tokens:
        for found in tokens.list():
            click.echo(_described(found))


@token.command("revoke")
@click.argument("token_id", metavar="ID_OR_NAME")
@_token_data_dir
@_explained
def revoke_token(token_id: str, data_dir: Path | None) -> None:
    """Revoke a token; servers take it for some seconds more."""
    with _as_os_user(), running.tokens_of(_tokens_dir(data_dir)) as tokens:
        click.echo(_described(tokens.revoke(token_id)))


def _tokens_dir(data_dir: Path | None) -> Path | None:
    """Returns the folder of the product whose tokens are meant; None: those of the Postgres of the settings."""
    if data_dir is None and os.environ.get("PSQL_HOSTNAME"):
        return None
    return (data_dir or _default_data_dir()).expanduser().resolve()


@contextmanager
def _as_os_user() -> Iterator[None]:
    """Has changes written down with who runs this command."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = f"uid {os.getuid()}"
    with acting_as_registry(f"{name}@{platform.node()}"):
        yield


def _described(token: Token) -> str:
    where = "all projects" if token.grant.project_id is None else f"the project {token.grant.project_id}"
    ends = "without end" if token.expire_time is None else f"until {token.expire_time:%Y-%m-%d %H:%M:%S} UTC"
    if token.revoke_time is not None:
        ends = f"revoked {token.revoke_time:%Y-%m-%d %H:%M:%S} UTC"
    elif not token.is_valid:
        ends = f"expired {token.expire_time:%Y-%m-%d %H:%M:%S} UTC"
    used = "never used" if token.last_use_time is None else f"last used {token.last_use_time:%Y-%m-%d %H:%M} UTC"
    return f"{token.id}  {token.name}  {token.grant.role.value} in {where}, {ends}, {used}"


@main.command()
@_explained
def config() -> None:
    """Print the effective settings, secrets masked."""
    for settings in (load(Settings), load(GatewaySettings)):
        for name, value in settings.model_dump(mode="json").items():
            if name not in LogSettings.model_fields or isinstance(settings, GatewaySettings):
                click.echo(f"{name.upper()}={value if isinstance(value, str) else json.dumps(value)}")


def _probe_tls(settings: TlsSettings) -> ClientTls | None:
    """How a probe reaches a server with these settings; None without TLS (`CertificateError`)."""
    trust = settings.ca_cert or settings.server_cert
    if not settings.enable_https_mode or trust is None:
        return None
    if settings.client_cert is None or settings.client_private_key is None:
        if settings.client_ca_cert is not None:
            raise CertificateError("CLIENT_CERT: not set, but needed with CLIENT_CA_CERT, as a check is a client, too")
        return ClientTls(trust)
    return ClientTls(trust, Certificate(settings.client_cert, settings.client_private_key))


def _default_data_dir() -> Path:
    """Where a user's services keep their data (XDG Base Directory); the system's place for root."""
    if os.geteuid() == 0:
        return Path("/var/lib/model-registry")
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share") / "model-registry"
