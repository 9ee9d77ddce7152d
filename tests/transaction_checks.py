"""The check that no transaction is open while the artifact store is called: a slow store would hold the connection."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

import pytest

from registry_service.storage.artifacts.local import LocalArtifactStore
from registry_service.storage.artifacts.s3 import S3ArtifactStore
from registry_service.storage.sql.database import SqlDatabase

_CALLS = ("put", "write", "begin", "write_part", "finish", "abort", "size", "delete")
# Threads that work for a call run in a copy of its context.
_held = ContextVar("held", default=0)


@contextmanager
def no_store_in_transactions() -> Iterator[None]:
    """Fail at the end of the block if a store was called while the call held a connection to Postgres."""
    found: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for block in ("transaction", "reading"):
            patch.setattr(SqlDatabase, block, _holding(getattr(SqlDatabase, block)))
        for store in (LocalArtifactStore, S3ArtifactStore):
            patch.setattr(store, "read", _watched_read(store.read, found))
            for name in _CALLS:
                patch.setattr(store, name, _watched(getattr(store, name), found))
        yield
    assert not found, f"the store was called while a connection to Postgres was held: {found}"


def _holding(block: Callable[..., Any]) -> Callable[..., Any]:
    @contextmanager
    def hold(database: SqlDatabase) -> Iterator[Any]:
        with block(database) as transaction:
            token = _held.set(_held.get() + 1)
            try:
                yield transaction
            finally:
                _held.reset(token)

    return hold


def _watched(method: Callable[..., Any], found: list[str]) -> Callable[..., Any]:
    @wraps(method)
    def call(store: object, key: str, *args: Any, **options: Any) -> Any:
        if _held.get():
            found.append(f"{method.__name__} {key}")
        return method(store, key, *args, **options)

    return call


def _watched_read(method: Callable[..., Any], found: list[str]) -> Callable[..., Any]:
    @wraps(method)
    def read(store: object, key: str, *args: Any, **options: Any) -> Iterator[bytes]:
        for piece in method(store, key, *args, **options):
            if _held.get():
                found.append(f"read {key}")
            yield piece

    return read
