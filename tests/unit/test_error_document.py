"""docs/errors.md names every reason that an error can have, with its code, HTTP status and metadata."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

import registry_service
from registry_service.domain.errors import FieldViolation, RegistryError
from registry_service.embedded.envoy import LOCAL_REPLIES
from registry_service.transport.grpc.errors import status_code

DOCUMENT = (Path(__file__).parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")
SERVER, GATEWAY = DOCUMENT.split("\n## Errors of the gateway\n")
# How Envoy translates codes (google/rpc/code.proto).
HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "INTERNAL": 500,
    "DATA_LOSS": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


def rows(text: str) -> Iterator[list[str]]:
    """The cells of each row of a table."""
    for line in re.findall(r"^\| `.*\|$", text, re.MULTILINE):
        yield [cell.strip() for cell in line.strip("|").split("|")]


def documented() -> dict[str, tuple[str, set[str]]]:
    """By reason the code and the metadata that the document tells."""
    found: dict[str, tuple[str, set[str]]] = {}
    for section in SERVER.split("\n## ")[1:]:
        heading = re.match(r"([A-Z_]+) \((\d+)\)\n", section)
        assert heading is not None, section[:80]
        assert HTTP_STATUS[heading[1]] == int(heading[2])
        for reason, metadata, meaning, advice in rows(section):
            assert reason not in found
            assert meaning.endswith(".")
            assert advice.endswith(".")
            found[reason.strip("`")] = heading[1], set(re.findall(r"`(\w+)`", metadata))
    return found


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
        elif "Sequence" in annotation:
            value = ["one", "two"]
        elif "int" in annotation or "float" in annotation:
            value = 1
        if parameter.kind is parameter.KEYWORD_ONLY:
            named[parameter.name] = value
        elif parameter.kind is not parameter.VAR_KEYWORD:
            arguments.append(value)
    return error(*arguments, **named)  # type: ignore[arg-type]


def test_every_reason_is_documented_and_no_other() -> None:
    assert documented().keys() == {error.reason for error in errors()}


@pytest.mark.parametrize("error", list(errors()), ids=lambda error: error.reason)
def test_a_reason_has_the_code_and_the_metadata_that_its_errors_have(error: type[RegistryError]) -> None:
    code, metadata = documented()[error.reason]
    made = example(error)
    assert code == status_code(made).name
    assert metadata >= made.metadata.keys()
    if "__init__" in vars(error):
        # Others are given theirs where they are raised; see below.
        assert metadata == made.metadata.keys()


def raised_metadata() -> set[tuple[str, str]]:
    """Reason and metadata of errors that are given theirs where they are raised."""
    reasons = {error.__name__: error.reason for error in errors() if "__init__" not in vars(error)}
    return {
        (reasons[call.func.id], keyword.arg)
        for file in Path(registry_service.__path__[0]).rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in reasons
        for keyword in call.keywords
        if keyword.arg is not None
    }


def test_metadata_is_documented_where_it_is_given_as_an_error_is_raised() -> None:
    raised = raised_metadata()
    assert ("OUT_OF_RANGE", "write_offset") in raised
    assert not {(reason, name) for reason, name in raised if name not in documented()[reason][1]}


def test_every_reason_of_the_gateway_is_documented_and_no_other() -> None:
    told = {(reason.strip("`"), code, int(status)) for reason, code, status, _, _ in rows(GATEWAY)}
    names = {code.value[0]: code.name for code in grpc.StatusCode}
    assert told == {(reason, names[code], status) for status, _, code, reason in LOCAL_REPLIES}
