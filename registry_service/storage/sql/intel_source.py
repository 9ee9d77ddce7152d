"""The database of an Intel deployment, which has the tables of MLflow."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, Row, text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from typing_extensions import override

from registry_service.domain.source_error import SourceError
from registry_service.intel_migration.source import IntelDatabase, IntelModel

_PAGE = 500
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_MILLISECONDS = 253_402_300_799_999  # the end of year 9999
_MODELS = text("""
    SELECT models.name, models.creation_time, models.last_updated_time, models.found,
        ARRAY(SELECT key FROM registered_model_tags AS tags WHERE tags.name = models.name
            ORDER BY key, value) AS tag_keys,
        ARRAY(SELECT coalesce(value, '') FROM registered_model_tags AS tags WHERE tags.name = models.name
            ORDER BY key, value) AS tag_texts
    FROM (
        SELECT name, min(creation_time) AS creation_time, max(last_updated_time) AS last_updated_time,
            count(*) AS found
        FROM registered_models WHERE name COLLATE "C" > :after
        GROUP BY name ORDER BY name COLLATE "C" LIMIT :limit
    ) AS models
    ORDER BY models.name COLLATE "C"
""")


@dataclass(frozen=True, slots=True)
class SqlIntelDatabase(IntelDatabase):
    """Reads the database in read-only transactions."""

    engine: Engine

    @override
    def models(self) -> Iterator[IntelModel]:
        """See the port. Each page is read in a transaction of its own, so a slow consumer holds no connection."""
        after = ""
        while found := self._page(after):
            for row in found:
                yield _model(row)
            after = found[-1].name

    def _page(self, after: str) -> list[Row[Any]]:
        try:
            options = {"isolation_level": "READ COMMITTED", "postgresql_readonly": True}
            with self.engine.connect().execution_options(**options) as connection:
                return list(connection.execute(_MODELS, {"after": after, "limit": _PAGE}))
        except ProgrammingError as error:
            raise SourceError(f"The database is not that of an Intel deployment: {_said(error)}") from error
        except DBAPIError as error:
            raise SourceError(f"The Intel deployment's database cannot be read: {_said(error)}") from error


def _said(error: DBAPIError) -> str:
    """Return the message of Postgres or its driver for the operator. It never contains a password."""
    return str(error.orig).strip().splitlines()[0]


def _model(row: Row[Any]) -> IntelModel:
    return IntelModel(
        id=row.name,
        create_time=_time(row.creation_time),
        update_time=_time(row.last_updated_time),
        tags=dict(zip(row.tag_keys, row.tag_texts, strict=True)),
        is_repeated=row.found > 1 or len(set(row.tag_keys)) < len(row.tag_keys),
    )


def _time(milliseconds: int | None) -> datetime:
    return _EPOCH + timedelta(milliseconds=min(max(milliseconds or 0, 0), _MAX_MILLISECONDS))
