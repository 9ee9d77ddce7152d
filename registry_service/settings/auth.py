"""Settings of authentication."""

import logging
from typing import Annotated, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from registry_service.settings.addresses import is_loopback
from registry_service.settings.base import OptionalFile, OptionalText, SharedSettings, is_http_url

logger = logging.getLogger(__name__)

OIDC_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signature algorithms with public keys. With a shared secret, every verifier could also sign tokens."""

_DEFAULT_ALGORITHMS = ("RS256", "ES256")
_DEFAULT_SCOPES = ("openid",)


class AuthSettings(SharedSettings):
    """Settings of authentication by bearer tokens of the registry or of an OpenID provider."""

    oidc_issuer: OptionalText = Field(
        None, description="URL of the OpenID provider, as in the `iss` claim. Required with AUTH_MODE=oidc."
    )
    oidc_audience: OptionalText = Field(
        None, description="Value that the `aud` claim must contain. Required with AUTH_MODE=oidc."
    )
    oidc_jwks_url: OptionalText = Field(
        None,
        description="URL of the provider's keys (JWKS). If unset, it is read from the provider's "
        "`/.well-known/openid-configuration`.",
    )
    oidc_ca_cert: OptionalFile = Field(
        None, description="PEM file of the CA for the provider's certificate. If unset, the default CAs apply."
    )
    oidc_algorithms: tuple[str, ...] = Field(
        _DEFAULT_ALGORITHMS,
        description="Accepted signature algorithms, comma-separated: `RS*`, `PS*`, `ES*`, `EdDSA`.",
    )
    oidc_leeway_seconds: Annotated[float, Field(ge=0, le=300)] = Field(
        30, description="Accepted clock difference to the provider, in seconds."
    )
    oidc_roles_claim: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)] = Field(
        "roles", description="Claim with the roles, or the path to it, such as `realm_access.roles`."
    )

    oidc_client_id: OptionalText = Field(
        None,
        description="Public client with which command-line clients sign in at the provider. GetServerInfo returns it.",
    )
    oidc_scopes: tuple[str, ...] = Field(
        _DEFAULT_SCOPES, description="Scopes that command-line clients request from the provider, comma-separated."
    )

    @field_validator("oidc_issuer", "oidc_jwks_url")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        if value is not None and not is_http_url(value, path=r"[^\s#@\\]*"):
            raise ValueError("must be a URL such as https://login.example.org/realms/models")
        return value

    @field_validator("oidc_algorithms", mode="before")
    @classmethod
    def _split_algorithms(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(part.strip() for part in value.split(",") if part.strip()) or _DEFAULT_ALGORITHMS

    @field_validator("oidc_scopes", mode="before")
    @classmethod
    def _split_scopes(cls, value: object) -> object:
        return (tuple(value.replace(",", " ").split()) or _DEFAULT_SCOPES) if isinstance(value, str) else value

    @field_validator("oidc_algorithms")
    @classmethod
    def _check_algorithms(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for algorithm in value:
            if algorithm not in OIDC_ALGORITHMS:
                raise ValueError(f"{algorithm!r} must be one of {', '.join(OIDC_ALGORITHMS)}")
        return value

    @model_validator(mode="after")
    def _check_provider(self) -> Self:
        missing = [name.upper() for name in ("oidc_issuer", "oidc_audience") if getattr(self, name) is None]
        if self.auth_mode == "oidc" and missing:
            raise ValueError(f"{', '.join(missing)}: must be set with AUTH_MODE=oidc")
        return self


def warn_if_open(settings: AuthSettings, address: str) -> None:
    """Log a warning if callers on other machines need no credentials."""
    if settings.auth_mode == "none" and not is_loopback(address):
        logger.warning(
            "AUTH_MODE=none: anyone who can reach %s can read, change and delete everything",
            address,
            extra={"address": address},
        )
