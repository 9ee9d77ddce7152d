"""References, with the vectors that the server and every other implementation are tested with."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelreg import InvalidArgument
from modelreg.references import MAX_CHARACTERS, Reference, confusion, format_reference, parse_reference

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors/references.json").read_text())


@pytest.mark.parametrize("vector", VECTORS["valid"], ids=lambda vector: vector["reference"][:60])
def test_a_reference_is_parsed(vector: dict[str, str]) -> None:
    parts = {name: text for name, text in vector.items() if name not in ("reference", "canonical", "comment")}
    assert parse_reference(vector["reference"]) == Reference(**parts)


@pytest.mark.parametrize("vector", VECTORS["invalid"], ids=lambda vector: repr(vector["reference"][:60]))
def test_a_wrong_reference_names_the_position(vector: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as raised:
        parse_reference(vector["reference"])
    assert raised.value.position == vector["position"]
    assert raised.value.reason == "INVALID_REFERENCE"


def test_a_long_reference_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=f"at most {MAX_CHARACTERS} characters"):
        parse_reference("a" * (MAX_CHARACTERS + 1))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("vad:3", "the model will be vad%3A3:1. For the model vad:3, pass name='vad', version='3'."),
        (
            "acme/vad",
            "will be acme%2Fvad:1. For the model acme/vad:1, pass name='vad', version='1', project_id='acme'.",
        ),
        ("vad@production", "For the model vad:1, pass name='vad', version='1'. Then promote it to production."),
    ],
)
def test_a_name_that_looks_like_a_reference_is_told(name: str, meant: str) -> None:
    assert confusion(name, "1").startswith(f"The name {name!r} is not a reference: ")
    assert confusion(name, "1").endswith(meant)


@pytest.mark.parametrize("name", ["vad", "vad 3: large", "50%", "vad:", "a:b:c", "model-0123456789abcdef"])
def test_a_name_that_is_no_reference_with_a_version_is_clear(name: str) -> None:
    assert confusion(name, "1:0") == ""


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(name=texts, project=st.none() | st.just("") | texts, version=st.none() | texts)
def test_a_formatted_reference_is_parsed_to_its_parts(name: str, project: str | None, version: str | None) -> None:
    parsed = parse_reference(format_reference(name, project=project, version=version))
    assert (parsed.name, parsed.project, parsed.version, parsed.alias) == (name, project, version, None)


@given(st.text())
def test_no_text_does_anything_but_raise_invalid_argument(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidArgument:
        return
    formatted = format_reference(
        reference.name, project=reference.project, version=reference.version, alias=reference.alias
    )
    assert parse_reference(formatted) == reference or reference.model_id is None
