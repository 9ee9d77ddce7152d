"""Open the settings and tokens of a registry for a command that works on its data.

The registry is the one that the environment describes, or the one that `model-registry up` keeps in a data folder.
Its embedded Postgres is started for the duration of the command unless `up` runs.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from registry_service import logs, wiring
from registry_service.embedded.postgres import running_or_started
from registry_service.embedded.process import EmbeddedError
from registry_service.embedded.settings import database_settings, embedded_settings
from registry_service.services.tokens import TokenService
from registry_service.settings import DatabaseSettings, Settings, load


@contextmanager
def open_settings(data_dir: Path | None, *, allow_empty: bool = False) -> Iterator[Settings]:
    """Give the settings of a registry, and configure logging.

    Args:
        data_dir: Data folder of `up`; None to read the settings from the environment.
        allow_empty: Whether the folder may have no data yet.

    Raises:
        EmbeddedError: The folder has no data, or its Postgres can neither be reached nor started.
    """
    with ExitStack() as stack:
        if data_dir is None:
            settings = load(Settings)
            logs.configure(settings.min_log_level)
        else:
            data_dir = data_dir.expanduser().resolve()
            if not allow_empty and not (data_dir / "postgres").is_dir():
                raise EmbeddedError(f"{data_dir} has no data of `model-registry up`")
            address = stack.enter_context(running_or_started(data_dir))
            settings = load(Settings, **embedded_settings(data_dir, address))
            logs.configure(settings.min_log_level)
        yield settings


@contextmanager
def open_tokens(data_dir: Path | None) -> Iterator[TokenService]:
    """Give the tokens of a registry.

    Args:
        data_dir: Data folder of `up`; None to read the settings of the database from the environment.

    Raises:
        EmbeddedError: The folder's Postgres can neither be reached nor started.
        UnavailableError: Postgres does not respond.
    """
    with ExitStack() as stack:
        if data_dir is None:
            settings = load(DatabaseSettings)
        else:
            settings = load(DatabaseSettings, **database_settings(stack.enter_context(running_or_started(data_dir))))
        wiring.migrate_database(settings)
        yield stack.enter_context(wiring.open_tokens(settings))
