"""What may be retried follows from the methods' idempotency levels, for gRPC clients and in the gateway."""

import importlib.resources
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
import yaml
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import MethodDescriptorProto, MethodOptions
from modelregistry.v1 import model_pb2, model_service_pb2, model_service_pb2_grpc

from registry_service.settings import GatewaySettings, load
from registry_service.supervisor.gateway import gateway_config
from registry_service.transport.http_routes import http_routes

SERVICE_CONFIG = importlib.resources.files("modelregistry").joinpath("service_config.json").read_text(encoding="utf-8")


def levels() -> dict[str, int]:
    """The idempotency level of each method of the API, by its path."""
    found: dict[str, int] = {}
    for path in http_routes().rpcs:
        service, method = path[1:].split("/")
        proto = MethodDescriptorProto()
        descriptor_pool.Default().FindServiceByName(service).methods_by_name[method].CopyToProto(proto)
        found[path] = proto.options.idempotency_level
    return found


class Flaky(model_service_pb2_grpc.ModelServiceServicer):
    """Refuses the first call of each method."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def _called(self, name: str, context: grpc.ServicerContext) -> None:
        self.calls.append(name)
        if self.calls.count(name) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")

    def GetModel(self, request: model_service_pb2.GetModelRequest, context: Any) -> model_pb2.Model:  # noqa: N802, ARG002
        self._called("GetModel", context)
        return model_pb2.Model(id="found")

    def RegisterModel(  # noqa: N802 - as the protos have it
        self, request_iterator: Iterator[model_service_pb2.RegisterModelRequest], context: Any
    ) -> model_service_pb2.RegisterModelResponse:
        list(request_iterator)
        self._called("RegisterModel", context)
        return model_service_pb2.RegisterModelResponse()


@pytest.fixture
def flaky() -> Iterator[tuple[Flaky, model_service_pb2_grpc.ModelServiceStub]]:
    servicer = Flaky()  # type: ignore[abstract]  # what it lacks nobody calls
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        options = [("grpc.service_config", SERVICE_CONFIG)]
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            yield servicer, model_service_pb2_grpc.ModelServiceStub(channel)
        server.stop(None).wait()


def test_a_client_with_the_service_config_retries_reads_by_itself(
    flaky: tuple[Flaky, model_service_pb2_grpc.ModelServiceStub],
) -> None:
    servicer, stub = flaky
    assert stub.GetModel(model_service_pb2.GetModelRequest(model_id="found")).id == "found"
    assert servicer.calls == ["GetModel"] * 2


def test_it_repeats_no_registration(flaky: tuple[Flaky, model_service_pb2_grpc.ModelServiceStub]) -> None:
    servicer, stub = flaky
    with pytest.raises(grpc.RpcError) as raised:
        stub.RegisterModel(iter([model_service_pb2.RegisterModelRequest()]))
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert servicer.calls == ["RegisterModel"]


def test_the_service_config_names_what_may_be_repeated_and_nothing_else() -> None:
    [policy] = json.loads(SERVICE_CONFIG)["methodConfig"]
    named = {f"/{name['service']}/{name['method']}" for name in policy["name"]}
    unknown = MethodOptions.IDEMPOTENCY_UNKNOWN
    assert named == {path for path, level in levels().items() if level != unknown and ".compat." not in path}


def test_the_gateway_repeats_what_changes_nothing_where_a_server_breaks_off() -> None:
    config = yaml.safe_load(gateway_config(load(GatewaySettings)))
    [host] = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"][
        "route_config"
    ]["virtual_hosts"]
    repeated = {
        route["match"]["path"]
        for route in host["routes"]
        if "path" in route["match"] and "grpc" in route["match"] and "reset," in f"{_retry_on(route)},"
    }
    assert repeated == {path for path, level in levels().items() if level == MethodOptions.NO_SIDE_EFFECTS}


def _retry_on(route: dict[str, Any]) -> str:
    conditions: str = route["route"]["retry_policy"]["retry_on"]
    return conditions.replace("reset-before-request", "")
