"""The base of all tables, and the types of their columns."""

from datetime import datetime
from typing import Annotated

from sqlalchemy import (
    DateTime,
    MetaData,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

OptionalText = Annotated[str | None, mapped_column(Text)]
RequiredText = Annotated[str, mapped_column(Text)]
Time = Annotated[datetime, mapped_column(DateTime(timezone=True))]
OptionalTime = Annotated[datetime | None, mapped_column(DateTime(timezone=True))]
JsonObject = Annotated[dict[str, object], mapped_column(JSONB)]
JsonValue = Annotated[object | None, mapped_column(JSONB(none_as_null=True))]
OptionalJsonObject = Annotated[dict[str, object] | None, mapped_column(JSONB(none_as_null=True))]
GROUP_KEY = "model_group_key(name, project_id, project_name)"
"""The expression in the indexes of models and of groups."""


class Base(DeclarativeBase):
    """The base of all tables. Every constraint has a name."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
