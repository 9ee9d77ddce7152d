"""Calls of UploadService, and the check that no bytes are left over."""

import random
from collections.abc import Iterator

import grpc
import pytest
from modelregistry.v1 import upload_pb2
from sqlalchemy import text

from tests.registry import RunningRegistry

INVALID = grpc.StatusCode.INVALID_ARGUMENT
EXISTS = grpc.StatusCode.ALREADY_EXISTS
ABORTED = grpc.StatusCode.ABORTED
NOT_FOUND = grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
ACTIVE = upload_pb2.Upload.STATE_ACTIVE
COMPLETING = upload_pb2.Upload.STATE_COMPLETING
PART = 8 * 1024 * 1024
UNKNOWN = "f0c1b5a2-6d3e-4f7a-9b8c-2d1e0f3a4b5c"


def some_bytes(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture(autouse=True)
def nothing_is_left_over(registry: RunningRegistry) -> Iterator[None]:
    """Assert after each test that, without uploads and garbage, the store has only the models' artifacts."""
    yield
    registry.execute("UPDATE uploads SET expire_time = now() - interval '1 second'")
    registry.execute("UPDATE unreferenced_objects SET due_time = now()")
    report = registry.parts.services.garbage_collector.collect()
    assert not report.failed
    assert registry.count("unreferenced_objects") == 0
    assert registry.count("uploads") == 0
    assert registry.count("upload_parts") == 0
    with registry.engine.connect() as connection:
        keys = set(connection.execute(text("SELECT object_key FROM models")).scalars())
    assert {str(path.relative_to(registry.artifact_dir)) for path in registry.objects()} == keys
    for model in registry.client.all():
        assert registry.client.verify(model.id).intact


def is_waiting_for_a_lock(registry: RunningRegistry) -> bool:
    with registry.engine.connect() as connection:
        return bool(
            connection.execute(
                text(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE wait_event_type = 'Lock' AND datname = current_database()"
                )
            ).scalar_one()
        )
