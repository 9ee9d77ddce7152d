"""ModelService: valid, invalid and cancelled registrations."""

import hashlib
import math
import random
import uuid
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import ListValue, Value
from modelregistry.v1 import model_pb2, model_service_pb2
from sqlalchemy import text

from tests.integration.model_fields import (
    GIVEN_ID,
    INVALID,
    in_spec,
    nothing_is_left,
    struct,
    with_fields,
)
from tests.polling import eventually
from tests.registry import RunningRegistry, StartRegistry
from tests.streams import Feed
from tests.stub_client import Client, pieces, refused, registration, sha256, spec, zip_of


def texts(*values: str) -> ListValue:
    return ListValue(values=[Value(string_value=value) for value in values])


class TestRegistering:
    def test_unset_fields_have_their_defaults(self, client: Client) -> None:
        before = datetime.now(UTC)
        model = client.register(b"weights", name="yolo", version="1.0")
        assert uuid.UUID(model.id).version == 4
        assert model.id == str(uuid.UUID(model.id))
        assert (model.name, model.version) == ("yolo", "1.0")
        assert list(model.precisions) == ["fp32"]
        assert model.target_device == "CPU"
        assert model.HasField("score")
        assert model.score == 0
        for name in ("overview", "optimization_capabilities"):
            assert getattr(model, name).WhichOneof("kind") == "struct_value", name
            assert not getattr(model, name).struct_value.fields, name
        assert model.HasField("labels")
        assert not model.labels.values
        for name in ("project_id", "project_name", "target_device_type", "format", "origin", "category"):
            assert not model.HasField(name), name
        assert not model.HasField("architecture")
        assert not model.HasField("provenance")
        assert (dict(model.metrics), dict(model.tags)) == ({}, {})
        assert (model.revision, model.creator) == (1, "")
        assert model.etag
        assert before <= model.create_time.ToDatetime(UTC) <= datetime.now(UTC)
        assert model.update_time == model.create_time
        assert model.artifact == model_pb2.Artifact(
            file_name="model.bin",
            media_type="application/octet-stream",
            size_bytes=7,
            sha256=hashlib.sha256(b"weights").hexdigest(),
            kind=model_pb2.Artifact.KIND_FILE,
        )

    @pytest.mark.parametrize(
        ("given", "file_name", "media_type"),
        [
            ({"file_name": "a.zip"}, "a.zip", "application/zip"),
            ({"file_name": "A.ZIP"}, "A.ZIP", "application/zip"),
            ({"file_name": "a.onnx"}, "a.onnx", "application/octet-stream"),
            ({"media_type": "application/zip"}, "model.zip", "application/zip"),
            ({"media_type": "Application/ZIP; a=b"}, "model.zip", "Application/ZIP; a=b"),
            ({"media_type": "text/plain"}, "model.bin", "text/plain"),
            ({"file_name": "mödel 1.bin", "media_type": "a/b"}, "mödel 1.bin", "a/b"),
        ],
    )
    def test_file_name_and_media_type_follow_from_each_other(
        self, client: Client, given: dict[str, str], file_name: str, media_type: str
    ) -> None:
        artifact = client.register(zip_of({"a": b"a"}), artifact=given).artifact
        assert (artifact.file_name, artifact.media_type) == (file_name, media_type)

    def test_every_field_is_returned_unchanged(self, client: Client) -> None:
        given = with_fields()
        model = client.register(
            b"weights", **given, artifact={"file_name": "a.bin", "size_bytes": 7, "sha256": sha256(b"weights").upper()}
        )
        expected = model_pb2.Model()
        expected.CopyFrom(model)
        for name, value in given.items():
            expected.ClearField(name)
            expected.MergeFrom(model_pb2.Model(**{name: value}))
        assert model == expected
        assert client.get(GIVEN_ID) == model
        assert client.all() == [model]
        assert model.artifact.sha256 == sha256(b"weights")

    def test_integers_in_json_stay_integers(self, registry: RunningRegistry) -> None:
        registry.client.register(overview=struct(whole=3, half=0.5, list=[1, -7], big=2.0**52))
        with registry.engine.connect() as connection:
            stored = connection.execute(text("SELECT overview::text FROM models")).scalar_one()
        assert stored == '{"big": 4503599627370496, "half": 0.5, "list": [1, -7], "whole": 3}'

    def test_precisions_become_lower_case_and_unique(self, client: Client) -> None:
        assert list(client.register(precisions=["FP16", "fp16", "Int8"]).precisions) == ["fp16", "int8"]

    @pytest.mark.parametrize("precision", ["fp64", "bf16", "fp8", "nf4", "mixed", "q4_k", "float8_e4m3fn", "x" * 32])
    def test_a_precision_may_have_any_name(self, client: Client, precision: str) -> None:
        model = client.register(precisions=[precision.upper(), "fp32"])
        assert list(client.get(model.id).precisions) == [precision, "fp32"]
        assert client.all(f'precisions : "{precision}"') == [model]

    def test_a_description_and_the_value_of_a_tag_hold_64_kib(self, client: Client) -> None:
        longest = "é" * (32 * 1024)
        model = client.register(description=longest, tags={"card": longest})
        assert (model.description, model.tags["card"]) == (longest, longest)
        assert client.update(model.id, ["description"], description="short").description == "short"
        assert client.update(model.id, ["description"]).description == ""
        assert client.all('description : "SHORT"') == []

    def test_output_only_fields_are_ignored(self, client: Client) -> None:
        model = client.register(etag="x", revision=7, creator="me", artifact={"file_name": "a"})
        assert model.revision == 1
        assert model.creator == ""
        assert model.etag != "x"

    def test_all_bytes_are_stored(self, client: Client) -> None:
        data = random.Random(1).randbytes(20 * 1024 * 1024 + 1)
        model = client.register(data)
        assert model.artifact.size_bytes == len(data)
        assert model.artifact.sha256 == sha256(data)
        assert client.download(model.id) == data

    @pytest.mark.parametrize("extra", [-1, 0, 1])
    def test_an_artifact_around_the_size_of_a_part_is_stored(self, client: Client, extra: int) -> None:
        data = random.Random(2).randbytes(8 * 1024 * 1024 + extra)
        assert client.download(client.register(data).id) == data

    def test_empty_chunks_are_ignored(self, client: Client) -> None:
        chunks = [b"", b"a", b"", b"b", b""]
        model = client.models.RegisterModel(registration(spec(), chunks)).model
        assert client.download(model.id) == b"ab"

    def test_a_registration_leaves_nothing_to_collect(self, registry: RunningRegistry) -> None:
        registry.client.register(b"x")
        assert registry.count("unreferenced_objects") == 0
        assert len(registry.objects()) == 1


BAD_FIELDS: list[tuple[str, dict[str, Any]]] = [
    ("id", {"id": "short"}),
    ("id", {"id": "a" * 257}),
    ("id", {"id": "has spaces in it!"}),
    ("id", {"id": "0123456789abcdé0"}),
    ("id", {"id": "0123456789abcdef\n"}),
    ("name", {"name": ""}),
    ("version", {"version": ""}),
    ("name", {"name": "a\0b"}),
    ("name", {"name": "a\u202eb"}),
    ("version", {"version": "1\u2066"}),
    ("project_id", {"project_id": "\u200fp"}),
    ("project_name", {"project_name": "p\u061c"}),
    ("artifact.file_name", {"artifact": {"file_name": "exe.\u202egpj"}}),
    ("name", {"name": "é" * 5001}),
    *(
        (name, {name: value})
        for name in ("version", "project_id", "project_name", "target_device", "target_device_type", "format")
        for value in ("a\0b", "x" * 5001)
    ),
    *((name, {name: value}) for name in ("origin", "category", "architecture") for value in ("a\0b", "x" * 5001)),
    *(("precisions[0]", {"precisions": [name]}) for name in ("8bit", "fp 8", "fp32,fp16", "ﬀ", "a\0", "x" * 33)),
    ("precisions[1]", {"precisions": ["fp32", ""]}),
    ("precisions", {"precisions": [f"p{i}" for i in range(17)]}),
    *(("description", {"description": text}) for text in ("a\0b", "x" * (64 * 1024 + 1), "é" * (32 * 1024 + 1))),
    ("score", {"score": math.nan}),
    ("score", {"score": math.inf}),
    ("score", {"score": -math.inf}),
    ("metrics.m", {"metrics": {"m": math.nan}}),
    ("metrics.m", {"metrics": {"m": -math.inf}}),
    ("metrics", {"metrics": {"": 1}}),
    ("metrics", {"metrics": {"k" * 257: 1}}),
    ("tags", {"tags": {"": "x"}}),
    ("tags", {"tags": {"k\0": "x"}}),
    ("tags.k", {"tags": {"k": "a\0b"}}),
    ("tags.k", {"tags": {"k": "é" * (32 * 1024 + 1)}}),
    *(
        (name, {name: value})
        for name in ("overview", "optimization_capabilities")
        for value in (
            Value(number_value=1),
            Value(bool_value=True),
            Value(list_value=texts("a")),
            struct(**{"a\0b": 1}),
        )
    ),
    *(
        (f"{name}.{place}", {name: value})
        for name in ("overview", "optimization_capabilities")
        for place, value in (
            ("a.b[0]", struct(a={"b": ["a\0b"]})),
            ("a[0]", struct(a=[math.nan])),
            ("a", struct(a=math.inf)),
            ("a.b[1].c", struct(a={"b": [1, {"c": 2**53 + 1}]})),
            ("a", struct(a=-(2**53))),
            ("a", struct(a=2**64 - 1)),
        )
    ),
    ("labels[1].id", {"labels": ListValue(values=[Value(string_value="a"), struct(id=2**60)])}),
    ("provenance.hyperparameters.seed", {"provenance": {"hyperparameters": struct(seed=2**53).struct_value}}),
    ("labels[0]", {"labels": ListValue(values=[Value(number_value=1)])}),
    ("labels[1]", {"labels": ListValue(values=[Value(string_value="a"), Value(null_value=0)])}),  # type: ignore[arg-type]
    ("labels[0]", {"labels": texts("a\0b")}),
    ("provenance.framework", {"provenance": {"framework": "a\0"}}),
    ("provenance.source_commit", {"provenance": {"source_commit": "x" * 5001}}),
    ("provenance.datasets[0]", {"provenance": {"datasets": [{"digest": "sha256:00"}]}}),
    ("provenance.datasets[0].digest", {"provenance": {"datasets": [{"name": "a", "digest": "no digest"}]}}),
    ("provenance.datasets[0].digest", {"provenance": {"datasets": [{"name": "a", "digest": "sha256:xyz"}]}}),
    ("provenance.datasets[1].uri", {"provenance": {"datasets": [{"name": "a"}, {"uri": "a\0"}]}}),
    ("provenance.parent_model_ids[0]", {"provenance": {"parent_model_ids": ["short"]}}),
    ("provenance.environment.k", {"provenance": {"environment": {"k": "\0"}}}),
    ("provenance.hyperparameters.a", {"provenance": {"hyperparameters": struct(a="\0").struct_value}}),
    *(
        ("artifact.file_name", {"artifact": {"file_name": name}})
        for name in ("a/b", "/a", "a\\b", "..", ".", "a\nb", "a\0b", "\x7f", "é" * 128)
    ),
    *(
        ("artifact.media_type", {"artifact": {"media_type": media_type}})
        for media_type in ("zip", "a/b/c", "a/b\r\nx: y", "a/", "ü/b", "a b/c")
    ),
    *(("artifact.sha256", {"artifact": {"sha256": digest}}) for digest in ("0" * 63, "0" * 65, "g" * 64)),
    *(("artifact.size_bytes", {"artifact": {"size_bytes": size}}) for size in (0, -1, 2**62)),
]


class TestRefusals:
    def test_numbers_within_the_range_of_doubles_are_kept(self, client: Client) -> None:
        numbers = [2**53 - 1, -(2**53) + 1, 0.1, 1e-300, 1e300, -1.7976931348623157e308, 2.0**65, 4503599627370495.5]
        model = client.register(overview=struct(a=numbers))
        assert [
            value.number_value for value in client.get(model.id).overview.struct_value.fields["a"].list_value.values
        ] == numbers
        assert client.update(model.id, ["overview"], overview=model.overview) == model

    @pytest.mark.parametrize(("field", "fields"), BAD_FIELDS, ids=lambda value: value if isinstance(value, str) else "")
    def test_an_invalid_field_is_named(self, registry: RunningRegistry, field: str, fields: dict[str, Any]) -> None:
        path = in_spec(field)
        with refused(INVALID, "INVALID_ARGUMENT") as refusal:
            registry.client.register(**fields)
        assert refusal.fields == [path]
        assert refusal.metadata["field"] == path
        assert refusal.message.startswith(f"{path}: ")
        with refused(INVALID) as refusal:
            registry.client.create_upload(**fields)
        assert refusal.fields == [f"upload.{path}"]
        assert nothing_is_left(registry)
        assert registry.count("uploads") == 0

    def test_all_invalid_fields_are_named_at_once(self, client: Client) -> None:
        with refused(INVALID) as refusal:
            client.register(
                id="short", name="", version="", score=math.nan, precisions=["fp 8"], artifact={"file_name": "a/b"}
            )
        named = ("id", "name", "version", "score", "precisions[0]", "artifact.file_name")
        assert set(refusal.fields) == set(map(in_spec, named))

    def test_every_metric_other_than_a_finite_number_is_named(self, client: Client) -> None:
        figures = {"loss": math.nan, "mAP50": 0.5, "perplexity": math.inf}
        with refused(INVALID) as refusal:
            client.register(metrics=figures)
        assert (
            "spec.model.metrics.loss: must be a finite number, not nan. Omit it where there is no value."
            in refusal.message
        )
        assert set(refusal.fields) == {"spec.model.metrics.loss", "spec.model.metrics.perplexity"}
        model = client.register(metrics={name: figure for name, figure in figures.items() if math.isfinite(figure)})
        assert model.metrics == {"mAP50": 0.5}

    def test_the_size_of_metadata_is_limited(self, start_registry: StartRegistry) -> None:
        registry = start_registry(metadata_max_bytes=2000)
        with refused(INVALID) as refusal:
            registry.client.register(tags={"k": "é" * 1000})
        assert refusal.fields == ["spec.model"]
        assert nothing_is_left(registry)
        model = registry.client.register(tags={"k": "é" * 500})
        with refused(INVALID) as refusal:
            registry.client.update(model.id, ["overview"], overview=struct(k="é" * 500))
        assert refusal.fields == ["model"]
        assert registry.client.get(model.id) == model

    @pytest.mark.parametrize("kind", ["lists", "objects"])
    def test_the_depth_of_json_is_limited(self, client: Client, kind: str) -> None:
        value: Any = "inside"
        for _ in range(30):
            value = [value] if kind == "lists" else {"a": value}
        # One level less, since these fields are an object or a list of labels.
        fields: dict[str, Any] = {
            "overview": struct(a=value["a"]) if kind == "objects" else struct(a=value[0]),
            "labels": ListValue(values=[struct(a=value["a"] if kind == "objects" else value[0])]),
            "provenance": {"hyperparameters": struct(a=value["a"] if kind == "objects" else value[0]).struct_value},
        }
        model = client.register(**fields)
        assert client.get(model.id) == model
        assert client.all() == [model]
        assert client.get_upload(client.create_upload(name="upload", **fields).id).spec.model.labels == model.labels
        with refused(INVALID) as refusal:
            client.register(name="deeper", overview=struct(a=value))
        assert refusal.fields == ["spec.model.overview"]
        with refused(INVALID) as refusal:
            client.update(model.id, ["labels"], labels=ListValue(values=[struct(a=value)]))
        assert refusal.fields == ["model.labels[0]"]

    @pytest.mark.parametrize(
        "messages",
        [
            [],
            [model_service_pb2.RegisterModelRequest()],
            [model_service_pb2.RegisterModelRequest(chunk=b"bytes")],
            [model_service_pb2.RegisterModelRequest(spec=model_service_pb2.ModelSpec())],
        ],
        ids=["no message", "empty message", "bytes first", "spec without a model"],
    )
    def test_the_first_message_needs_the_spec(
        self, registry: RunningRegistry, messages: list[model_service_pb2.RegisterModelRequest]
    ) -> None:
        with refused(INVALID):
            registry.client.models.RegisterModel(iter(messages))
        assert nothing_is_left(registry)

    @pytest.mark.parametrize(
        "message",
        [model_service_pb2.RegisterModelRequest(), model_service_pb2.RegisterModelRequest(spec=spec())],
        ids=["empty", "spec"],
    )
    def test_every_other_message_needs_a_chunk(
        self, registry: RunningRegistry, message: model_service_pb2.RegisterModelRequest
    ) -> None:
        first = model_service_pb2.RegisterModelRequest(spec=spec())
        chunk = model_service_pb2.RegisterModelRequest(chunk=b"x" * 9_000_00)
        with refused(INVALID) as refusal:
            registry.client.models.RegisterModel(iter([first, *[chunk] * 12, message]))
        assert refusal.fields == ["chunk"]
        assert nothing_is_left(registry)

    @pytest.mark.parametrize("chunks", [[], [b""]])
    def test_an_empty_artifact_is_refused(self, registry: RunningRegistry, chunks: list[bytes]) -> None:
        with refused(INVALID) as refusal:
            registry.client.models.RegisterModel(registration(spec(), chunks))
        assert refusal.fields == ["spec.artifact"]
        assert nothing_is_left(registry)

    @pytest.mark.parametrize("size", [10, 9 * 1024 * 1024])
    @pytest.mark.parametrize("difference", [-1, 1])
    def test_a_size_other_than_the_declared_one_is_refused(
        self, registry: RunningRegistry, size: int, difference: int
    ) -> None:
        with refused(INVALID, "ARTIFACT_MISMATCH") as refusal:
            registry.client.register(bytes(size), artifact={"size_bytes": size + difference})
        assert refusal.fields == ["spec.artifact.size_bytes"]
        assert nothing_is_left(registry)

    def test_a_digest_other_than_the_declared_one_is_refused(self, registry: RunningRegistry) -> None:
        with refused(INVALID, "ARTIFACT_MISMATCH") as refusal:
            registry.client.register(b"weights", artifact={"sha256": sha256(b"Weights")})
        assert refusal.fields == ["spec.artifact.sha256"]
        assert sha256(b"weights") in refusal.message
        assert nothing_is_left(registry)


class TestCancellation:
    @pytest.mark.parametrize("size", [1, 20 * 1024 * 1024])
    def test_a_cancelled_registration_leaves_nothing(self, registry: RunningRegistry, size: int) -> None:
        feed = Feed(*registration(spec(), pieces(bytes(size))))
        call = registry.client.models.RegisterModel.future(feed)
        eventually(lambda: registry.count("unreferenced_objects") == 1)
        if size > 1024 * 1024:
            eventually(lambda: any(path.stat().st_size >= 16 * 1024 * 1024 for path in registry.objects()))
        call.cancel()
        eventually(lambda: nothing_is_left(registry))
        registry.client.register()

    def test_a_registration_past_its_deadline_leaves_nothing(self, registry: RunningRegistry) -> None:
        # Many attempts: occasionally grpcio reports a reset stream as a half-closed one.
        for _ in range(20):
            feed = Feed(*registration(spec(), [b"x"]))
            with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
                registry.client.models.RegisterModel(feed, timeout=0.1)
            feed.end()
        eventually(lambda: nothing_is_left(registry))

    def test_many_cancelled_registrations_leave_nothing(self, registry: RunningRegistry) -> None:
        for _ in range(40):
            feed = Feed(*registration(spec(), [b"x"]))
            call = registry.client.models.RegisterModel.future(feed)
            eventually(lambda: registry.count("unreferenced_objects") > 0)
            call.cancel()
            feed.end()
            eventually(lambda: nothing_is_left(registry))
