"""ModelService: updates, deletions and reads of models."""

import math
import re
from datetime import UTC
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Value
from modelregistry.v1 import model_pb2, model_service_pb2
from sqlalchemy import text

from tests.integration.model_fields import EXISTS, GIVEN_ID, INVALID, nothing_is_left, run_together, struct, with_fields
from tests.registry import RunningRegistry
from tests.stub_client import Client, refused

ABORTED = grpc.StatusCode.ABORTED
NOT_FOUND = grpc.StatusCode.NOT_FOUND
MISSING_ID = "there-is-no-such-model"
DATE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} UTC")


class TestUpdating:
    def test_only_the_fields_of_the_mask_change(self, client: Client) -> None:
        old = client.register(name="a", format="onnx", tags={"k": "v"}, score=1)
        new = client.update(old.id, ["format", "score"], name="ignored", format="openvino", tags={"x": "y"})
        expected = model_pb2.Model()
        expected.CopyFrom(old)
        expected.format = "openvino"
        expected.score = 0  # in the mask but unset: its default
        assert_changed(old, new, expected)
        assert client.get(old.id) == new

    def test_without_a_mask_only_set_fields_change(self, client: Client) -> None:
        old = client.register(name="a", format="onnx", tags={"k": "v"}, score=1)
        new = client.update(old.id, architecture="YOLOX", score=0.0, tags={"x": "y"})
        expected = model_pb2.Model()
        expected.CopyFrom(old)
        expected.architecture = "YOLOX"
        expected.score = 0
        expected.tags.clear()
        expected.tags["x"] = "y"
        assert_changed(old, new, expected)

    def test_with_a_star_unset_fields_get_their_defaults(self, client: Client) -> None:
        given = with_fields()
        old = client.register(**given)
        new = client.update(old.id, ["*"], name="n", version="v")
        bare = client.register(name="bare", version="v")
        expected = model_pb2.Model()
        expected.CopyFrom(bare)
        expected.name = "n"
        for name in ("id", "artifact", "create_time"):
            expected.ClearField(name)
        expected.MergeFrom(model_pb2.Model(id=old.id, artifact=old.artifact, create_time=old.create_time))
        assert_changed(old, new, expected)

    def test_all_fields_can_be_updated_at_once(self, client: Client) -> None:
        old = client.register(id=GIVEN_ID)
        given = with_fields()
        new = client.models.UpdateModel(
            model_service_pb2.UpdateModelRequest(model=model_pb2.Model(**given), update_mask={"paths": ["*"]})
        )
        expected = model_pb2.Model()
        expected.CopyFrom(old)
        for name, value in given.items():
            expected.ClearField(name)
            expected.MergeFrom(model_pb2.Model(**{name: value}))
        assert_changed(old, new, expected)
        assert client.get(GIVEN_ID) == new

    def test_single_entries_of_a_map_can_be_updated(self, client: Client) -> None:
        old = client.register(tags={"a": "1", "b.c": "2", "d": "3"}, metrics={"m": 1, "n": 2})
        new = client.update(
            old.id, ["tags.a", "tags.b.c", "tags.e", "tags.absent", "metrics.m", "metrics.o"],
            tags={"a": "one", "e": "5", "d": "ignored"}, metrics={"o": 3, "n": 99},
        )  # fmt: skip
        assert dict(new.tags) == {"a": "one", "d": "3", "e": "5"}
        assert dict(new.metrics) == {"n": 2, "o": 3}

    @pytest.mark.parametrize(
        ("path", "words"),
        [
            ("nonsense", "not a field"),
            ("nonsense.key", "not a field"),
            ("", "not a field"),
            ("tags.", "cannot be changed"),
            ("name.x", "cannot be changed"),
            ("overview.key", "cannot be changed"),
            *((name, "cannot be changed") for name in ("id", "create_time", "update_time", "artifact")),
            *((name, "cannot be changed") for name in ("etag", "revision", "creator", "artifact.size_bytes")),
        ],
    )
    def test_an_immutable_path_is_refused(self, client: Client, path: str, words: str) -> None:
        old = client.register()
        with refused(INVALID) as refusal:
            client.update(old.id, ["format", path], format="onnx")
        assert refusal.fields == ["update_mask"]
        assert words in refusal.message
        assert client.get(old.id) == old

    def test_a_star_with_other_paths_is_refused(self, client: Client) -> None:
        old = client.register()
        with refused(INVALID) as refusal:
            client.update(old.id, ["*", "name"], name="x", version="y")
        assert refusal.fields == ["update_mask"]

    @pytest.mark.parametrize(
        ("path", "fields", "field"),
        [
            ("name", {}, "name"),
            ("score", {"score": math.inf}, "score"),
            ("tags.k", {"tags": {"k": "\0"}}, "tags.k"),
            ("metrics.k", {"metrics": {"k": math.nan}}, "metrics.k"),
            ("overview", {"overview": Value(number_value=1)}, "overview"),
        ],
    )
    def test_an_invalid_value_is_refused(self, client: Client, path: str, fields: dict[str, Any], field: str) -> None:
        old = client.register()
        with refused(INVALID) as refusal:
            client.update(old.id, [path, "format"], format="onnx", **fields)
        assert refusal.fields == [f"model.{field}"]
        assert client.get(old.id) == old

    def test_the_present_etag_is_accepted_and_an_earlier_one_refused(self, client: Client) -> None:
        first = client.register()
        second = client.update(first.id, ["format"], format="onnx", etag=first.etag)
        with refused(ABORTED, "ETAG_MISMATCH") as refusal:
            client.update(first.id, ["format"], format="openvino", etag=first.etag)
        assert refusal.metadata == {"model_id": first.id}
        assert refusal.message == f"The model {first.name}:{first.version} has changed since its etag was read."
        assert client.get(first.id) == second
        with refused(ABORTED, "ETAG_MISMATCH"):
            client.update(first.id, ["format"], format="openvino", etag="made up")

    def test_another_models_identity_is_refused(self, client: Client) -> None:
        one, two = client.register(name="one"), client.register(name="two")
        with refused(EXISTS, "MODEL_ALREADY_EXISTS") as refusal:
            client.update(two.id, ["name", "format"], name="one", format="onnx")
        assert refusal.metadata == {"model_id": one.id, "conflict": "identity"}
        assert client.get(two.id) == two
        client.update(one.id, ["name"], name="three")
        assert client.update(two.id, ["name"], name="one").name == "one"

    def test_a_name_that_the_present_rules_refuse_stays_but_cannot_be_chosen(self, registry: RunningRegistry) -> None:
        client = registry.client
        model = client.register(name="a")
        with registry.engine.begin() as connection:
            connection.execute(text("UPDATE models SET name = :name"), {"name": "a\u202eb"})
        assert client.update(model.id, score=1).name == "a\u202eb"
        with refused(INVALID) as refusal:
            client.update(model.id, version="1\u202e")
        assert refusal.fields == ["model.version"]

    def test_an_update_without_changes_keeps_the_revision(self, client: Client) -> None:
        model = client.register(**with_fields())
        same = model_pb2.Model()
        same.CopyFrom(model)
        for paths in (["*"], ["name"], ["tags.team"], ["tags.absent"], []):
            answer = client.models.UpdateModel(
                model_service_pb2.UpdateModelRequest(model=same, update_mask={"paths": paths})
            )
            assert answer == model, paths

    @pytest.mark.parametrize(("before", "after"), [(1, True), (False, 0), ([1], [True]), ({"b": 0}, {"b": False})])
    def test_a_boolean_differs_from_a_number(self, client: Client, before: Any, after: Any) -> None:
        model = client.register(overview=struct(a=before))
        changed = client.update(model.id, ["overview"], overview=struct(a=after))
        assert changed.overview == struct(a=after)
        assert changed.revision == 2
        assert client.get(model.id) == changed

    def test_each_change_is_a_new_revision_at_a_later_time(self, client: Client) -> None:
        states = [client.register()]
        for number in range(5):
            states.append(client.update(states[0].id, ["format"], format=f"f{number}"))
        assert [state.revision for state in states] == [1, 2, 3, 4, 5, 6]
        assert len({state.etag for state in states}) == 6
        times = [state.update_time.ToDatetime(UTC) for state in states]
        assert times == sorted(times)
        assert len({state.create_time.ToNanoseconds() for state in states}) == 1

    def test_one_of_many_concurrent_updates_with_the_same_etag_succeeds(self, client: Client) -> None:
        model = client.register()
        results = run_together(
            8, lambda number: client.update(model.id, ["format"], format=f"f{number}", etag=model.etag)
        )
        changed = [result for result in results if isinstance(result, model_pb2.Model)]
        assert len(changed) == 1
        assert {error.code() for error in results if isinstance(error, grpc.RpcError)} == {ABORTED}
        assert client.get(model.id) == changed[0]
        assert changed[0].revision == 2

    def test_concurrent_changes_of_different_entries_are_all_kept(self, client: Client) -> None:
        model = client.register()
        run_together(8, lambda number: client.update(model.id, [f"tags.k{number}"], tags={f"k{number}": "v"}))
        after = client.get(model.id)
        assert dict(after.tags) == {f"k{number}": "v" for number in range(8)}
        assert after.revision == 9

    def test_one_of_many_concurrent_renames_to_the_same_identity_succeeds(self, client: Client) -> None:
        models = [client.register(name=f"n{number}") for number in range(8)]
        results = run_together(8, lambda number: client.update(models[number].id, ["name"], name="the one"))
        assert sum(isinstance(result, model_pb2.Model) for result in results) == 1
        assert {error.code() for error in results if isinstance(error, grpc.RpcError)} == {EXISTS}
        assert client.names('name = "the one"') == ["the one"]

    def test_a_missing_model_is_not_found(self, client: Client) -> None:
        with refused(NOT_FOUND, "MODEL_NOT_FOUND"):
            client.update(MISSING_ID, ["name"], name="x")
        with refused(INVALID) as refusal:
            client.update("short", ["name"], name="x")
        assert refusal.fields == ["model.id"]


def assert_changed(old: model_pb2.Model, new: model_pb2.Model, expected: model_pb2.Model) -> None:
    """Assert all client-supplied fields, and the fields that the registry sets on a change."""
    assert new.revision == old.revision + 1
    assert new.etag != old.etag
    assert new.update_time.ToDatetime(UTC) > old.update_time.ToDatetime(UTC)
    wanted = model_pb2.Model()
    wanted.CopyFrom(expected)
    moved = any(getattr(new, name) != getattr(old, name) for name in ("name", "project_id", "project_name"))
    assert (new.model_group_id != old.model_group_id) is moved
    for name in ("revision", "etag", "update_time"):
        wanted.ClearField(name)
    wanted.MergeFrom(
        model_pb2.Model(
            model_group_id=new.model_group_id,
            revision=new.revision,
            etag=new.etag,
            update_time=new.update_time,
        )
    )
    assert new == wanted


class TestDeleting:
    def test_the_model_and_its_bytes_are_deleted(self, registry: RunningRegistry) -> None:
        kept, deleted = registry.client.register(name="kept"), registry.client.register(name="deleted")
        registry.client.delete(deleted.id)
        with refused(NOT_FOUND, "MODEL_NOT_FOUND") as refusal:
            registry.client.get(deleted.id)
        assert refusal.metadata == {"model_id": deleted.id}
        assert registry.client.all() == [kept]
        assert len(registry.objects()) == 1
        assert registry.count("unreferenced_objects") == 0
        assert registry.client.verify(kept.id).intact

    def test_a_stale_etag_deletes_nothing(self, client: Client) -> None:
        model = client.register()
        changed = client.update(model.id, ["format"], format="onnx")
        with refused(ABORTED, "ETAG_MISMATCH"):
            client.delete(model.id, etag=model.etag)
        assert client.download(model.id) == b"weights"
        client.delete(model.id, etag=changed.etag)
        assert client.all() == []

    def test_a_missing_model_is_not_found_unless_that_is_allowed(self, client: Client) -> None:
        with refused(NOT_FOUND, "MODEL_NOT_FOUND"):
            client.delete(MISSING_ID)
        client.delete(MISSING_ID, allow_missing=True)
        client.delete(MISSING_ID, allow_missing=True, etag="any")
        with refused(INVALID):
            client.delete("short", allow_missing=True)

    def test_the_id_is_free_again_and_the_old_etag_is_stale(self, client: Client) -> None:
        old = client.register(id=GIVEN_ID)
        client.delete(GIVEN_ID)
        new = client.register(b"others", id=GIVEN_ID)
        assert new.etag != old.etag
        assert new.revision == old.revision
        with refused(ABORTED):
            client.delete(GIVEN_ID, etag=old.etag)
        assert client.download(GIVEN_ID) == b"others"

    def test_validate_only_is_refused_like_the_deletion_and_deletes_nothing(self, registry: RunningRegistry) -> None:
        model = registry.client.register()
        registry.client.delete(model.id, validate_only=True)
        with refused(grpc.StatusCode.ABORTED, "ETAG_MISMATCH"):
            registry.client.delete(model.id, validate_only=True, etag="another")
        with refused(NOT_FOUND):
            registry.client.delete("there-is-no-such-model", validate_only=True)
        registry.client.delete("there-is-no-such-model", validate_only=True, allow_missing=True)
        assert registry.client.get(model.id) == model
        assert registry.count("audit_events") == 1
        assert registry.client.verify(model.id).intact

    def test_one_of_many_concurrent_deletions_succeeds(self, registry: RunningRegistry) -> None:
        model = registry.client.register()
        results = run_together(8, lambda _: registry.client.delete(model.id))
        assert results.count(None) == 1
        assert {error.code() for error in results if error is not None} == {NOT_FOUND}
        assert nothing_is_left(registry)


class TestGetting:
    @pytest.mark.parametrize(
        "hostile",
        [
            "",
            "short",
            "x' OR '1'='1' --xx",
            "0123456789abcde\0",
            "%" * 20,
            "../../../../etc/passwd",
            "☃" * 20,
            "a" * 257,
            "x" * 1_000_000,
        ],
        ids=lambda value: repr(value)[:20],
    )
    def test_an_invalid_id_is_refused_in_a_short_message(self, client: Client, hostile: str) -> None:
        with refused(INVALID) as refusal:
            client.get(hostile)
        assert refusal.fields == ["model_id"]
        assert "GET /v1/models:resolve?reference=" in refusal.message
        assert len(refusal.message) < 300

    def test_a_missing_model_is_not_found(self, client: Client) -> None:
        with refused(NOT_FOUND, "MODEL_NOT_FOUND"):
            client.get("x" * 256)
