"""No message to any method causes a server error or reveals details of the server."""

import base64
import logging
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import strategies as st
from modelregistry.v1 import audit_service_pb2, model_service_pb2

from registry_service.transport.grpc.server import _SERVICES
from tests.fuzzing import ODD_TEXTS, check_no_internals, fuzz
from tests.message_strategies import messages
from tests.model_files import geti_deployment, onnx_model, safetensors
from tests.registry import RunningRegistry
from tests.streams import expect
from tests.stub_client import Client, zip_of

SERVICES = (
    *_SERVICES,
    *(health_pb2.DESCRIPTOR.services_by_name[name].full_name for name in ("Health",)),
    *(service.full_name for service in reflection_pb2.DESCRIPTOR.services_by_name.values()),
)
# These calls do not end.
ENDLESS = {"WatchAuditEvents", "Watch"}
ANSWER_SECONDS = 60
OWN_FAULT = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DATA_LOSS}
# Without Geti, the documented answer is a 500 with the cause.
WITHOUT_GETI = "environment variables are not set: GETI_HOST"


_POOL = descriptor_pool.Default()


def methods() -> list[MethodDescriptor]:
    found = [
        method
        for service in SERVICES
        for method in descriptor_pool.Default().FindServiceByName(service).methods_by_name.values()
    ]
    # grpcio-health-checking doesn't have it.
    return [method for method in found if path_of(method) != "/grpc.health.v1.Health/List"]


def method_of(service: str, name: str, package: str = "modelregistry.v1") -> MethodDescriptor:
    found: MethodDescriptor = _POOL.FindServiceByName(f"{package}.{service}").methods_by_name[name]
    return found


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


@dataclass
class Answer:
    """The result of a call."""

    code: grpc.StatusCode
    messages: list[bytes]
    texts: list[str | bytes]
    http_status: str | None


def send(client: Client, method: MethodDescriptor, requests: Sequence[bytes], metadata: Any = ()) -> Answer:
    """Call a method with raw bytes as messages, which may be malformed."""
    stream: Any = client.channel.stream_stream(path_of(method))
    call = stream(iter(requests), timeout=ANSWER_SECONDS, metadata=metadata)
    received: list[bytes] = []
    try:
        for message in call:
            received.append(message)
            if method.name in ENDLESS:
                call.cancel()
                return Answer(grpc.StatusCode.OK, received, [], None)
    except grpc.RpcError:
        pass  # its code is what is asked for
    trailing = [value for _, value in call.trailing_metadata() or ()]
    http_status = next((str(value) for key, value in call.initial_metadata() if key == "x-http-status"), None)
    return Answer(call.code(), received, [call.details() or "", *trailing], http_status)


def assert_no_server_error(answer: Answer, log: pytest.LogCaptureFixture) -> None:
    failures = [record.getMessage() for record in log.records if record.levelno >= logging.ERROR]
    log.clear()
    assert failures == []
    assert answer.code not in OWN_FAULT, answer
    check_no_internals(*answer.texts)
    if answer.http_status is not None and int(answer.http_status) >= 500:
        assert WITHOUT_GETI.encode() in b"".join(answer.messages), answer


@pytest.fixture
def known(client: Client) -> dict[str, list[str]]:
    """Return meaningful texts by field name."""
    models = [client.register(name=f"known-{number}").id for number in range(3)]
    models.append(client.register(zip_of({"a.txt": b"a" * 5_000}), name="zip", precisions=["int8"]).id)
    uploads = [client.create_upload(name=f"upload-{number}").id for number in range(3)]
    names = [f"known-{number}" for number in range(3)]
    filters = ["name = known*", "score > 0 OR NOT tags:a", "(", 'overview.a."b c":*', "create_time < 2026-01-01"]
    return {
        "id": models + uploads,
        "ids": models,
        "model_id": models,
        "to_model_id": models,
        "baseline_id": models,
        "parent_model_ids": models,
        "upload_id": uploads,
        "name": [*names, "a.txt"],
        "version": ["1", "2"],
        "alias": ["production", "candidate"],
        "filter": filters,
        "order_by": ["name desc", "create_time", "metrics.a", "score, name"],
        "paths": ["name", "score", "tags.a", "metrics", "*", "model.name", "provenance.seed"],
        "precisions": ["fp32", "int8"],
        "service": list(SERVICES),
        "file_containing_symbol": list(SERVICES),
    }


@pytest.mark.parametrize("method", methods(), ids=path_of)
def test_any_messages_are_answered_without_a_server_error(
    client: Client, known: dict[str, list[str]], caplog: pytest.LogCaptureFixture, method: MethodDescriptor
) -> None:
    most = 5 if method.client_streaming else 1
    request = messages(method.input_type, lambda: known)
    metadata = st.lists(
        st.tuples(
            st.sampled_from(["x-request-id", "x-actor", "x-envoy-original-path", "x-envoy-original-method", "range"]),
            st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
        ),
        max_size=2,
    )

    @fuzz(15, requests=st.lists(request, min_size=0 if method.client_streaming else 1, max_size=most), extra=metadata)
    def _(requests: list[Message], extra: list[tuple[str, str]]) -> None:
        answer = send(client, method, [message.SerializeToString() for message in requests], extra)
        assert_no_server_error(answer, caplog)

    assert client.register(name="afterwards").name == "afterwards"


# The health service runs without the interceptors of the other services.
@pytest.mark.parametrize("method", [m for m in methods() if "grpc.health" not in path_of(m)], ids=path_of)
def test_undecodable_bytes_are_an_invalid_argument(
    client: Client, caplog: pytest.LogCaptureFixture, method: MethodDescriptor
) -> None:
    whole = messages(method.input_type, dict).map(lambda message: message.SerializeToString()[:100_000])

    @st.composite
    def damaged(draw: st.DrawFn) -> bytes:
        data = bytearray(draw(whole))
        for _ in range(draw(st.integers(1, 4))):
            at = draw(st.integers(0, len(data)))
            data[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=3))
        return bytes(data)

    nested = st.integers(50, 20_000).map(lambda depth: b"\x0a\x7f" * depth)

    @fuzz(10, data=damaged() | st.binary(max_size=60) | nested)
    def _(data: bytes) -> None:
        answer = send(client, method, [data])
        assert_no_server_error(answer, caplog)


# ---- Queries


TERMS = st.builds(
    lambda field, operator, value: f"{field}{operator}{value}",
    st.sampled_from(
        (
            *("name", "score", "tags.a", 'tags."odd key"', "metrics.a", "overview.a.b", "labels", "precisions", "id"),
            *("create_time", "provenance.datasets.name", "provenance.hyperparameters.lr", "revision", "provenance"),
        )
    ),
    st.sampled_from([" = ", " != ", ":", " < ", ">=", " "]),
    st.sampled_from(
        ["*", "null", "true", "1", "-1e308", "9223372036854775808", '"\\\\*%_"', "2026-01-01", "0001-01-01", "a*b"]
    )
    | st.sampled_from(ODD_TEXTS).map(lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'),
)
FILTERS = st.recursive(
    TERMS | st.sampled_from(ODD_TEXTS) | st.text(max_size=30),
    lambda inner: st.builds(
        lambda a, joint, b: f"({a}{joint}{b})", inner, st.sampled_from([" AND ", " OR ", " ", " AND NOT "]), inner
    ),
    max_leaves=12,
)
TOKENS = st.text(max_size=40) | st.binary(max_size=60).map(lambda data: base64.urlsafe_b64encode(data).decode())


def test_any_query_is_answered_or_an_invalid_argument(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(5):
        client.register(name=f"listed-{number}", score=number, tags={"a": "b"}, metrics={"a": number})
    order = st.sampled_from(["", "name", "score desc, name", "metrics.a", "create_time desc"]) | st.text(max_size=20)
    good_token = client.models.ListModels(model_service_pb2.ListModelsRequest(page_size=1)).next_page_token

    @st.composite
    def tokens(draw: st.DrawFn) -> str:
        at = draw(st.integers(0, len(good_token)))
        return good_token[:at] + draw(st.text(max_size=2)) + good_token[at + draw(st.integers(0, 2)) :]

    models = method_of("ModelService", "ListModels")
    events = method_of("AuditService", "ListAuditEvents")

    @fuzz(100, text=FILTERS, order=order, token=st.just("") | TOKENS | tokens(), size=st.integers(-2, 2_000))
    def _(text: str, order: str, token: str, size: int) -> None:
        page: dict[str, Any] = {"filter": text, "page_token": token, "page_size": size}
        listing = model_service_pb2.ListModelsRequest(**page, order_by=order)
        for method, request in ((models, listing), (events, audit_service_pb2.ListAuditEventsRequest(**page))):
            answer = send(client, method, [request.SerializeToString()])
            assert_no_server_error(answer, caplog)
            assert answer.code in {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}, answer


# ---- Artifacts


def damaged_zips() -> st.SearchStrategy[bytes]:
    onnx = onnx_model().SerializeToString()
    members = geti_deployment() | {"a.onnx": onnx, "b.safetensors": safetensors({"w": ("F32", [2, 2], 16)})}
    whole = [zip_of(members), zip_of(members, zipfile.ZIP_STORED), zip_of({"../../escape": b"x"}), zip_of({})]

    @st.composite
    def damaged(draw: st.DrawFn) -> bytes:
        data = bytearray(draw(st.sampled_from(whole)))
        for _ in range(draw(st.integers(0, 5))):
            # Most damage hits the end, which holds the directory.
            at = len(data) - draw(st.integers(0, 400) | st.integers(0, len(data)))
            odd = st.sampled_from([b"\xff\xff\xff\xff", b"\0\0\0\0", struct.pack("<H", 99), b"PK\x06\x06"])
            piece = draw(odd | st.binary(max_size=8))
            data[max(at, 0) : max(at, 0) + len(piece)] = piece
        return bytes(data[: len(data) - draw(st.sampled_from([0, 0, 0, 0, 1, 20, 200]))])

    return damaged()


def test_any_zip_is_registered_and_read_or_refused(
    registry: RunningRegistry, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    numbers = count()
    folder = registry.artifact_dir.parent
    before = {path for path in folder.rglob("*") if registry.artifact_dir not in path.parents}

    @fuzz(60, data=damaged_zips(), media_type=st.sampled_from(["", "application/zip"]))
    def _(data: bytes, media_type: str) -> None:
        allowed = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND}
        damage = {grpc.StatusCode.DATA_LOSS}  # of a member, which the artifact's own hash does not detect
        try:
            artifact = {"media_type": media_type}
            model = client.register(data, name=f"zip {next(numbers)}", artifact=artifact)
        except grpc.RpcError as error:
            expect(error, *allowed)
            check_no_internals(str(error.details()))
            return
        assert client.download(model.id) == data
        try:
            names = [file.path for file in client.files(model.id).artifact_files]
        except grpc.RpcError as error:
            expect(error, *allowed)
            names = ["a.onnx"]
        for name in names[:5]:
            try:
                client.download_file(model.id, name)
            except grpc.RpcError as error:
                expect(error, *allowed, *damage)
                check_no_internals(str(error.details()))
        client.delete(model.id)
        assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []

    assert {path for path in folder.rglob("*") if registry.artifact_dir not in path.parents} == before


# ---- Found by fuzzing


@pytest.mark.parametrize("path", ["", "x", "/models", "?", "/models?id=a"])
def test_a_request_without_an_id_has_an_invalid_id(client: Client, path: str) -> None:
    method = method_of("CompatService", "GetModel", "modelregistry.compat.v1")
    answer = send(client, method, [b""], [("x-envoy-original-path", path)])
    assert (answer.code, answer.http_status) == (grpc.StatusCode.OK, "400")


@pytest.mark.parametrize(
    ("service", "name"),
    [("ModelService", "GetModel"), ("ModelService", "RegisterModel"), ("AuditService", "WatchAuditEvents")],
)
def test_a_malformed_message_is_an_invalid_argument(
    client: Client, caplog: pytest.LogCaptureFixture, service: str, name: str
) -> None:
    answer = send(client, method_of(service, name), [b"\xff"])
    assert answer.code is grpc.StatusCode.INVALID_ARGUMENT
    assert answer.texts[0] == "request: could not be decoded."
    assert "Traceback" not in caplog.text
