"""What all settings share: the base class, the types of fields, loading and its errors."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FilePath,
    SecretStr,
    ValidationError,
    field_validator,
)

from registry_service.domain.user_error import UserError

MIB = 1024 * 1024
GIB = 1024 * MIB


def _stripped_or_none(value: object) -> object:
    """Return a text without surrounding whitespace; None for one without anything else."""
    return (value.strip() or None) if isinstance(value, str) else value


Port = Annotated[int, Field(ge=1, le=65535)]
Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]
SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
# Whitespace alone is unset, too: it is what remains of a value that was cut out of a file.
OptionalText = Annotated[str | None, BeforeValidator(_stripped_or_none)]
OptionalSecret = Annotated[SecretStr | None, BeforeValidator(_stripped_or_none)]
OptionalFile = Annotated[FilePath | None, BeforeValidator(_stripped_or_none)]
OptionalPath = Annotated[Path | None, BeforeValidator(_stripped_or_none)]


class SettingsError(UserError):
    """Settings are missing or invalid. The message has a line for each, with its name in the environment."""

    def __init__(self, error: ValidationError) -> None:
        lines = []
        for item in error.errors():
            name = str(item["loc"][0]).upper() if item["loc"] else ""
            message = "must be set" if item["type"] == "missing" else item["msg"].removeprefix("Value error, ")
            lines.append(f"{name}: {message}" if name else message)
        super().__init__("\n".join(lines))


class CommonSettings(BaseModel):
    """Settings of every command."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True, validate_default=True)

    min_log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        "INFO", description="Least severe level that is logged. `DEBUG` is for the analysis of a problem."
    )

    @field_validator("min_log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value


class ShutdownSettings(CommonSettings):
    """Settings of a shutdown."""

    shutdown_grace_seconds: Seconds = Field(
        20,
        description="How long running calls may continue after SIGTERM, in seconds. Keep it below the time after which "
        "the platform kills the process.",
    )


class SharedSettings(CommonSettings):
    """Settings that must be the same for the gateway and the servers behind it."""

    auth_mode: Literal["none", "token", "oidc"] = Field(
        "none",
        description="Who may call: anyone (`none`), callers with a token of the registry (`token`), or callers with "
        "such a token or one of OIDC_ISSUER (`oidc`). Must be the same for server and gateway.",
    )
    metadata_max_bytes: Positive = Field(
        MIB,
        description="Largest metadata of a model as JSON, in bytes. The gateway accepts JSON bodies of up to twice "
        "this size. Must be the same for server and gateway.",
    )

    @field_validator("auth_mode", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return (value.strip().lower() or "none") if isinstance(value, str) else value


SettingsT = TypeVar("SettingsT", bound=CommonSettings)


def load(kind: type[SettingsT], **overrides: object) -> SettingsT:
    """Read settings from the environment. Names are case-insensitive, and an empty value is unset.

    Args:
        kind: Class of the settings.
        overrides: Values that replace those of the environment, by name.

    Raises:
        SettingsError: A setting is missing or invalid.
    """
    # Not with pydantic-settings: its import takes 60 ms of CPU time, and reading the settings of a server 3 ms.
    values: dict[str, object] = {name.lower(): value for name, value in os.environ.items() if value}
    try:
        return kind.model_validate(values | overrides)
    except ValidationError as error:
        raise SettingsError(error) from None


def is_http_url(url: str, path: str = r"(/[^\s?#@\\]*)?") -> bool:
    """Return whether a text is an HTTP(S) URL without user information, whose rest matches `path`."""
    if not re.fullmatch(rf"https?://[^\s/?#@\\]+{path}", url):
        return False
    try:
        return urlsplit(url).port != 0
    except ValueError:  # the port is out of range, or a bracket is not closed
        return False
