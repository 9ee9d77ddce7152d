"""Finding, changing, comparing and deleting models with the client."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import modelreg
import pytest
from modelreg import Ambiguous, Conflict, Dataset, InvalidArgument, NotFound, PreconditionFailed, Provenance, Registry

from tests.registry import RunningRegistry


def test_a_model_is_found_by_name_version_alias_and_id(server: RunningRegistry, registry: Registry, name: str) -> None:
    first = server.client.register(name=name, version="1.0")
    second = server.client.register(name=name, version="1.10")
    server.client.set_alias(first.id, model_group_id=first.model_group_id)

    assert registry.model(name).id == second.id
    assert registry.model(f"{name}:1.0").id == first.id
    assert registry.model(f"{name}@production").id == first.id
    assert registry.model(first.id).reference == f"{name}:1.0"


def test_a_model_is_plain_data(server: RunningRegistry, registry: Registry, name: str) -> None:
    before = datetime.now(UTC)
    server.client.register(
        name=name, version="1.0", project_id="acme", metrics={"f1": 0.9}, tags={"team": "audio"}, score=0.5
    )

    model = registry.model(f"acme/{name}")

    assert (model.metrics, model.tags, model.score) == ({"f1": 0.9}, {"team": "audio"}, 0.5)
    assert model.artifact.size_bytes == len(b"weights")
    assert model.create_time is not None
    assert abs(model.create_time - before).total_seconds() < 60
    assert model.reference == f"acme/{name}:1.0"


def test_a_missing_model_raises_not_found_and_says_which(registry: Registry, name: str) -> None:
    with pytest.raises(NotFound) as caught:
        registry.model(f"{name}:1.0")

    assert caught.value.reason == "REFERENCE_NOT_FOUND"
    assert caught.value.metadata["part"] == "name"
    assert caught.value.request_id
    assert isinstance(caught.value, LookupError)


def test_several_precisions_of_a_version_are_ambiguous_until_one_is_named(
    server: RunningRegistry, registry: Registry, name: str
) -> None:
    small = server.client.register(name=name, version="1.0", precisions=["int8"])
    server.client.register(name=name, version="1.0", precisions=["fp32"])

    with pytest.raises(Ambiguous) as caught:
        registry.model(f"{name}:1.0")

    assert len(caught.value.candidates) == 2
    assert registry.model(f"{name}:1.0", precision="int8").id == small.id


def test_a_wrong_reference_names_the_position(registry: Registry) -> None:
    with pytest.raises(InvalidArgument) as caught:
        registry.model("vad:")

    assert caught.value.position == 5


def test_a_list_fetches_its_pages_and_can_be_read_again(server: RunningRegistry, registry: Registry, name: str) -> None:
    for number in range(7):
        server.client.register(name=name, version=f"{number}")
    models = registry.models(f'name = "{name}"', order_by="version", page_size=2)

    assert [model.version for model in models] == ["0", "1", "2", "3", "4", "5", "6"]
    assert [model.version for model in models.to_list(3)] == ["0", "1", "2"]
    assert next(model.version for model in registry.versions(name)) == "6"


def test_a_wrong_filter_names_the_position(registry: Registry) -> None:
    with pytest.raises(InvalidArgument) as caught:
        registry.models("format == onnx").to_list()

    assert caught.value.position == 9


def test_an_update_merges_maps_and_keeps_the_rest(server: RunningRegistry, registry: Registry, name: str) -> None:
    server.client.register(name=name, version="1.0", tags={"team": "audio", "stage": "new"}, metrics={"f1": 0.9})
    model = registry.model(name)

    updated = registry.update(
        model,
        tags={"stage": "candidate", "team": None},
        metrics={"wer": 0.1},
        description="Finds voices.",
        precision="int8",
    )

    assert updated.tags == {"stage": "candidate"}
    assert updated.metrics == {"f1": 0.9, "wer": 0.1}
    assert (updated.description, updated.precisions) == ("Finds voices.", ("int8",))
    with pytest.raises(Conflict):
        registry.update(model, score=1.0)
    assert registry.update(name, score=1.0).score == 1.0


WRONG_METADATA: list[tuple[dict[str, Any], str]] = [
    ({"metric": {"f1": 1}}, r"Unknown field metric\. Did you mean metrics\?"),
    ({"precisions": "int8"}, r"Unknown field precisions\. Did you mean precision\?"),
    ({"parents": ["vad:1"]}, r"Unknown field parents\. .* provenance=Provenance\(parents=…\)"),
    ({"score": "high"}, "score: must be a number, not str"),
    ({"tags": {"a": 1}}, r"tags\.a: must be a text, not int"),
    ({"tags": ["a"]}, r"tags: must be a mapping, not list\. Write tags="),
    ({"metrics": {"f1": "0.9"}}, r"metrics\.f1: must be a number, not str"),
    ({"labels": "cat"}, r"labels: must be a list, not str\. Write labels="),
    ({"precision": 8}, "precision: must be a text or a list of texts, not int"),
    ({"description": "\ud800"}, "description: .* lone surrogates"),
    ({"provenance": {"seed": 1}}, r"provenance: must be a Provenance, not dict\. Write Provenance\("),
    ({"provenance": Provenance(seed="one")}, r"provenance\.seed: must be a whole number, not str"),  # type: ignore[arg-type]
    ({"provenance": Provenance(seed=2**64)}, r"provenance\.seed: .* 64 bits"),
    ({"provenance": Provenance(datasets=["a.tar"])}, r"provenance\.datasets\[0\]: must be a Dataset, not str"),  # type: ignore[list-item]
    (
        {"provenance": Provenance(parents=Dataset(name="coco"))},  # type: ignore[arg-type]
        r"provenance\.parents\[0\]: must be a text, not Dataset",
    ),
    ({"provenance": Provenance(parents=[1])}, r"provenance\.parents\[0\]: must be a text, not int"),  # type: ignore[list-item]
    ({"provenance": Provenance(environment={"a": 1})}, r"provenance\.environment\.a: must be a text"),  # type: ignore[dict-item]
]
WRONG_CALLS: list[tuple[Callable[[Any], object], str]] = [
    (lambda reg: reg.push("model.onnx", name="vad", version=3), "version: must be a text, not int"),
    (lambda reg: reg.push("model.onnx", name=None, version="3"), "name: must be a text, not None"),
    (
        lambda reg: reg.push("model.onnx", name="vad", version="3", if_exist="return"),
        r"Unknown field if_exist\. Did you mean if_exists\?",
    ),
    (lambda reg: reg.model(3), "reference: must be a text, not int"),
    (lambda reg: reg.pull(3), r"model: must be a text, not int\. Pass a Model or a reference"),
    (lambda reg: reg.group(3), "reference: must be a text, not int"),
    (lambda reg: reg.versions(3), "name: must be a text, not int"),
    (lambda reg: reg.models(3), "filter: must be a text, not int"),
    (lambda reg: reg.models(page_size="3"), "page_size: must be a whole number, not str"),
    (lambda reg: reg.log({}), "filter: must be a text, not dict"),
    (lambda reg: reg.update_group("vad", metric_goals=["f1"]), "metric_goals: must be a mapping, not list"),
]


def test_what_is_no_field_or_no_value_is_refused_before_the_call(
    server: RunningRegistry, registry: Registry, name: str
) -> None:
    server.client.register(name=name)

    for wrong, message in WRONG_METADATA:
        with pytest.raises(InvalidArgument, match=message):
            registry.update(name, **wrong)
    for call, message in WRONG_CALLS:
        with pytest.raises(InvalidArgument, match=message):
            call(registry)


def test_the_errors_of_the_server_name_the_arguments(server: RunningRegistry, registry: Registry, name: str) -> None:
    model = server.client.register(name=name, version="1")

    for call, field, message in (
        (lambda: registry.compare(f"{name}:1"), "models", "models: must have 2 to 10 entries, not 1."),
        (lambda: registry.compare(model.id, model.id), "models[1]", "models[1]: is listed twice."),
        (lambda: registry.model(name, at=datetime.now(UTC)), "at", "at: requires a reference with an alias"),
        (lambda: registry.pull(name, at=datetime.now(UTC)), "at", "at: requires a reference with an alias"),
    ):
        with pytest.raises(InvalidArgument) as refused:
            call()
        assert refused.value.message.startswith(message)
        assert str(refused.value).startswith(message)
        assert [violation.field for violation in refused.value.violations] == [field]


def test_a_file_of_no_archive_names_the_model(server: RunningRegistry, registry: Registry, name: str) -> None:
    server.client.register(name=name, version="1")

    with pytest.raises(PreconditionFailed, match=f"The artifact of the model {name}:1 has no readable ZIP directory"):
        registry.files(f"{name}:1").to_list()


def test_a_deleted_model_is_gone_and_may_be_missing(server: RunningRegistry, registry: Registry, name: str) -> None:
    model = server.client.register(name=name)
    server.client.set_alias(model.id, model_group_id=model.model_group_id)

    with pytest.raises(PreconditionFailed, match="force=True"):
        registry.delete(name)
    registry.delete(name, force=True)

    with pytest.raises(NotFound):
        registry.delete(name)
    registry.delete(name, missing_ok=True)


def test_a_comparison_shows_what_differs(server: RunningRegistry, registry: Registry, name: str) -> None:
    server.client.register(b"one", name=name, version="1", metrics={"f1": 0.5})
    server.client.register(b"two", name=name, version="2", metrics={"f1": 0.75})

    comparison = registry.compare(f"{name}:1", f"{name}:2")

    assert not comparison.equal
    assert [(metric.name, metric.deltas) for metric in comparison.metrics] == [("f1", (0.0, 0.25))]
    assert comparison.artifacts is not None
    assert not comparison.artifacts.equal


def test_lineage_and_manifest_follow_the_parents(server: RunningRegistry, registry: Registry, name: str) -> None:
    parent = server.client.register(name=name, version="1")
    child = server.client.register(name=name, version="2", provenance={"parent_model_ids": [parent.id]})
    other = server.client.register(name=name, version="3").id

    lineage = registry.lineage(child.id)
    assert [node.model_id for node in lineage.nodes] == [parent.id]
    assert f"<td>{name}:1</td>" in lineage._repr_html_()
    assert [node.model_id for node in registry.lineage(f"{name}:1", descendants=True).nodes] == [child.id]
    assert registry.manifest(child.id)["model"]["provenance"]["parent_model_ids"] == [parent.id]
    # A model is its id, and one text or model is one parent.
    model = registry.model(f"{name}:1")
    both = Provenance(parents=[model, f"{name}:3"])
    assert registry.update(child.id, provenance=both).provenance.parents == (parent.id, other)
    assert Provenance.here(parents=model).parents == (parent.id,)
    assert registry.update(f"{name}:1", provenance=Provenance(parents=other)).provenance.parents == (other,)


def test_model_groups_are_listed(server: RunningRegistry, registry: Registry, name: str) -> None:
    model = server.client.register(name=name, version="3")

    (group,) = registry.groups(f'name = "{name}"')

    assert (group.id, group.version_count, group.latest_version) == (model.model_group_id, 1, "3")


def test_the_server_says_what_it_is_and_who_calls(registry: Registry) -> None:
    info = registry.server_info()

    assert info.authentication.mode == "none"
    assert info.limits.max_page_size == 1000
    assert registry.whoami().grants[0].role == "admin"


def test_the_same_works_on_asyncio(server: RunningRegistry, url: str, name: str) -> None:
    for number in range(5):
        server.client.register(name=name, version=f"{number}")

    async def read() -> tuple[str, list[str]]:
        async with modelreg.aio.Registry(url) as registry:
            model = await registry.update(await registry.model(name), score=0.5)
            listed = [found.version async for found in registry.models(f'name = "{name}"', page_size=2)]
            return f"{model.version}: {model.score}", listed

    assert asyncio.run(read()) == ("4: 0.5", ["4", "3", "2", "1", "0"])
