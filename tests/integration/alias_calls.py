"""Calls of AliasService, and models to point aliases to."""

from datetime import UTC, timedelta
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from modelregistry.v1 import alias_pb2, model_pb2
from modelregistry.v1 import alias_service_pb2 as pb

from registry_service.domain.events import Event
from tests.registry import RunningRegistry
from tests.stub_client import Client

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
ABORTED = grpc.StatusCode.ABORTED
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
Kind = alias_pb2.AliasMove
NO_GROUP = "there-was-no-such-group"


def register(client: Client, version: str, data: bytes | None = None, **fields: Any) -> model_pb2.Model:
    """Register a version of yolo with distinct bytes."""
    return client.register(data or version.encode(), version=version, **fields)


def group_id(client: Client) -> str:
    """Return the id of the group of yolo without a project, even if it is empty, or an unused id."""
    found = client.all_groups('name = "yolo" AND project_id = null AND project_name = null', show_empty=True)
    return found[0].id if found else NO_GROUP


def set_alias(client: Client, model_id: str, alias: str = "production", **fields: Any) -> pb.SetAliasResponse:
    metadata = as_actor(fields)
    fields.setdefault("model_group_id", group_id(client))
    return client.aliases.SetAlias(pb.SetAliasRequest(alias=alias, model_id=model_id, **fields), metadata=metadata)


def as_actor(fields: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Move the actor from the fields of a request to the metadata of the call."""
    return (("x-actor", fields.pop("actor")),) if "actor" in fields else ()


def named(client: Client, alias: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a request with defaults for an alias of yolo."""
    return {"alias": alias, "model_group_id": fields.get("model_group_id") or group_id(client)} | fields


def rollback(client: Client, alias: str = "production", **fields: Any) -> pb.RollbackAliasResponse:
    metadata = as_actor(fields)
    return client.aliases.RollbackAlias(pb.RollbackAliasRequest(**named(client, alias, fields)), metadata=metadata)


def step_back(client: Client, **fields: Any) -> pb.RollbackAliasResponse:
    """Roll back from the state that the client sees."""
    return rollback(client, etag=get_alias(client).etag, **fields)


def delete_alias(client: Client, alias: str = "production", **fields: Any) -> pb.DeleteAliasResponse:
    metadata = as_actor(fields)
    return client.aliases.DeleteAlias(pb.DeleteAliasRequest(**named(client, alias, fields)), metadata=metadata)


def get_alias(client: Client, alias: str = "production", **fields: Any) -> alias_pb2.Alias:
    return client.aliases.GetAlias(pb.GetAliasRequest(**named(client, alias, fields)))


def history(client: Client, alias: str = "production", **fields: Any) -> list[alias_pb2.AliasMove]:
    """Read all moves page by page, oldest first."""
    request = pb.ListAliasMovesRequest(**named(client, alias, fields))
    moves: list[alias_pb2.AliasMove] = []
    while True:
        page = client.aliases.ListAliasMoves(request)
        moves += page.alias_moves
        if not page.next_page_token:
            return moves[::-1]
        request.page_token = page.next_page_token


def target(model: model_pb2.Model) -> alias_pb2.AliasTarget:
    return alias_pb2.AliasTarget(model_id=model.id, version=model.version, sha256=model.artifact.sha256)


def alias_events(registry: RunningRegistry) -> list[Event]:
    with registry.parts.database.transaction() as transaction:
        return [event for event in transaction.events.after(0, limit=1000) if event.alias]


def before(time: Timestamp) -> Timestamp:
    """Return the time one microsecond earlier."""
    earlier = Timestamp()
    earlier.FromDatetime(time.ToDatetime(tzinfo=UTC) - timedelta(microseconds=1))
    return earlier
