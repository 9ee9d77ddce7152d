"""`domain.tokens.TokenRepository` on PostgreSQL."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from sqlalchemy import Connection, RowMapping, Table, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from typing_extensions import override

from registry_service.domain.access import Grant, Role
from registry_service.domain.errors import TokenExistsError, TokenNotFoundError
from registry_service.domain.events import Change
from registry_service.domain.models import GroupKey, Json
from registry_service.domain.tokens import Token, TokenRepository
from registry_service.domain.vocabulary import Action
from registry_service.storage.sql import tables
from registry_service.storage.sql.event_log import SqlEventLog

_tokens = cast("Table", tables.tokens)
_USE_STEP = timedelta(minutes=10)
_REMAINING = (_tokens.c.expire_time - func.clock_timestamp()).label("remaining")
_READ = select(_tokens, _REMAINING)


@dataclass(frozen=True, slots=True)
class SqlTokenRepository(TokenRepository):
    """`domain.tokens.TokenRepository`."""

    connection: Connection
    events: SqlEventLog

    @override
    def add(self, token: Token, digest: bytes) -> None:
        statement = upsert(_tokens).values(
            id=token.id,
            digest=digest,
            name=token.name,
            role=token.grant.role.value,
            project_id=token.grant.project_id,
            create_time=token.create_time,
            expire_time=token.expire_time,
        )
        added = self.connection.execute(statement.on_conflict_do_nothing().returning(_tokens.c.id))
        if added.one_or_none() is None:
            raise TokenExistsError(token.name)
        self._record(Action.TOKEN_CREATED, token, after=_event_values(token))

    @override
    def find(self, digest: bytes) -> Token | None:
        row = self.connection.execute(_READ.where(_tokens.c.digest == digest)).mappings().one_or_none()
        if row is None:
            return None
        self.connection.execute(
            update(_tokens)
            .where(
                _tokens.c.id == row["id"],
                or_(_tokens.c.last_use_time.is_(None), _tokens.c.last_use_time < func.now() - _USE_STEP),
            )
            .values(last_use_time=func.now())
        )
        return _token(row)

    @override
    def revoke(self, token_id: str) -> Token:
        statement = _READ.where(or_(_tokens.c.id == token_id, _tokens.c.name == token_id))
        # The id takes precedence, so a name equal to the id of another token prevents no revocation.
        statement = statement.order_by((_tokens.c.id == token_id).desc()).limit(1).with_for_update()
        row = self.connection.execute(statement).mappings().one_or_none()
        if row is None:
            raise TokenNotFoundError(token_id)
        if row["revoke_time"] is not None:
            return _token(row)
        revoked = self.connection.execute(
            update(_tokens)
            .where(_tokens.c.id == row["id"])
            .values(revoke_time=func.now())
            .returning(_tokens, _REMAINING)
        )
        token = _token(revoked.mappings().one())
        self._record(Action.TOKEN_REVOKED, token, before=_event_values(token))
        return token

    @override
    def list(self) -> Sequence[Token]:
        found = self.connection.execute(_READ.order_by(_tokens.c.create_time, _tokens.c.id))
        return [_token(row) for row in found.mappings()]

    def _record(
        self,
        action: Action,
        token: Token,
        *,
        before: Mapping[str, Json] | None = None,
        after: Mapping[str, Json] | None = None,
    ) -> None:
        group_key = GroupKey(name="", project_id=token.grant.project_id)
        self.events.record(Change(action=action, group_key=group_key, model_id="", before=before, after=after))


def _event_values(token: Token) -> Mapping[str, Json]:
    return {
        "token_id": token.id,
        "token_name": token.name,
        "role": token.grant.role.value,
        "expire_time": None if token.expire_time is None else token.expire_time.isoformat(),
    }


def _token(row: RowMapping) -> Token:
    values: dict[str, Any] = {
        name: row[name]
        for name in ("id", "name", "create_time", "expire_time", "revoke_time", "last_use_time", "remaining")
    }
    return Token(grant=Grant(Role(row["role"]), row["project_id"]), **values)
