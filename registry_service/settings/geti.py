"""Settings of the connection to an Intel Geti server."""

import re

from pydantic import Field, SecretStr, field_validator

from registry_service.settings.base import CommonSettings, OptionalSecret, OptionalText, is_http_url

_REQUIRED = ("geti_host", "geti_token", "geti_server_api_version", "geti_organization_id", "geti_workspace_id")


class GetiSettings(CommonSettings):
    """Settings of the Intel Geti server from which models are imported. Set all of them, or none."""

    geti_host: OptionalText = Field(
        None, description="URL of an Intel Geti server to import models from. Requires the other GETI_* settings."
    )
    geti_token: OptionalSecret = Field(None, description="API key of the Geti server.")
    geti_server_api_version: OptionalText = Field(None, description="Version of Geti's REST API, such as `v1`.")
    geti_organization_id: OptionalText = Field(None, description="Id of the Geti organization.")
    geti_workspace_id: OptionalText = Field(None, description="Id of the Geti workspace.")
    geti_server_ssl_verify: bool = Field(
        True,
        description="Whether to verify Geti's certificate. Set `false` only for a test server with a self-signed "
        "certificate.",
    )

    @field_validator("geti_host")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        # Credentials or a query in the URL would be ignored, or appear in logs.
        if value is not None and not is_http_url(value):
            raise ValueError("must be a URL such as https://geti.example.org")
        return value

    @field_validator("geti_token")
    @classmethod
    def _check_header_value(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[!-~]+", value.get_secret_value()):
            raise ValueError("must be printable ASCII without spaces")
        return value

    @property
    def missing_geti_settings(self) -> list[str]:
        """Names of the required settings that are not set."""
        return [name.upper() for name in _REQUIRED if getattr(self, name) is None]

    @property
    def has_any_geti_setting(self) -> bool:
        """Whether at least one of the required settings is set."""
        return len(self.missing_geti_settings) < len(_REQUIRED)
