"""Registered models."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from functools import cache
from typing import Any, NoReturn, cast

from psycopg.errors import UniqueViolation
from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    delete,
    func,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError
from typing_extensions import override

from registry_service.domain.access import Projects
from registry_service.domain.errors import (
    AlreadyExistsError,
    ModelNotFoundError,
)
from registry_service.domain.events import Change
from registry_service.domain.lineage import LineageEdge
from registry_service.domain.listing import ListQuery, Page
from registry_service.domain.models import GroupKey, Model, ModelFields, ModelSpec, is_same
from registry_service.domain.ports import ModelRepository
from registry_service.domain.references import shown_model
from registry_service.domain.vocabulary import Action
from registry_service.storage.sql import lineage, model_pages, rows, tables
from registry_service.storage.sql.event_log import SqlEventLog
from registry_service.storage.sql.fast_lookup import Lookup
from registry_service.storage.sql.model_json import LISTED, LOCKED_MODEL, MODEL, SHARE_LOCKED_MODEL

_models = cast("Table", tables.models)
_deleted = cast("Table", tables.deleted_models)

_KEY_FIELDS = tuple(field.name for field in fields(GroupKey))
_DELETED_ID = "refuse_deleted_id"  # the name that a trigger gives to its violation
# No two models have the same values in all of these columns.
_IDENTITY = {*_KEY_FIELDS, "version", "precision"}
# The trigger that creates the group runs after RETURNING. So the function creates the group.
_ADD_MODEL = (
    upsert(_models)
    .on_conflict_do_nothing()
    .returning(func.ensure_model_group(_models.c.name, _models.c.project_id, _models.c.project_name, type_=Text))
)
_GROUP_ID = text("""
    SELECT id FROM model_groups
    WHERE model_group_key(name, project_id, project_name) = model_group_key(:name, :project_id, :project_name)
""")
# Lock the row of the model before the row of its verification, as a deletion does.
_KEEP_VERIFICATION = text("""
    INSERT INTO artifact_verifications AS kept (model_id, object_key, time, is_intact)
    SELECT id, object_key, CASE WHEN :is_intact THEN CAST(:time AS timestamptz) ELSE clock_timestamp() END, :is_intact
    FROM models WHERE id = :id AND object_key = :object_key
    FOR KEY SHARE
    ON CONFLICT (model_id) DO UPDATE
    SET object_key = EXCLUDED.object_key, time = EXCLUDED.time, is_intact = EXCLUDED.is_intact
    WHERE kept.object_key <> EXCLUDED.object_key OR kept.time < EXCLUDED.time
""")


@dataclass(frozen=True, slots=True)
class SqlModelRepository(ModelRepository):
    """`domain.ports.ModelRepository`."""

    connection: Connection
    events: SqlEventLog

    @override
    def add(self, model: Model) -> Model:
        values = rows.model_values(model)
        # A conflict with any unique index returns no row rather than an error, which would end the transaction.
        try:
            added = self.connection.execute(_ADD_MODEL, values)
        except IntegrityError as error:
            if isinstance(error.orig, UniqueViolation) and error.orig.diag.constraint_name == _DELETED_ID:
                raise _id_not_available(model.id) from error
            raise
        group_id = added.scalar_one_or_none()
        if group_id is None:
            self._raise_conflict(model.id, model)
        lineage.check_new_parents(self.connection, model.id, model.provenance.parent_model_ids)
        self._record(Action.MODEL_REGISTERED, model, after=values)
        return replace(model, model_group_id=group_id)

    @override
    def check_absent(self, spec: ModelSpec) -> None:
        conflict = self._conflict(spec.id, spec.fields)
        if conflict is not None:
            raise conflict
        lineage.check_ancestry(self.connection, spec.id, spec.fields.provenance.parent_model_ids)

    @override
    def get(self, model_id: str) -> Model:
        return self._get(model_id, MODEL)

    @override
    def lock_for_share(self, model_id: str) -> Model:
        return self._get(model_id, SHARE_LOCKED_MODEL)

    @override
    def find(self, ids: Sequence[str]) -> Mapping[str, Model]:
        found = self.connection.execute(select(LISTED).where(_models.c.id.in_(ids))).scalars()
        return {row["id"]: rows.model(row) for row in found}

    @override
    def projects(self, ids: Sequence[str]) -> Mapping[str, str | None]:
        statement = select(_models.c.id, _models.c.project_id).where(_models.c.id.in_(ids))
        return {row.id: row.project_id for row in self.connection.execute(statement)}

    @override
    def metadata_sizes(self, ids: Sequence[str]) -> Mapping[str, int]:
        statement = select(_models.c.id, model_pages.listed_bytes(_models).label("bytes")).where(_models.c.id.in_(ids))
        return {row.id: row.bytes for row in self.connection.execute(statement)}

    @override
    def keep_verification(self, model: Model, *, time: datetime, is_intact: bool) -> None:
        self.connection.execute(
            _KEEP_VERIFICATION,
            {"id": model.id, "object_key": model.artifact.object_key, "time": time, "is_intact": is_intact},
        )

    @override
    def list(self, query: ListQuery) -> Page:
        return model_pages.page(self.connection, query)

    @override
    def parents(self, ids: Sequence[str]) -> Sequence[LineageEdge]:
        return lineage.parents(self.connection, ids)

    @override
    def children(self, ids: Sequence[str], limit: int, within: Projects = None) -> Sequence[LineageEdge]:
        return lineage.children(self.connection, ids, limit, within)

    @override
    def update(self, model_id: str, change: Callable[[Model], Model]) -> Model:
        old = self._get(model_id, LOCKED_MODEL)
        new = change(old)
        if new is old:
            return old
        values = rows.model_values(new)
        before = rows.model_values(old)
        changed = {name: value for name, value in values.items() if not is_same(value, before[name])}
        # A savepoint costs two round trips, so only changes of the identity have one.
        attempt = self.connection.begin_nested() if changed.keys() & _IDENTITY else nullcontext()
        try:
            with attempt:
                self.connection.execute(update(_models).where(_models.c.id == model_id).values(changed))
        except IntegrityError as error:
            if isinstance(error.orig, UniqueViolation):
                self._raise_conflict(model_id, new, without=model_id)
            raise
        if "provenance" in changed:
            lineage.check_new_parents(
                self.connection, model_id, new.provenance.parent_model_ids, old.provenance.parent_model_ids
            )
        self._record(Action.MODEL_UPDATED, new, before={name: before[name] for name in changed}, after=changed)
        return self._in_group(replace(new, model_group_id=old.model_group_id, aliases=old.aliases), old)

    @override
    def remove(self, model_id: str, check: Callable[[Model], None]) -> Model:
        model = self._get(model_id, LOCKED_MODEL)
        check(model)
        self.connection.execute(delete(_models).where(_models.c.id == model_id))
        self._record(Action.MODEL_DELETED, model, before=rows.model_values(model))
        return model

    def _in_group(self, new: Model, old: Model) -> Model:
        """Return an updated model with the id of its group. An update of the key moves the model to another group."""
        if old.model_group_id and GroupKey.of(new) == GroupKey.of(old):
            return new
        found = self.connection.execute(_GROUP_ID, asdict(GroupKey.of(new))).scalar_one()
        return replace(new, model_group_id=found)

    def _record(
        self,
        action: Action,
        model: Model,
        *,
        before: Mapping[str, object] | None = None,
        after: Mapping[str, object] | None = None,
    ) -> None:
        self.events.record(
            Change(
                action=action,
                group_key=GroupKey.of(model),
                model_id=model.id,
                before=None if before is None else rows.event_values(before),
                after=None if after is None else rows.event_values(after),
            )
        )

    def _get(self, model_id: str, lookup: Lookup) -> Model:
        found = lookup.value(self.connection, id=model_id)
        if found is None:
            raise ModelNotFoundError(model_id)
        return rows.model(found.pop("row") | found)

    def _raise_conflict(self, model_id: str, fields: ModelFields, without: str | None = None) -> NoReturn:
        conflict = self._conflict(model_id, fields, without)
        if conflict is None:
            # The conflicting model was removed meanwhile.
            raise AlreadyExistsError(
                "Another model with this id or identity was removed concurrently. Try again.",
                model_id=model_id,
                conflict="id",
            )
        raise conflict

    def _conflict(self, model_id: str, fields: ModelFields, without: str | None = None) -> AlreadyExistsError | None:
        """Return the error of a model that has the id or the identity.

        Of two models, the first by id counts, as in the Intel-compatible API. A deleted model of another project keeps
        its id.
        """
        key = {name: value for name, value in asdict(GroupKey.of(fields)).items() if value is not None}
        found = self.connection.execute(
            _conflicting(frozenset(key), is_new=without is None),
            {
                **key,
                "version": fields.version,
                "precision": list(fields.precisions),
                "model_id": model_id,
                "model_project_id": fields.project_id,
            },
        ).one_or_none()
        if found is None:
            return None
        if found.id == model_id and found.project_id != fields.project_id:
            return _id_not_available(model_id)
        if found.id == model_id:
            return AlreadyExistsError(
                f"A model with the id {model_id!r} already exists.", model_id=model_id, conflict="id"
            )
        return AlreadyExistsError(
            f"The model {shown_model(fields)} with the precisions"
            f" {','.join(fields.precisions)} is already registered. Its id is {found.id!r}.",
            model_id=found.id,
            conflict="identity",
        )


def _id_not_available(model_id: str) -> AlreadyExistsError:
    """Return the error of an id that a model of another project has or had, without a word about that model."""
    return AlreadyExistsError(f"The id {model_id!r} is not available.", model_id=model_id, conflict="id")


def _is_of(key: Mapping[str, object]) -> ColumnElement[bool]:
    """Return the condition of a group key in the form that uq_models_identity indexes."""
    return and_(
        *(
            func.text_digest(_models.c[name]).is_(None)
            if key.get(name) is None
            else func.text_digest(_models.c[name]) == func.text_digest(key[name])
            for name in _KEY_FIELDS
        )
    )


@cache
def _conflicting(given: frozenset[str], *, is_new: bool) -> Select[Any] | CompoundSelect[Any]:
    """Return the statement that finds a conflicting model; `given` are the fields of the group key that are set."""
    same = and_(
        _is_of({name: bindparam(name, type_=Text) for name in given}),
        func.text_digest(_models.c.version) == func.text_digest(bindparam("version", type_=Text)),
        _models.c.precision == bindparam("precision", type_=ARRAY(Text)),
    )
    has_id = _models.c.id == bindparam("model_id")
    found = select(_models.c.id, _models.c.project_id)
    if not is_new:
        return found.where(~has_id, same).order_by(_models.c.id).limit(1)
    was_elsewhere = select(_deleted.c.id, _deleted.c.project_id).where(
        _deleted.c.id == bindparam("model_id"),
        _deleted.c.project_id.is_distinct_from(bindparam("model_project_id", type_=Text)),
    )
    either = found.where(or_(has_id, same)).union_all(was_elsewhere)
    return either.order_by(either.selected_columns.id).limit(1)
