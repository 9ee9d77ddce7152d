"""Print docs/reference/settings.md, from the classes of settings. `make generate` runs this program."""

import sys
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from annotated_types import Ge, Gt, Le
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from docs.generators.markdown import cell, prose
from registry_service.settings import (
    ArtifactSettings,
    AuthSettings,
    CommonSettings,
    DatabaseSettings,
    GatewaySettings,
    GetiSettings,
    IntelSourceSettings,
    LimitSettings,
    Settings,
    ShutdownSettings,
    TelemetrySettings,
    TlsSettings,
)

_HEAD = """<!-- Generated from the settings classes by `make generate`. Edit the classes. -->

# Settings

Set these variables in the environment of each process. Nothing else is read: there is no configuration file. A setting
that is missing or invalid stops the process at its start, with one line for each fault.

`model-registry config` prints the effective settings of server and gateway, with secrets masked:

```bash
PSQL_HOSTNAME=localhost ARTIFACT_STORE=local ARTIFACT_DIR=/tmp/registry-tour \\
    .venv/bin/model-registry config
```

compose.yaml passes on variables with the prefix `MR_`, such as `MR_AUTH_MODE`. `.env.example` lists them.

Names of Intel's Model Registry (`PSQL_*`, `MINIO_*`, `SERVER_*`, `GETI_*`, `MIN_LOG_LEVEL`, `ENABLE_HTTPS_MODE`, …) are
unchanged, so an existing `.env` keeps working.
"""
_UP = "`model-registry up` sets its own values for the database and the artifact store."


@dataclass(frozen=True)
class Section:
    """A class of settings and how the page presents it."""

    title: str
    kind: type[CommonSettings]
    commands: str
    """Which commands read the settings."""
    note: str = ""


SECTIONS = (
    Section("Logging", CommonSettings, "every command"),
    Section(
        "TLS towards clients",
        TlsSettings,
        "`up`, `serve`, `gateway` and `check`",
        "[TLS](../operations/tls.md) explains how to use these settings.",
    ),
    Section("Shutdown", ShutdownSettings, "`up`, `serve` and `gateway`"),
    Section(
        "Metrics and traces",
        TelemetrySettings,
        "`up`, `serve` and `gateway`",
        "The server also obeys the other variables of the OpenTelemetry SDK."
        " See [Metrics, traces and logs](../operations/monitoring.md).",
    ),
    Section("Gateway", GatewaySettings, "`gateway` and `up`", "With `up`, the gateway's upstream is its own server."),
    Section("PostgreSQL", DatabaseSettings, "`serve`, `migrate`, `gc` and the commands for backups", _UP),
    Section(
        "Intel Geti",
        GetiSettings,
        "`up` and `serve`",
        "An import needs all of these settings but the last. See [Import from Intel Geti](../geti.md).",
    ),
    Section(
        "OpenID Connect",
        AuthSettings,
        "`up` and `serve`",
        "See [Authentication and authorization](../operations/access.md).",
    ),
    Section(
        "Artifacts",
        ArtifactSettings,
        "`serve`, `gc` and the commands for backups",
        f"With `ARTIFACT_STORE=s3`, host and keys of the S3 are required; with `local`, the folder. {_UP}",
    ),
    Section("Limits", LimitSettings, "`up` and `serve`", "See [Scaling](../operations/scaling.md)."),
    Section("Server", Settings, "`serve`, `gc` and `up`"),
    Section(
        "Source of a migration",
        IntelSourceSettings,
        "`import-intel`",
        "See [Migrate from Intel's Model Registry](../migration.md).",
    ),
)


def document() -> str:
    """Return the page in Markdown: a table for each class, each setting under the first class that has it."""
    lines = [_HEAD]
    listed: set[str] = set()
    for section in SECTIONS:
        lines += [f"\n## {section.title}\n\n", f"Read by {section.commands}."]
        lines += [f" {section.note}\n" if section.note else "\n"]
        lines += ["\n| Name | Type | Default | Description |\n", "| --- | --- | --- | --- |\n"]
        for name, field in section.kind.model_fields.items():
            if name not in listed:
                listed.add(name)
                description = prose(str(field.description))
                row = (f"`{name.upper()}`", _type_of(name, field), default_of(name, field), description)
                lines.append(f"| {' | '.join(map(cell, row))} |\n")
    return "".join(lines)


def default_of(name: str, field: FieldInfo) -> str:
    """Return how the page shows the default of a setting."""
    if field.is_required():
        return "**required**"
    match field.default:
        case None:
            return "none"
        case SecretStr() as secret:
            return f"`{secret.get_secret_value()}`" if secret else "empty"
        case bool(value):
            text = str(value).lower()
        case tuple(values):
            text = ",".join(values)
        case int(value) if name.endswith("_bytes"):
            return f"`{value}` ({_sized(value)})"
        case int(value) | float(value) if name.endswith("_seconds"):
            return f"`{value:g}`{_timed(value)}"
        case value:
            text = str(value)
    return f"`{text}`"


def _type_of(name: str, field: FieldInfo) -> str:
    """Return what values a setting takes: a word for its type, or the values themselves."""
    kinds = list(_leaves(field.annotation))
    literals = [value for kind in kinds if typing.get_origin(kind) is typing.Literal for value in typing.get_args(kind)]
    if literals:
        return ", ".join(f"`{value}`" for value in literals)
    words: dict[object, str] = {
        bool: "`true` or `false`",
        SecretStr: "secret",
        str: "text",
        Path: "path",
        tuple: "list, comma-separated",
    }
    for kind in kinds:
        if (word := words.get(typing.get_origin(kind) or kind)) is not None:
            return word
    noun = next((noun for suffix, noun in (("_bytes", "bytes"), ("_seconds", "seconds")) if name.endswith(suffix)), "")
    noun = noun or ("port" if name.endswith("port") else "integer" if int in kinds else "number")
    return f"{noun}{_bounds(field)}" if noun != "port" else noun


def _leaves(annotation: object) -> Iterator[object]:
    """Yield the types that an annotation consists of, without None and without `Annotated`."""
    if typing.get_origin(annotation) is typing.Annotated:
        yield from _leaves(typing.get_args(annotation)[0])
    elif typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        for argument in typing.get_args(annotation):
            yield from _leaves(argument)
    elif annotation is not type(None):
        yield annotation


def _bounds(field: FieldInfo) -> str:
    """Return the bounds of a number, such as ", at most 60"."""
    bounds = []
    for constraint in field.metadata:
        match constraint:
            case Ge(ge=least):
                bounds.append(f"at least {least}")
            case Gt(gt=least):
                bounds.append(f"more than {least}")
            case Le(le=most):
                bounds.append(f"at most {most}")
    return "".join(f", {bound}" for bound in bounds)


def _sized(count: int) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count % 1024 or unit == "GiB":
            break
        count //= 1024
    return f"{count} {unit}"


def _timed(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds > size and seconds % size == 0:
            return f" ({seconds / size:g} {unit})"
    return ""


if __name__ == "__main__":
    sys.stdout.write(document())
