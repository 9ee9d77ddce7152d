"""The commands `login`, `logout` and `whoami`."""

from __future__ import annotations

import os
import sys
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from modelreg.cli._frame import Command, with_session
from modelreg.cli._output import Column, note
from modelreg.cli._text import is_terminal, local, printable, styled, utc
from modelreg.cli.profiles import document_of_profile

if TYPE_CHECKING:
    from modelreg._access.sign_in import Target
    from modelreg._access.token_store import Grant, StoredToken
    from modelreg.cli._session import Session
    from modelreg.profiles import Profile, SignIn
    from modelreg.server import Authentication, Identity
    from modelreg.server import Grant as Role

_MAX_BYTES = 64 * 1024


# ---- login ----------------------------------------------------------------------


_LOGIN_HELP = """Sign in to a registry, and make its profile the active one.

URL is the registry: grpc://host:port, grpcs:// (TLS), http:// or https:// (the gateway). Default: that of the
profile that --profile names, else MODELREG_URL, else that of the active profile, else grpc://127.0.0.1:50051.

With an OpenID provider, you sign in with a browser, on any device. Otherwise, pass a token. The profile also keeps
--ca-file, --client-certificate, --client-key and --insecure.

\b
  mreg login grpcs://registry.example.org:50051
  mreg login http://127.0.0.1:32002 --token-stdin < token.txt
"""


@click.command("login", cls=Command, help=_LOGIN_HELP)
@click.argument("registry_url", metavar="[URL]", required=False)
@click.option("--token-stdin", is_flag=True, help="Read a token from stdin instead of asking for it.")
@click.option("--issuer", metavar="URL", help="The OpenID provider to sign in at, without being asked whether to.")
@click.option("--client-id", metavar="ID", help="The client at the provider. Default: as the registry says.")
@click.option(
    "--client-secret-stdin",
    is_flag=True,
    help="Sign in as the client itself (client credentials), with its secret from stdin. Needs --client-id.",
)
@click.option("--scope", "scopes", multiple=True, metavar="SCOPE", help="A scope to request. Can be repeated.")
@click.option("--audience", metavar="TEXT", help="The audience to request. Default: as the registry says.")
@with_session
def login_command(
    session: Session,
    registry_url: str | None,
    *,
    token_stdin: bool,
    issuer: str | None,
    client_id: str | None,
    client_secret_stdin: bool,
    scopes: tuple[str, ...],
    audience: str | None,
) -> None:
    """See the help."""
    from modelreg._access.sign_in import find_target, grant_of  # noqa: PLC0415 - as all of the library, not before it is used

    url = session.options.get("url") or registry_url
    if registry_url is not None and url != registry_url:
        raise click.UsageError("URL and --url are different.")
    if token_stdin and (client_secret_stdin or issuer or client_id or scopes or audience):
        raise click.UsageError("--token-stdin is for a token. It takes no option of an OpenID provider.")
    if client_secret_stdin and not client_id:
        raise click.UsageError("--client-secret-stdin needs --client-id.")
    name = session.options.get("profile") or os.environ.get("MODELREG_PROFILE") or None
    target = find_target(url, name, session.registry_arguments)
    authentication = target.authentication()
    token: StoredToken | None
    kind: SignIn
    if token_stdin:
        kind, token = "token", _fixed_token(target, _read_stdin("the token"))
    elif client_secret_stdin or client_id or issuer or _is_offered(authentication):
        _check_encryption(target)
        grant = grant_of(
            authentication,
            issuer=issuer,
            client_id=client_id,
            scopes=scopes,
            audience=audience,
            client_secret=_read_stdin("the client's secret") if client_secret_stdin else None,
        )
        kind = "device" if grant.client_secret is None else "client_credentials"
        _confirm(target, grant, is_named=issuer is not None)
        token = _issued_token(target, grant)
    elif authentication.mode == "none":
        kind, token = "none", None
    else:
        kind, token = "token", _fixed_token(target, _ask_for_token(target))
    identity = None if token is None else _identity(target, token)
    profile, in_keyring = target.save(kind, token, "" if identity is None else identity.subject)
    session.output.result(
        document_of_profile(profile, is_active=True),
        human=partial(_say_signed_in, target, profile, identity, in_keyring),
        quiet=profile.name,
    )


def _is_offered(authentication: Authentication) -> bool:
    return authentication.mode == "oidc" and bool(authentication.oidc_client_id)


def _check_encryption(target: Target) -> None:
    from modelreg._access.credentials import check_token_may_be_sent  # noqa: PLC0415 - as all of the library

    check_token_may_be_sent(target.options)


def _read_stdin(what: str) -> str:
    if is_terminal(sys.stdin):
        text: str = click.prompt(f"Paste {what}", hide_input=True, err=True)
        return text
    text = sys.stdin.read(_MAX_BYTES).strip()
    if not text:
        raise click.UsageError(f"stdin is empty, but should have {what}.")
    return text


def _ask_for_token(target: Target) -> str:
    _check_encryption(target)
    if not is_terminal(sys.stdin):
        raise click.UsageError("The registry requires a token: pass it on stdin with --token-stdin.")
    note(f"{target.url} requires a token. Its operator creates one with `model-registry token create`.")
    text: str = click.prompt("Token", hide_input=True, err=True)
    return text


def _fixed_token(target: Target, text: str) -> StoredToken:
    from modelreg._access.token_store import StoredToken  # noqa: PLC0415 - as all of the library
    from modelreg._access.tokens import checked_token  # noqa: PLC0415

    return StoredToken(url=target.url, access_token=checked_token(text, "token"))


def _confirm(target: Target, grant: Grant, *, is_named: bool) -> None:
    """Ask whether the registry may have a token of the provider that it names.

    A hostile registry could name the provider, the client and the audience of another service. Who signs in would hand
    it a token that is valid there.
    """
    others = target.others_with(grant)
    if is_named or (target.was_confirmed(grant) and not others):
        return
    note(f"{target.url} asks for a token of the OpenID provider")
    note(f"    {grant.issuer}")
    details = {"client": grant.client_id, "audience": grant.audience, "scopes": " ".join(grant.scopes)}
    for name, text in details.items():
        if text:
            note(f"    {name}: {text}")
    for other in others:
        click.echo(
            styled(
                f"That token would be valid for {other.url} (profile {other.name}), too, and {target.url} could use it "
                "there in your name.",
                fg="yellow",
                err=True,
            ),
            err=True,
        )
    note("The registry can use the token wherever it is valid. Go on only if you trust the registry with that.")
    if not is_terminal(sys.stdin):
        raise click.UsageError(
            f"stdin is no terminal, so nobody can be asked. To confirm, pass --issuer {grant.issuer}"
        )
    click.confirm("Sign in there?", abort=True, err=True)


def _issued_token(target: Target, grant: Grant) -> StoredToken:
    from modelreg._access.oidc import Issuer  # noqa: PLC0415 - as all of the library

    issuer = Issuer(grant.issuer, target.options.ca_file)
    if grant.client_secret is not None:
        return issuer.client_credentials(grant, target.url)
    code = issuer.device_code(grant)
    expire_time = datetime.now(timezone.utc) + timedelta(seconds=code.expires_in)
    note(f"To sign in, open {code.verification_uri} on any device, and enter the code")
    click.echo(f"\n    {styled(printable(code.user_code), bold=True, err=True)}\n", err=True)
    if code.verification_uri_complete:
        note(f"or open {code.verification_uri_complete} and compare the code.")
    note(f"Waiting until you have signed in. The code expires at {local(expire_time)}.")
    return issuer.wait_for_user(code, grant, target.url)


def _identity(target: Target, token: StoredToken) -> Identity:
    """Check the token before it is saved."""
    from modelreg._access.sign_in import refused  # noqa: PLC0415 - as all of the library
    from modelreg.errors import Unauthenticated  # noqa: PLC0415

    try:
        return target.identity(token.access_token)
    except Unauthenticated as error:
        if token.grant is None:
            raise
        raise refused(target.url, token.grant.issuer, error) from None


def _say_signed_in(target: Target, profile: Profile, identity: Identity | None, in_keyring: bool) -> None:
    if identity is None:
        note(f"{profile.url} requires no token. The active profile is now {profile.name}.")
        return
    roles = ", ".join(_role(found) for found in identity.grants) or "no role yet"
    note(f"Signed in to {profile.url} as {identity.subject} ({roles}). The active profile is now {profile.name}.")
    place = "the keyring" if in_keyring else str(target.profiles.tokens.path(profile.name))
    note(f"The token is in {place}.")
    for variable in ("MODELREG_URL", "MODELREG_PROFILE"):
        if os.environ.get(variable) not in (None, "", profile.name, profile.url):
            note(f"{variable} is set, and comes before the active profile.")


def _role(grant: Role) -> str:
    return grant.role if grant.project_id is None else f"{grant.role} in {grant.project_id}"


# ---- logout ---------------------------------------------------------------------


@click.command("logout", cls=Command)
@click.option("--all", "of_all", is_flag=True, help="Sign out of all profiles.")
@with_session
def logout_command(session: Session, of_all: bool) -> None:
    """Delete the token of a profile.

    A token of an OpenID provider is revoked, too. The profile itself stays: `mreg profile rm` removes it. Default: the
    profile of --profile or --url, else MODELREG_PROFILE, else the active one.
    """
    from modelreg._access.sign_in import sign_out  # noqa: PLC0415 - as all of the library
    from modelreg.profiles import Profiles  # noqa: PLC0415

    profiles = Profiles()
    chosen = list(profiles) if of_all else [_chosen_profile(session, profiles)]
    for profile in chosen:
        was_there, problem = sign_out(profiles, profile)
        if problem:
            note(f"Warning: {problem}")
        said = "Signed out of" if was_there else "There was no token for"
        session.output.result(
            {"name": profile.name, "url": profile.url},
            human=partial(note, f"{said} {profile.url} (profile {profile.name})."),
            quiet=profile.name,
        )
        if profile.sign_in == "token" and was_there and session.output.is_human:
            note("The registry still accepts the token, until its operator revokes it or it expires.")
    if any(os.environ.get(name) for name in ("MODELREG_TOKEN", "MODELREG_TOKEN_FILE", "MODELREG_CLIENT_SECRET")):
        note("The environment still has a token, which is used for MODELREG_URL.")


def _chosen_profile(session: Session, profiles: Any) -> Profile:
    from modelreg.errors import NotFound  # noqa: PLC0415 - as all of the library
    from modelreg.urls import parse_url  # noqa: PLC0415

    found: Profile | None
    name = session.options.get("profile") or os.environ.get("MODELREG_PROFILE")
    if name:
        found = profiles.get(name)
    elif url := session.options.get("url"):
        found = profiles.find(parse_url(url))
    else:
        found = profiles.active()
    if found is None:
        raise NotFound("There is no such profile.", hint="`mreg profile ls` lists the profiles: choose with --profile.")
    return found


# ---- whoami ---------------------------------------------------------------------


@click.command("whoami", cls=Command)
@with_session
def whoami_command(session: Session) -> None:
    """Show who you are at the registry, and what you may do."""
    identity = session.registry.whoami()

    def human() -> None:
        output = session.output
        subject = printable(identity.subject) or "an unnamed caller"
        output.line(f"{styled(subject, bold=True)} at {session.registry.url}")
        if identity.expire_time is not None:
            output.line(f"until {(local if output.is_terminal else utc)(identity.expire_time)}")
        if identity.grants:
            if output.is_terminal:
                output.line()
            output.table(identity.grants, _ROLE_COLUMNS)
        else:
            note("You have no role, so you may do nothing. Ask the operator of the registry for one.")

    session.output.result(identity, human=human, quiet=identity.subject)


_ROLE_COLUMNS = (
    Column[Any]("role", lambda grant: grant.role),
    Column[Any]("project", lambda grant: "all" if grant.project_id is None else grant.project_id),
    Column[Any]("permissions", lambda grant: ", ".join(grant.permissions), shrinks=True),
)
