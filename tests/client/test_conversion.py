"""Conversion between messages and plain data: nothing of the API is lost, and nothing of a newer server does harm."""

import dataclasses
import math
import pickle
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast

import pytest
from google.api import field_behavior_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st
from modelreg import (
    Alias,
    Artifact,
    Bound,
    CacheEntry,
    CacheUsage,
    Event,
    Identity,
    InvalidArgument,
    Model,
    Promotion,
    Provenance,
    RequirementCheck,
    Requirements,
    ServerInfo,
)
from modelreg._results import html_table
from modelreg._wire import convert, convert_comparisons, values
from modelreg.metadata import NewMetadata, fill
from modelreg.provenance import Dataset
from modelreg.server import Grant, ServerLimits
from modelregistry.v1 import (
    alias_pb2,
    alias_service_pb2,
    artifact_service_pb2,
    audit_pb2,
    audit_service_pb2,
    comparison_pb2,
    lineage_pb2,
    model_group_pb2,
    model_pb2,
    model_service_pb2,
    system_service_pb2,
    upload_pb2,
)

from tests.message_strategies import messages


@dataclasses.dataclass(frozen=True)
class Conversion:
    """How a message becomes plain data."""

    message: type[Message]
    convert: Callable[[Any], Any]
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Fields of the message that have another name in the data."""
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Fields of the message that the data leaves out, with the reason."""
    added: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Fields of the data that the message does not have, with the reason."""


CONVERSIONS = [
    Conversion(model_pb2.Model, convert.model, added={"created": "of the outcome of a push"}),
    Conversion(model_pb2.Artifact, convert.artifact),
    Conversion(model_pb2.Tensor, convert._tensor),
    Conversion(model_pb2.ModelSignature, convert._signature),
    Conversion(model_pb2.Provenance, convert._provenance, renamed={"parent_model_ids": "parents"}),
    Conversion(model_group_pb2.ModelGroup, convert.model_group),
    Conversion(artifact_service_pb2.ArtifactFile, convert.artifact_file),
    Conversion(artifact_service_pb2.VerificationResult, convert.verification),
    Conversion(
        upload_pb2.Upload,
        convert.upload,
        left_out={"spec": "its name, version, file name and size are fields of their own"},
        added=dict.fromkeys(("name", "version", "file_name", "size_bytes"), "of the spec"),
    ),
    Conversion(alias_pb2.Alias, convert.alias),
    Conversion(alias_pb2.AliasMove, convert.alias_move),
    Conversion(alias_service_pb2.SetAliasResponse, convert.promotion),
    Conversion(alias_service_pb2.RollbackAliasResponse, convert.promotion, added={"checks": "of SetAlias"}),
    Conversion(audit_pb2.AuditEvent, convert.event, added={"resume_token": "of the message of the watch"}),
    Conversion(
        audit_service_pb2.VerifyAuditLogResponse,
        convert.log_verification,
        left_out={"broken": "its two fields are fields of their own"},
        added={"broken_sequence": "of `broken`", "problem": "of `broken`"},
    ),
    Conversion(lineage_pb2.LineageNode, convert.lineage_node),
    Conversion(lineage_pb2.LineageEdge, convert.lineage_edge),
    Conversion(model_service_pb2.CompareModelsResponse, convert_comparisons.comparison_of),
    Conversion(comparison_pb2.ComparedModel, convert_comparisons._compared_model),
    Conversion(
        comparison_pb2.LabelComparison,
        convert_comparisons._labels,
        left_out={"models": "its lists are fields of their own"},
        added={"only": "of `models`", "missing": "of `models`"},
    ),
    Conversion(comparison_pb2.ArtifactComparison, convert_comparisons._artifacts),
    Conversion(system_service_pb2.ServerInfo, convert.server_info),
    Conversion(system_service_pb2.WhoAmIResponse, convert.identity),
]
IDS = [conversion.message.DESCRIPTOR.name for conversion in CONVERSIONS]


def outer(kind: type[Message], field: str, convert: Callable[[Any], Any], take: Callable[[Any], Any]) -> Conversion:
    """Return the conversion of a message that only another one contains."""

    def convert_inside(message: Message) -> Any:
        whole = kind()
        target = getattr(whole, field)
        if whole.DESCRIPTOR.fields_by_name[field].is_repeated:
            target.add().CopyFrom(message)
        else:
            target.CopyFrom(message)
        return take(convert(whole))

    inner: Any = kind.DESCRIPTOR.fields_by_name[field].message_type
    return Conversion(GetMessageClass(inner), convert_inside)


INNER = [
    outer(model_pb2.Provenance, "datasets", convert._provenance, lambda found: found.datasets[0]),
    outer(alias_service_pb2.SetAliasResponse, "before", convert.promotion, lambda found: found.before),
    outer(alias_service_pb2.SetAliasResponse, "checks", convert.promotion, lambda found: found.checks[0]),
    outer(audit_service_pb2.VerifyAuditLogResponse, "head", convert.log_verification, lambda found: found.head),
    outer(system_service_pb2.ServerInfo, "limits", convert.server_info, lambda found: found.limits),
    outer(system_service_pb2.ServerInfo, "authentication", convert.server_info, lambda found: found.authentication),
    outer(system_service_pb2.WhoAmIResponse, "grants", convert.identity, lambda found: found.grants[0]),
    outer(
        model_service_pb2.CompareModelsResponse,
        "fields",
        convert_comparisons.comparison_of,
        lambda found: found.fields[0],
    ),
    outer(
        comparison_pb2.ArtifactComparison,
        "artifacts",
        convert_comparisons._artifacts,
        lambda found: found.artifacts[0],
    ),
    outer(comparison_pb2.ArtifactComparison, "files", convert_comparisons._artifacts, lambda found: found.files[0]),
    dataclasses.replace(
        outer(
            model_service_pb2.CompareModelsResponse,
            "metrics",
            convert_comparisons.comparison_of,
            lambda found: found.metrics[0],
        ),
        added={"deltas": "of `values`"},
    ),
    outer(
        comparison_pb2.FileComparison,
        "versions",
        lambda message: convert_comparisons._artifacts(comparison_pb2.ArtifactComparison(files=[message])),
        lambda found: found.files[0].versions[0],
    ),
]
ALL = CONVERSIONS + INNER
ALL_IDS = IDS + [conversion.message.DESCRIPTOR.name for conversion in INNER]


@pytest.mark.parametrize("conversion", ALL, ids=ALL_IDS)
class TestEveryField:
    def test_the_data_has_every_field_of_the_message(self, conversion: Conversion) -> None:
        names = {field.name for field in conversion.message.DESCRIPTOR.fields}
        assert set(conversion.renamed) | set(conversion.left_out) <= names
        expected = {conversion.renamed.get(name, name) for name in names - set(conversion.left_out)}
        result = conversion.convert(conversion.message())
        assert {field.name for field in dataclasses.fields(result)} == expected | set(conversion.added)

    def test_every_field_of_the_message_is_converted(self, conversion: Conversion) -> None:
        empty = conversion.convert(conversion.message())
        for field in conversion.message.DESCRIPTOR.fields:
            if field.name not in conversion.left_out:
                name = conversion.renamed.get(field.name, field.name)
                result = conversion.convert(with_only(conversion.message, field))
                assert getattr(result, name) != getattr(empty, name), field.name


def test_no_message_of_a_response_is_forgotten() -> None:
    converted = {conversion.message.DESCRIPTOR.full_name for conversion in ALL}
    inside: set[str] = set()
    for conversion in CONVERSIONS:
        inside |= nested(conversion.message.DESCRIPTOR)
    inlined = {
        "BrokenAuditLink": "in LogVerification",
        "ModelLabels": "in LabelComparison",
        "MetricValue": "in MetricComparison",
        "ModelSpec": "in Upload",
        "ArtifactSpec": "in Upload",
    }
    missing = {name.removeprefix("modelregistry.v1.") for name in inside - converted}
    assert missing == set(inlined)


def nested(descriptor: Any, seen: frozenset[str] = frozenset()) -> set[str]:
    """Return the names of the messages of the API inside a message."""
    found: set[str] = set()
    for field in descriptor.fields:
        kind = field.message_type
        if kind is None or kind.full_name in seen or kind.GetOptions().map_entry:
            continue
        if kind.full_name.startswith("modelregistry."):
            found |= {kind.full_name} | nested(kind, seen | {kind.full_name})
    return found


def with_only(kind: type[Message], field: Any) -> Message:
    """Return a message with one field, whose value is not the default."""
    message = kind()
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        values = inner.fields_by_name["value"]
        getattr(message, field.name)["key"] = scalar(values)
    elif field.is_repeated:
        target = getattr(message, field.name)
        if inner is None:
            target.append(scalar(field))
        else:
            target.add().CopyFrom(some(inner))
    elif inner is not None:
        getattr(message, field.name).CopyFrom(some(inner))
    else:
        setattr(message, field.name, scalar(field))
    return message


def some(descriptor: Any) -> Message:
    """Return a message that is not empty."""
    kind = GetMessageClass(descriptor)
    if kind is Value:
        return Value(string_value="x")
    if kind is Struct:
        return Struct(fields={"x": Value(number_value=1)})
    if kind is ListValue:
        return ListValue(values=[Value(number_value=1)])
    return with_only(kind, descriptor.fields[0])


def scalar(field: Any) -> Any:
    if field.enum_type is not None:
        # The last one: the first ones may be defaults.
        return field.enum_type.values[-1].number
    texts_and_numbers = {FieldDescriptor.CPPTYPE_STRING: "x", FieldDescriptor.CPPTYPE_DOUBLE: 0.5}
    return texts_and_numbers.get(field.cpp_type, 1)


class TestHash:
    @pytest.mark.parametrize(
        "result",
        [
            convert.model(model_pb2.Model(id="m", etag="a", tags={"team": "audio"})),
            convert.model_group(model_group_pb2.ModelGroup(id="g", etag="a", tags={"team": "audio"})),
            convert.event(audit_pb2.AuditEvent(sequence=1, hash="a", after={"tags": {}})),
        ],
        ids=lambda result: type(result).__name__,
    )
    def test_what_the_registry_identifies_can_be_in_a_set(self, result: Any) -> None:
        state = "hash" if isinstance(result, Event) else "etag"
        later = dataclasses.replace(result, **{state: "b"})
        assert {result, dataclasses.replace(result), later} == {result, later}
        assert len({result, dataclasses.replace(result), later}) == 2


class TestRepr:
    def test_it_has_what_is_set_and_nothing_else(self) -> None:
        artifact = Artifact(file_name="vad.bin", media_type="application/octet-stream", size_bytes=5, sha256="00")
        assert repr(Model(id="0123", name="vad", version="", artifact=artifact, tags={"team": "audio"})) == (
            "Model(id='0123', name='vad', version='', artifact=Artifact(file_name='vad.bin', "
            "media_type='application/octet-stream', size_bytes=5, sha256='00'), tags={'team': 'audio'})"
        )
        assert repr(Requirements(metrics={"f1": Bound(min=0.0)})) == "Requirements(metrics={'f1': Bound(min=0.0)})"
        assert eval(repr(Bound(max=5))) == Bound(max=5)

    def test_it_stays_short(self) -> None:
        model = convert.model(cast(Any, some(model_pb2.Model.DESCRIPTOR)))
        model = dataclasses.replace(model, tags={f"{key}": "x" * 10_000 for key in range(100)})
        assert len(repr(model)) < 2000


class TestHostileMessages:
    @pytest.mark.parametrize("conversion", CONVERSIONS, ids=IDS)
    def test_no_message_breaks_the_conversion(self, conversion: Conversion) -> None:
        descriptor: Any = conversion.message.DESCRIPTOR

        @settings(max_examples=10)
        @given(messages(descriptor, dict))
        def check(message: Message) -> None:
            # With fields that only a newer server knows.
            unknown = conversion.message.FromString(message.SerializeToString() + b"\xfa\xff\xff\xff\x0f\x01x")
            result = conversion.convert(unknown)
            # Twice, because NaN does not equal itself.
            assert repr(pickle.loads(pickle.dumps(result))) == repr(result)
            assert "<table>" in result._repr_html_()
            assert "<table>" in html_table([result])

        check()

    def test_an_enum_of_a_newer_server_is_unknown(self) -> None:
        move = alias_pb2.AliasMove()
        move.kind = 99  # type: ignore[assignment]
        assert str(convert.alias_move(move).kind) == "unknown"
        artifact = model_pb2.Artifact()
        artifact.kind = 99  # type: ignore[assignment]
        assert convert.artifact(artifact).kind == "file"

    def test_nested_results_are_readable_in_tables(self) -> None:
        target = Alias(alias="production", model_group_id="g", model_id="m", version="2", sha256="00")
        checks = (
            RequirementCheck(requirement="verified", passed=True),
            RequirementCheck(requirement="metrics.f1", passed=False, description="0.8 is less than 0.9"),
        )
        artifact = Artifact(file_name="vad.bin", media_type="", size_bytes=1, sha256="00")
        environment = {f"packages.{number}": "1" for number in range(99)}
        provenance = Provenance(environment=environment, seed=3, parents=["vad:1"])
        entry = CacheEntry(kind="file", path=Path("/c/vad.bin"), size_bytes=5_000_000, use_time=datetime.now(UTC))
        for result, texts in (
            (Promotion(alias=target, checks=checks), ["production is 2", "metrics.f1: not met (0.8 is less than 0.9)"]),
            (ServerInfo(version="1.2.3", limits=ServerLimits(max_page_size=7)), ["max_page_size=7"]),
            (
                Model(id="m", name="vad", version="2", artifact=artifact, provenance=provenance),
                ["parents=vad:1, seed=3, environment=packages.0=1, "],
            ),
            (Identity(subject="ann", grants=(Grant(role="admin"),)), ["ann", "admin in all projects"]),
            (
                CacheUsage(directory=Path("/c"), size_bytes=5_000_000, max_bytes=10**10, entries=(entry,)),
                [f"{Path('/c')}, 5.0 MB of 10.0 GB: 1 item", "<td>5.0 MB</td>"],
            ),
        ):
            for text in texts:
                assert text in result._repr_html_()
            assert "datetime" not in result._repr_html_()
            assert f"{type(result).__name__}(" not in result._repr_html_()

    def test_markup_of_the_server_is_escaped(self) -> None:
        model = convert.model(model_pb2.Model(id="x", name="<script>", tags={"<b>": "<i>"}))
        for page in (model._repr_html_(), html_table([model])):
            assert "<script>" not in page
            assert "&lt;script&gt;" in page
            assert "<b>" not in page


class TestValues:
    @pytest.mark.parametrize(
        "time",
        [
            datetime(2026, 1, 31, 12, 30, 0, 250_001, tzinfo=UTC),
            datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
            datetime(2026, 1, 31, tzinfo=timezone(timedelta(hours=5, minutes=45))),
            datetime(1, 1, 1, tzinfo=UTC),
            datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        ],
    )
    def test_times_keep_their_microseconds(self, time: datetime) -> None:
        message = model_pb2.Model(create_time=values.timestamp(time, "time"))
        assert values.time_of(message, "create_time") == time

    def test_a_time_outside_of_the_calendar_is_absent(self) -> None:
        message = model_pb2.Model(create_time=Timestamp(seconds=2**62))
        assert values.time_of(message, "create_time") is None

    def test_a_time_without_a_zone_is_refused(self) -> None:
        with pytest.raises(InvalidArgument, match="at: a time without a time zone is ambiguous"):
            values.timestamp(datetime(2026, 1, 31), "at")  # noqa: DTZ001 - on purpose

    @given(
        st.recursive(
            st.none()
            | st.booleans()
            | st.text()
            | st.integers(-(2**53), 2**53)
            | st.floats(allow_nan=False, allow_infinity=False),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
            max_leaves=20,
        )
    )
    def test_json_survives_the_round_trip(self, data: Any) -> None:
        assert values.json_of(values.value_of(data, "x")) == data

    def test_whole_numbers_are_integers(self) -> None:
        shape: Any = convert._tensor(model_pb2.Tensor(shape=values.list_of(["batch", 3, 0.5], "shape"))).shape
        assert shape == ("batch", 3, 0.5)
        assert [type(entry) for entry in shape] == [str, int, float]
        assert isinstance(values.json_of(Value(number_value=1e300)), float)
        assert math.isnan(values.json_of(Value(number_value=math.nan)))

    def test_maps_are_sorted_by_key(self) -> None:
        # protobuf has its entries in another order in each process.
        keys = [f"{letter}{number}" for letter in "zya" for number in range(10)]
        nested = {key: dict.fromkeys(keys, 1) for key in keys}
        message = model_pb2.Model(metrics=dict.fromkeys(keys, 0.5), tags=dict.fromkeys(keys, "x"))
        message.provenance.CopyFrom(
            convert.provenance_message(
                Provenance(hyperparameters=nested, environment=dict.fromkeys(keys, "x"), datasets=(Dataset(uri="b"),))
            )
        )
        message.overview.CopyFrom(values.value_of([nested], "overview"))
        model = convert.model(message)
        data = values.document(message)
        assert next(iter(data)) == "id"
        for found in (
            *(model.metrics, model.tags, model.provenance.hyperparameters, model.provenance.hyperparameters["a0"]),
            *(model.provenance.environment, model.overview[0], model.overview[0]["a0"]),  # type: ignore[index]
            *(data["metrics"], data["tags"], data["provenance"]["hyperparameters"]["a0"], data["overview"][0]["a0"]),
            *(data["provenance"]["environment"], data["overview"][0], data["provenance"]["hyperparameters"]),
        ):
            assert list(found) == sorted(keys)

    def test_documents_have_whole_numbers_as_the_gateway_prints_them(self) -> None:
        event = audit_pb2.AuditEvent(after=values.struct_of({"revision": 5, "score": 0.5, "large": 1e300}, "after"))
        after = values.document(event)["after"]
        assert [(key, repr(value)) for key, value in after.items()] == [
            ("large", "1e+300"),
            ("revision", "5"),
            ("score", "0.5"),
        ]
        model = model_pb2.Model(score=0.0, metrics={"f1": 1.0, "wer": 0.25})
        assert repr(values.document(model)["score"]) == "0"
        assert repr(values.document(model)["metrics"]) == "{'f1': 1, 'wer': 0.25}"

    def test_tuples_and_the_scalars_of_numpy_are_json(self) -> None:
        class Scalar:
            def item(self) -> float:
                return 0.5

        assert values.json_of(values.value_of({"a": (1, Scalar())}, "x")) == {"a": [1, 0.5]}

    def test_what_is_no_json_is_refused(self) -> None:
        cycle: list[Any] = []
        cycle.append(cycle)
        for data in (object(), {"a": {1, 2}}, cycle, b"bytes", 1j):
            with pytest.raises(InvalidArgument, match="labels: not a JSON value"):
                values.value_of(data, "labels")


class TestWhatIsSent:
    def test_every_field_that_a_client_may_set_can_be_pushed(self) -> None:
        fields = {
            field.name
            for field in model_pb2.Model.DESCRIPTOR.fields
            if field_behavior_pb2.OUTPUT_ONLY not in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
        }
        apart = {"id": "of the registry", "etag": "of the model that is passed", "provenance": "a parameter of its own"}
        names = {"precisions" if name == "precision" else name for name in NewMetadata.__annotations__}
        assert {field for field in fields if field not in apart} == names

    def test_metadata_arrives_as_it_was_passed(self) -> None:
        metadata: dict[str, Any] = {
            "name": "vad",
            "version": "1",
            "project_id": "",
            "project_name": "Acme",
            "precision": ["fp16", "int8"],
            "target_device": "GPU",
            "target_device_type": "client",
            "format": "onnx",
            "origin": "here",
            "category": "audio",
            "architecture": "gru",
            "description": "*vad*",
            "score": 0.0,
            "overview": {"a": [1, None]},
            "optimization_capabilities": "text",
            "labels": ["cat", {"name": "dog"}],
            "metrics": {"f1": 0.5},
            "tags": {"team": "audio"},
        }
        assert set(metadata) == set(NewMetadata.__annotations__)
        message = model_pb2.Model()
        paths = fill(message, metadata)
        model = convert.model(message)
        sent = {"precisions" if name == "precision" else name: value for name, value in metadata.items()}
        for name, value in sent.items():
            got = getattr(model, name)
            assert (list(got) if isinstance(got, tuple) else got) == value, name
        assert set(paths) == (set(sent) - {"metrics", "tags"}) | {"metrics.f1", "tags.team"}

    def test_provenance_survives_the_round_trip(self) -> None:
        provenance = Provenance(
            source_repository="https://git.example/vision.git",
            source_commit="abc",
            training_run="run-7",
            datasets=(Dataset(name="coco", uri="s3://datasets/coco", digest="sha256:00"),),
            parents=("0123456789abcdef",),
            framework="pytorch",
            framework_version="2.5.1",
            hyperparameters={"learning_rate": 0.001, "layers": [1, 2]},
            environment={"python": "3.12.4"},
            seed=0,
        )
        assert all(getattr(provenance, field.name) != field.default for field in dataclasses.fields(provenance))
        assert convert._provenance(convert.provenance_message(provenance)) == provenance

    def test_every_requirement_is_sent(self) -> None:
        requirements = Requirements(
            verified=True,
            max_verification_age=timedelta(days=1, microseconds=5),
            metrics={"f1": Bound(min=0.0, max=1.0), "ms": Bound(max=5)},
            same_inputs=True,
            same_outputs=True,
            same_labels=True,
        )
        assert all(getattr(requirements, field.name) for field in dataclasses.fields(requirements))
        message = convert.requirements_message(requirements)
        assert {field.name for field, _ in message.ListFields()} == {field.name for field in message.DESCRIPTOR.fields}
        assert [(bound.metric, bound.HasField("min"), bound.min, bound.max) for bound in message.metrics] == [
            ("f1", True, 0.0, 1.0),
            ("ms", False, 0.0, 5.0),
        ]
        assert message.max_verification_age.ToTimedelta() == requirements.max_verification_age
