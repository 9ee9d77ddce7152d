"""Promoting models and rolling back with the client."""

from typing import Any

import pytest
from modelreg import Bound, Conflict, InvalidArgument, NotFound, PreconditionFailed, Registry, Requirements

from tests.registry import RunningRegistry


@pytest.fixture
def versions(server: RunningRegistry, name: str) -> list[str]:
    """References of three versions of a model."""
    for number in range(3):
        server.client.register(name=name, version=f"{number}", metrics={"f1": number / 2})
    return [f"{name}:{number}" for number in range(3)]


def test_a_promotion_moves_the_alias_and_tells_what_was_before(
    registry: Registry, name: str, versions: list[str]
) -> None:
    first = registry.promote(f"{name}@production", versions[0], reason="first")
    second = registry.promote("production", registry.model(versions[1]), expect=versions[0])

    assert (first.before, first.alias.version, first.alias.reason) == (None, "0", "first")
    assert second.before is not None
    assert (second.before.version, second.alias.version) == ("0", "1")
    assert registry.model(f"{name}@production").version == "1"
    assert not registry.promote(f"{name}@production", versions[1]).changed


def test_each_rollback_goes_further_back(registry: Registry, name: str, versions: list[str]) -> None:
    for version in versions:
        registry.promote(f"{name}@production", version)

    assert registry.rollback(f"{name}@production", reason="latency").alias.version == "1"
    assert registry.rollback(f"{name}@production").alias.version == "0"
    with pytest.raises(PreconditionFailed):
        registry.rollback(f"{name}@production")
    assert registry.rollback(f"{name}@production", to=versions[2]).alias.version == "2"
    assert [move.kind for move in registry.history(f"{name}@production")] == ["rolled_back"] * 3 + ["set"] * 3


def test_requirements_that_are_not_met_are_named(registry: Registry, name: str, versions: list[str]) -> None:
    required = Requirements(verified=True, metrics={"f1": Bound(min=0.9)})

    with pytest.raises(PreconditionFailed) as caught:
        registry.promote(f"{name}@production", versions[0], require=required)
    planned = registry.promote(f"{name}@production", versions[0], require=required, validate_only=True)

    assert [check.field for check in caught.value.checks] == ["metrics.f1"]
    assert [(check.requirement, check.passed) for check in planned.checks] == [
        ("verified", True),
        ("metrics.f1", False),
    ]
    assert registry.promote(f"{name}@production", versions[2], require=required).changed


def test_an_unexpected_target_is_a_conflict(registry: Registry, name: str, versions: list[str]) -> None:
    registry.promote(f"{name}@production", versions[0])

    with pytest.raises(Conflict):
        registry.promote(f"{name}@production", versions[2], expect=versions[1])
    with pytest.raises(Conflict):
        registry.promote(f"{name}@production", versions[2], expect="")


def test_an_alias_belongs_to_the_group_of_its_model(registry: Registry, name: str, versions: list[str]) -> None:
    with pytest.raises(InvalidArgument, match="is an alias of other"):
        registry.promote("other@production", versions[0])
    with pytest.raises(InvalidArgument, match="names no alias"):
        registry.rollback(name)
    with pytest.raises(InvalidArgument, match="names a version"):
        registry.history(f"{name}:0")


def test_nothing_can_be_called_latest(registry: Registry, name: str, versions: list[str]) -> None:
    for word in ("latest", "Latest", f"{name}@latest", f"{name}@LATEST"):
        with pytest.raises(InvalidArgument, match=f"^alias: {word} cannot be set or moved: latest always means"):
            registry.promote(word, versions[0])
    for call in (registry.rollback, registry.alias, registry.history, registry.delete_alias):
        with pytest.raises(InvalidArgument, match="cannot be set or moved: latest always means the latest version"):
            call(f"{name}@latest")


def test_a_promotion_with_its_arguments_swapped_says_so(registry: Registry, name: str, versions: list[str]) -> None:
    for word in ("production", f"{name}@production"):
        for model in (versions[0], registry.model(versions[0])):
            with pytest.raises(InvalidArgument) as caught:
                registry.promote(model, word)  # type: ignore[arg-type]
            assert caught.value.hint.endswith(f'promote("{word}", "{versions[0]}").')


@pytest.mark.parametrize("word", ["", "two words", "-a", "a/b", "a" * 129])
def test_a_word_that_can_be_no_alias_is_refused_with_the_rule(
    registry: Registry, versions: list[str], word: str
) -> None:
    with pytest.raises(InvalidArgument, match=r"is no alias\. An alias has 1 to 128 characters"):
        registry.promote(word, versions[0])


@pytest.mark.parametrize(
    ("require", "message"),
    [
        ({"verified": True}, r"require: must be a Requirements, not dict\. Write Requirements\(verified=True\)"),
        (Requirements(metrics={"auc": 0.9}), r"require\.metrics\.auc: must be a Bound, not float\. Write Bound\("),  # type: ignore[dict-item]
        (Requirements(metrics={"auc": Bound(min="0.9")}), r"require\.metrics\.auc\.min: must be a number"),  # type: ignore[arg-type]
        (Requirements(max_verification_age=60), r"require\.max_verification_age: must be a timedelta"),  # type: ignore[arg-type]
    ],
)
def test_requirements_of_another_type_are_refused(
    registry: Registry, name: str, versions: list[str], require: Any, message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        registry.promote("production", versions[0], require=require)
    assert list(registry.aliases(name)) == []


def test_aliases_are_listed_and_deleted(registry: Registry, name: str, versions: list[str]) -> None:
    registry.promote(f"{name}@production", versions[0])
    registry.promote(f"{name}@canary", versions[1])

    registry.delete_alias(f"{name}@canary")

    assert [alias.alias for alias in registry.aliases(name)] == ["production"]
    assert [move.alias for move in registry.history(name)] == ["canary", "canary", "production"]
    with pytest.raises(NotFound):
        registry.delete_alias(f"{name}@canary")
    registry.delete_alias(f"{name}@canary", missing_ok=True)
