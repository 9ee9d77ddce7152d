"""Lineage, which has no cycles, and manifests."""

import itertools
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any, cast

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from modelregistry.v1 import artifact_service_pb2, lineage_pb2, model_pb2, model_service_pb2
from sqlalchemy import Engine, text

from registry_service.storage.sql.tables import ModelRow
from tests.registry import RunningRegistry
from tests.streams import serving
from tests.stub_client import Client, refused, sha256, zip_of

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
MISSING_ID = "there-is-no-such-model"
PARENTS = "provenance.parent_model_ids"

_numbers = itertools.count(1)


def id_of(name: str) -> str:
    """Return the id of a model in these tests: its padded name."""
    return f"model-{name:->12}"


def made_from(*parents: str, **fields: Any) -> model_pb2.Provenance:
    return model_pb2.Provenance(parent_model_ids=map(id_of, parents), **fields)


def register(client: Client, name: str, *parents: str, **fields: Any) -> model_pb2.Model:
    return client.register(id=id_of(name), name=name, provenance=made_from(*parents), **fields)


def relink(client: Client, name: str, *parents: str) -> model_pb2.Model:
    return client.update(id_of(name), ["provenance"], provenance=made_from(*parents))


def steps(nodes: Iterable[lineage_pb2.LineageNode]) -> list[tuple[int, str]]:
    return [(node.depth, node.model_id.removeprefix("model-").lstrip("-")) for node in nodes]


def links(found: Iterable[lineage_pb2.LineageEdge]) -> list[str]:
    """Return each link as `child<parent`, by names."""
    return [
        "<".join(i.removeprefix("model-").lstrip("-") for i in (link.child_model_id, link.parent_model_id))
        for link in found
    ]


def all_pages(
    client: Client, model_id: str, direction: str, **fields: Any
) -> list[model_service_pb2.GetLineageResponse]:
    pages = [client.lineage(model_id, direction, **fields)]
    while token := pages[-1].next_page_token:
        pages.append(client.lineage(model_id, direction, page_token=token, **fields))
    return pages


def outcome(call: Callable[[], Any]) -> str:
    """Return DONE or the name of the error status of a call."""
    try:
        call()
    except grpc.RpcError as error:
        return str(cast("grpc.Call", error).code().name)
    return "DONE"


def has_cycle(parents: dict[str, set[str]]) -> bool:
    """Remove models without parents repeatedly; the rest are cycles and their descendants."""
    left = {name: set(above) & parents.keys() for name, above in parents.items()}
    while roots := {name for name, above in left.items() if not above}:
        left = {name: above - roots for name, above in left.items() if name not in roots}
    return bool(left)


def stored_links(engine: Engine) -> dict[str, set[str]]:
    with engine.connect() as connection:
        found = connection.execute(text("SELECT id, provenance -> 'parent_model_ids' AS parents FROM models"))
        return {row.id: set(row.parents or ()) for row in found}


def multiply(registry: RunningRegistry, model_id: str, changes: str) -> None:
    """Add copies of a model, numbered n from 1,000 to 2,500, each changed by an SQL expression of a JSON object."""
    names = [column.name for column in ModelRow.__table__.columns if column.computed is None]
    registry.execute(
        f"INSERT INTO models ({', '.join(names)}) SELECT {', '.join(f'r.{name}' for name in names)}"
        f" FROM models m CROSS JOIN generate_series(1000, 2500) n"
        f" CROSS JOIN jsonb_populate_record(m, {changes}) r WHERE m.id = '{model_id}'"
    )


class TestLineage:
    @pytest.fixture
    def graph(self, client: Client) -> Client:
        """`a` and `b` are the parents of `c`, `b` and `c` those of `d`; the parent `x` of `b` does not exist."""
        register(client, "a")
        register(client, "b", "x")
        register(client, "c", "a", "b")
        register(client, "d", "c", "b")
        register(client, "alone")
        return client

    def test_ancestors_are_listed_nearest_first(self, graph: Client) -> None:
        found = graph.ancestors(id_of("d"))
        assert steps(found.nodes) == [(1, "b"), (1, "c"), (2, "a"), (2, "x")]
        assert links(found.edges) == ["b<x", "c<a", "c<b", "d<b", "d<c"]
        assert not found.truncated
        for node in found.nodes:
            if node.model_id == id_of("x"):
                assert not node.HasField("model")
            else:
                assert node.model == graph.get(node.model_id)

    def test_descendants_are_listed_nearest_first(self, graph: Client) -> None:
        found = graph.descendants(id_of("b"))
        assert steps(found.nodes) == [(1, "c"), (1, "d")]
        assert links(found.edges) == ["c<b", "d<b", "d<c"]
        assert [node.model for node in found.nodes] == [graph.get(id_of("c")), graph.get(id_of("d"))]
        assert not found.truncated

    def test_a_missing_model_can_have_descendants(self, graph: Client) -> None:
        assert steps(graph.descendants(id_of("x")).nodes) == [(1, "b"), (2, "c"), (2, "d")]

    def test_a_deleted_model_is_listed_by_its_id_only(self, graph: Client) -> None:
        graph.delete(id_of("c"))
        found = graph.ancestors(id_of("d"))
        assert steps(found.nodes) == [(1, "b"), (1, "c"), (2, "x")]
        assert [node.HasField("model") for node in found.nodes] == [True, False, False]

    def test_a_model_without_links_is_alone(self, graph: Client) -> None:
        assert graph.ancestors(id_of("alone")) == model_service_pb2.GetLineageResponse()
        assert graph.descendants(id_of("alone")) == model_service_pb2.GetLineageResponse()

    def test_the_depth_limits_the_walk(self, graph: Client) -> None:
        found = graph.ancestors(id_of("d"), max_depth=1)
        assert steps(found.nodes) == [(1, "b"), (1, "c")]
        assert links(found.edges) == ["c<b", "d<b", "d<c"]
        assert found.truncated
        assert not graph.ancestors(id_of("d"), max_depth=2).truncated
        assert not graph.ancestors(id_of("d"), max_depth=2**31 - 1).truncated
        assert graph.descendants(id_of("x"), max_depth=1).truncated

    def test_invalid_fields_are_named(self, graph: Client) -> None:
        for call in (graph.ancestors, graph.descendants, graph.manifest):
            with refused(NOT_FOUND, "MODEL_NOT_FOUND"):
                call(MISSING_ID)
            with refused(INVALID) as refusal:
                call("' OR 1=1")
            assert refusal.fields == ["model_id"]
        for call in (graph.ancestors, graph.descendants):
            for field in ("max_depth", "page_size"):
                with refused(INVALID) as refusal:
                    call(id_of("d"), **{field: -1})
                assert refusal.fields == [field]

    def test_a_large_lineage_is_read_in_pages_that_fit_in_a_message(self, registry: RunningRegistry) -> None:
        client = registry.client
        register(client, "root")
        register(client, "other")
        multiply(
            registry,
            id_of("other"),
            f"""jsonb_build_object('id', 'child-of-the-root-' || n, 'version', n, 'object_key', n,
                'tags', jsonb_build_object('t', repeat('x', 4000)),
                'provenance', jsonb_build_object('parent_model_ids', jsonb_build_array('{id_of("root")}')))""",
        )
        pages = all_pages(client, id_of("root"), "descendants", page_size=1000)
        assert all(page.nodes and page.ByteSize() < 4 * 1024 * 1024 for page in pages)
        assert 100 < len(pages[0].nodes) < 1000
        assert [node.model_id for page in pages for node in page.nodes] == [
            f"child-of-the-root-{n}" for n in range(1000, 2501)
        ]
        assert all(len(page.edges) == len(page.nodes) and not page.truncated for page in pages)

    def test_each_node_and_each_edge_is_on_one_page(self, graph: Client) -> None:
        for direction, model in (("ancestors", "d"), ("descendants", "x")):
            [whole] = all_pages(graph, id_of(model), direction)
            pages = all_pages(graph, id_of(model), direction, page_size=1)
            assert [len(page.nodes) for page in pages] == [1] * len(whole.nodes)
            assert [node for page in pages for node in page.nodes] == list(whole.nodes)
            assert sorted(links(edge for page in pages for edge in page.edges)) == sorted(links(whole.edges))

    def test_an_edge_comes_with_the_farther_of_its_ends(self, graph: Client) -> None:
        known = {id_of("d")}
        for page in all_pages(graph, id_of("d"), "ancestors", page_size=1):
            known |= {node.model_id for node in page.nodes}
            assert all({edge.child_model_id, edge.parent_model_id} <= known for edge in page.edges)
        assert known == {id_of(name) for name in "abcdx"}

    def test_a_page_token_works_for_one_model_direction_and_depth(self, graph: Client) -> None:
        token = graph.lineage(id_of("d"), "ancestors", page_size=1).next_page_token
        for model, direction, fields in (
            ("c", "ancestors", {}),
            ("d", "descendants", {}),
            ("d", "ancestors", {"max_depth": 1}),
        ):
            with refused(INVALID) as refusal:
                graph.lineage(id_of(model), direction, page_token=token, **fields)
            assert refusal.fields == ["page_token"]

    def test_a_direction_is_required(self, graph: Client) -> None:
        for request in (
            model_service_pb2.GetLineageRequest(model_id=id_of("d")),
            model_service_pb2.GetLineageRequest(model_id=id_of("d"), direction=cast("Any", 7)),
        ):
            with refused(INVALID) as refusal:
                graph.models.GetLineage(request)
            assert refusal.fields == ["direction"]

    def test_a_long_line_is_walked_for_a_hundred_steps(self, client: Client) -> None:
        register(client, "0")
        for i in range(1, 103):
            register(client, str(i), str(i - 1))
        found = client.ancestors(id_of("102"))
        assert found.truncated
        assert steps(found.nodes) == [(depth, str(102 - depth)) for depth in range(1, 101)]
        assert not client.ancestors(id_of("100")).truncated
        found_down = client.descendants(id_of("2"))
        assert not found_down.truncated
        assert steps(found_down.nodes) == [(depth, str(2 + depth)) for depth in range(1, 101)]


class TestCycles:
    def test_a_model_is_not_its_own_parent(self, client: Client) -> None:
        register(client, "a")
        with refused(INVALID, "PROVENANCE_CYCLE") as refusal:
            relink(client, "a", "a")
        assert refusal.fields == [f"model.{PARENTS}"]
        with refused(INVALID, "PROVENANCE_CYCLE") as refusal:
            register(client, "b", "b")
        assert refusal.fields == [f"spec.model.{PARENTS}"]
        with refused(INVALID, "PROVENANCE_CYCLE"):
            client.create_upload(id=id_of("b"), provenance=made_from("b"))
        assert [model.id for model in client.all()] == [id_of("a")]

    def test_an_update_closes_no_cycle(self, client: Client) -> None:
        register(client, "a")
        register(client, "b", "a")
        register(client, "c", "b")
        with refused(INVALID, "PROVENANCE_CYCLE") as refusal:
            relink(client, "a", "c")
        assert refusal.fields == [f"model.{PARENTS}"]
        assert refusal.metadata["model_ids"] == ",".join(map(id_of, "acba"))
        shown = {letter: client.get(id_of(letter)) for letter in "abc"}
        path = " from ".join(f"{shown[letter].name}:{shown[letter].version}" for letter in "acba")
        assert f"would close a cycle: {path}." in refusal.message
        assert client.get(id_of("a")).revision == 1

    def test_a_registration_closes_no_cycle(self, registry: RunningRegistry) -> None:
        client = registry.client
        register(client, "b", "a")
        register(client, "c", "b")
        with refused(INVALID, "PROVENANCE_CYCLE") as refusal:
            register(client, "a", "c")
        assert refusal.metadata["model_ids"] == ",".join(map(id_of, "acba"))
        assert registry.count("unreferenced_objects") == 0
        assert len(registry.objects()) == 2
        assert register(client, "a").id == id_of("a")

    def test_a_completed_upload_closes_no_cycle(self, client: Client) -> None:
        upload = client.create_upload(id=id_of("a"), name="a", provenance=made_from("c"))
        client.write_upload(upload.id, 0, b"weights")
        register(client, "b", "a")
        register(client, "c", "b")
        with refused(INVALID, "PROVENANCE_CYCLE") as refusal:
            client.complete_upload(upload.id)
        assert refusal.fields == ["upload_id"]
        assert f"upload_id: {PARENTS} would close a cycle: " in refusal.message
        # The upload still exists, and can be completed without the other model.
        client.delete(id_of("b"))
        assert client.complete_upload(upload.id).id == id_of("a")

    def test_links_can_always_be_removed(self, client: Client) -> None:
        register(client, "a", "x", "y")
        assert relink(client, "a", "y").revision == 2
        assert relink(client, "a").revision == 3

    def test_repeated_parents_are_one(self, client: Client) -> None:
        model = register(client, "a", "x", "y", "x")
        assert list(model.provenance.parent_model_ids) == [id_of("x"), id_of("y")]
        assert relink(client, "a", "x", "x", "y").revision == 1

    def test_there_are_at_most_a_hundred_parents_and_data_sets(self, client: Client) -> None:
        parents = [str(i) for i in range(101)]
        assert len(register(client, "a", *parents[:100]).provenance.parent_model_ids) == 100
        with refused(INVALID) as refusal:
            register(client, "b", *parents)
        assert refusal.fields == [f"spec.model.{PARENTS}"]
        with refused(INVALID) as refusal:
            client.register(provenance=model_pb2.Provenance(datasets=[model_pb2.Dataset(name="coco")] * 101))
        assert refusal.fields == ["spec.model.provenance.datasets"]

    def test_more_ancestors_than_the_search_limit_are_refused(self, client: Client) -> None:
        """Layers of models with 100 parents each make 10,000 links and one more."""
        layers = [[f"{layer}-{i}" for i in range(100)] for layer in range(2)]
        for name in layers[1]:
            register(client, name, *layers[0])
        with refused(INVALID, "ANCESTRY_TOO_LARGE") as refusal:
            register(client, "top", *layers[1])
        assert refusal.fields == [f"spec.model.{PARENTS}"]
        assert register(client, "top", *layers[1][:99]).revision == 1

    def test_a_long_line_is_searched_to_its_end(self, registry: RunningRegistry) -> None:
        client = registry.client
        register(client, "0")
        for i in range(1, 150):
            register(client, str(i), str(i - 1))
        with refused(INVALID, "PROVENANCE_CYCLE"):
            relink(client, "0", "149")

    def test_changes_without_new_parents_do_not_wait_for_others(self, registry: RunningRegistry) -> None:
        client = registry.client
        register(client, "a", "x", "y")
        with registry.engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(x'6D6F64656C73'::bigint)"))
            assert register(client, "b").revision == 1
            assert client.update(id_of("a"), ["score"], score=0.5).revision == 2
            assert relink(client, "a", "x").revision == 3

    @pytest.mark.parametrize("size", [2, 3, 8])
    def test_one_of_the_concurrent_changes_that_would_close_a_cycle_is_refused(
        self, registry: RunningRegistry, size: int
    ) -> None:
        names = [str(i) for i in range(size)]
        with serving(registry) as (_, other):
            clients = [registry.client, other]
            for attempt in range(10):
                for name in names:
                    register(registry.client, name, version=str(attempt))
                barrier = Barrier(size)

                def link(i: int, barrier: Barrier = barrier) -> str:
                    barrier.wait()
                    return outcome(lambda: relink(clients[i % 2], names[i], names[(i + 1) % size]))

                with ThreadPoolExecutor(size) as threads:
                    answers = list(threads.map(link, range(size)))
                assert sorted(answers) == [*["DONE"] * (size - 1), "INVALID_ARGUMENT"]
                for name in names:
                    registry.client.delete(id_of(name))

    def test_a_concurrent_registration_and_update_close_no_cycle(self, registry: RunningRegistry) -> None:
        client = registry.client
        register(client, "b")
        for attempt in range(10):
            barrier = Barrier(2)

            def run(change: int, barrier: Barrier = barrier, version: str = str(attempt)) -> str:
                barrier.wait()
                if change:
                    return outcome(lambda: register(client, "a", "b", version=version))
                return outcome(lambda: relink(client, "b", "a"))

            with ThreadPoolExecutor(2) as threads:
                assert sorted(threads.map(run, range(2))) == ["DONE", "INVALID_ARGUMENT"]
            client.update(id_of("b"), ["provenance"])
            for model in client.all(f'id = "{id_of("a")}"'):
                client.delete(model.id)

    @given(
        changes=st.lists(
            st.tuples(st.integers(0, 5), st.lists(st.integers(0, 6), max_size=3), st.booleans()), max_size=25
        )
    )
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    def test_exactly_the_changes_that_would_close_a_cycle_are_refused(
        self, registry: RunningRegistry, changes: list[tuple[int, list[int], bool]]
    ) -> None:
        client, world = registry.client, str(next(_numbers))
        expected: dict[str, set[str]] = {}
        for number, above, is_deletion in changes:
            name, parents = f"{world}_{number}", [f"{world}_{i}" for i in above]
            if is_deletion:
                expected.pop(name, None)
                client.delete(id_of(name), allow_missing=True)
                continue
            wanted = expected | {name: set(parents)}
            change = relink if name in expected else register
            done = outcome(partial(change, client, name, *parents))
            assert done == ("INVALID_ARGUMENT" if has_cycle(wanted) else "DONE"), (name, parents)
            expected = wanted if done == "DONE" else expected
        stored = stored_links(registry.engine)
        assert {i: stored[i] for i in map(id_of, expected)} == {
            id_of(name): {id_of(parent) for parent in above} for name, above in expected.items()
        }


class TestProvenanceInFilters:
    @pytest.fixture
    def with_provenance(self, client: Client) -> Client:
        client.register(
            name="tuned",
            provenance=made_from(
                "base",
                source_repository="https://example.org/r.git",
                source_commit="0" * 40,
                training_run="run 7",
                datasets=[model_pb2.Dataset(name="coco", uri="s3://coco", digest="sha256:00ff")],
                framework="pytorch",
                framework_version="2.9",
                environment={"python": "3.12"},
                seed=7,
            ),
        )
        client.register(name="bare")
        return client

    @pytest.mark.parametrize(
        "restriction",
        [
            f'provenance.parent_model_ids : "{id_of("base")}"',
            'provenance.source_repository = "https://example.org/*"',
            f'provenance.source_commit = "{"0" * 40}"',
            'provenance.training_run : "RUN"',
            'provenance.datasets : "coco"',
            'provenance.datasets.digest = "sha256:00ff"',
            'provenance.datasets.uri = "s3://*"',
            "provenance.framework = pytorch",
            'provenance.framework_version = "2.9"',
            'provenance.environment.python = "3.12"',
            "provenance.seed = 7",
        ],
    )
    def test_each_part_of_a_provenance_finds_its_model(self, with_provenance: Client, restriction: str) -> None:
        assert with_provenance.names(restriction) == ["tuned"]
        assert with_provenance.names(f"NOT {restriction}") == ["bare"]


class TestManifest:
    def test_a_manifest_has_three_generations(self, client: Client) -> None:
        members = {"model/b.bin": b"weights" * 100, "model/a.xml": b"<net/>", "model/": b""}
        data = zip_of(members)
        grandparent = client.register(
            b"grand", id=id_of("g"), name="base", provenance=made_from("lost", framework="pytorch")
        )
        parent = client.register(b"parent", id=id_of("p"), name="tuned", provenance=made_from("g"))
        model = client.register(
            data,
            id=id_of("m"),
            name="deployed",
            artifact={"file_name": "model.zip"},
            provenance=made_from("p", source_commit="abc", seed=7),
        )
        manifest = client.manifest(model.id)
        assert manifest.api_version == "modelregistry.v1"
        assert manifest.make_time.ToNanoseconds() >= model.create_time.ToNanoseconds()
        assert manifest.model == model
        assert manifest.model.artifact.sha256 == sha256(data)
        assert [(file.path, file.size_bytes, file.crc32) for file in manifest.files] == [
            (name, len(members[name]), zlib.crc32(members[name])) for name in sorted(members)
        ]
        assert manifest.file_count == 3
        assert manifest.artifact_problem == ""
        assert steps(manifest.ancestors) == [(1, "p"), (2, "g"), (3, "lost")]
        assert [node.model for node in manifest.ancestors][:2] == [parent, grandparent]
        assert links(manifest.edges) == ["g<lost", "m<p", "p<g"]
        assert list(manifest.unknown_model_ids) == [id_of("lost")]
        assert not manifest.ancestors_truncated

    def test_a_repeated_manifest_differs_only_in_its_time(self, client: Client) -> None:
        for i in range(4):
            register(client, str(i), "x", "y", *map(str, range(i)))
        first, second = client.manifest(id_of("3")), client.manifest(id_of("3"))
        assert first.make_time.ToNanoseconds() < second.make_time.ToNanoseconds()
        second.make_time.CopyFrom(first.make_time)
        assert first == second

    def test_an_artifact_other_than_a_zip_has_no_files(self, client: Client) -> None:
        manifest = client.manifest(client.register().id)
        assert list(manifest.files) == []
        assert (manifest.file_count, manifest.artifact_problem) == (0, "")

    def test_a_lost_artifact_is_reported(self, registry: RunningRegistry) -> None:
        model = registry.client.register(zip_of({"a": b"a"}), artifact={"file_name": "model.zip"})
        registry.objects()[0].unlink()
        manifest = registry.client.manifest(model.id)
        assert manifest.model == model
        assert manifest.artifact_problem == "The artifact store no longer has these bytes."

    def test_the_list_of_very_many_files_is_cut(self, client: Client) -> None:
        data = zip_of({f"{i:05}": b"" for i in range(20_000)}, compression=0)
        manifest = client.manifest(client.register(data, artifact={"file_name": "model.zip"}).id)
        assert manifest.file_count == 20_000
        assert [file.path for file in manifest.files[:2]] == ["00000", "00001"]
        assert 5_000 < len(manifest.files) <= 10_000
        assert manifest.ByteSize() < 2 * 1024 * 1024
        assert isinstance(manifest.files[0], artifact_service_pb2.ArtifactFile)
