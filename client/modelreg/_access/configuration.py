"""The arguments of `Registry`, completed from the environment and the profile of `mreg login`.

URL and token come from one source, so that a token is sent only to the registry that it was meant for:

| Given | URL | Token |
|---|---|---|
| `url` and `token` | `url` | `token` |
| `url` | `url` | that of the environment if `MODELREG_URL` is the same, else that of the profile for this URL |
| `token` | the default one | `token`; refused if the environment or a profile says another URL |
| `profile` | of the profile | of the profile |
| `MODELREG_URL` | `MODELREG_URL` | that of the environment, else that of the profile for this URL |
| `MODELREG_PROFILE` | of the profile | of the profile |
| the token of the environment alone | the default one | that one; refused if a profile is active |
| nothing | of the active profile, else the default one | of that profile |

The token of the environment is `MODELREG_TOKEN`, or the content of `MODELREG_TOKEN_FILE`, or what the provider
`MODELREG_ISSUER` issues for `MODELREG_CLIENT_ID` and `MODELREG_CLIENT_SECRET` (with `MODELREG_SCOPES`, separated by
spaces, and `MODELREG_AUDIENCE`).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelreg import directories
from modelreg._access.credentials import Credentials, FixedToken, NoToken, TokenFile
from modelreg._wire.options import Options
from modelreg.errors import InvalidArgument
from modelreg.urls import DEFAULT_URL, Endpoint, parse_url

if TYPE_CHECKING:
    from modelreg.profiles import Profile, Profiles

_MAX_SECONDS = 365 * 86_400.0
"""Longer than any call. grpc takes much larger numbers, and infinity, for no time at all."""
_CLIENT_VARIABLES = ("MODELREG_ISSUER", "MODELREG_CLIENT_ID", "MODELREG_CLIENT_SECRET")
_TOKEN_VARIABLES = ("MODELREG_TOKEN", "MODELREG_TOKEN_FILE", *_CLIENT_VARIABLES)


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """The arguments of `Registry`."""

    url: str | None
    token: str | None = dataclasses.field(repr=False)
    profile: str | None
    timeout: float
    stall_timeout: float
    ca_file: str | None
    client_certificate: str | None
    client_key: str | None
    insecure: bool

    def arguments(self) -> dict[str, Any]:
        """Return the arguments by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def for_another_process(self, endpoint: Endpoint) -> Configuration:
        """Return the configuration for another process: with the URL that was found, without the token."""
        return dataclasses.replace(self, url=endpoint.url, token=None)

    def resolve(self, environment: Mapping[str, str] = os.environ) -> tuple[Options, Credentials]:
        """Return how calls are made, and where their tokens come from.

        Raises:
            InvalidArgument: An argument, a variable or the profile is wrong, or it is unclear where a token belongs.
            NotFound: There is no such profile.
        """
        found = _Resolution(self, environment)
        endpoint, profile = found.endpoint_and_profile()
        options = self.options(endpoint, profile, environment)
        return options, found.credentials(endpoint, profile, options.ca_file)

    def options(self, endpoint: Endpoint, profile: Profile | None, environment: Mapping[str, str]) -> Options:
        """Return how calls are made.

        Args:
            endpoint: Where the registry answers.
            profile: What the arguments and the environment leave out.
            environment: The variables of the process.

        Raises:
            InvalidArgument: An argument or a variable is wrong.
        """
        if not endpoint.is_encrypted and (self.ca_file or self.client_certificate or self.client_key):
            raise InvalidArgument(
                f"{endpoint.url} uses no TLS, so ca_file, client_certificate and client_key would not be used. Use "
                "grpcs:// or https://."
            )
        ca_file = self.ca_file or environment.get("MODELREG_CA_FILE") or (profile.ca_file if profile else None)
        certificate, key = _first_pair(
            (self.client_certificate, self.client_key),
            (environment.get("MODELREG_CLIENT_CERTIFICATE"), environment.get("MODELREG_CLIENT_KEY")),
            (profile.client_certificate, profile.client_key) if profile else (None, None),
        )
        return Options(
            endpoint=endpoint,
            timeout=_positive("timeout", self.timeout),
            stall_timeout=_positive("stall_timeout", self.stall_timeout),
            ca_file=ca_file,
            client_certificate=certificate,
            client_key=key,
            insecure=self.insecure or _flag("MODELREG_INSECURE", environment) or bool(profile and profile.insecure),
        )


class _Resolution:
    """Finds where URL and token come from."""

    def __init__(self, configuration: Configuration, environment: Mapping[str, str]) -> None:
        self._given = configuration
        self._environment = environment
        self._profiles: Profiles | None = None
        self._uses_environment = False
        self._note = ""

    def endpoint_and_profile(self) -> tuple[Endpoint, Profile | None]:
        """Return where calls go, and the profile that says how; None for none."""
        given = self._given
        if given.profile is not None:
            if given.token is not None:
                raise InvalidArgument("token: a profile has its own token. Pass url and token, or only profile.")
            return self._named_profile(given.profile, "profile", given.url, "url")
        if given.url is not None:
            return self._endpoint_of_argument(given.url)
        if given.token is not None:
            return self._default_endpoint("token was passed without url", "Pass url, too"), None
        return self._from_environment()

    def _from_environment(self) -> tuple[Endpoint, Profile | None]:
        url = self._environment.get("MODELREG_URL") or None
        if name := self._environment.get("MODELREG_PROFILE"):
            if self._has_token:
                raise InvalidArgument(f"{self._token_variable} and MODELREG_PROFILE are both set. Unset one of them.")
            return self._named_profile(name, "MODELREG_PROFILE", url, "MODELREG_URL")
        self._uses_environment = self._has_token
        if url is not None:
            endpoint = _parsed("MODELREG_URL", url)
            return endpoint, None if self._has_token else self._profile_of(endpoint)
        if self._has_token:
            problem = f"{self._token_variable} is set without MODELREG_URL"
            return self._default_endpoint(problem, "Set MODELREG_URL, too"), None
        profiles = self._accessible_profiles()
        profile = None if profiles is None else profiles.active()
        return (parse_url(DEFAULT_URL), None) if profile is None else (profile.endpoint, profile)

    def credentials(self, endpoint: Endpoint, profile: Profile | None, ca_file: str | None) -> Credentials:
        """Return where the tokens come from."""
        if self._given.token is not None:
            return FixedToken(self._given.token)
        if self._uses_environment:
            return self._environment_credentials(endpoint, ca_file)
        if profile is not None and self._profiles is not None and profile.sign_in != "none":
            from modelreg._access.refreshed_tokens import ProfileToken  # noqa: PLC0415 - only with a profile

            return ProfileToken(self._profiles.tokens, profile.name, profile.url, ca_file)
        return NoToken(self._note)

    def _endpoint_of_argument(self, url: str) -> tuple[Endpoint, Profile | None]:
        endpoint = _parsed("url", url)
        if self._given.token is not None:
            return endpoint, None
        other = self._environment.get("MODELREG_URL")
        if self._has_token:
            if other and _parsed("MODELREG_URL", other) == endpoint:
                self._uses_environment = True
                return endpoint, None
            self._note = f"{self._token_variable} is for " + (other or "the registry of MODELREG_URL, which is not set")
            self._note += f", so it was not sent to {endpoint.url}. Set MODELREG_URL={endpoint.url}, or pass the token."
        return endpoint, self._profile_of(endpoint)

    def _default_endpoint(self, problem: str, remedy: str) -> Endpoint:
        """Return the default endpoint for a token, unless another registry could be meant."""
        profiles = self._accessible_profiles()
        profile = None if profiles is None else profiles.active()
        others = {
            "MODELREG_URL": self._environment.get("MODELREG_URL"),
            "MODELREG_PROFILE": self._environment.get("MODELREG_PROFILE"),
            "The active profile": profile and profile.url,
        }
        for name, value in others.items():
            if value and value != DEFAULT_URL:
                raise InvalidArgument(
                    f"{problem}. A token is sent only to the registry that is named together with it. {name} says "
                    f"{value}. {remedy}."
                )
        return parse_url(DEFAULT_URL)

    def _named_profile(self, name: str, named_by: str, url: str | None, url_name: str) -> tuple[Endpoint, Profile]:
        profiles = self._profiles = self._all_profiles()
        profile = profiles.get(name)
        if url is not None and _parsed(url_name, url).url != profile.url:
            raise InvalidArgument(f"{named_by} and {url_name} are of different registries: {profile.url} and {url}.")
        return profile.endpoint, profile

    def _profile_of(self, endpoint: Endpoint) -> Profile | None:
        profiles = self._accessible_profiles()
        return None if profiles is None else profiles.find(endpoint)

    def _all_profiles(self) -> Profiles:
        from modelreg.profiles import Profiles  # noqa: PLC0415 - only with a profile

        return Profiles(directories.configuration_directory(self._environment))

    def _accessible_profiles(self) -> Profiles | None:
        """Return the profiles if there are any. No profile is needed, so neither is a home directory."""
        try:
            profiles = self._all_profiles()
        except InvalidArgument:
            return None
        if not os.access(profiles.path, os.R_OK):
            return None
        self._profiles = profiles
        return profiles

    @property
    def _has_token(self) -> bool:
        return any(self._environment.get(name) for name in _TOKEN_VARIABLES)

    @property
    def _token_variable(self) -> str:
        return next(name for name in _TOKEN_VARIABLES if self._environment.get(name))

    def _environment_credentials(self, endpoint: Endpoint, ca_file: str | None) -> Credentials:
        values = {name: self._environment.get(name) or "" for name in _TOKEN_VARIABLES}
        client = [name for name in _CLIENT_VARIABLES if values[name]]
        ways = [name for name in ("MODELREG_TOKEN", "MODELREG_TOKEN_FILE") if values[name]] + client[:1]
        if len(ways) > 1:
            raise InvalidArgument(f"{' and '.join(ways)} are both set. Unset one of them.")
        if values["MODELREG_TOKEN"]:
            return FixedToken(values["MODELREG_TOKEN"], "MODELREG_TOKEN")
        if values["MODELREG_TOKEN_FILE"]:
            return TokenFile(values["MODELREG_TOKEN_FILE"], "MODELREG_TOKEN_FILE")
        if len(client) < len(_CLIENT_VARIABLES):
            missing = " and ".join(name for name in _CLIENT_VARIABLES if not values[name])
            raise InvalidArgument(f"{client[0]} is set without {missing}.")
        from modelreg._access.refreshed_tokens import ClientCredentials  # noqa: PLC0415 - few clients sign in like this
        from modelreg._access.token_store import Grant  # noqa: PLC0415

        grant = Grant(
            issuer=values["MODELREG_ISSUER"],
            client_id=values["MODELREG_CLIENT_ID"],
            client_secret=values["MODELREG_CLIENT_SECRET"],
            scopes=tuple(self._environment.get("MODELREG_SCOPES", "").split()),
            audience=self._environment.get("MODELREG_AUDIENCE", ""),
        )
        return ClientCredentials(grant, endpoint.url, ca_file)


def _parsed(name: str, url: str) -> Endpoint:
    try:
        return parse_url(url)
    except InvalidArgument as error:
        raise InvalidArgument(f"{name}: {error.message}") from None


def _first_pair(*pairs: tuple[str | None, str | None]) -> tuple[str | None, str | None]:
    """Return the first pair of which something is set: certificate and key belong together."""
    return next(((first or None, second or None) for first, second in pairs if first or second), (None, None))


def _positive(name: str, value: float) -> float:
    if not isinstance(value, (int, float)):
        raise InvalidArgument(f"{name}: must be a number of seconds, not {value!r:.100}.")
    if not value > 0:
        raise InvalidArgument(f"{name}: must be more than 0 seconds, not {value!r}.")
    return float(min(value, _MAX_SECONDS))


def _flag(name: str, environment: Mapping[str, str]) -> bool:
    value = environment.get(name, "").lower()
    if value in ("", "0", "false", "no"):
        return False
    if value in ("1", "true", "yes"):
        return True
    raise InvalidArgument(f"{name}: must be 1 or 0, not {value!r}.")
