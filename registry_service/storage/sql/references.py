"""`domain.references.ReferenceRepository` on PostgreSQL. Each statement is a few index lookups."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, CursorResult, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text
from typing_extensions import override

from registry_service.domain.access import Projects
from registry_service.domain.listing import SORT_PREFIX
from registry_service.domain.model_groups import GroupHandle
from registry_service.domain.models import GroupKey
from registry_service.domain.references import NamedVersion, ReferenceRepository

_FOUND = "SELECT id, name, project_id, project_name FROM model_groups AS g"
# A scalar subquery for each group. For EXISTS, Postgres might read all counts for a few groups.
_HAS_MODELS = "(SELECT version_count FROM model_group_counts WHERE model_group_id = g.id) > 0"
_IS_WITHIN = "text_digest(g.project_id) IN (SELECT text_digest(p) FROM unnest(CAST(:within AS text[])) AS p)"
_IS_PROJECT_WITHIN = "CAST(:project AS text) = ANY (CAST(:within AS text[]))"
_EVERYWHERE = "true"
# Compare digests only: for an additional equality, Postgres would search the trigram index for all such groups.
_IS_NAME = "text_digest(g.name) = text_digest(:name)"
_IS_PROJECT_ID = "text_digest(g.project_id) = text_digest(:project)"
_IS_PROJECT_NAME = "text_digest(g.project_name) = text_digest(:project)"


def _anywhere(condition: str) -> str:
    is_named = _IS_NAME
    if condition == _EVERYWHERE:
        # This index is in the order of the ids. For a few projects, the groups of a name are found by project.
        is_named = f'left(g.name, {SORT_PREFIX}) COLLATE "C" = left(:name, {SORT_PREFIX}) AND {_IS_NAME}'
    return f"{_FOUND} WHERE {is_named} AND {condition} AND {_HAS_MODELS} ORDER BY id LIMIT :limit"


def _some(is_project: str, column: str, condition: str) -> str:
    # In the order of the index. Otherwise, for a project with many groups, Postgres scans the table for the first one.
    return f"""
        (
            SELECT g.id FROM model_groups AS g WHERE {is_project} AND {condition}
            ORDER BY text_digest(g.{column}), text_digest(g.name), g.id LIMIT 1
        ) IS NOT NULL
    """  # noqa: S608 - constants only


def _is_project_id(condition: str) -> str:
    """Return the condition that the project of a group has an id. One lookup serves all groups of a hidden project."""
    return _IS_PROJECT_ID if condition == _EVERYWHERE else f"{_IS_PROJECT_WITHIN} AND {_IS_PROJECT_ID}"


def _in_project(condition: str) -> str:
    of_id = _is_project_id(condition)
    is_id = _some(of_id, "project_id", _EVERYWHERE)
    # Groups without models count, too: their ids cannot become ids or names of projects.
    return f"""
        WITH named AS MATERIALIZED ({_FOUND} WHERE id = :project AND {_IS_NAME} AND {condition})
        SELECT * FROM named AS g WHERE {_HAS_MODELS}
        UNION ALL
        (
            {_FOUND} WHERE {of_id} AND {_IS_NAME} AND {_HAS_MODELS} AND NOT EXISTS (SELECT FROM named)
            ORDER BY id LIMIT :limit
        )
        UNION ALL
        (
            {_FOUND} WHERE {_IS_PROJECT_NAME} AND {_IS_NAME} AND {condition} AND {_HAS_MODELS} AND NOT {is_id}
                AND NOT EXISTS (SELECT FROM named)
            ORDER BY id LIMIT :limit
        )
    """  # noqa: S608 - constants only


# An absent or empty text is not a project. A caller limited to projects sees no such group.
_OUTSIDE = f"""
    {_FOUND} WHERE model_group_key(g.name, g.project_id, g.project_name) IN (
        model_group_key(:name, NULL, NULL), model_group_key(:name, '', NULL),
        model_group_key(:name, NULL, ''), model_group_key(:name, '', '')
    ) AND {{condition}} AND {_HAS_MODELS} ORDER BY id LIMIT :limit
"""
# The last rows of a group in ix_models_group, or with precisions in ix_models_group_precisions. With precisions, only
# the key of that index is compared: with the key of the group, too, Postgres might read all models of the group.
_IS_OF_GROUP = """
    model_group_key(name, project_id, project_name)
        = model_group_key(:name, CAST(:project_id AS text), CAST(:project_name AS text))
"""
_HAS_PRECISIONS = """
    model_group_precisions_key(name, project_id, project_name, precision)
        = model_group_precisions_key(:name, CAST(:project_id AS text), CAST(:project_name AS text), :precisions)
"""
_VERSIONS = """
    SELECT id, version, precision FROM models
    WHERE {condition}
    ORDER BY model_version_is_release(version) DESC, model_version_key(version) DESC,
        left(version, {prefix}) COLLATE "C" DESC, create_time DESC, id DESC
    LIMIT :limit
"""
_IS_VERSION = f"""
    AND model_version_is_release(version) = model_version_is_release(:version)
    AND model_version_key(version) = model_version_key(:version)
    AND left(version, {SORT_PREFIX}) COLLATE "C" = left(:version, {SORT_PREFIX})
    AND version = :version
"""


@dataclass(frozen=True, slots=True)
class SqlReferenceRepository(ReferenceRepository):
    """`domain.references.ReferenceRepository`."""

    connection: Connection

    @override
    def groups(self, name: str, project: str | None, *, limit: int, within: Projects = None) -> Sequence[GroupHandle]:
        condition = _EVERYWHERE if within is None else _IS_WITHIN
        if project is None:
            statement = _anywhere(condition)
        elif project:
            statement = _in_project(condition)
        else:
            statement = _OUTSIDE.format(condition=condition)
        found = self._execute(statement, within, name=name, limit=limit, **({"project": project} if project else {}))
        return [
            GroupHandle(id=row.id, key=GroupKey(name=name, project_id=row.project_id, project_name=row.project_name))
            for row in found
        ][:limit]

    @override
    def has_project(self, project: str, *, within: Projects = None) -> bool:
        condition = _EVERYWHERE if within is None else _IS_WITHIN
        is_id = _some(_is_project_id(condition), "project_id", _EVERYWHERE)
        is_name = _some(_IS_PROJECT_NAME, "project_name", condition)
        return bool(self._execute(f"SELECT {is_id} OR {is_name}", within, project=project).scalar_one())

    @override
    def versions(
        self, group: GroupHandle, version: str | None, precisions: Collection[str], *, limit: int
    ) -> Sequence[NamedVersion]:
        values = asdict(group.key) | {"limit": limit}
        condition = _HAS_PRECISIONS if precisions else _IS_OF_GROUP
        if version is not None:
            condition += _IS_VERSION
            values["version"] = version
        statement = text(_VERSIONS.format(condition=condition, prefix=SORT_PREFIX))
        if precisions:
            statement = statement.bindparams(bindparam("precisions", sorted(precisions), type_=ARRAY(Text)))
        found = [
            NamedVersion(model_id=row.id, version=row.version, precisions=tuple(row.precision))
            for row in self.connection.execute(statement, values)
        ]
        # Rows of one version are adjacent, unless the version is longer than the indexed prefix.
        return [one for one in found if one.version == found[0].version]

    def _execute(self, statement: str, within: Projects, **values: object) -> CursorResult[tuple[object, ...]]:
        if within is not None:
            values["within"] = sorted(within)
        return self.connection.execute(text(statement), values)
