"""The errors of calls: the class, the reason, the details and the hint of each."""

import pickle
import re
from pathlib import Path
from typing import Any

import grpc
import modelreg
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from modelreg import (
    AlreadyExists,
    Ambiguous,
    Conflict,
    ConnectionFailed,
    DeadlineExceeded,
    IntegrityError,
    InternalError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    RateLimited,
    Registry,
    RegistryError,
    SourceChanged,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from modelreg._wire.rpc_errors import _HINTS, _KINDS_BY_REASON, failure_of_status, registry_error
from modelreg.cli._failures import _HINTS_BY_REASON
from modelreg.urls import parse_url
from modelregistry.v1 import error_reason_pb2

from tests.client.fake_server import refusal
from tests.registry import RunningRegistry

ENDPOINT = parse_url("grpc://127.0.0.1:50051")
CLASSES: dict[type[RegistryError], str] = {
    AlreadyExists: "MODEL_ALREADY_EXISTS MODELS_REGISTERED TOKEN_EXISTS",
    Ambiguous: "AMBIGUOUS_REFERENCE",
    Conflict: "ABORTED ETAG_MISMATCH ALIAS_CHANGED WRITER_DISPLACED LEASE_LOST IDEMPOTENT_CALL_RUNNING",
    DeadlineExceeded: "DEADLINE_EXCEEDED QUERY_TOO_SLOW GATEWAY_REQUEST_TIMEOUT GATEWAY_SERVER_TIMEOUT",
    IntegrityError: "DATA_LOSS ARTIFACT_DAMAGED ARTIFACT_LOST",
    InternalError: "INTERNAL GATEWAY_INTERNAL",
    InvalidArgument: "INVALID_ARGUMENT INVALID_FILTER INVALID_ARTIFACT PROVENANCE_CYCLE ANCESTRY_TOO_LARGE"
    " INVALID_REFERENCE OUT_OF_RANGE RANGE_NOT_SATISFIABLE ARTIFACT_TOO_LARGE GATEWAY_INVALID_REQUEST"
    " GATEWAY_UNSUPPORTED_MEDIA_TYPE GATEWAY_HEADERS_TOO_LARGE GATEWAY_BODY_TOO_LARGE",
    NotFound: "NOT_FOUND MODEL_NOT_FOUND UPLOAD_NOT_FOUND ARTIFACT_FILE_NOT_FOUND ALIAS_NOT_FOUND"
    " GETI_PROJECT_NOT_FOUND GETI_MODEL_NOT_FOUND TOKEN_NOT_FOUND MODEL_GROUP_NOT_FOUND REFERENCE_NOT_FOUND"
    " GATEWAY_PATH_NOT_FOUND",
    PermissionDenied: "PERMISSION_DENIED ACCESS_DENIED ROLE_MISSING PROJECT_DENIED GETI_DENIED GATEWAY_FORBIDDEN"
    " GATEWAY_MISDIRECTED_REQUEST",
    PreconditionFailed: "FAILED_PRECONDITION UPLOAD_NOT_ACTIVE NOT_AN_ARCHIVE MODEL_IN_USE NO_PREVIOUS_TARGET"
    " NEVER_A_TARGET TARGET_GONE REQUIREMENTS_NOT_MET GETI_NOT_CONFIGURED GETI_REFUSED GETI_DEPLOYMENT_FAILED"
    " MODEL_HAS_ALIASES MODEL_NOT_IN_GROUP MODEL_GROUP_NOT_EMPTY PRECISION_MISMATCH IDEMPOTENCY_KEY_REUSED"
    " GATEWAY_UPGRADE_REQUIRED",
    RateLimited: "RESOURCE_EXHAUSTED STORAGE_FULL TOO_MANY_CALLS TOO_MANY_STREAMS TOO_MANY_IDEMPOTENCY_KEYS"
    " GATEWAY_TOO_MANY_REQUESTS",
    SourceChanged: "ARTIFACT_MISMATCH",
    Unauthenticated: "UNAUTHENTICATED INVALID_CREDENTIALS",
    Unavailable: "CANCELLED UNAVAILABLE DATABASE_UNAVAILABLE DATABASE_BUSY ARTIFACT_STORE_UNAVAILABLE"
    " TOO_MANY_OPEN_FILES IDENTITY_PROVIDER_UNAVAILABLE GETI_UNAVAILABLE SERVER_STOPPING GATEWAY_SERVER_UNAVAILABLE",
    Unsupported: "GATEWAY_METHOD_NOT_ALLOWED",
}
EXPECTED = {reason: kind for kind, reasons in CLASSES.items() for reason in reasons.split()}
PROTO = (Path(__file__).parents[2] / "protos/modelregistry/v1/error_reason.proto").read_text()
PUBLIC = [getattr(modelreg, name) for name in modelreg.__all__]
ERRORS = [kind for kind in PUBLIC if isinstance(kind, type) and issubclass(kind, RegistryError)]
STATUS_OF = {
    reason: re.findall(r"// Status: (\w+)", comment)[-1]
    for comment, reason in re.findall(r"((?:  //[^\n]*\n)+)  ERROR_REASON_(\w+) = [1-9]", PROTO)
}


def error_of(status: Status) -> RegistryError:
    return registry_error(failure_of_status(status), ENDPOINT)


def test_every_reason_of_the_api_has_a_class() -> None:
    reasons = {
        name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name
    } - {"UNSPECIFIED"}
    assert set(STATUS_OF) == reasons
    # Those of servers that come later may be known already.
    assert reasons - set(EXPECTED) == set()
    assert set(EXPECTED) - reasons <= set(_KINDS_BY_REASON)


@pytest.mark.parametrize("reason", STATUS_OF)
def test_a_reason_raises_its_class(reason: str) -> None:
    code = grpc.StatusCode[STATUS_OF[reason]]
    error = error_of(refusal(code, reason, "What is wrong", metadata={"model_id": "7"}))
    assert type(error) is EXPECTED[reason]
    assert (error.reason, error.request_id, error.metadata) == (reason, "request-1", {"model_id": "7"})
    assert str(error).startswith("What is wrong.")


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_an_unknown_reason_raises_the_class_of_its_status(code: grpc.StatusCode) -> None:
    known = error_of(refusal(code, "OF_A_NEWER_SERVER"))
    assert isinstance(known, RegistryError)
    assert known.reason == "OF_A_NEWER_SERVER"
    assert isinstance(error_of(refusal(code)), type(known))


def test_errors_of_the_network_are_no_errors_of_files() -> None:
    assert {kind for kind in ERRORS if issubclass(kind, OSError)} == {DeadlineExceeded, modelreg.NotCached}
    bases = {
        NotFound: LookupError,
        InvalidArgument: ValueError,
        DeadlineExceeded: TimeoutError,
        Unsupported: NotImplementedError,
        modelreg.NotCached: FileNotFoundError,
    }
    assert all(issubclass(kind, base) for kind, base in bases.items())


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_pickle_with_all_they_carry(kind: type[RegistryError]) -> None:
    error = kind("What is wrong.", reason="REASON", request_id="request-1", metadata={"a": "b"})
    if isinstance(error, Ambiguous):
        error.candidates = ("acme/vad",)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error) == "What is wrong."
    assert vars(copy) == vars(error)


def test_violations_and_position_are_kept() -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(field="filter", description="operator = has no value")
    details = [error_details_pb2.BadRequest(field_violations=[violation])]
    error = error_of(
        refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FILTER", metadata={"position": "8"}, details=details)
    )
    assert isinstance(error, InvalidArgument)
    assert error.position == 8
    assert [(found.field, found.description) for found in error.violations] == [("filter", "operator = has no value")]


def test_details_that_are_damaged_do_no_harm() -> None:
    status = refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FILTER", metadata={"position": "-8"})
    for name in ("ErrorInfo", "BadRequest", "RequestInfo", "RetryInfo", "ResourceInfo"):
        status.details.insert(0, AnyMessage(type_url=f"type.googleapis.com/google.rpc.{name}", value=b"\xff"))
    status.details.append(AnyMessage(type_url="type.googleapis.com/google.rpc.Newer", value=b"x"))
    error = error_of(status)
    assert isinstance(error, InvalidArgument)
    assert (error.reason, error.position) == ("INVALID_FILTER", None)


def test_the_candidates_of_an_ambiguous_reference_are_references(
    server: RunningRegistry, registry: Registry, name: str
) -> None:
    made = {
        server.client.register(name=name, project_id="acme").id,
        server.client.register(name=name, project_name="acme").id,
        server.client.register(name=name).id,
    }
    with pytest.raises(Ambiguous) as raised:
        registry.model(name)
    assert {registry.model(candidate).id for candidate in raised.value.candidates} == made


def test_unmet_requirements_are_named(server: RunningRegistry, registry: Registry, name: str) -> None:
    server.client.register(name=name, metrics={"f1": 0.5})
    with pytest.raises(PreconditionFailed) as raised:
        registry.promote(
            f"{name}@production", name, require=modelreg.Requirements(metrics={"f1": modelreg.Bound(min=0.9)})
        )
    (check,) = raised.value.checks
    assert "f1" in check.field
    assert "0.5" in check.description


@pytest.mark.parametrize("reason", sorted(_HINTS))
def test_an_error_says_what_to_do_next(reason: str) -> None:
    code = grpc.StatusCode[STATUS_OF[reason]]
    assert _HINTS[reason] in str(error_of(refusal(code, reason, "What is wrong")))


@pytest.mark.parametrize("reason", sorted(_HINTS_BY_REASON.keys() - _HINTS.keys()))
def test_mreg_and_the_library_have_hints_for_the_same_reasons(reason: str) -> None:
    code = grpc.StatusCode[STATUS_OF[reason]]
    assert error_of(refusal(code, reason, metadata={"reference": "vda", "part": "name"})).hint


@pytest.mark.parametrize(
    ("metadata", "hint"),
    [
        ({"reference": "acme/vad:9", "part": "version"}, "`versions('acme/vad')` of the registry lists the versions."),
        ({"reference": "vad@prod", "part": "alias"}, "`aliases('vad')` of the registry lists the aliases, "),
        ({"reference": "vda", "part": "name"}, "`groups()` of the registry lists the names that you may see."),
        ({"part": "name"}, ""),
    ],
)
def test_a_reference_that_names_nothing_says_what_lists_the_names(metadata: dict[str, str], hint: str) -> None:
    error = error_of(refusal(grpc.StatusCode.NOT_FOUND, "REFERENCE_NOT_FOUND", metadata=metadata))
    assert error.hint.startswith(hint)
    assert bool(error.hint) == bool(hint)


def test_no_server_is_a_connection_that_failed() -> None:
    status: Any = refusal(grpc.StatusCode.UNAVAILABLE, message="failed to connect to all addresses")
    error = error_of(status)
    assert type(error) is ConnectionFailed
    assert "grpc://127.0.0.1:50051" in str(error)
    assert "Check that the registry runs" in str(error)
