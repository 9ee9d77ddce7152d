"""What the README says of settings and filters is what the code says."""

import re
from pathlib import Path

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from registry_service.domain import filter as filters
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

README = Path(__file__).resolve().parents[2] / "README.md"
# A row for each setting, under the class that has it first.
CLASSES: tuple[type[CommonSettings], ...] = (
    CommonSettings,
    TlsSettings,
    ShutdownSettings,
    TelemetrySettings,
    GatewaySettings,
    DatabaseSettings,
    GetiSettings,
    AuthSettings,
    ArtifactSettings,
    LimitSettings,
    Settings,
    IntelSourceSettings,
)
ROW = re.compile(r"\| `[A-Z_]+` \|")


def sized(count: int) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count % 1024 or unit == "GiB":
            break
        count //= 1024
    return f"{count} {unit}"


def timed(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds > size and seconds % size == 0:
            return f" ({seconds / size:g} {unit})"
    return ""


def default_of(name: str, field: FieldInfo) -> str:
    """How the table shows a default."""
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
            return f"`{value}` ({sized(value)})"
        case int(value) | float(value) if name.endswith("_seconds"):
            return f"`{value:g}`{timed(value)}"
        case value:
            text = str(value)
    return f"`{text}`"


def expected_rows() -> list[str]:
    rows: dict[str, str] = {}
    for kind in CLASSES:
        for name, field in kind.model_fields.items():
            rows.setdefault(name, f"| `{name.upper()}` | {default_of(name, field)} | {field.description} |")
    return list(rows.values())


def test_the_table_has_every_setting_with_its_default_and_meaning() -> None:
    rows = [line for line in README.read_text(encoding="utf-8").splitlines() if ROW.match(line)]
    assert rows == expected_rows()


def test_every_filter_of_the_readme_is_a_filter() -> None:
    section = README.read_text(encoding="utf-8").partition("\n## The filter language\n")[2].partition("\n## ")[0]
    examples = re.findall(r"^\| `(.+?)` \|", section, re.MULTILINE)
    assert len(examples) > 5
    for example in examples:
        assert filters.parse(example) is not None


def test_every_setting_says_what_it_is_for() -> None:
    for kind in CLASSES:
        for name, field in kind.model_fields.items():
            assert (field.description or "").endswith("."), name
