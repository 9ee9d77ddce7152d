"""CompareModels: exactly the differences are reported, for unusual models too, in a bounded answer."""

import io
import json
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from modelregistry.v1 import comparison_pb2, model_pb2, model_service_pb2
from sqlalchemy import text

from registry_service.domain.artifact_store import ArtifactStore
from tests.polling import eventually
from tests.registry import RunningRegistry, StartRegistry
from tests.streams import Feed, WrappedStore, serving
from tests.stub_client import Client, refused, registration, sha256, spec, zip_of

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
MISSING_ID = "there-is-no-such-model"
ZIP = {"file_name": "model.zip"}
MIB = 1024 * 1024

SAME, CHANGED, ADDED, REMOVED, UNKNOWN = (
    comparison_pb2.FileVersion.CHANGE_SAME,
    comparison_pb2.FileVersion.CHANGE_CHANGED,
    comparison_pb2.FileVersion.CHANGE_ADDED,
    comparison_pb2.FileVersion.CHANGE_REMOVED,
    comparison_pb2.FileVersion.CHANGE_UNSPECIFIED,
)

Answer = model_service_pb2.CompareModelsResponse


class CountingStore(WrappedStore):
    """Counts the bytes read."""

    bytes_read = 0

    def read(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        for piece in super().read(key, offset, length):
            self.bytes_read += len(piece)
            yield piece


class StallingStore(CountingStore):
    """Stops after more than 1 MiB, and continues when the test allows it."""

    def __init__(self, store: ArtifactStore) -> None:
        super().__init__(store)
        self.begun, self.go_on = threading.Event(), threading.Event()

    def read(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        for piece in super().read(key, offset, length):
            yield piece
            if self.bytes_read > MIB:
                self.begun.set()
                assert self.go_on.wait(30)


def json_value(value: Any) -> Value:
    message = Struct()
    message.update({"": value})
    return message.fields[""]


def labels(*values: Any) -> ListValue:
    return ListValue(values=map(json_value, values))


def fields(answer: Answer) -> dict[str, list[Any]]:
    return {field.path: [MessageToDict(value) for value in field.values] for field in answer.fields}


def changes(answer: Answer) -> dict[str, list[comparison_pb2.FileVersion.Change]]:
    return {file.path: [version.change for version in file.versions] for file in answer.artifacts.files}


def digests(answer: Answer) -> dict[str, list[str]]:
    return {file.path: [version.digest for version in file.versions] for file in answer.artifacts.files}


def problems(answer: Answer) -> list[str]:
    return [artifact.problem for artifact in answer.artifacts.artifacts]


class TestFields:
    def test_every_field_is_compared_by_its_path(self, client: Client) -> None:
        first = client.register(name="a", version="1")
        second = client.register(
            name="b",
            version="1",
            project_id="p",
            precisions=["fp16", "int8"],
            format="onnx",
            score=0.5,
            overview=json_value({"input": {"size": [3, 224], "odd key.": True}, "empty": {}}),
            optimization_capabilities=json_value("a text"),
            tags={"team": "vision", "Straße": "x"},
            provenance=model_pb2.Provenance(
                source_commit="abc",
                datasets=[
                    model_pb2.Dataset(name="coco", digest="sha256:00"),
                    model_pb2.Dataset(uri="s3://x"),
                    model_pb2.Dataset(name="coco", digest="sha256:01"),
                ],
                parent_model_ids=["a-parent-of-the-model"],
                hyperparameters=json_value({"lr": {"start": 0.1}}).struct_value,
                environment={"python": "3.12"},
                seed=2**63 - 1,
            ),
        )
        answer = client.compare(first.id, second.id)
        assert [(m.model_id, m.name, m.version, m.etag, m.sha256, m.create_time) for m in answer.models] == [
            (m.id, m.name, m.version, m.etag, m.artifact.sha256, m.create_time) for m in (first, second)
        ]
        dataset = {"name": "coco", "uri": ""}
        assert fields(answer) == {
            "name": ["a", "b"],
            "version": ["1", "1"],
            "precisions": [["fp32"], ["fp16", "int8"]],
            "target_device": ["CPU", "CPU"],
            "score": [0, 0.5],
            "creator": ["", ""],
            "artifact.file_name": ["model.bin", "model.bin"],
            "artifact.media_type": ["application/octet-stream"] * 2,
            "project_id": [None, "p"],
            "format": [None, "onnx"],
            "overview.input.size": [None, [3, 224]],
            'overview.input."odd key."': [None, True],
            "overview.empty": [None, {}],
            "optimization_capabilities": [None, "a text"],
            "tags.team": [None, "vision"],
            'tags."Straße"': [None, "x"],
            "provenance.source_commit": [None, "abc"],
            "provenance.datasets.coco": [None, [dataset | {"digest": f"sha256:0{i}"} for i in range(2)]],
            'provenance.datasets."s3://x"': [None, {"name": "", "uri": "s3://x", "digest": ""}],
            "provenance.parent_model_ids": [None, ["a-parent-of-the-model"]],
            "provenance.hyperparameters.lr.start": [None, 0.1],
            "provenance.environment.python": [None, "3.12"],
            "provenance.seed": [None, "9223372036854775807"],
        }
        equal = {field.path for field in answer.fields if field.equal}
        assert equal == {"version", "target_device", "creator", "artifact.file_name", "artifact.media_type"}
        differences = client.compare(first.id, second.id, diff_only=True)
        assert [f for f in answer.fields if not f.equal] == list(differences.fields)

    def test_signatures_and_warnings_are_compared(self, registry: RunningRegistry) -> None:
        client = registry.client
        models = [client.register(version=str(i)) for i in range(3)]
        shapes: list[list[Any]] = [[1, 3, 224, 224], ["?", 3, 224, 224]]
        for model, shape in zip(models, shapes, strict=False):
            schema = {
                "format": "onnx",
                "inputs": [{"name": "data", "element_type": "f32", "shape": shape}],
                "opsets": {"ai.onnx": shape[1]},
                "precision": ["fp32"],
                "producer": "pytorch",
            }
            registry.execute(f"UPDATE models SET schema = '{json.dumps(schema)}' WHERE id = '{model.id}'")
        found = fields(client.compare(*[model.id for model in models], diff_only=True))
        assert found.pop("version") == ["0", "1", "2"]
        assert found == {
            "signature.format": ["onnx", "onnx", None],
            "signature.inputs.data": [
                {"element_type": "f32", "shape": [1, 3, 224, 224]},
                {"element_type": "f32", "shape": ["?", 3, 224, 224]},
                None,
            ],
            'signature.opsets."ai.onnx"': [3, 3, None],
            "signature.precisions": [["fp32"], ["fp32"], None],
            "signature.producer": ["pytorch", "pytorch", None],
        }

    def test_long_values_are_compared_completely_and_shown_cut(self, client: Client) -> None:
        one = client.register(version="1", tags={"t": "x" * 4999 + "a"}, overview=json_value({"l": ["y" * 3000]}))
        two = client.register(version="2", tags={"t": "x" * 4999 + "b"}, overview=json_value({"l": ["y" * 3000]}))
        answer = client.compare(one.id, two.id)
        by_path = {field.path: field for field in answer.fields}
        assert not by_path["tags.t"].equal
        assert [value.string_value for value in by_path["tags.t"].values] == ["x" * 2000 + "…"] * 2
        assert by_path["overview.l"].equal
        assert by_path["overview.l"].values[0].string_value == '["' + "y" * 1998 + "…"

    def test_json_is_compared_by_path_down_to_a_depth(self, client: Client) -> None:
        deep: Any = 1
        for _ in range(20):
            deep = {"k": deep}
        one, two = (client.register(version=str(i), overview=json_value(deep if i else {"k": 0})) for i in range(2))
        paths = [path for path in fields(client.compare(one.id, two.id)) if path.startswith("overview")]
        assert paths == ["overview.k", "overview" + ".k" * 8]

    def test_1_equals_1_0_but_not_true(self, client: Client) -> None:
        values = [1, 1.0, True, "1"]
        models = [client.register(version=str(i), overview=json_value({"v": v})) for i, v in enumerate(values)]

        def equal(i: int, k: int) -> bool:
            answer = client.compare(models[i].id, models[k].id)
            return next(field.equal for field in answer.fields if field.path == "overview.v")

        assert equal(0, 1)
        assert not equal(0, 2)
        assert not equal(0, 3)


class TestMetrics:
    def test_deltas_are_to_the_first_model(self, client: Client) -> None:
        one = client.register(version="1", metrics={"mAP": 0.5, "same": 1, "gone": 3, "huge": -1.7e308})
        two = client.register(version="2", metrics={"mAP": 0.75, "same": 1, "huge": 1.7e308})
        three = client.register(version="3", metrics={"mAP": 0.25, "same": 1, "new": 0})
        answer = client.compare(one.id, two.id, three.id)
        assert {
            metric.name: [
                (
                    value.value if value.HasField("value") else None,
                    value.delta if value.HasField("delta") else None,
                )
                for value in metric.values
            ]
            for metric in answer.metrics
        } == {
            "gone": [(3, 0), (None, None), (None, None)],
            "huge": [(-1.7e308, 0), (1.7e308, None), (None, None)],
            "mAP": [(0.5, 0), (0.75, 0.25), (0.25, -0.25)],
            "new": [(None, None), (None, None), (0, None)],
            "same": [(1, 0), (1, 0), (1, 0)],
        }
        assert [metric.name for metric in answer.metrics if metric.equal] == ["same"]
        names = [metric.name for metric in client.compare(one.id, two.id, three.id, diff_only=True).metrics]
        assert names == ["gone", "huge", "mAP", "new"]


class TestLabels:
    def test_labels_are_split_into_common_and_distinct_ones(self, client: Client) -> None:
        given = [labels("cat", {"name": "dog", "id": 1}), labels({"id": 1.0, "name": "dog"}, "bird"), labels("bird")]
        models = [client.register(version=str(i), labels=found) for i, found in enumerate(given)]
        found = MessageToDict(client.compare(*[model.id for model in models[:2]], diff_only=True).labels)
        assert found == {
            "common": [{"name": "dog", "id": 1}],
            "models": [{"only": ["cat"], "lacking": ["bird"]}, {"only": ["bird"], "lacking": ["cat"]}],
        }
        found = MessageToDict(client.compare(*[model.id for model in models]).labels)
        assert [model.get("only", []) for model in found["models"]] == [["cat"], [], []]
        assert found["models"][2]["lacking"][0] == "cat"

    def test_the_order_of_labels_does_not_matter(self, client: Client) -> None:
        one = client.register(version="1", labels=labels("a", "b"))
        two = client.register(version="2", labels=labels("b", "a"))
        assert client.compare(one.id, two.id).labels.equal
        assert not client.compare(one.id, two.id, diff_only=True).HasField("labels")


FIRST = {"same.bin": b"same", "changed.bin": b"before", "removed.bin": b"", "longer.bin": b"x"}
SECOND = {"same.bin": b"same", "changed.bin": b"behind", "added.bin": b"new", "longer.bin": b"xx"}


class TestFiles:
    @pytest.fixture
    def pair(self, client: Client) -> tuple[str, str]:
        first = client.register(zip_of({"folder/": b""} | FIRST), version="1", artifact=ZIP)
        second = client.register(zip_of(SECOND), version="2", artifact=ZIP)
        return first.id, second.id

    @pytest.mark.parametrize("hash_files", [False, True])
    def test_each_file_is_unchanged_changed_added_or_removed(
        self, client: Client, pair: tuple[str, str], hash_files: bool
    ) -> None:
        answer = client.compare(*pair, hash_files=hash_files)
        assert changes(answer) == {
            "added.bin": [UNKNOWN, ADDED],
            "changed.bin": [SAME, CHANGED],
            "longer.bin": [SAME, CHANGED],
            "removed.bin": [SAME, REMOVED],
            "same.bin": [SAME, SAME],
        }
        for file in answer.artifacts.files:
            for version, members in zip(file.versions, (FIRST, SECOND), strict=True):
                data = members.get(file.path)
                assert version.present is (data is not None)
                if data is not None:
                    digest = f"sha256:{sha256(data)}" if hash_files else f"crc32:{zlib.crc32(data):08x}"
                    assert (version.size_bytes, version.digest) == (len(data), digest)
        assert not answer.artifacts.equal
        assert (answer.artifacts.file_count, answer.artifacts.truncated) == (5, False)
        few = client.compare(*pair, hash_files=hash_files, diff_only=True)
        assert [file for file in answer.artifacts.files if file.path != "same.bin"] == list(few.artifacts.files)
        assert few.artifacts.file_count == 4

    def test_hashing_detects_other_bytes_with_the_same_crc(self, client: Client) -> None:
        # Two texts with the same length and CRC-32.
        one, two = b"plumless", b"buckeroo"
        assert zlib.crc32(one) == zlib.crc32(two)
        ids = [
            client.register(zip_of({"a": data}), version=str(i), artifact=ZIP).id for i, data in enumerate((one, two))
        ]
        assert changes(client.compare(*ids)) == {"a": [SAME, SAME]}
        assert changes(client.compare(*ids, diff_only=True)) == {}
        assert changes(client.compare(*ids, hash_files=True, diff_only=True)) == {"a": [SAME, CHANGED]}

    def test_equal_artifacts_are_not_read(self, registry: RunningRegistry) -> None:
        data = zip_of({"a": b"a"})
        ids = [registry.client.register(data, version=str(i), artifact=ZIP).id for i in range(3)]
        store = CountingStore(registry.parts.store)
        with serving(registry, store) as (_, client):
            answer = client.compare(*ids, hash_files=True)
            assert not client.compare(*ids, diff_only=True).HasField("artifacts")
        assert answer.artifacts.equal
        assert list(answer.artifacts.files) == []
        assert store.bytes_read == 0

    def test_only_directories_are_read_unless_files_are_hashed(self, registry: RunningRegistry) -> None:
        data = [zip_of({"a": bytes([i]) * 8 * MIB}, compression=zipfile.ZIP_STORED) for i in range(2)]
        ids = [registry.client.register(d, version=str(i), artifact=ZIP).id for i, d in enumerate(data)]
        store = CountingStore(registry.parts.store)
        with serving(registry, store) as (_, client):
            client.compare(*ids)
            assert 0 < store.bytes_read < 2 * MIB
            client.compare(*ids, hash_files=True)
            assert store.bytes_read > 16 * MIB

    def test_copies_are_read_once(self, registry: RunningRegistry) -> None:
        data = zip_of({"a": b"\1" * 8 * MIB}, compression=zipfile.ZIP_STORED)
        other = zip_of({"a": b"a"})
        ids = [registry.client.register(d, version=str(i), artifact=ZIP).id for i, d in enumerate([data] * 5 + [other])]
        store = CountingStore(registry.parts.store)
        with serving(registry, store) as (_, client):
            answer = client.compare(*ids, hash_files=True)
        assert changes(answer) == {"a": [SAME] * 5 + [CHANGED]}
        assert store.bytes_read < 10 * MIB

    def test_an_artifact_other_than_a_zip_is_one_file(self, client: Client) -> None:
        one = client.register(b"weights", version="1", artifact={"file_name": "model.onnx"})
        two = client.register(b"Weights", version="2", artifact={"file_name": "model.onnx"})
        three = client.register(b"weights", version="3", artifact={"file_name": "other.onnx"})
        answer = client.compare(one.id, two.id, three.id)
        assert changes(answer) == {"model.onnx": [SAME, CHANGED, REMOVED], "other.onnx": [UNKNOWN, UNKNOWN, ADDED]}
        assert digests(answer)["model.onnx"] == [f"sha256:{sha256(b'weights')}", f"sha256:{sha256(b'Weights')}", ""]

    def test_hashing_compares_a_plain_file_with_one_in_a_zip(self, client: Client) -> None:
        alone = client.register(b"weights", version="1", artifact={"file_name": "model.onnx"})
        zipped = client.register(zip_of({"model.onnx": b"weights"}), version="2", artifact=ZIP)
        assert changes(client.compare(alone.id, zipped.id)) == {"model.onnx": [SAME, UNKNOWN]}
        assert changes(client.compare(alone.id, zipped.id, hash_files=True)) == {"model.onnx": [SAME, SAME]}

    def test_a_lost_artifact_is_reported_and_the_others_are_compared(self, registry: RunningRegistry) -> None:
        client = registry.client
        models = [client.register(zip_of({"a": b"a" * i}), version=str(i), artifact=ZIP) for i in range(3)]
        with registry.engine.connect() as connection:
            key = connection.execute(
                text("SELECT object_key FROM models WHERE id = :id"), {"id": models[1].id}
            ).scalar_one()
        registry.parts.store.delete(key)
        answer = client.compare(*[model.id for model in models])
        assert problems(answer) == ["", "The artifact store no longer has these bytes.", ""]
        assert changes(answer) == {"a": [SAME, UNKNOWN, CHANGED]}
        lost_first = client.compare(models[1].id, models[0].id)
        assert changes(lost_first) == {"a": [UNKNOWN, UNKNOWN]}

    def test_a_damaged_zip_is_reported(self, registry: RunningRegistry) -> None:
        client = registry.client
        models = [client.register(zip_of({"a": b"a" * i}), version=str(i), artifact=ZIP) for i in range(2)]
        for path in registry.objects():
            if path.stat().st_size == models[1].artifact.size_bytes:
                path.write_bytes(b"\0" * models[1].artifact.size_bytes)
        answer = client.compare(*[model.id for model in models])
        assert problems(answer) == ["", "The artifact has no readable ZIP directory."]

    def test_hashing_reports_a_damaged_member(self, registry: RunningRegistry) -> None:
        client = registry.client
        data = zip_of({"a": b"weights", "b": b"fine"}, compression=zipfile.ZIP_STORED)
        damaged = data.replace(b"weights", b"Weights")
        one = client.register(damaged, version="1", artifact=ZIP)
        two = client.register(data, version="2", artifact=ZIP)
        answer = client.compare(one.id, two.id, hash_files=True)
        assert problems(answer) == ["The file 'a' is damaged.", ""]
        assert digests(answer)["a"] == [f"crc32:{zlib.crc32(b'weights'):08x}", f"sha256:{sha256(b'weights')}"]
        assert digests(answer)["b"] == [f"sha256:{sha256(b'fine')}"] * 2

    def test_members_larger_than_the_artifact_limit_are_not_hashed(self, start_registry: StartRegistry) -> None:
        client = start_registry(artifact_max_bytes=MIB).client
        ids = [client.register(zip_of({"a": bytes(2 * MIB + i)}), version=str(i), artifact=ZIP).id for i in range(2)]
        answer = client.compare(*ids, hash_files=True)
        assert problems(answer) == [f"Its files take {2 * MIB + i} bytes; over {MIB} are not hashed." for i in range(2)]
        assert changes(answer) == {"a": [SAME, CHANGED]}

    def test_an_encrypted_member_is_compared_by_its_crc(self, client: Client) -> None:
        plain = zip_of({"a": b"a"}, compression=zipfile.ZIP_STORED)
        encrypted = bytearray(plain)
        struct.pack_into("<H", encrypted, 6, 1)
        struct.pack_into("<H", encrypted, plain.index(b"PK\1\2") + 8, 1)
        ids = [client.register(bytes(d), version=str(i), artifact=ZIP).id for i, d in enumerate((plain, encrypted))]
        answer = client.compare(*ids, hash_files=True)
        assert problems(answer) == ["", "The file 'a' is encrypted."]
        assert changes(answer) == {"a": [SAME, SAME]}

    def test_the_last_of_several_members_with_one_name_counts(self, client: Client) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("a", b"first")
            with pytest.warns(UserWarning, match="Duplicate name"):
                archive.writestr("a", b"last")
        one = client.register(buffer.getvalue(), version="1", artifact=ZIP)
        two = client.register(zip_of({"a": b"last"}), version="2", artifact=ZIP)
        for hash_files in (False, True):
            assert changes(client.compare(one.id, two.id, hash_files=hash_files)) == {"a": [SAME, SAME]}

    def test_names_in_other_encodings_are_shown(self, client: Client) -> None:
        data = zip_of({"aXb": b"1"}).replace(b"aXb", b"a\xffb")
        flagged = bytearray(data)
        struct.pack_into("<H", flagged, 6, 0x800)
        struct.pack_into("<H", flagged, data.index(b"PK\1\2") + 8, 0x800)
        one = client.register(zip_of({"aXb": b"1"}), version="1", artifact=ZIP)
        two = client.register(data, version="2", artifact=ZIP)
        assert len(changes(client.compare(one.id, two.id))) == 2
        with refused(INVALID, "INVALID_ARTIFACT"):
            client.register(bytes(flagged), version="3", artifact=ZIP)

    def test_differing_files_are_listed_first_among_very_many(self, client: Client) -> None:
        members = {f"{i:05}": b"" for i in range(65_000)}
        one = client.register(zip_of(members, zipfile.ZIP_STORED), version="1", artifact=ZIP)
        two = client.register(zip_of(members | {"64000": b"x"}, zipfile.ZIP_STORED), version="2", artifact=ZIP)
        answer = client.compare(one.id, two.id)
        assert (answer.artifacts.file_count, answer.artifacts.truncated) == (65_000, True)
        assert len(answer.artifacts.files) == 1000
        assert changes(answer)["64000"] == [SAME, CHANGED]
        assert changes(client.compare(one.id, two.id, diff_only=True)) == {"64000": [SAME, CHANGED]}


class TestLimits:
    def test_ten_models_are_compared(self, client: Client) -> None:
        models = [
            client.register(zip_of({f"{i}": b"x"}), version=str(i), artifact=ZIP, metrics={"m": i}) for i in range(10)
        ]
        answer = client.compare(*[model.id for model in models])
        assert [model.model_id for model in answer.models] == [model.id for model in models]
        assert [value.delta for value in answer.metrics[0].values] == list(range(10))
        assert fields(answer)["version"] == [str(i) for i in range(10)]
        assert len(changes(answer)) == 10

    def test_invalid_ids_are_named(self, client: Client) -> None:
        model = client.register()
        wrong: list[tuple[str, list[str]]] = [
            ("model_ids", []),
            ("model_ids", [model.id]),
            ("model_ids", [f"model-number-{i:05}" for i in range(11)]),
            ("model_ids[1]", [model.id, "' OR 1=1"]),
            ("model_ids[1]", [model.id, ""]),
            ("model_ids[1]", [model.id, "x" * 257]),
            ("model_ids[2]", [model.id, MISSING_ID, model.id]),
        ]
        for field, ids in wrong:
            with refused(INVALID) as refusal:
                client.compare(*ids)
            assert refusal.fields == [field]
        with refused(NOT_FOUND, "MODEL_NOT_FOUND") as refusal:
            client.compare(model.id, MISSING_ID)
        assert refusal.metadata["model_id"] == MISSING_ID

    def test_hashing_counts_as_a_stream(self, registry: RunningRegistry) -> None:
        ids = [registry.client.register(zip_of({"a": bytes(i)}), version=str(i), artifact=ZIP).id for i in range(2)]
        with serving(registry, max_streams=1, max_waiting_seconds=0.2) as (_, client):
            feed = Feed(*registration(spec(version="busy"), [b"weights"]))
            call = client.models.RegisterModel.future(feed)
            eventually(lambda: registry.count("unreferenced_objects") == 1, what="the registration")
            assert changes(client.compare(*ids)) == {"a": [SAME, CHANGED]}
            with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS"):
                client.compare(*ids, hash_files=True)
            feed.end()
            call.result()
            assert changes(client.compare(*ids, hash_files=True)) == {"a": [SAME, CHANGED]}

    def test_hashing_stops_when_its_client_leaves(self, registry: RunningRegistry) -> None:
        data = [zip_of({"a": bytes([i]) * 20 * MIB}, compression=zipfile.ZIP_STORED) for i in range(2)]
        ids = [registry.client.register(d, version=str(i), artifact=ZIP).id for i, d in enumerate(data)]
        store = StallingStore(registry.parts.store)
        with serving(registry, store, max_streams=1, max_waiting_seconds=0.2) as (_, client):
            request = model_service_pb2.CompareModelsRequest(model_ids=ids, hash_files=True)
            call = client.models.CompareModels.future(request)
            assert store.begun.wait(30)
            call.cancel()
            # On the same connection, so the server receives the cancellation first.
            client.get(ids[0])
            store.go_on.set()
            # The stream is free before everything was read; a verification needs one, too.
            eventually(lambda: client.verify(ids[0]).intact)
            assert store.bytes_read < (2 * 20 + 20) * MIB

    def test_the_answer_fits_into_a_message_for_models_of_maximal_size(self, client: Client) -> None:
        """Covers each kind of content that grows when encoded, up to the limit of a model's metadata."""
        many = 12_000
        contents: list[dict[str, Any]] = [
            {"overview": json_value({f"k{k}": 1 for k in range(many)})},
            {"overview": json_value({"list": [[] for _ in range(10 * many)]})},
            {"metrics": {f"m{k}": k for k in range(many)}},
            {"labels": labels(*(f"l{k}" for k in range(many)))},
            {"labels": labels(*({"n": [k] * 500} for k in range(200)))},
            {"tags": {f"t{k}": "☃" * 60 for k in range(4000)}},
        ]
        models = [client.register(version=str(i), **given) for i, given in enumerate(contents)]
        answer = client.compare(*[model.id for model in models])
        assert answer.truncated
        assert answer.ByteSize() < 3.6 * MIB
        assert "version" in fields(answer)
        assert client.compare(models[0].id, models[2].id).truncated

    @given(
        overviews=st.lists(
            st.recursive(
                st.none() | st.booleans() | st.integers(-9, 9) | st.text(alphabet='ab."é', max_size=3),
                lambda inner: (
                    st.lists(inner, max_size=2) | st.dictionaries(st.text('ab."', max_size=2), inner, max_size=3)
                ),
                max_leaves=8,
            ).map(lambda value: {"v": value}),
            min_size=2,
            max_size=4,
        )
    )
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    def test_equal_models_have_no_differences(self, client: Client, overviews: list[dict[str, Any]]) -> None:
        models = [
            client.register(name="same", version="1", project_id=f"{i}", overview=json_value(overview))
            for i, overview in enumerate(overviews)
        ]
        answer = client.compare(*[model.id for model in models], diff_only=True)
        paths = {path for path in fields(answer) if path.startswith("overview")}
        plain = [json.dumps(MessageToDict(model.overview), sort_keys=True) for model in models]
        if len(set(plain)) == 1:
            assert paths == set()
        for model in models:
            client.delete(model.id)
