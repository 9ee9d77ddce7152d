"""The bare equivalent of the server: a handler that sends the same SQL through psycopg and does nothing else.

At its start, it runs the registry's own services once and records their
statements. It answers each call by sending the same statements with other
ids, and by converting the rows into the same message.
"""

import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, LiteralString

import grpc
import psycopg
from google.protobuf.struct_pb2 import ListValue, Value
from modelregistry.v1 import alias_service_pb2, model_group_service_pb2, model_pb2, model_service_pb2
from psycopg.rows import dict_row
from sqlalchemy import Engine, event

from benchmarks.load import (
    DEEP_GROUP,
    DEEP_PRECISION,
    GROUP_LISTS,
    LIST_FILTER,
    LIST_ORDER,
    VERSION_ORDER,
    model_id,
    substring,
)
from benchmarks.load import name as name_of
from registry_service.domain.caller import acting_as_registry
from registry_service.domain.models import ArtifactSpec, ModelFields, ModelSpec
from registry_service.settings import Settings, load
from registry_service.wiring import Registry, open_registry

_THREADS = 32

# The statements of SetAlias after it has read the model. They are fixed, since each needs the previous result.
_PROMOTION: tuple[LiteralString, ...] = (
    """
    INSERT INTO aliases (name, project_id, project_name, alias, revision)
    VALUES (%(name)s, %(project_id)s, %(project_name)s, %(alias)s, 0) ON CONFLICT DO NOTHING RETURNING id AS alias_id
    """,
    "SELECT id AS alias_id FROM aliases WHERE id = %(alias_id)s FOR UPDATE",
    """
    INSERT INTO alias_moves (alias_id, revision, kind, model_id, version, sha256, time, actor, reason, request_id)
    VALUES (%(alias_id)s, 1, 'set', %(model_id)s, %(version)s, %(sha256)s, clock_timestamp(), '', '', '')
    """,
    "UPDATE aliases SET model_id = %(model_id)s, revision = 1 WHERE id = %(alias_id)s",
    """
    INSERT INTO audit_events (actor, request_id, action, project_id, project_name, name, model_id, alias, reason, after)
    VALUES ('', '', 'alias.set', %(project_id)s, %(project_name)s, %(name)s, %(model_id)s, %(alias)s, '',
        jsonb_build_object('model_id', %(model_id)s::text, 'version', %(version)s::text, 'sha256', %(sha256)s::text))
    """,
)


@dataclass(frozen=True)
class Recording:
    """The statements of one call, and the placeholder values to replace by those of a later call."""

    statements: Sequence[tuple[str, Mapping[str, Any]]]
    stand_ins: Sequence[object]

    def replay(self, connection: psycopg.Connection[dict[str, Any]], values: Sequence[object]) -> list[dict[str, Any]]:
        """Send the statements with other values in one transaction; return the rows of the last one with a result."""
        exchange = dict(zip(self.stand_ins, values, strict=True))
        rows: list[dict[str, Any]] = []
        with connection.transaction():
            for statement, parameters in self.statements:
                cursor = connection.execute(
                    statement,
                    {
                        name: exchange.get(value, value) if isinstance(value, str) else value
                        for name, value in parameters.items()
                    },
                )
                if cursor.description is not None:
                    rows = cursor.fetchall()
        return rows


@contextmanager
def recording() -> Iterator[list[tuple[str, Mapping[str, Any]]]]:
    """Record the statements of all engines."""
    statements: list[tuple[str, Mapping[str, Any]]] = []

    def note(_c: object, _cursor: object, statement: str, parameters: Any, _context: object, _many: bool) -> None:
        statements.append((statement, dict(parameters)))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", note)


class Recorder:
    """Records the statements of a registry's services."""

    def __init__(self, registry: Registry) -> None:
        self._services = registry.services

    def record(self, call: Callable[[], object], *stand_ins: object) -> Recording:
        """Run a call once."""
        with recording() as statements:
            call()
        return Recording(statements, stand_ins)

    def all(self, page_token: str) -> dict[str, Recording]:
        """Record the statements of each operation."""
        cases = self._services
        text = substring(0)

        def page(token: str) -> Callable[[], object]:
            return lambda: cases.models.list(filter=LIST_FILTER, order_by=LIST_ORDER, size=50, token=token)

        def groups(wanted: str, order: str) -> Callable[[], object]:
            return lambda: cases.model_groups.list(filter=wanted, order_by=order, show_empty=False, size=50, token="")

        name = f"baseline-{uuid.uuid4()}"
        new_id = str(uuid.uuid4())
        registration = self.record(
            lambda: cases.models.register(
                ModelSpec(fields=ModelFields(name=name, version="1"), id=new_id, artifact=ArtifactSpec()),
                [bytes(1024)],
                lambda: None,
            ),
            new_id,
            name,
        )
        object_key = next(sent["object_key"] for _, sent in registration.statements if "object_key" in sent)
        registration = replace(registration, stand_ins=(*registration.stand_ins, object_key))
        return {
            "get": self.record(lambda: cases.models.get(model_id(1)), model_id(1)),
            "first page": self.record(page("")),
            "deep page": self.record(page(page_token)),
            "substring": self.record(
                lambda: cases.models.list(filter=f'name : "{text}"', order_by="", size=50, token=""), f"%{text}%"
            ),
            "newest versions": self.record(
                lambda: cases.models.list(filter="", order_by=VERSION_ORDER, size=50, token="")
            ),
            "resolve": self.record(lambda: cases.references.resolve(name_of(1)), name_of(1), model_id(1)),
            "resolve with precisions": self.record(
                lambda: cases.references.resolve(DEEP_GROUP, precisions=[DEEP_PRECISION])
            ),
            **{operation: self.record(groups(*listed)) for operation, listed in GROUP_LISTS.items()},
            "alias history": self.record(lambda: cases.aliases.list_moves(None, None, size=50, token="")),
            "update": self.record(lambda: cases.models.update(model_id(1), {"score": time.time()}), model_id(1)),
            "register": registration,
        }


class Handlers:
    """Answers the calls of a load, by method."""

    def __init__(self, recordings: Mapping[str, Recording], dsn: Mapping[str, Any], folder: Path) -> None:
        self._recordings = recordings
        self._dsn = dsn
        self._folder = folder
        self._local = threading.local()

    def _connection(self) -> psycopg.Connection[dict[str, Any]]:
        """Return the connection of the present thread."""
        connection: psycopg.Connection[dict[str, Any]] | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = psycopg.connect(**self._dsn, row_factory=dict_row, autocommit=True)
        return connection

    def _rows(self, operation: str, *values: object) -> list[dict[str, Any]]:
        return self._recordings[operation].replay(self._connection(), values)

    def _models(self, operation: str, *values: object) -> list[model_pb2.Model]:
        """Return the models in the first column, which has JSON."""
        found = (next(iter(row.values())) for row in self._rows(operation, *values))
        # A single model is a column next to its group and its aliases.
        return [_message(row.get("row", row)) for row in found]

    def get(self, request: model_service_pb2.GetModelRequest, _: object) -> model_pb2.Model:
        """GetModel."""
        (model,) = self._models("get", request.model_id)
        return model

    def list(self, request: model_service_pb2.ListModelsRequest, _: object) -> model_service_pb2.ListModelsResponse:
        """ListModels."""
        if request.order_by == VERSION_ORDER:
            models = self._models("newest versions")
        elif request.filter == LIST_FILTER:
            models = self._models("deep page" if request.page_token else "first page")
        else:
            models = self._models("substring", f"%{request.filter.split(chr(34))[1]}%")
        return model_service_pb2.ListModelsResponse(models=models)

    def resolve(
        self, request: model_service_pb2.ResolveModelRequest, _: object
    ) -> model_service_pb2.ResolveModelResponse:
        """ResolveModel of a name, or of a name with precisions."""
        if request.precisions:
            (model,) = self._models("resolve with precisions")
            return model_service_pb2.ResolveModelResponse(model=model)
        (model,) = self._models("resolve", request.reference, model_id(int(request.reference.split("-")[1])))
        return model_service_pb2.ResolveModelResponse(model=model)

    def groups(
        self, request: model_group_service_pb2.ListModelGroupsRequest, _: object
    ) -> model_group_service_pb2.ListModelGroupsResponse:
        """ListModelGroups."""
        response = model_group_service_pb2.ListModelGroupsResponse()
        operation = next(name for name, (wanted, _order) in GROUP_LISTS.items() if wanted == request.filter)
        for row in self._rows(operation):
            message = response.model_groups.add()
            for name in ("id", "name", "description", "owner", "version_count", "latest_version", "latest_model_id"):
                setattr(message, name, row[name])
            message.tags.update(row["tags"])
            message.create_time.FromDatetime(row["create_time"])
            message.update_time.FromDatetime(row["update_time"])
        return response

    def history(
        self, _request: alias_service_pb2.ListAliasMovesRequest, _: object
    ) -> alias_service_pb2.ListAliasMovesResponse:
        """ListAliasMoves."""
        response = alias_service_pb2.ListAliasMovesResponse()
        for row in self._rows("alias history"):
            message = response.alias_moves.add()
            for name in ("alias", "model_group_id", "revision", "actor", "reason", "request_id"):
                setattr(message, name, row[name])
            for name in ("model_id", "version", "sha256"):
                setattr(message.after, name, row[name])
            message.move_time.FromDatetime(row["time"])
        return response

    def update(self, request: model_service_pb2.UpdateModelRequest, _: object) -> model_pb2.Model:
        """UpdateModel."""
        self._rows("update", request.model.id)
        return request.model

    def register(
        self, requests: Iterator[model_service_pb2.RegisterModelRequest], _: object
    ) -> model_service_pb2.RegisterModelResponse:
        """RegisterModel, with a durable file for the artifact."""
        wanted = next(requests).spec
        data = b"".join(request.chunk for request in requests)
        key = str(uuid.uuid4())
        _write_durably(self._folder / key, data)
        self._rows("register", key, wanted.model.name, f"artifacts/{key}")
        return model_service_pb2.RegisterModelResponse(model=wanted.model)

    def promote(self, request: alias_service_pb2.SetAliasRequest, _: object) -> alias_service_pb2.SetAliasResponse:
        """SetAlias of a new alias."""
        connection = self._connection()
        with connection.transaction():
            model = connection.execute("SELECT * FROM models WHERE id = %s FOR SHARE", (request.model_id,)).fetchone()
            if model is None:
                raise LookupError(request.model_id)
            values = model | {"alias": request.alias, "model_id": request.model_id}
            for statement in _PROMOTION:
                cursor = connection.execute(statement, values)
                if cursor.description is not None:
                    values |= cursor.fetchone() or {}
        return alias_service_pb2.SetAliasResponse()


def _message(row: Mapping[str, Any]) -> model_pb2.Model:
    """Create the message by hand, specialized on these rows."""
    message = model_pb2.Model(
        id=row["id"],
        name=row["name"],
        version=row["version"],
        project_id=row["project_id"],
        project_name=row["project_name"],
        precisions=row["precision"],
        target_device=row["target_device"],
        format=row["format"],
        category=row["category"],
        architecture=row["architecture"],
        score=row["score"],
        labels=ListValue(values=[Value(string_value=label) for label in row["labels"] or ()]),
        metrics=row["metrics"],
        tags=row["tags"],
        artifact=model_pb2.Artifact(
            file_name=row["file_name"],
            media_type=row["media_type"],
            size_bytes=row["size"],
            sha256=row["sha256"],
        ),
        revision=row["revision"],
    )
    message.overview.struct_value.update(row["overview"] or {})
    message.optimization_capabilities.struct_value.update(row["optimization_capabilities"] or {})
    message.create_time.FromDatetime(datetime.fromisoformat(row["create_time"]))
    message.update_time.FromDatetime(datetime.fromisoformat(row["update_time"]))
    return message


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb", buffering=0) as file:
        file.write(data)
        os.fsync(file)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _method(request: Any, behaviour: Any, *, stream: bool = False) -> "grpc.RpcMethodHandler[Any, Any]":
    make = grpc.stream_unary_rpc_method_handler if stream else grpc.unary_unary_rpc_method_handler
    return make(
        behaviour,
        request_deserializer=request.FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )


def _main() -> None:
    port, page_token = int(sys.argv[1]), sys.argv[2]
    settings = load(Settings)
    if settings.artifact_dir is None:
        raise AssertionError("the baseline writes into a folder")
    folder = settings.artifact_dir / "baseline"
    folder.mkdir(parents=True, exist_ok=True)
    with open_registry(settings) as registry, acting_as_registry():
        recordings = Recorder(registry).all(page_token)
    dsn = {
        "host": settings.psql_hostname,
        "port": settings.psql_port,
        "dbname": settings.psql_database,
        "user": settings.mr_user_name,
    }
    handlers = Handlers(recordings, dsn, folder)
    server = grpc.server(futures.ThreadPoolExecutor(_THREADS))
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "modelregistry.v1.ModelService",
                {
                    "GetModel": _method(model_service_pb2.GetModelRequest, handlers.get),
                    "ListModels": _method(model_service_pb2.ListModelsRequest, handlers.list),
                    "ResolveModel": _method(model_service_pb2.ResolveModelRequest, handlers.resolve),
                    "UpdateModel": _method(model_service_pb2.UpdateModelRequest, handlers.update),
                    "RegisterModel": _method(model_service_pb2.RegisterModelRequest, handlers.register, stream=True),
                },
            ),
            grpc.method_handlers_generic_handler(
                "modelregistry.v1.AliasService",
                {
                    "SetAlias": _method(alias_service_pb2.SetAliasRequest, handlers.promote),
                    "ListAliasMoves": _method(alias_service_pb2.ListAliasMovesRequest, handlers.history),
                },
            ),
            grpc.method_handlers_generic_handler(
                "modelregistry.v1.ModelGroupService",
                {"ListModelGroups": _method(model_group_service_pb2.ListModelGroupsRequest, handlers.groups)},
            ),
        )
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    _main()
