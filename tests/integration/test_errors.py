"""Errors, request ids and log lines of every call, on a server whose methods fail."""

# The protos name the methods, and failing methods ignore their arguments.
# ruff: noqa: ARG002, N802

import base64
import inspect
import json
import logging
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any, cast
from urllib.parse import quote_from_bytes

import grpc
import pytest
from google.api import httpbody_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from modelregistry.v1 import (
    artifact_service_pb2,
    artifact_service_pb2_grpc,
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    system_service_pb2,
    system_service_pb2_grpc,
)

from registry_service.domain.errors import (
    Candidate,
    FieldViolation,
    ModelNotFoundError,
    RegistryError,
    TooManyCallsError,
)
from registry_service.logs import JsonFormatter
from registry_service.transport.grpc.concurrency_limit import ConcurrencyLimit
from registry_service.transport.grpc.errors import STATUS_CODES, call_status, status_code
from registry_service.transport.grpc.interceptors.authentication import Authentication
from registry_service.transport.grpc.interceptors.chain import InterceptorChain
from registry_service.transport.grpc.interceptors.concurrency import ConcurrencyLimits
from registry_service.transport.grpc.interceptors.errors import BROKEN_MESSAGE
from registry_service.transport.grpc.interceptors.watchdog import Watchdog
from tests.polling import eventually
from tests.stub_client import refused, registration, spec

SECRET = "s3cr3t-payload"

LONG = "☃\U0001f600" * 5_000
VALUES: dict[str, Any] = {
    "retry_seconds": 2.5,
    "message": LONG,
    "description": LONG,
    "position": 10**30,
    "limit": 10**30,
    # Both are HTTP headers, too.
    "size": 10**30,
    "etag": "x" * 64,
    "references": {LONG: LONG},
    "violations": [FieldViolation(LONG, LONG)] * 100,
    # The longest id.
    "candidates": [Candidate(kind="model_group", id="x" * 256, description=LONG)] * 100,
}


def subclasses(kind: type[RegistryError]) -> Iterator[type[RegistryError]]:
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)


ERRORS = sorted(set(subclasses(RegistryError)), key=lambda kind: kind.__name__)


def made(kind: type[RegistryError]) -> RegistryError:
    """Return an error with longer texts than any client should get."""
    arguments, keywords = [], {}
    for parameter in list(inspect.signature(kind.__init__).parameters.values())[1:]:
        value = VALUES.get(parameter.name, LONG)
        if parameter.kind in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD}:
            arguments.append(value)
        elif parameter.kind is parameter.KEYWORD_ONLY:
            keywords[parameter.name] = value
        else:
            keywords |= {"one": LONG, "two": LONG, "three": LONG}
    return kind(*arguments, **keywords)


class FailingModels(model_service_pb2_grpc.ModelServiceServicer):
    begun = threading.Event()
    """Set when the call of `abandoned` runs."""

    def GetModel(self, request: model_service_pb2.GetModelRequest, context: Any) -> model_pb2.Model:
        if request.model_id in BY_NAME:
            raise made(BY_NAME[request.model_id])
        if request.model_id == "unexpected":
            raise RuntimeError(f"{SECRET} from the driver")
        if request.model_id == "abandoned":
            self.begun.set()
            eventually(lambda: not context.is_active())
            raise RuntimeError("The form broke off.")
        return model_pb2.Model()

    def RegisterModel(
        self, request_iterator: Iterator[model_service_pb2.RegisterModelRequest], context: Any
    ) -> model_service_pb2.RegisterModelResponse:
        next(request_iterator)
        raise ModelNotFoundError("after the first message")


class FailingArtifacts(artifact_service_pb2_grpc.ArtifactServiceServicer):
    def DownloadArtifact(
        self, request: artifact_service_pb2.DownloadArtifactRequest, context: Any
    ) -> Iterator[artifact_service_pb2.DownloadArtifactResponse]:
        yield artifact_service_pb2.DownloadArtifactResponse(chunk=b"first")
        if request.model_id == "unexpected":
            raise RuntimeError(SECRET)
        raise ModelNotFoundError("after the first message")

    def DownloadArtifactContent(
        self, request: artifact_service_pb2.DownloadArtifactContentRequest, context: Any
    ) -> Iterator[httpbody_pb2.HttpBody]:
        if request.model_id == "late":
            yield httpbody_pb2.HttpBody(data=b"first")
        raise ModelNotFoundError("at once or not")


class Fine(system_service_pb2_grpc.SystemServiceServicer):
    def GetHealth(self, request: system_service_pb2.GetHealthRequest, context: Any) -> Any:
        return system_service_pb2.GetHealthResponse(status="ok")

    def GetReadiness(self, request: system_service_pb2.GetReadinessRequest, context: Any) -> Any:
        raise made(BY_NAME["DatabaseUnavailableError"])


BY_NAME = {kind.__name__: kind for kind in ERRORS}

# ---- pytest-grpc runs the server

grpc_max_workers = 4


@pytest.fixture(scope="module")
def grpc_addr() -> str:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture(scope="module")
def grpc_interceptors() -> Iterator[Sequence[grpc.ServerInterceptor]]:
    def limit() -> ConcurrencyLimit:
        return ConcurrencyLimit(
            max_running=8,
            max_running_per_caller=8,
            max_waiting=8,
            max_waiting_per_caller=8,
            wait_seconds=5,
            refuse=TooManyCallsError,
        )

    watchdog = Watchdog(idle_seconds=60)
    limits = ConcurrencyLimits(
        short_calls=limit(), lists=limit(), long_calls=limit(), watches=limit(), reflection=limit()
    )
    yield [InterceptorChain(watchdog=watchdog, limits=limits, authentication=Authentication())]
    watchdog.stop()


@pytest.fixture(scope="module")
def grpc_servicer() -> FailingModels:
    return FailingModels()  # type: ignore[abstract]  # no test calls the missing methods


@pytest.fixture(scope="module")
def grpc_add_to_server() -> Callable[[FailingModels, grpc.Server], None]:
    def add(servicer: FailingModels, server: grpc.Server) -> None:
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(servicer, server)
        artifact_service_pb2_grpc.add_ArtifactServiceServicer_to_server(
            FailingArtifacts(),  # type: ignore[abstract]
            server,
        )
        system_service_pb2_grpc.add_SystemServiceServicer_to_server(Fine(), server)  # type: ignore[abstract]

    return add


@pytest.fixture(scope="module")
def grpc_stub_cls() -> type[model_service_pb2_grpc.ModelServiceStub]:
    return model_service_pb2_grpc.ModelServiceStub


@pytest.fixture(scope="module")
def artifacts(grpc_channel: grpc.Channel) -> artifact_service_pb2_grpc.ArtifactServiceStub:
    return artifact_service_pb2_grpc.ArtifactServiceStub(grpc_channel)


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """The log lines, as written."""
    written: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(self.format(record))

    handler = Keeper()
    handler.setFormatter(JsonFormatter())
    root, level = logging.getLogger(), logging.getLogger("registry_service").level
    root.addHandler(handler)
    logging.getLogger("registry_service").setLevel(logging.INFO)
    yield written
    root.removeHandler(handler)
    logging.getLogger("registry_service").setLevel(level)


def call_lines(lines: list[str]) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, lines) if line["message"] == "call"]


def get(stub: model_service_pb2_grpc.ModelServiceStub, model_id: str, *metadata: tuple[str, str]) -> grpc.Call:
    """Call, and return the error or the finished call."""
    try:
        _, call = stub.GetModel.with_call(model_service_pb2.GetModelRequest(model_id=model_id), metadata=metadata)
    except grpc.RpcError as error:
        return cast("grpc.Call", error)
    return call


def trailing(call: grpc.Call, key: str) -> list[str | bytes]:
    return [value for found, value in call.trailing_metadata() or () if found == key]


def details_of(call: grpc.Call, kind: Any) -> list[Any]:
    status = rpc_status.from_call(call)
    assert status is not None
    found = []
    for packed in status.details:
        if packed.Is(kind.DESCRIPTOR):
            found.append(kind())
            packed.Unpack(found[-1])
    return found


class TestErrors:
    def test_the_walk_finds_all_error_classes(self) -> None:
        assert len(ERRORS) > 20
        assert set(STATUS_CODES) <= set(ERRORS)

    @pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
    def test_every_error_arrives_with_the_status_of_the_table(
        self, grpc_stub: model_service_pb2_grpc.ModelServiceStub, kind: type[RegistryError]
    ) -> None:
        call = get(grpc_stub, kind.__name__)
        expected = [code for base, code in STATUS_CODES.items() if issubclass(kind, base)]
        assert [call.code()] == (expected or [grpc.StatusCode.INTERNAL])
        [info] = details_of(call, error_details_pb2.ErrorInfo)
        assert info.domain == "modelregistry"
        assert info.reason == kind.reason
        assert info.reason.replace("_", "").isalnum()
        assert info.reason == info.reason.upper()
        assert len(info.reason) <= 63
        [request_info] = details_of(call, error_details_pb2.RequestInfo)
        assert trailing(call, "x-request-id") == [request_info.request_id]

    def test_reasons_are_unique(self) -> None:
        # To a client, an error that inherits its reason is the same error.
        reasons = [kind.reason for kind in ERRORS if "reason" in vars(kind)]
        assert len(reasons) == len(set(reasons))

    def test_only_errors_outside_the_domain_are_internal(self) -> None:
        internal = [kind for kind in ERRORS if status_code(made(kind)) is grpc.StatusCode.INTERNAL]
        assert [kind.__name__ for kind in internal] == ["InternalError"]

    @pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
    def test_the_trailers_of_every_error_fit_into_the_limit_of_every_peer(self, kind: type[RegistryError]) -> None:
        status = call_status(made(kind), "x" * 128)
        # The size that HTTP/2 counts: name, value and 32; binary values in base64, messages percent-encoded.
        headers = [("grpc-status", b"16"), ("content-type", b"application/grpc")]
        headers.append(("grpc-message", quote_from_bytes(status.details.encode()).encode()))
        for key, value in status.trailing_metadata:
            data = value.encode() if isinstance(value, str) else value
            headers.append((key, base64.b64encode(data) if key.endswith("-bin") else data))
        assert sum(len(key) + len(value) + 32 for key, value in headers) < 8192

    def test_input_errors_have_field_violations(self, grpc_stub: model_service_pb2_grpc.ModelServiceStub) -> None:
        [bad] = details_of(get(grpc_stub, "InvalidArgumentError"), error_details_pb2.BadRequest)
        assert 0 < len(bad.field_violations) <= 10
        assert details_of(get(grpc_stub, "ModelNotFoundError"), error_details_pb2.BadRequest) == []

    def test_an_error_in_the_middle_of_a_stream_is_mapped(
        self,
        grpc_stub: model_service_pb2_grpc.ModelServiceStub,
        artifacts: artifact_service_pb2_grpc.ArtifactServiceStub,
    ) -> None:
        with refused(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"):
            grpc_stub.RegisterModel(registration(spec(), [b"x"]))
        answers = artifacts.DownloadArtifact(artifact_service_pb2.DownloadArtifactRequest())
        assert next(answers).chunk == b"first"
        with refused(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"):
            next(answers)
        answers = artifacts.DownloadArtifact(artifact_service_pb2.DownloadArtifactRequest(model_id="unexpected"))
        assert next(answers).chunk == b"first"
        with refused(grpc.StatusCode.INTERNAL, "INTERNAL") as refusal:
            next(answers)
        assert SECRET not in refusal.message

    def test_a_failing_http_download_ends_with_a_malformed_message(self, grpc_channel: grpc.Channel) -> None:
        method = grpc_channel.unary_stream(
            "/modelregistry.v1.ArtifactService/DownloadArtifactContent",
            request_serializer=artifact_service_pb2.DownloadArtifactContentRequest.SerializeToString,
            response_deserializer=bytes,
        )
        answers = method(artifact_service_pb2.DownloadArtifactContentRequest(model_id="late"))
        assert httpbody_pb2.HttpBody.FromString(next(answers)).data == b"first"
        assert next(answers) == BROKEN_MESSAGE
        with refused(grpc.StatusCode.NOT_FOUND):
            next(answers)
        answers = method(artifact_service_pb2.DownloadArtifactContentRequest(model_id="at once"))
        with refused(grpc.StatusCode.NOT_FOUND):
            next(answers)


class TestUnexpected:
    def test_an_unexpected_error_is_hidden_from_the_client_and_logged_in_full(
        self, grpc_stub: model_service_pb2_grpc.ModelServiceStub, lines: list[str]
    ) -> None:
        call = get(grpc_stub, "unexpected", ("x-request-id", "my-request"))
        assert call.code() is grpc.StatusCode.INTERNAL
        assert SECRET not in str(call.details()) + str(call.trailing_metadata())
        assert "my-request" in str(call.details())
        [info] = details_of(call, error_details_pb2.ErrorInfo)
        assert info.reason == "INTERNAL"
        logged = [json.loads(line) for line in lines if SECRET in line]
        [line] = [line for line in logged if line["logger"] == "registry_service.calls"]
        assert line["level"] == "ERROR"
        assert line["request_id"] == "my-request"
        assert f"RuntimeError: {SECRET} from the driver" in line["exception"]
        assert "in GetModel" in line["exception"]


class TestRequestIds:
    @pytest.mark.parametrize("model_id", ["fine", "ModelNotFoundError", "unexpected"])
    @pytest.mark.parametrize("given", ["abc", "x" * 128, "a.B_c:d/e+f=g-1"])
    def test_a_valid_request_id_is_kept(
        self, grpc_stub: model_service_pb2_grpc.ModelServiceStub, lines: list[str], model_id: str, given: str
    ) -> None:
        call = get(grpc_stub, model_id, ("x-request-id", given))
        assert trailing(call, "x-request-id") == [given]
        [line] = eventually(lambda: call_lines(lines))
        assert line["request_id"] == given

    @pytest.mark.parametrize("hostile", ["", "a b", 'a"}', "x" * 129, "${jndi:x}", "<script>"])
    def test_an_invalid_request_id_is_replaced(
        self, grpc_stub: model_service_pb2_grpc.ModelServiceStub, lines: list[str], hostile: str
    ) -> None:
        [replaced] = trailing(get(grpc_stub, "ModelNotFoundError", ("x-request-id", hostile)), "x-request-id")
        assert uuid.UUID(str(replaced)).version == 4
        [line] = eventually(lambda: call_lines(lines))
        assert line["request_id"] == replaced

    def test_every_call_gets_a_request_id(self, grpc_stub: model_service_pb2_grpc.ModelServiceStub) -> None:
        [one] = trailing(get(grpc_stub, "fine"), "x-request-id")
        [other] = trailing(get(grpc_stub, "fine"), "x-request-id")
        assert one != other


class TestLog:
    def test_each_call_is_one_log_line_without_its_content(
        self,
        grpc_stub: model_service_pb2_grpc.ModelServiceStub,
        artifacts: artifact_service_pb2_grpc.ArtifactServiceStub,
        lines: list[str],
    ) -> None:
        credentials = ("authorization", f"Bearer {SECRET}")
        get(grpc_stub, SECRET, credentials)
        get(grpc_stub, "ModelNotFoundError", credentials)
        with refused(grpc.StatusCode.NOT_FOUND):
            grpc_stub.RegisterModel(
                registration(spec(name=SECRET), [SECRET.encode()]), metadata=(credentials, ("x-secret", SECRET))
            )
        with refused(grpc.StatusCode.NOT_FOUND):
            list(artifacts.DownloadArtifact(artifact_service_pb2.DownloadArtifactRequest(model_id=SECRET)))
        eventually(lambda: len(call_lines(lines)) == 4)
        assert [(line["method"].rpartition("/")[2], line["code"]) for line in call_lines(lines)] == [
            ("GetModel", "OK"),
            ("GetModel", "NOT_FOUND"),
            ("RegisterModel", "NOT_FOUND"),
            ("DownloadArtifact", "NOT_FOUND"),
        ]
        for line in call_lines(lines):
            assert line["method"].startswith("/modelregistry.v1.")
            assert 0 <= line["duration_ms"] < 10_000
            assert uuid.UUID(line["request_id"]).version == 4
            assert line["level"] == "INFO"
        assert SECRET not in "".join(lines)

    def test_only_failing_probes_are_logged(self, grpc_channel: grpc.Channel, lines: list[str]) -> None:
        system = system_service_pb2_grpc.SystemServiceStub(grpc_channel)
        for _ in range(3):
            system.GetHealth(system_service_pb2.GetHealthRequest())
        with refused(grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"):
            system.GetReadiness(system_service_pb2.GetReadinessRequest())
        [line] = eventually(lambda: call_lines(lines))
        assert line["method"].endswith("GetReadiness")

    def test_an_abandoned_download_is_logged_as_cancelled(
        self, artifacts: artifact_service_pb2_grpc.ArtifactServiceStub, lines: list[str]
    ) -> None:
        def leave() -> list[dict[str, Any]]:
            # Repeated, since a client may leave before its call reaches the server.
            artifacts.DownloadArtifact(artifact_service_pb2.DownloadArtifactRequest()).cancel()
            return call_lines(lines)

        assert eventually(leave)[0]["code"] in {"CANCELLED", "NOT_FOUND"}

    def test_an_error_of_an_abandoned_call_is_not_logged(
        self, grpc_stub: model_service_pb2_grpc.ModelServiceStub, lines: list[str]
    ) -> None:
        call = grpc_stub.GetModel.future(model_service_pb2.GetModelRequest(model_id="abandoned"))
        assert FailingModels.begun.wait(10)
        call.cancel()
        [line] = eventually(lambda: call_lines(lines))
        assert line["code"] == "CANCELLED"
        # grpcio logs in the same thread.
        grpc_stub.GetModel(model_service_pb2.GetModelRequest(model_id="any"))
        assert not [line for line in lines if "Traceback" in line]
