"""The ports of `domain.ports` on PostgreSQL."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta
from functools import cache, cached_property
from itertools import chain
from typing import Any, NoReturn, cast

import psycopg
from psycopg.errors import UniqueViolation
from sqlalchemy import (
    JSON,
    ColumnElement,
    CompoundSelect,
    Connection,
    CursorResult,
    DateTime,
    Engine,
    FromClause,
    Interval,
    LargeBinary,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError

from registry_service.domain.access import Projects
from registry_service.domain.artifact_store import Part
from registry_service.domain.errors import (
    AlreadyExistsError,
    AncestryTooLargeError,
    DatabaseUnavailableError,
    ModelNotFoundError,
    OutOfRangeError,
    ProvenanceCycleError,
    UploadNotActiveError,
    UploadNotFoundError,
    WriterDisplacedError,
)
from registry_service.domain.events import Change, Event
from registry_service.domain.lineage import MAX_ANCESTRY_EDGES, LineageEdge, cycle_through
from registry_service.domain.listing import MAX_ORDER_FIELDS, ListQuery, Page, SortValue
from registry_service.domain.models import GroupKey, Model, ModelFields, ModelSpec, is_same
from registry_service.domain.ports import Transaction
from registry_service.domain.uploads import Upload, UploadPage, UploadQuery, UploadState
from registry_service.domain.vocabulary import Action
from registry_service.storage.disk import DiskReserve
from registry_service.storage.sql import rows, tables
from registry_service.storage.sql.aliases import SqlAliasRepository
from registry_service.storage.sql.backup import BACKUP_LOCK
from registry_service.storage.sql.change_signal import ChangeSignal
from registry_service.storage.sql.engine import PLANNED_ANEW, Lookup, domain_errors, pulse_of, transactional
from registry_service.storage.sql.event_log import SqlEventLog
from registry_service.storage.sql.filter_sql import is_of_one_group, where
from registry_service.storage.sql.idempotency import SqlIdempotencyKeys
from registry_service.storage.sql.model_groups import SqlModelGroupRepository
from registry_service.storage.sql.paging import is_after
from registry_service.storage.sql.references import SqlReferenceRepository
from registry_service.storage.sql.tokens import SqlTokenRepository

logger = logging.getLogger(__name__)

_models = cast("Table", tables.models)
_groups = cast("Table", tables.model_groups)
_aliases = cast("Table", tables.aliases)
_deleted = cast("Table", tables.deleted_models)
_objects = cast("Table", tables.unreferenced_objects)
_uploads = cast("Table", tables.uploads)
_parts = cast("Table", tables.upload_parts)


class SqlDatabase:
    """`domain.ports.Database` on a pool of connections."""

    def __init__(
        self, engine: Engine, committed: Callable[[Event], None] | None = None, *, disk: DiskReserve | None = None
    ) -> None:
        """Take a pool of connections.

        Args:
            engine: The pool.
            committed: Called with every event once it is committed.
            disk: Postgres' own, where it is on this machine: what would fill it is refused (`StorageFullError`).
        """
        self._engine = engine
        self._disk = disk
        self._committed = committed
        self._writing = transactional(engine)
        self._signal = ChangeSignal(engine)
        self._pulse = pulse_of(engine)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """See the port."""
        with domain_errors(), self._writing.begin() as connection:
            transaction = SqlTransaction(connection, self._disk)
            yield transaction
            transaction.events.commit()
        if self._committed is not None:
            for event in transaction.events.written:
                self._committed(event)

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """See the port."""
        with domain_errors(), self._engine.connect() as connection:
            yield SqlTransaction(connection)

    def wakes(self, event: threading.Event) -> AbstractContextManager[None]:
        """See the port."""
        return self._signal.wakes(event)

    def close(self) -> None:
        """Ends what `wakes` and `check` began; the pool is the caller's."""
        self._signal.close()
        self._pulse.close()

    def check(self) -> float:
        """See the port."""
        try:
            return self._pulse.check()
        except psycopg.Error as error:
            logger.warning("Postgres does not answer: %s", error)
            raise DatabaseUnavailableError from error


class SqlTransaction:
    """`domain.ports.Transaction` on one connection."""

    def __init__(self, connection: Connection, disk: DiskReserve | None = None) -> None:
        self._connection = connection
        self._disk = disk

    @cached_property
    def now(self) -> datetime:
        """See the port."""
        return self._connection.execute(_NOW).scalar_one()

    @cached_property
    def models(self) -> "SqlModelRepository":
        """See the port."""
        return SqlModelRepository(self._connection, self.events)

    @cached_property
    def aliases(self) -> SqlAliasRepository:
        """See the port."""
        return SqlAliasRepository(self._connection, self.events)

    @cached_property
    def groups(self) -> SqlModelGroupRepository:
        """See the port."""
        return SqlModelGroupRepository(self._connection, self.events)

    @cached_property
    def references(self) -> SqlReferenceRepository:
        """See the port."""
        return SqlReferenceRepository(self._connection)

    @cached_property
    def objects(self) -> "SqlObjectLedger":
        """See the port."""
        return SqlObjectLedger(self._connection, self._disk)

    @cached_property
    def uploads(self) -> "SqlUploadRepository":
        """See the port."""
        return SqlUploadRepository(self._connection, self._disk)

    @cached_property
    def events(self) -> SqlEventLog:
        """See the port."""
        return SqlEventLog(self._connection, self._disk)

    @cached_property
    def idempotency(self) -> SqlIdempotencyKeys:
        """See the port."""
        return SqlIdempotencyKeys(self._connection)

    @cached_property
    def tokens(self) -> SqlTokenRepository:
        """See the port."""
        return SqlTokenRepository(self._connection, self.events)


@dataclass(frozen=True, slots=True)
class SqlModelRepository:
    """`domain.ports.ModelRepository`."""

    connection: Connection
    events: SqlEventLog

    def add(self, model: Model) -> Model:
        """See the port."""
        values = rows.model_values(model)
        # Whichever unique index is in the way, none is an error that ends the transaction.
        try:
            added = self.connection.execute(_ADD_MODEL, values)
        except IntegrityError as error:
            if isinstance(error.orig, UniqueViolation) and error.orig.diag.constraint_name == _DELETED_ID:
                raise _id_not_available(model.id) from error
            raise
        group_id = added.scalar_one_or_none()
        if group_id is None:
            self._raise_conflict(model.id, model)
        self._expect_no_cycle(model.id, model.provenance.parent_model_ids)
        self._record(Action.MODEL_REGISTERED, model, after=values)
        return replace(model, model_group_id=group_id)

    def check_absent(self, spec: ModelSpec) -> None:
        """See the port."""
        conflict = self._conflict(spec.id, spec.fields)
        if conflict is not None:
            raise conflict
        self._check_ancestry(spec.id, spec.fields.provenance.parent_model_ids)

    def get(self, model_id: str) -> Model:
        """See the port."""
        return self._get(model_id, _MODEL)

    def lock_for_share(self, model_id: str) -> Model:
        """See the port."""
        return self._get(model_id, _SHARE_LOCKED_MODEL)

    def list(self, query: ListQuery) -> Page:
        """See the port."""
        keys = _sort_keys(query)
        descending = [field.descending for field in query.order for _ in tables.sort_expressions(field)]

        def order(table: FromClause) -> list[ColumnElement[Any]]:
            labelled = [table.c[_KEYS[i]] for i in range(len(keys))]
            return [key.desc() if down else key.asc() for key, down in zip(labelled, descending, strict=True)]

        # One more than asked for tells whether there are more. No more columns than it takes to find the page:
        # SQLAlchemy copies those of a subquery each time.
        wanted = select(
            _models.c.id.label("found_id"),
            _models.c.metadata_bytes,
            _models.c.file_name,
            _models.c.schema,
            *(_models.c[name] for name in tables.UNCOUNTED_TEXTS),
            *(key.label(name) for key, name in zip(keys, _KEYS, strict=False)),
        )
        if query.filter is not None:
            wanted = wanted.where(where(query.filter, _models))
        if query.after is not None:
            wanted = wanted.where(is_after(keys, descending, _compared(query, keys)))
        sorted_keys = [key.desc() if down else key.asc() for key, down in zip(keys, descending, strict=True)]
        if query.order[0].name == "version" and is_of_one_group(query.filter):
            # The group's releases are in order in ix_models_group, and so are its pre-releases.
            each = [wanted.where(_IS_RELEASE.is_(is_one)).order_by(*sorted_keys) for is_one in (True, False)]
            both = union_all(*(part.limit(query.limit + 1) for part in each)).subquery("both")
            ordered = select(both).order_by(*order(both))
        else:
            ordered = wanted.order_by(*sorted_keys)
        candidates = ordered.limit(query.limit + 1).subquery("candidates")
        # The database adds up the sizes, so that no more than a page ever gets here.
        size = _listed_bytes(candidates)
        if query.with_signature:
            size += func.coalesce(func.octet_length(sql_cast(candidates.c.schema, Text)), 0)
        sized = select(
            candidates.c.found_id,
            *(candidates.c[name] for name in _KEYS[: len(keys)]),
            (func.sum(size).over(order_by=order(candidates)) - size).label("bytes_before"),
            func.count().over().label("found"),
        ).subquery("sized")
        page = (
            select(_FULL if query.with_signature else _LISTED, sized.c.found)
            .join_from(sized, _models, _models.c.id == sized.c.found_id)
            .where(sized.c.bytes_before < query.max_bytes)
            .order_by(*order(sized))
            .limit(query.limit)
        )
        found = self.connection.execute(page.execution_options(**PLANNED_ANEW)).all()
        return Page(models=[rows.model(row) for row, _ in found], more=bool(found) and found[0].found > len(found))

    def find(self, ids: Sequence[str]) -> Mapping[str, Model]:
        """See the port."""
        found = self.connection.execute(select(_LISTED).where(_models.c.id.in_(ids))).scalars()
        return {row["id"]: rows.model(row) for row in found}

    def projects(self, ids: Sequence[str]) -> Mapping[str, str | None]:
        """See the port."""
        statement = select(_models.c.id, _models.c.project_id).where(_models.c.id.in_(ids))
        return {row.id: row.project_id for row in self.connection.execute(statement)}

    def metadata_sizes(self, ids: Sequence[str]) -> Mapping[str, int]:
        """See the port."""
        statement = select(_models.c.id, _listed_bytes(_models).label("bytes")).where(_models.c.id.in_(ids))
        return {row.id: row.bytes for row in self.connection.execute(statement)}

    def parents(self, ids: Sequence[str]) -> Sequence[LineageEdge]:
        """See the port."""
        return _links(self.connection.execute(_PARENTS.where(_models.c.id.in_(ids))))

    def children(self, ids: Sequence[str], limit: int, within: Projects = None) -> Sequence[LineageEdge]:
        """See the port."""
        values: dict[str, object] = {"ids": list(ids), "limit": limit}
        if within is None:
            return _links(self.connection.execute(_CHILDREN, values))
        return _links(self.connection.execute(_CHILDREN_WITHIN, values | {"within": list(within)}))

    def keep_verification(self, model: Model, *, time: datetime, is_intact: bool) -> None:
        """See the port."""
        self.connection.execute(
            _KEEP_VERIFICATION,
            {"id": model.id, "object_key": model.artifact.object_key, "time": time, "is_intact": is_intact},
        )

    def update(self, model_id: str, change: Callable[[Model], Model]) -> Model:
        """See the port."""
        old = self._get(model_id, _LOCKED_MODEL)
        new = change(old)
        if new is old:
            return old
        values = rows.model_values(new)
        before = rows.model_values(old)
        changed = {name: value for name, value in values.items() if not is_same(value, before[name])}
        # Two more round trips, for what nothing else may be in the way of.
        attempt = self.connection.begin_nested() if changed.keys() & _IDENTITY else nullcontext()
        try:
            with attempt:
                self.connection.execute(update(_models).where(_models.c.id == model_id).values(changed))
        except IntegrityError as error:
            if isinstance(error.orig, UniqueViolation):
                self._raise_conflict(model_id, new, without=model_id)
            raise
        if "provenance" in changed:
            self._expect_no_cycle(model_id, new.provenance.parent_model_ids, old.provenance.parent_model_ids)
        self._record(Action.MODEL_UPDATED, new, before={name: before[name] for name in changed}, after=changed)
        return self._in_group(replace(new, model_group_id=old.model_group_id, aliases=old.aliases), old)

    def remove(self, model_id: str, check: Callable[[Model], None]) -> Model:
        """See the port."""
        model = self._get(model_id, _LOCKED_MODEL)
        check(model)
        self.connection.execute(delete(_models).where(_models.c.id == model_id))
        self._record(Action.MODEL_DELETED, model, before=rows.model_values(model))
        return model

    def _expect_no_cycle(self, model_id: str, parents: Sequence[str], before: Sequence[str] = ()) -> None:
        """Checks a model whose row is written; nobody else adds a link until the transaction ends.

        Links that are only taken away close no cycle, so most changes don't wait for one another here.
        """
        if set(parents) <= set(before):
            return
        # After the row's lock and before that of the log's end: an order that all transactions keep.
        self.connection.execute(select(func.pg_advisory_xact_lock(_LINKS_LOCK)))
        self._check_ancestry(model_id, parents)

    def _check_ancestry(self, model_id: str, parents: Sequence[str]) -> None:
        if not parents:
            return
        found = self.connection.execute(_ANCESTRY, {"id": model_id, "parents": list(parents)}).all()
        links: dict[str, list[str]] = {}
        for child, parent in found:
            links.setdefault(child, []).append(parent)
        cycle = cycle_through(model_id, links)
        if cycle:
            raise ProvenanceCycleError(cycle)
        if len(found) > MAX_ANCESTRY_EDGES:
            raise AncestryTooLargeError(MAX_ANCESTRY_EDGES)

    def _in_group(self, new: Model, old: Model) -> Model:
        """Return a model that was written with its group, which may be another one, or was not seen before."""
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
            # What was in the way is gone again: the client may simply repeat the call.
            raise AlreadyExistsError(
                "Another model with this id or identity was removed concurrently. Try again.",
                model_id=model_id,
                conflict="id",
            )
        raise conflict

    def _conflict(self, model_id: str, fields: ModelFields, without: str | None = None) -> AlreadyExistsError | None:
        """Finds the model that has the id or the identity; of two the first by id, as the documented API has it.

        A deleted model of another project has its id, too.
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
            f"The model {found.id!r} already has this project, name, version, and precisions.",
            model_id=found.id,
            conflict="identity",
        )


def _id_not_available(model_id: str) -> AlreadyExistsError:
    """Returns the error of an id that is, or was, of another project; what there is or was is not for this one."""
    return AlreadyExistsError(f"The id {model_id!r} is not available.", model_id=model_id, conflict="id")


def _is_of(key: Mapping[str, object]) -> ColumnElement[bool]:
    """Returns the condition of a group key, as the index of identities has it."""
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


def _links(found: CursorResult[Any]) -> Sequence[LineageEdge]:
    """Returns the links of rows (id, parents)."""
    return [LineageEdge(row.id, parent) for row in found for parent in row.parents or ()]


_KEY_FIELDS = tuple(field.name for field in fields(GroupKey))
_DELETED_ID = "refuse_deleted_id"  # what the trigger of the migration calls its violation
# Of these, together, no two models have the same.
_IDENTITY = {*_KEY_FIELDS, "version", "precision"}
# The trigger that makes the group comes after what is returned; so the function makes it, which then is there.
_ADD_MODEL = (
    upsert(_models)
    .on_conflict_do_nothing()
    .returning(func.ensure_model_group(_models.c.name, _models.c.project_id, _models.c.project_name, type_=Text))
)
_GROUP_ID = text("""
    SELECT id FROM model_groups
    WHERE model_group_key(name, project_id, project_name) = model_group_key(:name, :project_id, :project_name)
""")
# What a listing is ordered by, as columns of a subquery.
# Of version there are two, and parse_order adds create_time and id.
_KEYS = [f"key_{number}" for number in range(MAX_ORDER_FIELDS + 3)]
_IS_RELEASE = func.model_version_is_release(_models.c.version)
_SCHEMA: tuple[ColumnElement[Any], ...] = (literal_column("'schema'"), _models.c.schema)
# What warnings come from, without its tensors.
_LISTED_SCHEMA: tuple[ColumnElement[Any], ...] = (
    literal_column("'listed_signature'"),
    _models.c.schema.op("-")(literal_column("'{inputs,outputs,weights,metadata,opsets}'::text[]")),
)
_VERIFY_TIME = """
    SELECT verified.time FROM artifact_verifications AS verified
    WHERE verified.model_id = models.id AND verified.object_key = models.object_key AND verified.is_intact
"""


def _model_json(*schema: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a model as one column of JSON: taking 36 apart costs psycopg and SQLAlchemy more than the rest of a call.

    `schema` are the key and the value of what it has instead of its schema.
    """
    return func.json_build_object(
        *chain.from_iterable(
            (literal_column(f"'{column.name}'"), column) for column in _models.c if column.name != "schema"
        ),
        *schema,
        literal_column("'model_group_id'"),
        select(_groups.c.id)
        .where(tables.group_key(_groups) == tables.group_key(_models))
        .correlate(_models)
        .scalar_subquery(),
        literal_column("'aliases'"),
        select(func.array_agg(aggregate_order_by(_aliases.c.alias, _aliases.c.alias)))
        .where(_aliases.c.model_id == _models.c.id)
        .correlate(_models)
        .scalar_subquery(),
        literal_column("'verify_time'"),
        literal_column(f"({_VERIFY_TIME})"),
        type_=JSON,
    )


_LISTED = _model_json(*_LISTED_SCHEMA)
_FULL = _model_json(*_SCHEMA)
# With the id of its group, its aliases and its verification: each is one look into an index, and costs less than a
# statement of its own.
# The row itself is a value of its own, as Postgres writes a row of a table faster than one of a subquery.
_ONE_MODEL = f"""
    SELECT json_build_object(
        'row', to_json(models),
        'model_group_id', (
            SELECT groups.id FROM model_groups AS groups
            WHERE model_group_key(groups.name, groups.project_id, groups.project_name)
                = model_group_key(models.name, models.project_id, models.project_name)
        ),
        'aliases', ARRAY(SELECT alias FROM aliases WHERE aliases.model_id = models.id ORDER BY alias),
        'verify_time', ({_VERIFY_TIME})
    )
    FROM models WHERE models.id = :id {{lock}}
"""  # noqa: S608 - the text is ours
_MODEL = Lookup(text(_ONE_MODEL.format(lock="")))
_LOCKED_MODEL = Lookup(text(_ONE_MODEL.format(lock="FOR UPDATE OF models")))
_SHARE_LOCKED_MODEL = Lookup(text(_ONE_MODEL.format(lock="FOR SHARE OF models")))
# The model's row is locked before its verification's, as a deletion does it.
_KEEP_VERIFICATION = text("""
    INSERT INTO artifact_verifications AS kept (model_id, object_key, time, is_intact)
    SELECT id, object_key, CASE WHEN :is_intact THEN CAST(:time AS timestamptz) ELSE clock_timestamp() END, :is_intact
    FROM models WHERE id = :id AND object_key = :object_key
    FOR KEY SHARE
    ON CONFLICT (model_id) DO UPDATE
    SET object_key = EXCLUDED.object_key, time = EXCLUDED.time, is_intact = EXCLUDED.is_intact
    WHERE kept.object_key <> EXCLUDED.object_key OR kept.time < EXCLUDED.time
""")
# One statement, hence one snapshot: a key moves from one table to another.
_UNKNOWN = text("""
    SELECT key FROM unnest(CAST(:keys AS text[])) AS key
    WHERE NOT EXISTS (SELECT FROM models WHERE object_key = key)
        AND NOT EXISTS (SELECT FROM unreferenced_objects WHERE object_key = key)
        AND NOT EXISTS (SELECT FROM uploads WHERE key IN (object_key, tail_key))
""")
_IDLE = text("""
    SELECT key FROM unnest(CAST(:keys AS text[])) AS key
    WHERE NOT EXISTS (SELECT FROM unreferenced_objects WHERE object_key = key)
        AND NOT EXISTS (SELECT FROM uploads WHERE object_key = key AND state <> 'completed')
""")
_LINKS_LOCK = 0x6D6F_6465_6C73  # "models": held by whoever adds links between models
_PARENTS = select(_models.c.id, _models.c.provenance["parent_model_ids"].label("parents"))
# For each id one look into ix_models_parents, which OFFSET 0 insists on: Postgres overrates how many rows match, and
# would read the whole table for each, in the order of the ids.
_CHILDREN_OF = """
    SELECT DISTINCT child.id, child.parents
    FROM unnest(CAST(:ids AS text[])) AS wanted (id)
    CROSS JOIN LATERAL (
        SELECT id, provenance -> 'parent_model_ids' AS parents FROM models
        WHERE (provenance -> 'parent_model_ids') ? wanted.id{condition}
        OFFSET 0
    ) AS child
    ORDER BY child.id
    LIMIT :limit
"""
_CHILDREN = text(_CHILDREN_OF.format(condition=""))
_CHILDREN_WITHIN = text(_CHILDREN_OF.format(condition=" AND project_id = ANY (CAST(:within AS text[]))"))
# Every link on the ways up from a model, whose own links are given. UNION drops what was found already, so it ends
# on a cycle too; one link more than may be tells that there are too many.
_ANCESTRY = text(f"""
    WITH RECURSIVE links (child, parent) AS (
        SELECT CAST(:id AS text) COLLATE "C", unnest(CAST(:parents AS text[])) COLLATE "C"
        UNION
        SELECT models.id, above.parent COLLATE "C"
        FROM links
        JOIN models ON models.id = links.parent AND links.parent <> :id
        CROSS JOIN LATERAL jsonb_array_elements_text(models.provenance -> 'parent_model_ids') AS above (parent)
    )
    SELECT child, parent FROM links LIMIT {MAX_ANCESTRY_EDGES + 1}
""")  # noqa: S608 - the number is ours


def _listed_bytes(table: FromClause) -> ColumnElement[int]:
    """Return the size of a model in a list: metadata, further texts, and warnings, each of which names the file."""
    schema = table.c.schema
    problems = schema["problems"]
    file_name = func.coalesce(schema["file_name"].astext, table.c.file_name)
    warnings = func.octet_length(problems.astext) + func.jsonb_array_length(problems) * func.octet_length(file_name)
    size = table.c.metadata_bytes + func.coalesce(warnings, 0)
    for name in tables.UNCOUNTED_TEXTS:
        size += func.coalesce(func.octet_length(table.c[name]), 0)
    return cast("ColumnElement[int]", size)


def _sort_keys(query: ListQuery) -> list[ColumnElement[Any]]:
    return [key for field in query.order for key in tables.sort_expressions(field)]


def _compared(query: ListQuery, keys: Sequence[ColumnElement[Any]]) -> Sequence[ColumnElement[Any]]:
    """Return what the keys of the models after `query.after` are compared with."""
    values: list[SortValue] = []
    for field, value in zip(query.order, query.after or (), strict=True):
        values += [value] * len(tables.sort_expressions(field))
    compared: list[ColumnElement[Any]] = []
    for key, value in zip(keys, values, strict=True):
        # The database makes the key of a version, as only it knows how.
        is_version = isinstance(key.type, LargeBinary)
        bound: ColumnElement[Any] = bindparam(None, value, type_=Text() if is_version else key.type)
        compared.append(func.model_version_key(bound, type_=LargeBinary) if is_version else bound)
    return compared


_NOW = select(func.clock_timestamp(type_=DateTime(timezone=True)))
# Made once: to make a statement anew each time takes nearly as long as all the rest that Python does to send it.
_LATER = func.now() + bindparam("ttl", type_=Interval)
_OF_KEY = _objects.c.object_key == bindparam("key")
_LEASE = insert(_objects).values(object_key=bindparam("key"), due_time=_LATER)
# A key that is claimed is due at a random moment of the first day of Unix's time, which tells one claim from another.
_IS_CLAIMED = _objects.c.due_time < func.to_timestamp(86_400)
_RENEW = update(_objects).where(_OF_KEY, ~_IS_CLAIMED).values(due_time=_LATER)
_RELEASE = delete(_objects).where(_OF_KEY, ~_IS_CLAIMED)
_CLAIM = (
    update(_objects)
    .where(_OF_KEY)
    .values(due_time=func.to_timestamp(func.random() * 86_399))
    .returning(_objects.c.due_time)
)
_FORGET = delete(_objects).where(_OF_KEY, _objects.c.due_time == bindparam("claim"))
_HAS = select(_objects.c.object_key).where(_OF_KEY)
_MARK_FOR_DELETION = (
    upsert(_objects)
    .values(object_key=bindparam("key"), due_time=func.now())
    .on_conflict_do_update(index_elements=[_objects.c.object_key], set_={"due_time": func.now()})
)


@dataclass(frozen=True, slots=True)
class SqlObjectLedger:
    """`domain.ports.ObjectLedger`. Its clock is the database's, which all replicas share."""

    connection: Connection
    disk: DiskReserve | None = None

    def lease(self, key: str, duration: timedelta) -> None:
        """See the port."""
        if self.disk is not None:
            self.disk.check()
        self.connection.execute(_LEASE, {"key": key, "ttl": duration})

    def renew(self, key: str, duration: timedelta) -> bool:
        """See the port."""
        return self.connection.execute(_RENEW, {"key": key, "ttl": duration}).rowcount == 1

    def release(self, key: str) -> bool:
        """See the port."""
        return self.connection.execute(_RELEASE, {"key": key}).rowcount == 1

    def mark_for_deletion(self, key: str) -> None:
        """See the port."""
        self.connection.execute(_MARK_FOR_DELETION, {"key": key})

    def claim(self, key: str) -> datetime | None:
        """See the port."""
        return self.connection.execute(_CLAIM, {"key": key}).scalar_one_or_none()

    def forget(self, key: str, claim: datetime) -> bool:
        """See the port."""
        return self.connection.execute(_FORGET, {"key": key, "claim": claim}).rowcount == 1

    def has(self, key: str) -> bool:
        """See the port."""
        return self.connection.execute(_HAS, {"key": key}).one_or_none() is not None

    def due(self, limit: int) -> Sequence[str]:
        """See the port."""
        statement = select(_objects.c.object_key).where(_objects.c.due_time <= func.now())
        return self.connection.execute(statement.order_by(_objects.c.due_time).limit(limit)).scalars().all()

    def may_delete(self) -> bool:
        """See the port."""
        return bool(self.connection.execute(select(func.pg_try_advisory_xact_lock_shared(BACKUP_LOCK))).scalar_one())

    def idle(self, keys: Sequence[str]) -> Sequence[str]:
        """See the port."""
        return self.connection.execute(_IDLE, {"keys": list(keys)}).scalars().all()

    def unknown(self, keys: Sequence[str]) -> Sequence[str]:
        """See the port."""
        return self.connection.execute(_UNKNOWN, {"keys": list(keys)}).scalars().all()


# Made once, as above.
_IS_EXPIRED = _uploads.c.expire_time <= func.now()
_IS_IN_EPOCH = and_(_uploads.c.id == bindparam("of"), _uploads.c.epoch == bindparam("of_epoch"))
_UPLOAD = select(_uploads).where(_uploads.c.id == bindparam("of"), ~_IS_EXPIRED)
_LOCKED_UPLOAD = _UPLOAD.with_for_update()
_EXPIRED_UPLOAD = select(_uploads).where(_uploads.c.id == bindparam("of"), _IS_EXPIRED).with_for_update()
_PARTS_OF_UPLOAD = select(_parts).where(_parts.c.upload_id == bindparam("of")).order_by(_parts.c.number)
_LOCK_UPLOAD = select(_uploads.c.id).where(_IS_IN_EPOCH).with_for_update()
_COMMIT_UPLOAD = (
    update(_uploads)
    .where(_IS_IN_EPOCH, _uploads.c.state == UploadState.ACTIVE.value)
    .values(
        committed_size=bindparam("committed_size"),
        handle=bindparam("handle"),
        tail_key=bindparam("tail_key"),
        expire_time=_LATER,
    )
    .returning(_uploads.c.expire_time)
)
_ADD_PART = insert(_parts)
_CHANGE_UPLOAD = (
    update(_uploads)
    .where(_IS_IN_EPOCH)
    .values(epoch=_uploads.c.epoch + 1, state=bindparam("state"), expire_time=_LATER)
    .returning(_uploads.c.epoch, _uploads.c.expire_time)
)
_COMPLETE_UPLOAD = (
    update(_uploads).where(_IS_IN_EPOCH).values(state=UploadState.COMPLETED.value, tail_key=None, handle=None)
)
_FORGET_PARTS = delete(_parts).where(_parts.c.upload_id == bindparam("of"))


@dataclass(frozen=True, slots=True)
class SqlUploadRepository:
    """`domain.ports.UploadRepository`. Its clock is the database's, which all replicas share."""

    connection: Connection
    disk: DiskReserve | None = None

    def add(self, upload: Upload) -> None:
        """See the port."""
        if self.disk is not None:
            self.disk.check()
        self.connection.execute(
            insert(_uploads).values(
                id=upload.id,
                spec=rows.spec_values(upload.spec),
                state=upload.state.value,
                object_key=upload.object_key,
                committed_size=upload.committed_size,
                epoch=upload.epoch,
                create_time=upload.create_time,
                expire_time=upload.expire_time,
                creator=upload.creator,
            )
        )

    def get(self, upload_id: str) -> Upload:
        """See the port."""
        return self._get(upload_id, _UPLOAD)

    def list(self, query: UploadQuery) -> UploadPage:
        """See the port."""
        order = (_uploads.c.create_time, _uploads.c.id)
        wanted = select(_uploads, func.octet_length(_uploads.c.spec.cast(Text)).label("bytes")).where(
            _uploads.c.state != UploadState.COMPLETED.value, ~_IS_EXPIRED
        )
        if query.creator is not None:
            wanted = wanted.where(_uploads.c.creator == query.creator)
        if query.within is not None:
            wanted = wanted.where(_uploads.c.spec["fields"]["project_id"].astext.in_(query.within))
        if query.after is not None:
            bound = [bindparam(None, value, type_=key.type) for key, value in zip(order, query.after, strict=True)]
            wanted = wanted.where(is_after(order, [True, True], bound))
        # One more than asked for tells whether there are more.
        candidates = wanted.order_by(*(key.desc() for key in order)).limit(query.limit + 1).subquery("candidates")
        newest_first = (candidates.c.create_time.desc(), candidates.c.id.desc())
        # The database adds up the sizes, so that no more than a page ever gets here.
        sized = select(
            candidates,
            (func.sum(candidates.c.bytes).over(order_by=newest_first) - candidates.c.bytes).label("bytes_before"),
            func.count().over().label("found"),
        ).subquery("sized")
        page = (
            select(sized)
            .where(sized.c.bytes_before < query.max_bytes)
            .order_by(sized.c.create_time.desc(), sized.c.id.desc())
            .limit(query.limit)
        )
        found = self.connection.execute(page.execution_options(**PLANNED_ANEW)).mappings().all()
        more = bool(found) and found[0]["found"] > len(found)
        return UploadPage(uploads=[rows.upload(row, ()) for row in found], more=more)

    def take_over(self, upload_id: str, *, offset: int, ttl: timedelta) -> Upload:
        """See the port."""
        upload = self._get(upload_id, _LOCKED_UPLOAD)
        if upload.state is not UploadState.ACTIVE:
            raise UploadNotActiveError(upload_id, upload.state.value)
        if offset != upload.committed_size:
            raise OutOfRangeError(
                f"The upload's committed size is {upload.committed_size}, so a write begins there, not at {offset}.",
                upload_id=upload_id,
                committed_size=str(upload.committed_size),
            )
        return self._change(upload, UploadState.ACTIVE, ttl)

    def commit(
        self,
        upload: Upload,
        *,
        committed_size: int,
        handle: str | None,
        part: Part | None,
        tail_key: str | None,
        ttl: timedelta,
    ) -> datetime:
        """See the port."""
        expire_time = self.connection.execute(
            _COMMIT_UPLOAD,
            {
                **_epoch(upload),
                "committed_size": committed_size,
                "handle": handle,
                "tail_key": tail_key,
                "ttl": ttl,
            },
        ).scalar_one_or_none()
        if expire_time is None:
            raise WriterDisplacedError(upload.id)
        if part is not None:
            self.connection.execute(_ADD_PART, {"upload_id": upload.id, **asdict(part)})
        return cast("datetime", expire_time)

    def lock_for_update(self, upload: Upload) -> None:
        """See the port."""
        if self.connection.execute(_LOCK_UPLOAD, _epoch(upload)).one_or_none() is None:
            raise WriterDisplacedError(upload.id)

    def begin_completion(self, upload_id: str, *, ttl: timedelta) -> Upload:
        """See the port."""
        upload = self._get(upload_id, _LOCKED_UPLOAD)
        if upload.state is UploadState.COMPLETED:
            return upload
        return self._change(upload, UploadState.COMPLETING, ttl)

    def complete(self, upload: Upload) -> None:
        """See the port."""
        if self.connection.execute(_COMPLETE_UPLOAD, _epoch(upload)).rowcount != 1:
            raise WriterDisplacedError(upload.id)
        self.connection.execute(_FORGET_PARTS, {"of": upload.id})

    def remove(self, upload_id: str, *, expired: bool = False) -> Upload:
        """See the port."""
        upload = self._get(upload_id, _EXPIRED_UPLOAD if expired else _LOCKED_UPLOAD)
        self.connection.execute(delete(_uploads).where(_uploads.c.id == upload_id))
        return upload

    def expired(self, limit: int) -> Sequence[str]:
        """See the port."""
        statement = select(_uploads.c.id).where(_IS_EXPIRED)
        return self.connection.execute(statement.order_by(_uploads.c.expire_time).limit(limit)).scalars().all()

    def _get(self, upload_id: str, statement: Select[Any]) -> Upload:
        row = self.connection.execute(statement, {"of": upload_id}).mappings().one_or_none()
        if row is None:
            raise UploadNotFoundError(upload_id)
        parts = self.connection.execute(_PARTS_OF_UPLOAD, {"of": upload_id}).mappings()
        return rows.upload(
            row,
            tuple(Part(number=p["number"], offset=p["offset"], size=p["size"], receipt=p["receipt"]) for p in parts),
        )

    def _change(self, upload: Upload, state: UploadState, ttl: timedelta) -> Upload:
        """Begins a new epoch of an upload that is locked, in which all earlier writers' commits fail."""
        values = {**_epoch(upload), "state": state.value, "ttl": ttl}
        changed = self.connection.execute(_CHANGE_UPLOAD, values).one()
        return replace(upload, epoch=changed.epoch, state=state, expire_time=changed.expire_time)


def _epoch(upload: Upload) -> dict[str, object]:
    return {"of": upload.id, "of_epoch": upload.epoch}
