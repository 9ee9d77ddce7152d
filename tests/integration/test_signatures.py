"""Signatures and warnings of registered models, by every way of registration; broken artifacts are accepted."""

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.json_format import MessageToDict
from modelregistry.v1 import model_pb2, model_service_pb2

from registry_service.domain.errors import ArtifactLostError, ArtifactStoreUnavailableError
from registry_service.signatures import dispatch
from registry_service.storage.artifacts.local import LocalArtifactStore
from tests.model_files import IR, geti_deployment, onnx_model, safetensors
from tests.registry import RunningRegistry
from tests.streams import WrappedStore, serving
from tests.stub_client import Client, as_listed, refused, zip_of

BOUNDARY = "a-boundary-of-this-test"

Register = Callable[..., model_pb2.Model]


def register(client: Client, data: bytes, file_name: str, **fields: Any) -> model_pb2.Model:
    return client.register(data, artifact={"file_name": file_name}, **fields)


def register_by_upload(client: Client, data: bytes, file_name: str, **fields: Any) -> model_pb2.Model:
    upload = client.create_upload(artifact={"file_name": file_name}, **fields)
    client.write_upload(upload.id, 0, data)
    model = client.complete_upload(upload.id)
    assert client.complete_upload(upload.id) == model
    return model


def register_by_form(client: Client, data: bytes, file_name: str, **fields: Any) -> model_pb2.Model:
    """POST /models, as the gateway hands it on. The Intel-compatible API takes no other artifacts than ZIPs."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in ({"name": "yolo", "version": "1"} | fields).items()
    ]
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{file_name}"\r\n'
        "Content-Type: application/zip\r\n\r\n"
    )
    body = "".join([*parts, head]).encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()
    call: Any = client.channel.stream_unary(
        "/modelregistry.compat.v1.CompatService/RegisterModel",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=HttpBody.FromString,
    )
    answer = call(iter([HttpBody(content_type=f"multipart/form-data; boundary={BOUNDARY}", data=body)]))
    return client.get(answer.data.decode().strip('"'))


WAYS = [register, register_by_upload, register_by_form]


@pytest.mark.parametrize("way", WAYS)
def test_a_model_shows_its_signature_by_every_way_of_registration(client: Client, way: Register) -> None:
    model = way(client, zip_of(geti_deployment()), "model.zip", format="openvino")
    assert MessageToDict(model.signature, preserving_proto_field_name=True) == {
        "format": "openvino",
        "path": "deployment/Detection/model/model.xml",
        "inputs": [{"name": "image", "element_type": "u8", "shape": ["?", 3, "224..448", 640]}],
        "outputs": [
            {"name": "boxes", "element_type": "f32", "shape": ["?", 100, 5]},
            {"name": "labels/sink", "element_type": "i64", "shape": ["?", 100]},
        ],
        "weight_count": "3",
        "precisions": ["int8", "fp16"],
        "producer": "OpenVINO 2024.4.0-16579-c3152d32c9c",
        "metadata": {
            "ir_version": "11",
            "Runtime_version": "2024.4.0-16579-c3152d32c9c",
            "conversion_parameters.framework": "pytorch",
            "conversion_parameters.is_python_object": "True",
            "model_info.labels": "cat dog",
            "model_info.model_type": "ssd",
            "nncf.quantization.preset": "mixed",
            "nncf.quantization.advanced_parameters": "{'overflow_fix': 'disable'}",
        },
    }
    assert list(model.warnings) == ["The precisions are fp32, but the weights are int8, fp16."]
    assert client.get(model.id) == model


def test_warnings_change_with_what_they_are_about_and_the_schema_stays(client: Client) -> None:
    model = register(client, onnx_model().SerializeToString(), "m.onnx", format="OpenVINO IR", precisions=["int8"])
    assert list(model.warnings) == [
        "The format is 'OpenVINO IR', but the artifact holds ONNX.",
        "The precisions are int8, but the weights are fp32.",
    ]
    assert dict(model.signature.opsets) == {"ai.onnx": 18, "ai.onnx.ml": 3}
    changed = client.update(model.id, ["format", "precisions"], format="onnx", precisions=["fp32"])
    assert list(changed.warnings) == []
    assert changed.signature == model.signature
    assert client.get(model.id) == changed


def test_a_client_can_give_neither(client: Client) -> None:
    given: dict[str, Any] = {"signature": {"format": "onnx"}, "warnings": ["mine"]}
    model = client.register(**given)
    assert not model.HasField("signature")
    assert not model.warnings
    assert not client.update(model.id, tags={"a": "b"}, **given).HasField("signature")


def test_listings_leave_the_schema_out_and_have_the_warnings(client: Client) -> None:
    parent = client.register(name="parent")
    model = register(
        client,
        onnx_model().SerializeToString()[:-1],
        "m.onnx",
        name="child",
        format="openvino",
        provenance={"parent_model_ids": [parent.id]},
    )
    assert list(model.warnings) == [
        "The format is 'openvino', but the artifact holds ONNX.",
        "m.onnx: The file is truncated.",
    ]
    [listed] = client.all('name = "child"', view=model_pb2.MODEL_VIEW_BASIC)
    assert listed == as_listed(model)
    [descendant] = client.descendants(parent.id).nodes
    assert client.all('name = "child"') == [descendant.model] == [as_listed(model)]


def test_a_view_says_whether_the_signature_is_shown(client: Client) -> None:
    model = register(client, zip_of(geti_deployment()), "model.zip")
    assert model.HasField("signature")
    for view, shown in (
        (model_pb2.MODEL_VIEW_UNSPECIFIED, model),
        (model_pb2.MODEL_VIEW_FULL, model),
        (model_pb2.MODEL_VIEW_BASIC, as_listed(model)),
    ):
        request = model_service_pb2.GetModelRequest(model_id=model.id, view=view)
        assert client.models.GetModel(request) == shown
    assert client.all() == [as_listed(model)]
    assert client.all(view=model_pb2.MODEL_VIEW_BASIC) == [as_listed(model)]
    assert client.all(view=model_pb2.MODEL_VIEW_FULL) == [model]
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as refusal:
        client.all(view=3)
    assert refusal.fields == ["view"]
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as refusal:
        client.models.GetModel(model_service_pb2.GetModelRequest(model_id=model.id, view=-1))  # type: ignore[arg-type]
    assert refusal.fields == ["view"]


def test_signatures_count_for_the_size_of_a_page(client: Client, registry: RunningRegistry) -> None:
    for number in range(100):
        client.register(b"data", name=f"large {number}")
    schema = json.dumps({"format": "onnx", "metadata": {f"key {i}": "v" * 1000 for i in range(60)}})
    registry.execute(f"UPDATE models SET schema = '{schema}'")
    request = model_service_pb2.ListModelsRequest(page_size=1000, view=model_pb2.MODEL_VIEW_FULL)
    page = client.models.ListModels(request)
    assert 1_000_000 < page.ByteSize() < 3_000_000
    found = client.all(page_size=1000, view=model_pb2.MODEL_VIEW_FULL)
    assert len(found) == 100
    assert all(len(model.signature.metadata) == 60 for model in found)


def test_models_are_found_by_their_signature(client: Client) -> None:
    openvino = register(client, zip_of(geti_deployment()), "model.zip", name="openvino")
    onnx = register(client, onnx_model().SerializeToString(), "m.onnx", name="onnx")
    plain = client.register(name="plain")
    for text, expected in (
        ('signature.format = "onnx"', {onnx.id}),
        ("signature.format:*", {openvino.id, onnx.id}),
        ("NOT signature:*", {plain.id}),
        ('signature.path = "deployment/*/model.xml"', {openvino.id}),
        ('signature.precisions : "INT8"', {openvino.id}),
        ('signature.inputs : "image"', {openvino.id}),
        ('signature.inputs.element_type = "u8"', {openvino.id}),
        ('signature.outputs.name : "BOXES"', {openvino.id}),
        ("signature.weight_count = 3", {openvino.id}),
        ('signature.producer : "openvino 2024"', {openvino.id}),
        ('signature.metadata."model_info.labels" = "cat dog"', {openvino.id}),
        ('signature.metadata : "Runtime_version"', {openvino.id}),
        ('signature.opsets."ai.onnx" >= 18', {onnx.id}),
        ('signature.opsets."ai.onnx" > 18', set()),
        ('signature.format != "onnx"', {openvino.id, plain.id}),
    ):
        assert {model.id for model in client.all(text)} == expected, text


def test_warnings_count_for_the_size_of_a_page(client: Client, registry: RunningRegistry) -> None:
    problems = ["p" * 1000] * 20
    for number in range(150):
        client.register(b"data", name=f"warned {number}")
    schema = json.dumps({"format": "onnx", "file_name": "n" * 1000, "problems": problems})
    registry.execute(f"UPDATE models SET schema = '{schema}'")
    page = client.models.ListModels(model_service_pb2.ListModelsRequest(page_size=1000))
    assert 1_000_000 < page.ByteSize() < 3_000_000
    assert len(client.all(page_size=1000)) == 150


def test_shapes_that_are_open_and_scalars_differ(client: Client) -> None:
    ir = '<net version="11"><layers><layer id="0" name="x" type="Parameter"><data shape="" element_type="f32"/></layer>'
    ir += '<layer id="1" name="y" type="Parameter"><data shape="..." element_type="f32"/></layer></layers></net>'
    scalar, open_ = register(client, ir.encode(), "model.xml").signature.inputs
    assert scalar.HasField("shape")
    assert len(scalar.shape) == 0
    assert not open_.HasField("shape")


@pytest.mark.parametrize("way", [register, register_by_upload])
@pytest.mark.parametrize(
    ("data", "file_name", "warning"),
    [
        (b"weights", "m.onnx", "m.onnx: The file is not ONNX."),
        (IR.partition("/>")[0].encode(), "m.xml", "m.xml: The file is damaged: its XML is not well-formed."),
        (
            safetensors({"a\0": ("F32", [2], 4)}),
            "m.bin",
            r"m.bin: The tensor 'a\x00' has 4 bytes of data, which does not match its shape.",
        ),
        (b"<html/>", "m.xml", ""),
        (b"weights", "m.bin", ""),
    ],
)
def test_broken_ones_are_registered(client: Client, way: Register, data: bytes, file_name: str, warning: str) -> None:
    model = way(client, data, file_name)
    assert client.download(model.id) == data
    assert list(model.warnings) == ([warning] if warning else [])
    assert model.HasField("signature") == bool(warning)


@pytest.mark.parametrize("way", WAYS)
def test_an_odd_zip_without_a_model_is_registered_with_a_warning(client: Client, way: Register) -> None:
    data = zip_of({"a.txt": b"x"}) + b"more"
    model = way(client, data, "model.zip")
    assert list(model.warnings) == ["model.zip: The ZIP has bytes after its central directory."]
    assert model.signature.format == ""
    assert client.get(model.id) == model
    (listed,) = client.all()
    assert list(listed.warnings) == list(model.warnings)


def test_a_form_takes_a_zip_that_is_none(client: Client) -> None:
    model = register_by_form(client, b"no ZIP", "model.zip")
    assert not model.HasField("signature")


@pytest.mark.parametrize("way", [register, register_by_upload])
@pytest.mark.parametrize("error", [ValueError("secret"), MemoryError(), RecursionError()])
def test_a_reader_that_fails_keeps_no_model_from_being_registered(
    client: Client, way: Register, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr(dispatch, "_READERS", {"onnx": failing})
    with caplog.at_level(logging.WARNING):
        model = way(client, onnx_model().SerializeToString(), "m.onnx")
    assert list(model.warnings) == ["m.onnx: The file could not be read completely."]
    (record,) = (r for r in caplog.records if r.name == dispatch.logger.name)
    assert record.exc_info is not None
    assert record.exc_info[1] is error


class Unreadable(WrappedStore):
    """A store that writes, and reads whole objects, but no ranges."""

    def __init__(self, store: Any, error: Exception) -> None:
        super().__init__(store)
        self.error = error

    def read(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        if length is not None:
            raise self.error
        return super().read(key, offset, length)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("error", [ArtifactStoreUnavailableError(), ArtifactLostError()])
def test_nor_does_a_store_that_does_not_answer(registry: RunningRegistry, way: Register, error: Exception) -> None:
    is_form = way is register_by_form
    data = zip_of(geti_deployment()) if is_form else onnx_model().SerializeToString()
    with serving(registry, Unreadable(registry.parts.store, error)) as (_, client):
        model = way(client, data, "model.zip" if is_form else "m.onnx")
    assert list(model.warnings) == ([] if is_form else ["m.onnx: The file could not be read completely."])
    assert registry.client.download(model.id) == data


def test_what_is_of_no_known_format_is_not_read_again(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def unread(*_: object, **__: object) -> Iterator[bytes]:
        raise AssertionError("read")

    monkeypatch.setattr(LocalArtifactStore, "read", unread)
    client.register(bytes(range(256)) * 4)
