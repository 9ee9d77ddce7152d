"""Model groups through the client."""

import asyncio

import modelreg
import pytest
from modelreg import (
    Ambiguous,
    Conflict,
    InvalidArgument,
    ModelGroup,
    NotFound,
    PreconditionFailed,
    Registry,
)

from tests.registry import RunningRegistry


def test_a_name_finds_its_group(registry: Registry, server: RunningRegistry) -> None:
    model = server.client.register(name="found", version="1.0")
    group = registry.group("found")
    assert (group.id, group.version_count, group.latest_version) == (model.model_group_id, 1, "1.0")
    assert registry.group(group.id) == group
    assert registry.group(f"{group.id}/found") == group
    assert registry.group("/found") == group


def test_a_name_is_no_pattern(registry: Registry, server: RunningRegistry) -> None:
    server.client.register(name="pattern-1")
    odd = server.client.register(name='pattern-*"\\')
    assert registry.group('pattern-*"\\').id == odd.model_group_id
    with pytest.raises(NotFound, match=r"pattern-\*"):
        registry.group("pattern-*")


def test_a_group_of_deleted_models_is_still_found(registry: Registry, server: RunningRegistry) -> None:
    model = server.client.register(name="emptied")
    registry.promote("emptied@production", "emptied")
    registry.delete_alias("emptied@production")
    registry.delete("emptied")
    assert registry.group("emptied").id == model.model_group_id
    assert registry.versions("emptied").to_list() == []
    assert [move.kind for move in registry.history("emptied")] == ["deleted", "set"]


def test_a_name_in_several_projects_is_ambiguous(registry: Registry, server: RunningRegistry) -> None:
    made = [
        server.client.register(name="twice", project_id="acme"),
        server.client.register(name="twice", project_name="acme"),
        server.client.register(name="twice"),
    ]
    with pytest.raises(Ambiguous) as raised:
        registry.group("twice")
    assert {registry.group(candidate).id for candidate in raised.value.candidates} == {m.model_group_id for m in made}
    # The id of a project precedes the name of another one, as on the server.
    assert registry.group("acme/twice").id == registry.model("acme/twice").model_group_id == made[0].model_group_id
    assert registry.group("/twice").id == made[2].model_group_id
    with pytest.raises(NotFound) as missing:
        registry.group("other/twice")
    assert missing.value.reason == "MODEL_GROUP_NOT_FOUND"


@pytest.mark.parametrize("text", ["vad:1", "vad@production"])
def test_a_version_is_no_group(registry: Registry, text: str) -> None:
    with pytest.raises(InvalidArgument, match="Write vad for its model group"):
        registry.group(text)


def test_fields_change_and_maps_are_merged(registry: Registry, server: RunningRegistry) -> None:
    server.client.register(name="described")
    first = registry.update_group(
        "described", description="*new*", owner="audio", tags={"a": "1", "b,c": "2"}, metric_goals={"f1": "maximize"}
    )
    assert (first.description, first.owner, first.tags) == ("*new*", "audio", {"a": "1", "b,c": "2"})
    second = registry.update_group(
        first, owner="", tags={"a": None, "d": "3"}, metric_goals={"f1": None, "ms": "minimize"}
    )
    assert (second.owner, second.tags, second.metric_goals) == ("", {"b,c": "2", "d": "3"}, {"ms": "minimize"})
    assert registry.group("described") == second == registry.update_group(second)


def test_an_old_state_is_not_overwritten(registry: Registry, server: RunningRegistry) -> None:
    server.client.register(name="raced")
    before = registry.group("raced")
    registry.update_group(before, owner="first")
    with pytest.raises(Conflict):
        registry.update_group(before, owner="second")
    with pytest.raises(Conflict):
        registry.delete_group(before)


def test_wrong_values_are_named(registry: Registry, server: RunningRegistry) -> None:
    server.client.register(name="wrong")
    with pytest.raises(InvalidArgument, match=r"metric_goals\.f1: 'higher' is neither"):
        registry.update_group("wrong", metric_goals={"f1": "higher"})  # type: ignore[dict-item]
    with pytest.raises(InvalidArgument, match="owner: must be a text, not int"):
        registry.update_group("wrong", owner=5)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match=r"tags.*: must be a"):
        registry.update_group("wrong", tags={"a": 1})  # type: ignore[dict-item]


def test_only_an_empty_group_is_deleted(registry: Registry, server: RunningRegistry) -> None:
    server.client.register(name="unwanted")
    with pytest.raises(PreconditionFailed):
        registry.delete_group("unwanted")
    registry.delete("unwanted")
    registry.delete_group("unwanted")
    with pytest.raises(NotFound):
        registry.delete_group("unwanted")
    registry.delete_group("unwanted", missing_ok=True)
    with pytest.raises(NotFound):
        registry.group("unwanted")


def test_groups_are_listed(registry: Registry, server: RunningRegistry) -> None:
    for name in ("listed-b", "listed-a"):
        server.client.register(name=name)
    registry.delete("listed-a")
    assert [group.name for group in registry.groups('name = "listed-*"', order_by="name")] == ["listed-b"]
    listed = registry.groups('name = "listed-*"', order_by="name", show_empty=True)
    assert [group.name for group in listed] == ["listed-a", "listed-b"]


def test_the_asynchronous_calls_do_the_same(server: RunningRegistry, url: str) -> None:
    server.client.register(name="awaited")

    async def use() -> ModelGroup:
        async with modelreg.aio.Registry(url) as registry:
            await registry.update_group("awaited", owner="audio")
            (group,) = [found async for found in registry.groups("name = awaited")]
            return group

    assert asyncio.run(use()).owner == "audio"
