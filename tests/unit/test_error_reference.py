"""Every reason of an error is a value of ErrorReason. docs/reference/errors.md gives its status code and metadata."""

import ast
import importlib.resources
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc  # type: ignore[import-untyped]
from modelregistry.v1.error_reason_pb2 import ErrorReason

import registry_service
from docs.generators.errors import PREFIX, Reason, document, reasons
from registry_service.domain.errors import FieldViolation, RegistryError
from registry_service.embedded.envoy_config import LOCAL_REPLIES
from registry_service.transport.grpc.errors import status_code

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Reason]:
    """The reasons by name, as the comments of the enum tell them."""
    descriptors = tmp_path_factory.mktemp("protos") / "commented.binpb"
    arguments = [f"--descriptor_set_out={descriptors}", "--include_source_info", "modelregistry/v1/error_reason.proto"]
    includes = [ROOT / "protos", importlib.resources.files("grpc_tools") / "_proto"]
    assert protoc.main(["protoc", *(f"-I{folder}" for folder in includes), *arguments]) == 0
    return {reason.name: reason for reason in reasons(FileDescriptorSet.FromString(descriptors.read_bytes()))}


@pytest.fixture(scope="module")
def of_servers(documented: Mapping[str, Reason]) -> Mapping[str, Reason]:
    return {name: reason for name, reason in documented.items() if not reason.is_of_gateway}


def errors(base: type[RegistryError] = RegistryError) -> Iterator[type[RegistryError]]:
    """Every class of errors."""
    for error in base.__subclasses__():
        yield error
        yield from errors(error)


def example(error: type[RegistryError]) -> RegistryError:
    """An error of a class, made of arguments that fit."""
    arguments: list[object] = []
    named: dict[str, object] = {}
    for parameter in list(inspect.signature(error).parameters.values()):
        annotation = str(parameter.annotation)
        value: object = "text"
        if "FieldViolation" in annotation:
            value = [FieldViolation("field", "is wrong.")]
        elif "Mapping" in annotation:
            value = {"one": "two"}
        elif "Sequence" in annotation:
            value = ["one", "two"]
        elif "int" in annotation or "float" in annotation:
            value = 1
        if parameter.kind is parameter.KEYWORD_ONLY:
            named[parameter.name] = value
        elif parameter.kind is not parameter.VAR_KEYWORD:
            arguments.append(value)
    return error(*arguments, **named)  # type: ignore[arg-type]


def test_the_document_is_what_the_enum_says(documented: Mapping[str, Reason]) -> None:
    text = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    assert text == document(list(documented.values())), "run `make generate`"


def test_the_enum_has_every_reason_and_no_other(of_servers: Mapping[str, Reason]) -> None:
    assert of_servers.keys() == {error.reason for error in errors()}
    assert {f"{PREFIX}{error.reason}" for error in errors()} <= set(ErrorReason.keys())


def test_meaning_and_action_are_sentences(documented: Mapping[str, Reason]) -> None:
    assert not [reason for reason in documented.values() if not reason.meaning.endswith(".")]
    assert not [reason for reason in documented.values() if not reason.action.endswith(".")]


@pytest.mark.parametrize("error", list(errors()), ids=lambda error: error.reason)
def test_a_reason_has_the_code_and_the_metadata_that_its_errors_have(
    of_servers: Mapping[str, Reason], error: type[RegistryError]
) -> None:
    told = of_servers[error.reason]
    made = example(error)
    assert told.status == status_code(made).name
    assert set(told.metadata) >= made.metadata.keys()
    if "__init__" in vars(error):
        # Others are given theirs where they are raised; see below. Two errors may share a reason.
        same = [example(other) for other in errors() if other.reason == error.reason]
        assert set(told.metadata) == set().union(*(other.metadata for other in same))


@pytest.mark.parametrize("error", list(errors()), ids=lambda error: error.reason)
def test_a_reason_tells_to_wait_where_its_errors_tell_for_how_long(
    of_servers: Mapping[str, Reason], error: type[RegistryError]
) -> None:
    assert ("`google.rpc.RetryInfo`" in of_servers[error.reason].action) == (example(error).retry_seconds is not None)


def raised_metadata() -> set[tuple[str, str]]:
    """Reason and metadata of errors that are given theirs where they are raised."""
    names = {error.__name__: error.reason for error in errors() if "__init__" not in vars(error)}
    return {
        (names[call.func.id], keyword.arg)
        for file in Path(registry_service.__path__[0]).rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in names
        for keyword in call.keywords
        if keyword.arg is not None
    }


def test_metadata_is_documented_where_it_is_given_as_an_error_is_raised(of_servers: Mapping[str, Reason]) -> None:
    raised = raised_metadata()
    assert ("OUT_OF_RANGE", "write_offset") in raised
    assert not {(reason, name) for reason, name in raised if name not in of_servers[reason].metadata}


def test_the_enum_has_every_reason_of_the_gateway_and_no_other(documented: Mapping[str, Reason]) -> None:
    names = {code.value[0]: code.name for code in grpc.StatusCode}
    replies = {reason: (names[code], retry is not None) for _, _, code, reason, retry in LOCAL_REPLIES}
    # The guard judges credentials as a server does.
    assert replies.pop("UNAUTHENTICATED") == ("UNAUTHENTICATED", False)
    assert replies == {
        name: (reason.status, "`google.rpc.RetryInfo`" in reason.action)
        for name, reason in documented.items()
        if reason.is_of_gateway
    }
    statuses = {(status, reason) for status, _, _, reason, _ in LOCAL_REPLIES}
    assert statuses >= {(reason.http_status, name) for name, reason in documented.items() if reason.is_of_gateway}
