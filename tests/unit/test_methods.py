"""The table of RPC policy, held against the descriptors."""

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor

from registry_service import wiring  # noqa: F401 - imports every service's descriptors
from registry_service.methods import METHODS, Kind, Method, OnFailure, OpenTo, method_of


def descriptor_of(method: Method) -> MethodDescriptor:
    service = descriptor_pool.Default().FindServiceByName(method.service)
    found: MethodDescriptor = service.FindMethodByName(method.name)
    return found


@pytest.fixture(params=METHODS.values(), ids=lambda method: method.path[1:])
def method(request: pytest.FixtureRequest) -> Method:
    found: Method = request.param
    return found


def test_a_stream_that_is_neither_a_probe_nor_a_list_counts_as_a_long_call(method: Method) -> None:
    descriptor = descriptor_of(method)
    if descriptor.client_streaming or descriptor.server_streaming:
        assert method.kind is not Kind.SHORT


def test_a_stream_of_http_bodies_breaks_off_when_it_fails(method: Method) -> None:
    descriptor = descriptor_of(method)
    is_body_stream = descriptor.server_streaming and descriptor.output_type.full_name == "google.api.HttpBody"
    assert (method.on_failure is OnFailure.BROKEN_MESSAGE) is is_body_stream
    # The broken message is sent as it is.
    assert method.sends_chunks or not is_body_stream


def test_a_stream_whose_messages_can_hold_an_error_ends_with_one(method: Method) -> None:
    descriptor = descriptor_of(method)
    error = descriptor.output_type.fields_by_name.get("error")
    has_error = (
        error is not None and error.message_type is not None and error.message_type.full_name == "google.rpc.Status"
    )
    assert (method.on_failure is OnFailure.ERROR_MESSAGE) is (descriptor.server_streaming and has_error)


def test_a_chunk_field_is_a_bytes_field_of_a_request_stream_with_a_tag_of_one_byte(method: Method) -> None:
    if method.chunk_field:
        descriptor = descriptor_of(method)
        field = descriptor.input_type.fields_by_name[method.chunk_field]
        assert descriptor.client_streaming
        assert field.type == FieldDescriptor.TYPE_BYTES
        assert field.number < 16


def test_callers_without_credentials_reach_only_what_costs_nothing(method: Method) -> None:
    assert (method.access is OpenTo.EVERYBODY) is (method.kind is Kind.PROBE)


def test_a_method_without_a_row_is_open_to_nobody() -> None:
    assert method_of("/modelregistry.v1.ModelService/Forgotten").access is OpenTo.NOBODY
