"""Commands that manage tokens."""

import getpass
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from registry_service import jobs
from registry_service.cli.data_dir import default_data_dir
from registry_service.cli.errors import user_errors
from registry_service.domain.access import Grant, Role
from registry_service.domain.caller import acting_as_registry
from registry_service.domain.tokens import Token


@click.group()
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
@user_errors
def create_token(role: str, project: str | None, name: str, expires: str | None, data_dir: Path | None) -> None:
    """Create a token and print its secret, which cannot be shown again."""
    with _acting_as_os_user(), jobs.open_tokens(_tokens_dir(data_dir)) as tokens:
        created, secret = tokens.create(Grant(Role(role), project), name=name, expires=expires or "")
    click.echo(f"{_describe(created)}\nSecret (shown only once): {secret}")


@token.command("list")
@_token_data_dir
@user_errors
def list_tokens(data_dir: Path | None) -> None:
    """List all tokens, without their secrets."""
    with jobs.open_tokens(_tokens_dir(data_dir)) as tokens:
        for each in tokens.list():
            click.echo(_describe(each))


@token.command("revoke")
@click.argument("token_id", metavar="ID_OR_NAME")
@_token_data_dir
@user_errors
def revoke_token(token_id: str, data_dir: Path | None) -> None:
    """Revoke a token. Servers still accept it for a few seconds."""
    with _acting_as_os_user(), jobs.open_tokens(_tokens_dir(data_dir)) as tokens:
        click.echo(_describe(tokens.revoke(token_id)))


def _tokens_dir(data_dir: Path | None) -> Path | None:
    """Return the data folder whose tokens to use; None for those of the Postgres at PSQL_HOSTNAME."""
    if data_dir is None and os.environ.get("PSQL_HOSTNAME"):
        return None
    return (data_dir or default_data_dir()).expanduser().resolve()


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
