"""The arguments of `Registry`, completed from the environment and the profile of `mreg login`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelreg._credentials import Credentials, FixedToken, NoToken
from modelreg._options import Options
from modelreg.urls import DEFAULT_URL, parse_url


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

    def without_token(self) -> Configuration:
        """Return the configuration without the token, for another process."""
        return dataclasses.replace(self, token=None)

    def resolve(self, environment: Mapping[str, str] = os.environ) -> tuple[Options, Credentials]:
        """Return how calls are made, and where their tokens come from.

        URL and token come from one source: the arguments, the environment, or the profile. So a token is sent only to
        the registry that it was meant for.
        """
        url, token = self.url, self.token
        if url is None and environment.get("MODELREG_URL"):
            url = environment["MODELREG_URL"]
            token = token or environment.get("MODELREG_TOKEN")
        credentials: Credentials = FixedToken(token) if token else NoToken()
        options = Options(
            endpoint=parse_url(url or DEFAULT_URL),
            timeout=self.timeout,
            stall_timeout=self.stall_timeout,
            ca_file=self.ca_file,
            client_certificate=self.client_certificate,
            client_key=self.client_key,
            insecure=self.insecure,
        )
        return options, credentials
