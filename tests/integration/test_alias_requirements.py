"""AliasService: requirements that a new target must meet."""

from dataclasses import replace
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import ListValue
from google.rpc import error_details_pb2

from registry_service.domain.signature import Signature, Tensor
from registry_service.storage.sql import rows, tables
from tests.integration.alias_calls import NOT_FOUND, PRECONDITION, get_alias, register, set_alias
from tests.polling import eventually
from tests.registry import RunningRegistry
from tests.streams import Feed, serving
from tests.stub_client import Client, refused, registration, sha256, spec


def give_signature(registry: RunningRegistry, model_id: str, signature: Signature) -> None:
    """Store a signature, as a registration would."""
    with registry.parts.database.transaction() as transaction:
        model = replace(transaction.models.get(model_id), signature=signature)
    with registry.engine.begin() as connection:
        values = {"schema": rows.model_values(model)["schema"]}
        connection.execute(tables.ModelRow.__table__.update().where(tables.ModelRow.id == model_id).values(values))  # type: ignore[attr-defined]


class TestRequirements:
    def test_metrics_are_checked_against_bounds(self, client: Client) -> None:
        model = register(client, "1", metrics={"mAP50": 0.61, "latency": 12.5})
        bounds = [{"metric": "mAP50", "min": 0.61}, {"metric": "latency", "min": 0, "max": 20}, {"metric": "mAP50"}]
        answer = set_alias(client, model.id, requirements={"metrics": bounds})
        assert answer.changed
        assert [(c.requirement, c.passed) for c in answer.checks] == [
            ("metrics.mAP50", True),
            ("metrics.latency", True),
            ("metrics.mAP50", True),
        ]
        bounds = [{"metric": "mAP50", "min": 0.62}, {"metric": "latency", "max": 12}, {"metric": "recall", "min": 0}]
        with refused(PRECONDITION, "REQUIREMENTS_NOT_MET") as refusal:
            set_alias(client, model.id, "best", requirements={"metrics": bounds})
        violations = refusal.detail(error_details_pb2.PreconditionFailure).violations
        assert [(v.type, v.subject, v.description) for v in violations] == [
            ("REQUIREMENT", "metrics.mAP50", "is 0.61; must be at least 0.62."),
            ("REQUIREMENT", "metrics.latency", "is 12.5; must be at most 12."),
            ("REQUIREMENT", "metrics.recall", "the model has no such metric; must be at least 0."),
        ]
        assert refusal.message.startswith("The model yolo:1 does not meet the promotion requirements. metrics.mAP50: ")
        with refused(NOT_FOUND, "ALIAS_NOT_FOUND"):
            get_alias(client, "best")

    def test_validate_only_lists_the_unmet_requirements(self, registry: RunningRegistry) -> None:
        client = registry.client
        model = register(client, "1")
        answer = set_alias(
            client, model.id, validate_only=True, requirements={"verified": True, "metrics": [{"metric": "mAP50"}]}
        )
        assert not answer.changed
        assert answer.alias.model_id == model.id
        assert [(c.requirement, c.passed) for c in answer.checks] == [("verified", True), ("metrics.mAP50", False)]
        assert registry.count("aliases") == 0

    def test_the_requirement_verified_reads_the_bytes_again(self, registry: RunningRegistry) -> None:
        client = registry.client
        model = register(client, "1")
        assert set_alias(client, model.id, requirements={"verified": True}).changed
        [artifact] = registry.objects()
        artifact.write_bytes(b"2")
        with refused(PRECONDITION, "REQUIREMENTS_NOT_MET") as refusal:
            set_alias(client, model.id, "best", requirements={"verified": True})
        [violation] = refusal.detail(error_details_pb2.PreconditionFailure).violations
        assert (violation.subject, sha256(b"2") in violation.description) == ("verified", True)
        artifact.unlink()
        [check] = set_alias(client, model.id, requirements={"verified": True}, validate_only=True).checks
        assert not check.passed

    def test_a_recent_verification_is_not_repeated(self, registry: RunningRegistry) -> None:
        client = registry.client
        model = register(client, "1")
        young = {"verified": True, "max_verification_age": Duration(seconds=3600)}
        # No stored verification exists yet, so the bytes are read.
        assert set_alias(client, model.id, "first", requirements=young).checks[0].passed
        time = client.get(model.id).artifact.verify_time
        assert time.seconds
        [artifact] = registry.objects()
        artifact.write_bytes(b"2")
        [check] = set_alias(client, model.id, "second", requirements=young).checks
        assert check.passed
        assert time.ToDatetime().isoformat(timespec="seconds") in check.description
        assert client.get(model.id).artifact.verify_time == time

    def test_an_old_verification_is_repeated(self, registry: RunningRegistry) -> None:
        client = registry.client
        model = register(client, "1")
        client.verify(model.id)
        registry.execute("UPDATE artifact_verifications SET time = time - interval '1 hour'")
        old = client.get(model.id).artifact.verify_time
        requirements = {"verified": True, "max_verification_age": Duration(seconds=3599)}
        assert set_alias(client, model.id, requirements=requirements).checks[0].passed
        assert client.get(model.id).artifact.verify_time.seconds >= old.seconds + 3600
        registry.execute("UPDATE artifact_verifications SET time = time - interval '1 hour'")
        [artifact] = registry.objects()
        artifact.write_bytes(b"2")
        with refused(PRECONDITION, "REQUIREMENTS_NOT_MET"):
            set_alias(client, model.id, "best", requirements=requirements)

    def test_a_recorded_damage_is_not_a_verification(self, registry: RunningRegistry) -> None:
        client = registry.client
        model = register(client, "1")
        client.verify(model.id)
        [artifact] = registry.objects()
        artifact.write_bytes(b"2")
        assert not client.verify(model.id).intact
        young = {"verified": True, "max_verification_age": Duration(seconds=3600)}
        with refused(PRECONDITION, "REQUIREMENTS_NOT_MET"):
            set_alias(client, model.id, requirements=young)
        artifact.write_bytes(b"1")
        assert set_alias(client, model.id, requirements=young).changed

    def test_a_move_that_reads_bytes_counts_as_a_stream(self, registry: RunningRegistry) -> None:
        model = register(registry.client, "1")
        verified = {"verified": True}
        with serving(registry, max_streams=1, max_waiting_seconds=0.2) as (_, client):
            feed = Feed(*registration(spec(name="uses the only stream"), [b"x"]))
            stream = client.models.RegisterModel.future(feed)
            eventually(lambda: registry.count("unreferenced_objects") == 1)
            assert set_alias(client, model.id).changed
            with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS"):
                set_alias(client, model.id, "best", requirements=verified)
            stream.cancel()
            answer = eventually(lambda: set_alias(client, model.id, "best", requirements=verified))
            assert answer.checks[0].passed

    def test_comparing_requirements_are_met_without_a_present_target(self, client: Client) -> None:
        same = {"same_inputs": True, "same_outputs": True, "same_labels": True}
        answer = set_alias(client, register(client, "1").id, requirements=same)
        assert answer.changed
        assert [(c.requirement, c.passed) for c in answer.checks] == [(name, True) for name in same]
        assert "no present target" in answer.checks[0].description

    def test_labels_are_compared_in_any_order(self, client: Client) -> None:
        def labels(*values: Any) -> ListValue:
            message = ListValue()
            message.extend(values)
            return message

        one = register(client, "1", labels=labels("cat", {"name": "dog", "n": 1}))
        same = register(client, "2", labels=labels({"n": 1.0, "name": "dog"}, "cat"))
        other = register(client, "3", labels=labels("cat", {"name": "dog", "n": True}, "cow"))
        set_alias(client, one.id)
        assert set_alias(client, same.id, requirements={"same_labels": True}).changed
        with refused(PRECONDITION, "REQUIREMENTS_NOT_MET") as refusal:
            set_alias(client, other.id, requirements={"same_labels": True})
        [violation] = refusal.detail(error_details_pb2.PreconditionFailure).violations
        assert violation.subject == "same_labels"
        assert "cow is new" in violation.description
        assert "{'n': 1, 'name': 'dog'} is missing" in violation.description

    def test_inputs_and_outputs_are_compared_by_name_type_and_shape(self, registry: RunningRegistry) -> None:
        client = registry.client
        image = Tensor(name="image", element_type="FLOAT", shape=("batch", 3, 640, 640))
        mask = Tensor(name="mask", element_type="BOOL", shape=None)
        boxes = Tensor(name="boxes", element_type="FLOAT", shape=(1, 8400, 84))
        signature = Signature(format="onnx", inputs=(image, mask), outputs=(boxes,))
        one, same, other, unknown = (register(client, version) for version in "1234")
        give_signature(registry, one.id, signature)
        give_signature(registry, same.id, replace(signature, inputs=(mask, image), producer="another"))
        larger = replace(image, shape=("batch", 3, 1280, 1280))
        give_signature(registry, other.id, replace(signature, inputs=(larger, mask)))
        both = {"same_inputs": True, "same_outputs": True}
        set_alias(client, one.id)
        assert set_alias(client, same.id, requirements=both).changed
        checks = set_alias(client, other.id, requirements=both, validate_only=True).checks
        assert [(c.requirement, c.passed) for c in checks] == [("same_inputs", False), ("same_outputs", True)]
        assert checks[0].description == (
            "image FLOAT [batch, 3, 1280, 1280] is new; image FLOAT [batch, 3, 640, 640] is missing."
        )
        with refused(PRECONDITION, "REQUIREMENTS_NOT_MET") as refusal:
            set_alias(client, unknown.id, requirements=both)
        violations = refusal.detail(error_details_pb2.PreconditionFailure).violations
        assert [v.description for v in violations] == [
            "the inputs of the model are not known.",
            "the outputs of the model are not known.",
        ]
        set_alias(client, unknown.id)
        checks = set_alias(client, same.id, requirements=both, validate_only=True).checks
        assert [c.description for c in checks][:1] == ["the inputs of the present target are not known."]
