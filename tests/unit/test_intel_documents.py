"""Reading the texts of an Intel deployment."""

import ast
from datetime import UTC, datetime

import pytest

from registry_service.intel_migration.documents import read_document
from registry_service.intel_migration.source import IntelModel

TIME = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_literal_is_read_although_another_thread_parses_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    literal_eval, failures = ast.literal_eval, [SystemError("AST constructor recursion depth mismatch")]

    def disturbed(text: str) -> object:
        if failures:
            raise failures.pop()
        return literal_eval(text)

    monkeypatch.setattr(ast, "literal_eval", disturbed)
    tags = {
        "name": "vad",
        "version": "1",
        "labels": "[{'name': 'voice', 'color': None}]",
        "file_url": "minio://bucket/0123456789abcdef/model.zip",
    }

    document = read_document(IntelModel(id="0123456789abcdef", create_time=TIME, update_time=TIME, tags=tags))

    assert document.fields.labels == ({"name": "voice", "color": None},)
    assert not failures
