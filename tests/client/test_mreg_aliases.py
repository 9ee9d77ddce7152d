"""Promoting and rolling back with `mreg`."""

import pytest

from tests.client.mreg import Mreg
from tests.registry import RunningRegistry


@pytest.fixture
def ids(server: RunningRegistry, name: str) -> list[str]:
    """The ids of three versions of a model, the oldest first."""
    return [
        server.client.register(name=name, version=f"1.{number}", metrics={"f1": number / 2}).id for number in range(3)
    ]


def test_promote_moves_an_alias_and_rollback_moves_it_back(mreg: Mreg, name: str, ids: list[str]) -> None:
    assert mreg("promote", f"{name}:1.0", "production").out == f"{name}@production  nothing → 1.0\n"
    assert mreg("promote", f"{name}:1.1", f"{name}@production").out == f"{name}@production  1.0 → 1.1\n"
    assert mreg("promote", ids[1], "production").out == f"{name}@production points to 1.1 already\n"
    assert mreg("rollback", f"{name}@production", "--reason", "latency").out == f"{name}@production  1.1 → 1.0\n"
    assert mreg("rollback", f"{name}@production", "--to", f"{name}:1.1").out == f"{name}@production  1.0 → 1.1\n"
    assert mreg("rollback", f"{name}@production", "--format", "quiet").out == f"{ids[0]}\n"


def test_a_promotion_in_json_is_the_response_of_the_api(mreg: Mreg, name: str, ids: list[str]) -> None:
    mreg("promote", f"{name}:1.0", "production")
    promotion = mreg("promote", f"{name}:1.1", "production", "--require-verified", "--format", "json").json

    assert promotion["alias"]["model_id"] == ids[1]
    assert promotion["before"]["model_id"] == ids[0]
    assert promotion["changed"] is True
    assert [(check["requirement"], check["passed"]) for check in promotion["checks"]] == [("verified", True)]


def test_unmet_requirements_change_nothing(mreg: Mreg, name: str, ids: list[str]) -> None:
    mreg("promote", f"{name}:1.2", "production")
    arguments = ("promote", f"{name}:1.0", "production", "--min-metric", "f1=0.9", "--max-metric", "loss=1")

    planned, done = mreg(*arguments, "--dry-run"), mreg(*arguments)

    assert (planned.code, done.code) == (5, 5)
    assert planned.out.splitlines() == [
        f"{name}@production stays at 1.2: 1.0 does not meet the requirements",
        "  failed  metrics.f1  is 0; must be at least 0.9.",
        "  failed  metrics.loss  the model has no such metric; must be at most 1.",
    ]
    assert "metrics.loss" in done.err
    assert "Choose another model, or require less." in done.err
    assert mreg("show", f"{name}@production", "--format", "quiet").out == f"{ids[2]}\n"


def test_a_dry_run_says_what_would_move(mreg: Mreg, name: str, ids: list[str]) -> None:
    mreg("promote", f"{name}:1.0", "production")

    assert mreg("promote", f"{name}:1.1", "production", "--dry-run").out == f"Would move {name}@production  1.0 → 1.1\n"
    assert mreg("show", f"{name}@production", "--format", "quiet").out == f"{ids[0]}\n"


def test_an_unexpected_target_is_a_conflict(mreg: Mreg, name: str, ids: list[str]) -> None:
    assert mreg("promote", f"{name}:1.0", "production", "--expect", "").code == 0
    ended = mreg("promote", f"{name}:1.2", "production", "--expect", f"{name}:1.1")

    assert ended.code == 5
    assert ended.err.splitlines()[:2] == [
        f"mreg: {name}@production points to {name}:1.0, not to {name}:1.1.",
        f"Look at `mreg alias history {name}@production`, then decide whether to promote all the same.",
    ]
    unexpected = mreg("promote", f"{name}:1.2", "production", "--expect", "")
    assert f"{name}@production exists, and points to {name}:1.0." in unexpected.err
    assert mreg("promote", f"{name}:1.2", "production", "--expect", f"{name}:1.0").code == 0


def test_aliases_are_listed_deleted_and_remembered(mreg: Mreg, name: str, ids: list[str]) -> None:
    mreg("promote", f"{name}:1.0", "production", "--reason", "gate 42")
    mreg("promote", f"{name}:1.1", "production")

    (row,) = mreg("alias", "ls", name).rows
    assert (row[:2], row[3:]) == ([f"{name}@production", "1.1"], ["", "", ids[1]])
    assert row in mreg("alias", "ls").rows
    assert "pass --yes" in mreg("alias", "rm", f"{name}@production").err
    assert mreg("alias", "rm", f"{name}@production", "--yes").err == f"Deleted {name}@production.\n"
    assert mreg("alias", "rm", f"{name}@production", "--yes").code == 3
    assert mreg("alias", "rm", f"{name}@production", "--yes", "--missing-ok").code == 0

    assert [row[1:5] for row in mreg("alias", "history", f"{name}@production").rows] == [
        ["production", "deleted", "1.1", ""],
        ["production", "set", "1.0", "1.1"],
        ["production", "set", "", "1.0"],
    ]
    moves = mreg("alias", "history", name, "--format", "json").json["alias_moves"]
    assert [move["reason"] for move in moves] == ["", "", "gate 42"]


def test_a_reference_without_an_alias_is_refused(mreg: Mreg, name: str, ids: list[str]) -> None:
    for arguments in (("rollback", name), ("alias", "rm", f"{name}:1.0", "--yes")):
        ended = mreg(*arguments)
        assert ended.code == 2
        assert "names no alias" in ended.err


def test_a_new_alias_is_told_beside_the_others(mreg: Mreg, name: str, ids: list[str]) -> None:
    first = mreg("promote", f"{name}:1.0", "production")
    planned = mreg("promote", f"{name}:1.1", "Production", "--dry-run")
    slip = mreg("promote", f"{name}:1.1", "Production")
    moved = mreg("promote", f"{name}:1.1", "production")

    assert first.err == "Created the alias production.\n"
    assert planned.err == f"Would create the alias Production; {name} also has production.\n"
    assert slip.err == f"Created the alias Production; {name} also has production.\n"
    assert moved.err == ""
    assert mreg("promote", f"{name}:1.1", "canary", "--format", "json").err == ""


def test_hints_name_the_command_that_lists_what_there_is(mreg: Mreg, name: str, ids: list[str]) -> None:
    mreg("promote", f"{name}:1.0", "production")
    for arguments, code, hint in [
        (("show", f"{name}:9"), 3, f"`mreg versions {name}` lists the versions."),
        (("show", f"{name}:1.0", "--precision", "int4"), 3, f"`mreg versions {name}` lists the versions with their"),
        (("show", f"{name}@production", "--at", "2020-01-01"), 3, f"`mreg alias history {name}` shows when"),
        (("show", f"{name}@nosuch"), 3, f"`mreg alias ls {name}` lists the aliases."),
        (("rollback", f"{name}@production"), 5, "Name the target with `--to`"),
        (("rollback", f"{name}@production", "--to", f"{name}:1.2"), 5, "`mreg promote` points the alias to it."),
        (("edit", f"{name}:1.0", "--name", f"{name}-other"), 5, "Move or delete the aliases first"),
    ]:
        ended = mreg(*arguments)
        assert (ended.code, hint in ended.err) == (code, True), ended.err


def test_a_promotion_with_its_arguments_swapped_says_so(mreg: Mreg, name: str, ids: list[str]) -> None:
    for word in ("staging", f"{name}@staging"):
        ended = mreg("promote", word, f"{name}:1.0")
        assert ended.code == 2
        assert f"The model comes first, then the alias: mreg promote {name}:1.0 {word}" in ended.err
    ended = mreg("promote", f"{name}:1.0", "latest")
    assert (ended.code, "latest always means the latest version" in ended.err) == (2, True)
