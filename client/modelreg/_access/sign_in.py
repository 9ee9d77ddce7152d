"""Signing in and out: what `mreg login` and `mreg logout` do, without the questions that they ask."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from modelreg._access.configuration import Configuration
from modelreg._access.credentials import check_token_may_be_sent
from modelreg._access.oidc import Issuer
from modelreg._access.token_store import Grant, StoredToken
from modelreg._wire.options import DEFAULT_STALL_TIMEOUT, DEFAULT_TIMEOUT, Options
from modelreg.errors import InvalidArgument, RegistryError, Unauthenticated, Unsupported
from modelreg.profiles import Profile, Profiles, SignIn, check_name
from modelreg.server import Authentication, Identity
from modelreg.urls import DEFAULT_URL, parse_url

if TYPE_CHECKING:
    from modelreg import Registry

_MAX_SCOPES = 50


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where to sign in, and as which profile."""

    name: str
    """The name of the profile."""
    options: Options
    previous: Profile | None
    """The profile of this name and this URL, if there is one."""
    profiles: Profiles = field(repr=False)

    @property
    def url(self) -> str:
        """The URL of the registry."""
        return self.options.endpoint.url

    def authentication(self) -> Authentication:
        """Ask the registry how to sign in. No token is sent.

        Raises:
            RegistryError: The registry cannot be asked.
        """
        try:
            # Any token will do, so that no profile is looked for: this call sends none.
            with self._registry("none") as registry:
                return registry.server_info().authentication
        except Unsupported:
            # Older than the call: such servers took fixed tokens, if any.
            return Authentication(mode="unknown")

    def identity(self, token: str) -> Identity:
        """Ask the registry whose token this is.

        Raises:
            Unauthenticated: The registry refuses the token.
            InvalidArgument: The token must not be sent without TLS.
            RegistryError: The registry cannot be asked.
        """
        check_token_may_be_sent(self.options)
        with self._registry(token) as registry:
            return registry.whoami()

    def _registry(self, token: str) -> Registry:
        from modelreg import Registry  # noqa: PLC0415 - imports gRPC and the stubs

        options = self.options
        return Registry(
            self.url,
            token=token,
            timeout=options.timeout,
            ca_file=options.ca_file if options.endpoint.is_encrypted else None,
            client_certificate=options.client_certificate if options.endpoint.is_encrypted else None,
            client_key=options.client_key if options.endpoint.is_encrypted else None,
            insecure=options.insecure,
        )

    def was_confirmed(self, grant: Grant) -> bool:
        """Tell whether the profile has a token of the same provider, client, scopes and audience already."""
        if self.previous is None:
            return False
        try:
            kept = self.profiles.tokens.read(self.name)
        except InvalidArgument:
            return False
        known = None if kept is None or kept.grant is None else dataclasses.replace(kept.grant, client_secret=None)
        return known == dataclasses.replace(grant, client_secret=None)

    def others_with(self, grant: Grant) -> list[Profile]:
        """Return the profiles of other registries for which the provider's token would be valid, too."""
        return [
            profile
            for profile in self.profiles
            if profile.url != self.url
            and profile.issuer == grant.issuer
            and (profile.audience == grant.audience or not profile.audience or not grant.audience)
        ]

    def save(self, sign_in: SignIn, token: StoredToken | None, subject: str) -> tuple[Profile, bool]:
        """Save the profile and make it the active one. Return it, and whether the token is in the keyring.

        Raises:
            OSError: A file cannot be written.
        """
        options = self.options
        profile = Profile(
            name=self.name,
            url=self.url,
            ca_file=_absolute(options.ca_file),
            client_certificate=_absolute(options.client_certificate),
            client_key=_absolute(options.client_key),
            insecure=options.insecure and not options.endpoint.is_encrypted,
            sign_in=sign_in,
            subject=subject,
            issuer=token.grant.issuer if token is not None and token.grant is not None else "",
            audience=token.grant.audience if token is not None and token.grant is not None else "",
        )
        # A process that reads in between finds the profile without a token, never a token with another URL.
        self.profiles.tokens.delete(self.name)
        self.profiles.save(profile)
        in_keyring = self.profiles.tokens.write(self.name, token) if token is not None else False
        return profile, in_keyring


def find_target(
    url: str | None, name: str | None, arguments: Mapping[str, Any], environment: Mapping[str, str] = os.environ
) -> Target:
    """Return where to sign in.

    Args:
        url: The URL. Default: that of the named profile, else `MODELREG_URL`, else that of the active profile, else the
            default.
        name: The name of the profile. Default: that of the profile of this URL, else one made of the host.
        arguments: Other arguments of `Registry`.
        environment: The variables of the process.

    Raises:
        InvalidArgument: An argument, a variable, or the file of profiles is wrong.
    """
    profiles = Profiles()
    if name is not None:
        check_name(name)
    known = {profile.name: profile for profile in profiles}
    # A profile that is named keeps its URL, whatever the environment says.
    if url is None and name is not None and name in known:
        url = known[name].url
    url = url or environment.get("MODELREG_URL") or None
    if url is None:
        active = profiles.active() if name is None else None
        url = DEFAULT_URL if active is None else active.url
    endpoint = parse_url(url)
    if name is None:
        previous = profiles.find(endpoint)
        name = _new_name(endpoint.host, endpoint.port, known) if previous is None else previous.name
    else:
        previous = known.get(name)
        if previous is not None and previous.url != endpoint.url:
            previous = None
    defaults = {field.name: None for field in dataclasses.fields(Configuration)}
    fixed = {"timeout": DEFAULT_TIMEOUT, "stall_timeout": DEFAULT_STALL_TIMEOUT, "insecure": False}
    given = {key: value for key, value in arguments.items() if key not in ("url", "profile", "token")}
    configuration = Configuration(**(defaults | fixed | given))
    options = configuration.options(endpoint, previous, environment)
    return Target(name=name, options=options, previous=previous, profiles=profiles)


def grant_of(
    authentication: Authentication,
    *,
    issuer: str | None,
    client_id: str | None,
    scopes: tuple[str, ...],
    audience: str | None,
    client_secret: str | None = None,
) -> Grant:
    """Return how to get tokens: as the arguments say, and otherwise as the registry proposes.

    What a registry proposes is not to be trusted: the caller shows it, and asks.

    Raises:
        InvalidArgument: The issuer or the client is missing, or a value of the registry is invalid.
    """
    if issuer is not None and authentication.oidc_issuer and issuer != authentication.oidc_issuer:
        raise InvalidArgument(
            f"The registry takes tokens of {authentication.oidc_issuer!r}, not of {issuer!r}. Nothing was sent."
        )
    found = Grant(
        issuer=issuer or authentication.oidc_issuer,
        client_id=client_id or authentication.oidc_client_id,
        scopes=scopes or tuple(authentication.oidc_scopes),
        audience=authentication.oidc_audience if audience is None else audience,
        client_secret=client_secret,
    )
    if not found.issuer:
        raise InvalidArgument("The registry names no OpenID provider. Name it with --issuer, or use --token-stdin.")
    if not found.client_id:
        raise InvalidArgument("The registry names no client id. Pass --client-id, or use --token-stdin.")
    texts = {"issuer": found.issuer, "client id": found.client_id, "audience": found.audience}
    for name, text in texts.items() | {("scope", scope) for scope in found.scopes}:
        if len(text) > 1000 or not text.isprintable() or (name == "scope" and (not text or " " in text)):
            raise InvalidArgument(f"The registry or an argument has an invalid {name}: {text[:100]!r}.")
    if len(found.scopes) > _MAX_SCOPES:
        raise InvalidArgument(f"The registry asks for {len(found.scopes)} scopes.")
    return found


def sign_out(profiles: Profiles, profile: Profile) -> tuple[bool, str]:
    """Delete the token of a profile, and revoke it if the provider offers that.

    Returns:
        Whether there was a token, and what went wrong without keeping it from being deleted; empty for nothing.

    Raises:
        OSError: The file cannot be removed.
    """
    token: StoredToken | None = None
    problem = ""
    was_there = profiles.tokens.path(profile.name).exists()
    try:
        token = profiles.tokens.read(profile.name)
    except InvalidArgument as error:
        problem = str(error)
    profiles.tokens.delete(profile.name)
    if token is not None and token.grant is not None:
        try:
            Issuer(token.grant.issuer, profile.ca_file).revoke(token)
        except RegistryError as error:
            problem = f"The token was deleted, but could not be revoked. {error}"
    return was_there, problem


def refused(url: str, issuer: str, error: Unauthenticated) -> Unauthenticated:
    """Return the error of a registry that refuses a token which its own provider has just issued."""
    return Unauthenticated(
        f"{url} refuses the token that {issuer} issued: {error.message}",
        hint="Ask the operator of the registry which audience and scopes its tokens need (--audience, --scope).",
        reason=error.reason,
        request_id=error.request_id,
    )


def _new_name(host: str, port: int, known: Mapping[str, Profile]) -> str:
    """Return a name for the profile of a host that is not taken: the host, with the port if need be."""
    base = re.sub(r"[^a-z0-9._-]", "-", host.lower()).strip(".-_")[:50] or "registry"
    return (
        base
        if base not in known
        else next(
            name for name in (f"{base}-{port}", *(f"{base}-{number}" for number in range(2, 1000))) if name not in known
        )
    )


def _absolute(path: str | None) -> str | None:
    return os.path.abspath(path) if path else None  # noqa: PTH100 - keeps links as they are
