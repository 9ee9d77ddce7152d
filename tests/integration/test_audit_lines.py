"""Audit lines in the log: exactly one for every committed change."""

import logging

import grpc
import pytest
from modelregistry.v1 import audit_service_pb2

from registry_service import logs
from tests.registry import RunningRegistry
from tests.stub_client import refused


def audit_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [vars(record) for record in caplog.records if record.name == logs.AUDIT]


def test_each_change_is_logged_with_the_content_of_its_audit_event(
    registry: RunningRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    client = registry.client
    with caplog.at_level(logging.INFO, logs.AUDIT):
        model = client.register(name="secret name", tags={"secret": "tag"})
        client.update(model.id, ["score"], score=0.5)
        client.delete(model.id)
    lines = audit_lines(caplog)
    events = list(reversed(client.audit.ListAuditEvents(audit_service_pb2.ListAuditEventsRequest()).audit_events))
    assert [(line["action"], line["sequence"], line["hash"], line["model_id"]) for line in lines] == [
        (action, event.sequence, event.hash, model.id)
        for action, event in zip(("model.registered", "model.updated", "model.deleted"), events, strict=True)
    ]
    assert all(line["log"] == "audit" for line in lines)
    assert {line["model_group_id"] for line in lines} == {model.model_group_id}
    assert "secret" not in repr(lines)


def test_a_refused_change_is_not_logged(registry: RunningRegistry, caplog: pytest.LogCaptureFixture) -> None:
    registry.client.register(name="taken")
    caplog.clear()
    with caplog.at_level(logging.INFO, logs.AUDIT):
        with refused(grpc.StatusCode.ALREADY_EXISTS):
            registry.client.register(name="taken")
        with refused(grpc.StatusCode.NOT_FOUND):
            registry.client.delete("no-such-model-at-all")
    assert audit_lines(caplog) == []
