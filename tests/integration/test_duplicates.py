"""ModelService: registrations that conflict with existing or concurrent ones."""

import itertools
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from modelregistry.v1 import model_pb2

from tests.integration.model_fields import (
    EXISTS,
    GIVEN_ID,
    run_together,
)
from tests.polling import eventually
from tests.registry import RunningRegistry
from tests.streams import Feed
from tests.stub_client import Client, refused, registration, spec


class TestDuplicates:
    def test_the_same_id_is_refused(self, registry: RunningRegistry) -> None:
        first = registry.client.register(id=GIVEN_ID, name="one")
        with refused(EXISTS, "MODEL_ALREADY_EXISTS") as refusal:
            registry.client.register(id=GIVEN_ID, name="two")
        assert refusal.metadata == {"model_id": GIVEN_ID, "conflict": "id"}
        assert registry.client.all() == [first]
        assert len(registry.objects()) == 1
        assert registry.count("unreferenced_objects") == 0

    @pytest.mark.parametrize(
        "identity",
        [
            {},
            {"project_id": "p"},
            {"project_name": "p"},
            {"project_id": "p", "project_name": ""},
            {"precisions": ["fp16", "int8"]},
            {"version": "v" * 5000},
        ],
        ids=str,
    )
    def test_the_same_identity_is_refused_with_the_id_of_the_other_model(
        self, client: Client, identity: dict[str, Any]
    ) -> None:
        first = client.register(**identity)
        with refused(EXISTS, "MODEL_ALREADY_EXISTS") as refusal:
            client.register(**identity, architecture="another", tags={"a": "b"})
        assert refusal.metadata == {"model_id": first.id, "conflict": "identity"}
        assert first.id in refusal.message
        project = identity.get("project_id") or identity.get("project_name")
        reference = f"{f'{project}/' if project else ''}{first.name}:{first.version}"
        assert f"The model {reference[:200]}" in refusal.message
        assert len(refusal.message) < 500
        with refused(EXISTS) as refusal:
            client.create_upload(**identity)
        assert refusal.metadata["model_id"] == first.id
        assert client.all() == [first]

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({}, {"project_id": "p"}),
            ({}, {"project_id": ""}),
            ({}, {"project_name": "p"}),
            ({"project_id": "p"}, {"project_name": "p"}),
            ({"precisions": ["fp16"]}, {"precisions": ["fp32"]}),
            ({"precisions": ["fp16"]}, {"precisions": ["fp16", "fp32"]}),
            ({"version": "1"}, {"version": "1.0"}),
            ({"name": "yolo"}, {"name": "YOLO"}),
            ({"name": "é"}, {"name": "e\u0301"}),
            ({"name": "yolo"}, {"name": "yolo "}),
            ({"name": "x" * 4000 + "a"}, {"name": "x" * 4000 + "b"}),
            ({"version": "ü" * 4000 + "a"}, {"version": "ü" * 4000 + "b"}),
        ],
        ids=lambda fields: str(fields)[:30],
    )
    def test_another_identity_is_another_model(
        self, client: Client, one: dict[str, Any], other: dict[str, Any]
    ) -> None:
        client.register(**one)
        client.register(**other)
        assert len(client.all()) == 2

    def test_a_duplicate_is_refused_before_its_bytes_are_read(self, registry: RunningRegistry) -> None:
        first = registry.client.register()
        sent = itertools.count()

        def endless() -> Iterator[bytes]:
            while True:
                next(sent)
                yield bytes(65536)

        with refused(EXISTS) as refusal:
            registry.client.models.RegisterModel(registration(spec(), endless()), timeout=30)
        assert refusal.metadata["model_id"] == first.id
        assert next(sent) < 10_000
        assert len(registry.objects()) == 1

    def test_one_of_many_concurrent_registrations_succeeds(self, registry: RunningRegistry) -> None:
        results = run_together(16, lambda number: registry.client.register(b"%d" % number))
        models = [result for result in results if isinstance(result, model_pb2.Model)]
        errors = [result for result in results if isinstance(result, grpc.RpcError)]
        assert len(models) == 1
        assert {error.code() for error in errors} == {EXISTS}
        assert registry.client.all() == models
        assert len(registry.objects()) == 1
        assert registry.count("unreferenced_objects") == 0
        assert registry.client.verify(models[0].id).intact

    def test_one_of_many_registrations_that_end_together_succeeds(self, registry: RunningRegistry) -> None:
        # No other model exists when they begin, so only the database detects the conflict.
        feeds = [Feed(*registration(spec(), [b"%d" % number])) for number in range(8)]
        calls = [registry.client.models.RegisterModel.future(feed) for feed in feeds]
        eventually(lambda: registry.count("unreferenced_objects") == 8)
        for feed in feeds:
            feed.end()
        codes = [call.code() for call in calls]
        assert sorted(code.name for code in codes) == ["ALREADY_EXISTS"] * 7 + ["OK"]
        winner = next(call for call, code in zip(calls, codes, strict=True) if code is grpc.StatusCode.OK)
        assert registry.client.all() == [winner.result().model]
        for call in calls:
            if call is not winner:
                assert winner.result().model.id in call.details()
        assert len(registry.objects()) == 1
        assert registry.count("unreferenced_objects") == 0
