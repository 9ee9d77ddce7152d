"""Brings the database to the schema that this version of the program needs."""

import logging
from pathlib import Path

from sqlalchemy import Engine, text

from registry_service.storage.sql.engine import transactional

logger = logging.getLogger(__name__)

MINIMUM_SERVER = 15
"""Major version of PostgreSQL: the first with UNIQUE NULLS NOT DISTINCT."""
_LOCK = 0x6D6F_6465_6C72  # "modelr": any number that nobody else takes


class SchemaError(Exception):
    """The database cannot be brought to this program's schema; the message says why."""


def migrate(engine: Engine, revision: str = "head") -> str:
    """Applies the migrations that are missing up to one, in one transaction, and returns the schema's revision.

    Replicas that start at once wait for one another under an advisory lock.

    Raises:
        SchemaError: The server is too old, or the schema is of a newer program.
    """
    # Loaded only here, as most processes never migrate, and each would start later.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util.exc import CommandError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with transactional(engine).begin() as connection:
        version = connection.execute(text("SELECT current_setting('server_version_num')::int / 10000")).scalar_one()
        if version < MINIMUM_SERVER:
            raise SchemaError(f"PostgreSQL {version} is too old: {MINIMUM_SERVER} or newer is needed.")
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, revision)
        except CommandError as error:
            raise SchemaError(f"The database's schema is not one of this program's: {error}") from error
        reached: str = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
    logger.info("database schema is at revision %s", reached)
    return reached
