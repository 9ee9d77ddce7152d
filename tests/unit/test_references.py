"""References are parsed as the grammar says, and what is none is refused with its position."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_service.domain.errors import InvalidReferenceError
from registry_service.domain.references import LATEST, MAX_CHARACTERS, Reference, format_reference, parse_reference

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "references.json").read_text())
PART = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
NAME = PART.filter(bool)
ALIAS = st.from_regex("[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True).filter(lambda name: name.lower() != LATEST)


class TestParsing:
    @pytest.mark.parametrize("vector", VECTORS["valid"], ids=lambda vector: vector["reference"])
    def test_a_reference_is_taken_apart(self, vector: dict[str, str]) -> None:
        expected = {name: value for name, value in vector.items() if name != "reference"}
        assert parse_reference(vector["reference"]) == Reference(**expected)

    @pytest.mark.parametrize("vector", VECTORS["invalid"], ids=lambda vector: repr(vector["reference"]))
    def test_what_is_none_is_refused_with_its_position(self, vector: dict[str, Any]) -> None:
        with pytest.raises(
            InvalidReferenceError, match=rf"^reference: .* \(position {vector['position']}\)\.$"
        ) as refused:
            parse_reference(vector["reference"])
        assert refused.value.metadata["position"] == str(vector["position"])

    def test_a_space_brings_the_hint_that_a_plus_was_meant(self) -> None:
        with pytest.raises(InvalidReferenceError, match="%2B is a \\+"):
            parse_reference("vad:1.0 cu118")

    @given(st.text(st.characters(), max_size=30) | st.text("/:@%0aF é\ud800", max_size=12))
    def test_any_text_is_parsed_or_refused_at_a_place_of_it(self, text: str) -> None:
        try:
            reference = parse_reference(text)
        except InvalidReferenceError as error:
            position = int(error.metadata["position"])
        else:
            assert reference.name
            return
        assert 1 <= position <= len(text) + 1

    def test_the_longest_reference_is_parsed_and_a_longer_one_is_not(self) -> None:
        longest = "a" * MAX_CHARACTERS
        assert parse_reference(longest) == Reference(name=longest)
        with pytest.raises(InvalidReferenceError) as refused:
            parse_reference(longest + "a")
        assert refused.value.metadata["position"] == str(MAX_CHARACTERS + 1)

    def test_half_a_surrogate_pair_is_refused(self) -> None:
        with pytest.raises(InvalidReferenceError, match="position 2"):
            parse_reference("a\ud800")


class TestFormatting:
    @given(NAME, st.none() | PART, st.none() | NAME)
    def test_a_version_comes_back(self, name: str, project: str | None, version: str | None) -> None:
        parsed = parse_reference(format_reference(name, project=project, version=version))
        assert (parsed.name, parsed.project, parsed.version, parsed.alias) == (name, project, version, None)

    @given(NAME, st.none() | PART, ALIAS)
    def test_an_alias_comes_back(self, name: str, project: str | None, alias: str) -> None:
        expected = Reference(name=name, project=project, alias=alias)
        assert parse_reference(format_reference(name, project=project, alias=alias)) == expected

    @given(NAME, st.none() | PART)
    def test_the_latest_version_is_never_taken_for_a_model_id(self, name: str, project: str | None) -> None:
        reference = format_reference(name, project=project, alias=LATEST)
        assert parse_reference(reference) == Reference(name=name, project=project)

    @pytest.mark.parametrize(
        ("reference", "parts"),
        [
            ("acme/vad:1.0+cu118", {"project": "acme", "name": "vad", "version": "1.0+cu118"}),
            ("/a%20b@production", {"project": "", "name": "a b", "alias": "production"}),
            ("a%2Fb/c%3Ad%40e%25", {"project": "a/b", "name": "c:d@e%"}),
            ("Zürich/猫", {"project": "Zürich", "name": "猫"}),
        ],
    )
    def test_only_what_must_be_is_encoded(self, reference: str, parts: dict[str, str]) -> None:
        assert format_reference(**parts) == reference
