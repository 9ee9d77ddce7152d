"""Restrict every service to what its caller may access.

The services get their database from here, so no service can forget the check. The transport decides whether the caller
may call a method at all. This module decides in which projects:

- What a caller may not read does not exist for that caller.
- Where a caller may read, but may not do what the call does, the call fails with ProjectDeniedError.
- The registry's own work is not restricted, but must declare itself with `domain.caller.acting_as_registry`.
- Without a caller, nothing is allowed.
"""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from registry_service.domain.access import NOTHING, Access, Projects
from registry_service.domain.aliases import (
    Alias,
    AliasMove,
    AliasPage,
    AliasRepository,
    AliasState,
    AliasTarget,
    MoveKey,
    MoveKind,
    MovePage,
    Remark,
)
from registry_service.domain.artifact_store import Part
from registry_service.domain.caller import current_caller
from registry_service.domain.errors import (
    AccessDeniedError,
    ModelGroupNotFoundError,
    ModelNotFoundError,
    ProjectDeniedError,
    ProvenanceCycleError,
    UploadNotFoundError,
)
from registry_service.domain.events import BrokenLink, Change, Event, EventLog, LogHead, as_seen_from
from registry_service.domain.filter import And, Comparator, Field, Kind, Node, Not, Or, Pattern, Restriction
from registry_service.domain.idempotency import IdempotencyKeys, KeptAnswer, KeyedCall
from registry_service.domain.lineage import LineageEdge
from registry_service.domain.listing import MAX_PAGE_BYTES, ListQuery, Page
from registry_service.domain.model_groups import GroupHandle, GroupPage, GroupQuery, ModelGroup, ModelGroupRepository
from registry_service.domain.models import Model, ModelSpec
from registry_service.domain.ports import Database, ModelRepository, ObjectLedger, Transaction, UploadRepository
from registry_service.domain.references import NamedVersion, ReferenceRepository
from registry_service.domain.tokens import TokenRepository
from registry_service.domain.uploads import Upload, UploadPage, UploadQuery

_PROJECT = Field(("project_id",), Kind.TEXT)


@dataclass(frozen=True, slots=True)
class AuthorizedDatabase(Database):
    """A database that shows each caller only what the caller may access."""

    inner: Database

    def transaction(self) -> AbstractContextManager[Transaction]:
        """See the port."""
        return _authorized(self.inner.transaction())

    def reading(self) -> AbstractContextManager[Transaction]:
        """See the port."""
        return _authorized(self.inner.reading())

    def wakes(self, event: threading.Event) -> AbstractContextManager[None]:
        """See the port."""
        return self.inner.wakes(event)

    def check(self) -> float:
        """See the port."""
        return self.inner.check()


def _authorized(transaction: AbstractContextManager[Transaction]) -> AbstractContextManager[Transaction]:
    access = current_caller.get().access
    # Most callers may access everything. They get the transaction itself, at no cost.
    if not access.is_restricted:
        return transaction
    if access == NOTHING:
        # Some parts of a transaction belong to no project, so there is no transaction without a caller.
        raise AccessDeniedError("No caller is set, so nothing is allowed.")
    return _restricted_to(access, transaction)


@contextmanager
def _restricted_to(access: Access, transaction: AbstractContextManager[Transaction]) -> Iterator[Transaction]:
    with transaction as inner:
        yield _Transaction(access, inner)


@dataclass(frozen=True, slots=True)
class _Transaction(Transaction):
    access: Access
    inner: Transaction

    @property
    def now(self) -> datetime:
        return self.inner.now

    @property
    def models(self) -> ModelRepository:
        return _Models(self.access, self.inner.models)

    @property
    def aliases(self) -> AliasRepository:
        return _Aliases(self.access, self.inner.aliases, self.inner.models)

    @property
    def groups(self) -> ModelGroupRepository:
        return _Groups(self.access, self.inner.groups)

    @property
    def references(self) -> ReferenceRepository:
        return _References(self.access, self.inner.references)

    @property
    def objects(self) -> ObjectLedger:
        # Clients do not know the keys of objects.
        return self.inner.objects

    @property
    def uploads(self) -> UploadRepository:
        return _Uploads(self.access, self.inner.uploads)

    @property
    def events(self) -> EventLog:
        return _Events(self.access, self.inner.events)

    @property
    def idempotency(self) -> IdempotencyKeys:
        return _IdempotencyKeys(self.access, self.inner.idempotency)

    @property
    def tokens(self) -> TokenRepository:
        raise ProjectDeniedError(None)


@dataclass(frozen=True, slots=True)
class _Models(ModelRepository):
    access: Access
    inner: ModelRepository

    def add(self, model: Model) -> Model:
        _require_acting(self.access, model.project_id)
        with self._without_hidden_cycles():
            return self.inner.add(model)

    def check_absent(self, spec: ModelSpec) -> None:
        _require_acting(self.access, spec.fields.project_id)
        with self._without_hidden_cycles():
            self.inner.check_absent(spec)

    def get(self, model_id: str) -> Model:
        return self._seen(self.inner.get(model_id))

    def lock_for_share(self, model_id: str) -> Model:
        return self._seen(self.inner.lock_for_share(model_id))

    def list(self, query: ListQuery) -> Page:
        return self.inner.list(replace(query, filter=_within(self.access.visible, query.filter)))

    def find(self, ids: Sequence[str]) -> Mapping[str, Model]:
        found = self.inner.find(ids)
        return {model_id: model for model_id, model in found.items() if self.access.sees(model.project_id)}

    def projects(self, ids: Sequence[str]) -> Mapping[str, str | None]:
        found = self.inner.projects(ids)
        return {model_id: project_id for model_id, project_id in found.items() if self.access.sees(project_id)}

    def metadata_sizes(self, ids: Sequence[str]) -> Mapping[str, int]:
        return self.inner.metadata_sizes(list(self.projects(ids)))

    def parents(self, ids: Sequence[str]) -> Sequence[LineageEdge]:
        # A model names its parents in all projects, but their own parents are shown only if the caller may read them.
        return self.inner.parents(list(self.projects(ids)))

    def children(self, ids: Sequence[str], limit: int, within: Projects = None) -> Sequence[LineageEdge]:
        return self.inner.children(ids, limit, _both(self.access.visible, within))

    def keep_verification(self, model: Model, *, time: datetime, is_intact: bool) -> None:
        # The model was read through this class.
        self.inner.keep_verification(self._seen(model), time=time, is_intact=is_intact)

    def update(self, model_id: str, change: Callable[[Model], Model]) -> Model:
        def changed(old: Model) -> Model:
            _require_acting(self.access, self._seen(old).project_id)
            new = change(old)
            _require_acting(self.access, new.project_id)
            return new

        with self._without_hidden_cycles():
            return self.inner.update(model_id, changed)

    def remove(self, model_id: str, check: Callable[[Model], None]) -> Model:
        def checked(model: Model) -> None:
            _require_acting(self.access, self._seen(model).project_id)
            check(model)

        return self.inner.remove(model_id, checked)

    def _seen(self, model: Model) -> Model:
        if not self.access.sees(model.project_id):
            raise ModelNotFoundError(model.id)
        return model

    @contextmanager
    def _without_hidden_cycles(self) -> Iterator[None]:
        """Remove models that the caller may not read from the error about a cycle, which would reveal their lineage."""
        try:
            yield
        except ProvenanceCycleError as error:
            first, *between, last = error.cycle
            seen = self.projects(between)
            raise ProvenanceCycleError(
                [first, *(model_id for model_id in between if model_id in seen), last], error.references
            ) from error


@dataclass(frozen=True, slots=True)
class _Groups(ModelGroupRepository):
    access: Access
    inner: ModelGroupRepository

    def get(self, group_id: str) -> ModelGroup:
        return self._seen(self.inner.get(group_id))

    def list(self, query: GroupQuery) -> GroupPage:
        return self.inner.list(replace(query, filter=_within(self.access.visible, query.filter)))

    def update(self, group_id: str, change: Callable[[ModelGroup], ModelGroup]) -> ModelGroup:
        def changed(old: ModelGroup) -> ModelGroup:
            _require_acting(self.access, self._seen(old).key.project_id)
            return change(old)

        return self.inner.update(group_id, changed)

    def remove(self, group_id: str, check: Callable[[ModelGroup], None], *, validate_only: bool = False) -> ModelGroup:
        def checked(group: ModelGroup) -> None:
            _require_acting(self.access, self._seen(group).key.project_id)
            check(group)

        return self.inner.remove(group_id, checked, validate_only=validate_only)

    def _seen(self, group: ModelGroup) -> ModelGroup:
        if not self.access.sees(group.key.project_id):
            raise ModelGroupNotFoundError(group.id)
        return group


@dataclass(frozen=True, slots=True)
class _Aliases(AliasRepository):
    access: Access
    inner: AliasRepository
    models: ModelRepository

    def find(self, group: GroupHandle, alias: str) -> AliasState:
        return self.inner.find(group, alias) if self._sees(group) else _never_set(group, alias)

    def lock(self, group: GroupHandle, alias: str, *, add: bool = False) -> AliasState:
        if not self._sees(group):
            return _never_set(group, alias)
        _require_acting(self.access, group.key.project_id)
        return self.inner.lock(group, alias, add=add)

    def lock_all_of(self, model_id: str) -> Sequence[AliasState]:
        # The model was locked through `_Models`.
        return self.inner.lock_all_of(model_id)

    def move(
        self, state: AliasState, *, kind: MoveKind, target: AliasTarget | None, previous: int | None, remark: Remark
    ) -> AliasMove:
        _require_acting(self.access, state.group.key.project_id)
        return self.inner.move(state, kind=kind, target=target, previous=previous, remark=remark)

    def at(self, group: GroupHandle, alias: str, time: datetime) -> Alias | None:
        return self.inner.at(group, alias, time) if self._sees(group) else None

    def get_move(self, state: AliasState, revision: int) -> AliasMove:
        # This method and the next take a state from this class. Without access to the alias, the state has no key.
        return self.inner.get_move(state, revision)

    def newest_move_to(self, state: AliasState, model_id: str) -> AliasMove | None:
        return self.inner.newest_move_to(state, model_id)

    def list(
        self, group: GroupHandle | None, *, after: int, limit: int, max_bytes: int, within: Projects = None
    ) -> AliasPage:
        within = _both(self.access.visible, within)
        return self.inner.list(group, after=after, limit=limit, max_bytes=max_bytes, within=within)

    def moves(
        self,
        group: GroupHandle | None,
        alias: str | None,
        *,
        before: MoveKey | None,
        limit: int,
        max_bytes: int,
        within: Projects = None,
    ) -> MovePage:
        within = _both(self.access.visible, within)
        return self.inner.moves(group, alias, before=before, limit=limit, max_bytes=max_bytes, within=within)

    def of_models(self, model_ids: Sequence[str]) -> Mapping[str, Sequence[str]]:
        projects = self.models.projects(model_ids)
        return self.inner.of_models([i for i in model_ids if i in projects and self.access.sees(projects[i])])

    def _sees(self, group: GroupHandle) -> bool:
        return self.access.sees(group.key.project_id)


@dataclass(frozen=True, slots=True)
class _References(ReferenceRepository):
    """Groups and projects that the caller may not read are no candidates."""

    access: Access
    inner: ReferenceRepository

    def groups(self, name: str, project: str | None, *, limit: int, within: Projects = None) -> Sequence[GroupHandle]:
        return self.inner.groups(name, project, limit=limit, within=_both(self.access.visible, within))

    def has_project(self, project: str, *, within: Projects = None) -> bool:
        return self.inner.has_project(project, within=_both(self.access.visible, within))

    def versions(
        self, group: GroupHandle, version: str | None, precisions: Collection[str], *, limit: int
    ) -> Sequence[NamedVersion]:
        if not self.access.sees(group.key.project_id):
            return ()
        return self.inner.versions(group, version, precisions, limit=limit)


@dataclass(frozen=True, slots=True)
class _Uploads(UploadRepository):
    """A caller who may upload into a project may continue every upload into it. Other callers see none of them."""

    access: Access
    inner: UploadRepository

    def add(self, upload: Upload) -> None:
        _require_acting(self.access, upload.spec.fields.project_id)
        self.inner.add(upload)

    def get(self, upload_id: str) -> Upload:
        upload = self.inner.get(upload_id)
        if not self.access.acts_in(upload.spec.fields.project_id):
            raise UploadNotFoundError(upload_id)
        return upload

    def list(self, query: UploadQuery) -> UploadPage:
        return self.inner.list(replace(query, within=_both(self.access.acting, query.within)))

    def take_over(self, upload_id: str, *, offset: int, ttl: timedelta) -> Upload:
        self.get(upload_id)
        return self.inner.take_over(upload_id, offset=offset, ttl=ttl)

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
        # This method, `lock_for_update` and `complete` take an upload that came from here.
        return self.inner.commit(
            upload, committed_size=committed_size, handle=handle, part=part, tail_key=tail_key, ttl=ttl
        )

    def lock_for_update(self, upload: Upload) -> None:
        self.inner.lock_for_update(upload)

    def begin_completion(self, upload_id: str, *, ttl: timedelta) -> Upload:
        self.get(upload_id)
        return self.inner.begin_completion(upload_id, ttl=ttl)

    def complete(self, upload: Upload) -> None:
        self.inner.complete(upload)

    def remove(self, upload_id: str, *, expired: bool = False) -> Upload:
        self.get(upload_id)
        return self.inner.remove(upload_id, expired=expired)

    def expired(self, limit: int) -> Sequence[str]:  # noqa: ARG002 - of the port
        raise ProjectDeniedError(None)


@dataclass(frozen=True, slots=True)
class _IdempotencyKeys(IdempotencyKeys):
    """A kept response is repeated only to a caller who may still make the call."""

    access: Access
    inner: IdempotencyKeys

    def begin(self, call: KeyedCall, *, lease: timedelta) -> KeptAnswer | None:
        kept = self.inner.begin(call, lease=lease)
        if kept is not None:
            _require_acting(self.access, kept.project_id)
        return kept

    def keep(self, result: object, *, resource_id: str, project_id: str | None, artifact_sha256: str = "") -> None:
        self.inner.keep(result, resource_id=resource_id, project_id=project_id, artifact_sha256=artifact_sha256)

    def renew(self, attempts: Sequence[str], *, lease: timedelta) -> None:
        self.inner.renew(attempts, lease=lease)

    def forget(self, call: KeyedCall) -> None:
        self.inner.forget(call)

    def remove_expired(self, limit: int) -> int:  # noqa: ARG002 - of the port
        raise ProjectDeniedError(None)


@dataclass(frozen=True, slots=True)
class _Events(EventLog):
    access: Access
    inner: EventLog

    def record(self, change: Change) -> None:
        self.inner.record(change)

    def head(self) -> LogHead:
        return self.inner.head()

    def after(
        self,
        sequence: int,
        *,
        until: int | None = None,
        limit: int,
        max_bytes: int = MAX_PAGE_BYTES,
        filter: Node | None = None,  # noqa: A002 - AIP-160's name
        within: Projects = None,
    ) -> Sequence[Event]:
        visible = _both(self.access.visible, within)
        events = self.inner.after(
            sequence, until=until, limit=limit, max_bytes=max_bytes, filter=filter, within=visible
        )
        return [as_seen_from(event, visible) for event in events]

    def before(
        self,
        sequence: int | None,
        *,
        limit: int,
        max_bytes: int = MAX_PAGE_BYTES,
        filter: Node | None = None,  # noqa: A002 - AIP-160's name
        within: Projects = None,
    ) -> Sequence[Event]:
        # Reading the log requires a permission of its own, which the caller may lack in projects that it may read.
        acting = _both(self.access.acting, within)
        events = self.inner.before(sequence, limit=limit, max_bytes=max_bytes, filter=filter, within=acting)
        return [as_seen_from(event, acting) for event in events]

    def verify(self, after: LogHead, *, limit: int) -> tuple[LogHead, BrokenLink | None]:
        if self.access.acting is not None:
            # All projects share one hash chain.
            raise ProjectDeniedError(None)
        return self.inner.verify(after, limit=limit)


def _require_acting(access: Access, project_id: str | None) -> None:
    if not access.acts_in(project_id):
        raise ProjectDeniedError(project_id)


def _both(one: Projects, other: Projects) -> Projects:
    """Return the projects in both sets."""
    if one is None:
        return other
    return one if other is None else one & other


def _within(projects: Projects, node: Node | None) -> Node | None:
    """Restrict a filter to models of these projects."""
    if projects is None:
        return node
    each: list[Node] = [Restriction(_PROJECT, Comparator.EQUAL, Pattern((project,))) for project in sorted(projects)]
    anywhere: Node = Restriction(_PROJECT, Comparator.PRESENT)
    match each:
        case []:
            # Matches nothing.
            own: Node = And((anywhere, Not(anywhere)))
        case [only]:
            own = only
        case _:
            own = Or(tuple(each))
    return own if node is None else And((own, node))


def _never_set(group: GroupHandle, alias: str) -> AliasState:
    return AliasState(key=None, group=group, alias=alias, head=None)
