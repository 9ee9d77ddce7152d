"""Settings from the environment, by concern. No other module reads the environment for settings.

The names are those of Intel's Model Registry where it has them (PSQL_*, MINIO_*,
SERVER_*, GETI_*, MIN_LOG_LEVEL), so that an existing `.env` keeps working. The
`description` of a field is its documentation in the settings reference.
"""

from registry_service.settings.addresses import is_loopback, loopback_address
from registry_service.settings.artifacts import ArtifactSettings
from registry_service.settings.auth import OIDC_ALGORITHMS, AuthSettings, warn_if_open
from registry_service.settings.base import CommonSettings, SettingsError, SharedSettings, ShutdownSettings, load
from registry_service.settings.database import DatabaseSettings
from registry_service.settings.gateway import GatewaySettings
from registry_service.settings.geti import GetiSettings
from registry_service.settings.intel_source import IntelSourceSettings
from registry_service.settings.limits import LimitSettings
from registry_service.settings.server import Settings
from registry_service.settings.telemetry import TelemetrySettings
from registry_service.settings.tls import CIPHER_SUITES, ListenSettings, TlsSettings

__all__ = [
    "CIPHER_SUITES",
    "OIDC_ALGORITHMS",
    "ArtifactSettings",
    "AuthSettings",
    "CommonSettings",
    "DatabaseSettings",
    "GatewaySettings",
    "GetiSettings",
    "IntelSourceSettings",
    "LimitSettings",
    "ListenSettings",
    "Settings",
    "SettingsError",
    "SharedSettings",
    "ShutdownSettings",
    "TelemetrySettings",
    "TlsSettings",
    "is_loopback",
    "load",
    "loopback_address",
    "warn_if_open",
]
