"""Lists: their pages, what is fetched ahead, and what notebooks show."""

import asyncio
import gc
import itertools
import re
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import grpc
import modelreg
import pytest
from modelreg import InternalError, InvalidArgument, Registry, Unavailable, Unsupported
from modelreg._wire.methods import LIST_MODELS
from modelregistry.v1 import model_pb2, model_service_pb2

from tests.client.fake_server import FakeServer, refusal
from tests.polling import eventually

AWAY = refusal(grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE", "Postgres does not respond.", retry_seconds=120)


def page(first: int, count: int, token: str = "") -> model_service_pb2.ListModelsResponse:
    models = [
        model_pb2.Model(id=f"id-{number}", name=f"model-{number}", version="1")
        for number in range(first, first + count)
    ]
    return model_service_pb2.ListModelsResponse(models=models, next_page_token=token)


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer() as fake:
        yield fake


@pytest.fixture
def registry(fake: FakeServer) -> Iterator[Registry]:
    with Registry(fake.url, timeout=60) as registry:
        yield registry


def tokens(fake: FakeServer) -> list[str]:
    return [request.page_token for request in fake.requests(LIST_MODELS)]


def sizes(fake: FakeServer) -> list[int]:
    return [request.page_size for request in fake.requests(LIST_MODELS)]


def prefetching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "modelreg-prefetch"]


class TestPages:
    def test_pages_are_joined_each_time_anew(self, fake: FakeServer, registry: Registry) -> None:
        models = registry.models()
        for _ in range(2):
            fake.answer(LIST_MODELS, page(0, 4, "a"), page(4, 1, "b"), page(5, 0, "c"), page(5, 2))
            assert [model.name for model in models] == [f"model-{number}" for number in range(7)]
        assert tokens(fake) == ["", "a", "b", "c"] * 2

    def test_no_items(self, fake: FakeServer, registry: Registry) -> None:
        fake.answer(LIST_MODELS, page(0, 0))
        assert registry.models().to_list() == []
        assert registry.models().first() is None

    def test_no_more_than_needed_is_asked_for(self, fake: FakeServer, registry: Registry) -> None:
        fake.answer(LIST_MODELS, page(0, 1, "a"))
        first = registry.models().first()
        assert first is not None
        assert first.name == "model-0"
        fake.answer(LIST_MODELS, page(0, 1_000, "a"), page(1_000, 500, "b"))
        assert len(registry.models().to_list(1_500)) == 1_500
        fake.answer(LIST_MODELS, page(0, 3, "a"), page(3, 3))
        assert len(registry.models(page_size=3).to_list(5)) == 5
        assert registry.models().to_list(0) == []
        assert sizes(fake) == [1, 1_000, 500, 3, 2]

    def test_a_server_that_sends_more_than_it_was_asked_for(self, fake: FakeServer, registry: Registry) -> None:
        fake.answer(LIST_MODELS, page(0, 5, "a"))
        assert len(registry.models().to_list(2)) == 2
        assert tokens(fake) == [""]

    def test_a_negative_limit_is_refused(self, registry: Registry) -> None:
        with pytest.raises(InvalidArgument, match="limit: -1 is negative"):
            registry.models().to_list(-1)

    def test_a_list_is_no_sequence_and_says_what_to_use(self, fake: FakeServer, registry: Registry) -> None:
        models: Any = registry.models("name = vad", order_by="version")
        for use, advice in (
            (lambda: bool(models), r"Use `listing\.first\(\) is not None`"),
            (lambda: len(models), r"Use `len\(listing\.to_list\(\)\)`"),
            (lambda: models[0], r"Use `listing\.first\(\)`, or `listing\.to_list\(limit\)`"),
            (lambda: models[:2], r"`listing\.to_list\(limit\)`"),
            (lambda: modelreg.aio.Registry(fake.url).models()[0], r"`await listing\.first\(\)`"),
        ):
            with pytest.raises(TypeError, match=advice):
                use()
        fake.answer(LIST_MODELS, page(0, 2))
        assert [model.name for model in list(models)] == ["model-0", "model-1"]

    def test_a_list_shows_what_it_is_of(self, fake: FakeServer, registry: Registry) -> None:
        for one in (registry, modelreg.aio.Registry(fake.url)):
            assert repr(one.models("name = vad")) == "<Listing of models, filter 'name = vad'>"
            assert repr(one.aliases()) == "<Listing of aliases>"
            assert repr(one.history("vad@production")) == "<Listing of moves, alias 'vad@production'>"

    def test_a_list_on_asyncio(self, fake: FakeServer) -> None:
        fake.answer(LIST_MODELS, page(0, 4, "a"), page(4, 1))

        async def read() -> tuple[list[str], Any]:
            async with modelreg.aio.Registry(fake.url) as registry:
                names = [model.name async for model in registry.models()]
                return names, await registry.models().first()

        names, first = asyncio.run(read())
        assert names == [f"model-{number}" for number in range(5)]
        assert first.name == "model-4"


class TestPrefetching:
    def test_the_next_page_is_fetched_while_one_is_consumed(self, fake: FakeServer, registry: Registry) -> None:
        fake.answer(LIST_MODELS, page(0, 10, "a"), page(10, 1))
        models = iter(registry.models())
        list(itertools.islice(models, 5))
        assert tokens(fake) == [""]
        next(models)
        eventually(lambda: tokens(fake) == ["", "a"])
        assert len(list(models)) == 5

    def test_a_consumer_that_stops_early_leaves_nothing_running(self, fake: FakeServer, registry: Registry) -> None:
        cancelled = threading.Event()

        def hang(_request: object, context: grpc.ServicerContext) -> Any:
            context.add_callback(cancelled.set)
            cancelled.wait(60)
            return page(10, 1)

        fake.answer(LIST_MODELS, page(0, 10, "a"), hang)
        for model in registry.models():
            if model.name == "model-7":
                eventually(lambda: len(tokens(fake)) == 2)
                break
        assert cancelled.wait(20)
        eventually(lambda: not prefetching())

    def test_a_consumer_that_stops_does_not_wait_for_the_next_attempt(
        self, fake: FakeServer, registry: Registry
    ) -> None:
        fake.answer(LIST_MODELS, page(0, 10, "a"), refusal(grpc.StatusCode.UNAVAILABLE, "X", retry_seconds=4))
        for model in registry.models():
            if model.name == "model-7":
                eventually(lambda: len(tokens(fake)) == 2)
                break
        eventually(lambda: not prefetching(), seconds=2)
        assert len(tokens(fake)) == 2

    def test_a_registry_that_repeats_a_page_is_noticed(self, fake: FakeServer, registry: Registry) -> None:
        fake.answer(LIST_MODELS, page(0, 1, "a"), page(1, 0, "b"))

        with pytest.raises(InternalError, match="the same page"):
            registry.models().to_list()
        assert tokens(fake) == ["", "a", "b"]

    def test_an_error_of_a_page_arrives_after_the_items_before_it(self, fake: FakeServer, registry: Registry) -> None:
        fake.answer(LIST_MODELS, page(0, 4, "a"), AWAY)
        models = iter(registry.models())
        found = list(itertools.islice(models, 4))
        with pytest.raises(Unavailable, match="Postgres does not respond"):
            next(models)
        assert [model.name for model in found] == ["model-0", "model-1", "model-2", "model-3"]

    def test_a_consumer_on_asyncio_that_stops_early_leaves_nothing_running(self, fake: FakeServer) -> None:
        cancelled = threading.Event()

        def hang(_request: object, context: grpc.ServicerContext) -> Any:
            context.add_callback(cancelled.set)
            cancelled.wait(60)
            return page(10, 1)

        fake.answer(LIST_MODELS, page(0, 10, "a"), hang)

        async def read() -> None:
            async with modelreg.aio.Registry(fake.url, timeout=60) as registry:
                async for model in registry.models():
                    if model.name == "model-7":
                        await asyncio.to_thread(eventually, lambda: len(tokens(fake)) == 2)
                        break
                assert await asyncio.to_thread(cancelled.wait, 20)
                assert len(asyncio.all_tasks()) == 1

        asyncio.run(read())

    def test_the_error_of_a_page_that_nobody_waits_for_is_not_logged(
        self, fake: FakeServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        fake.answer(LIST_MODELS, page(0, 10, "a"), refusal(grpc.StatusCode.INTERNAL, "INTERNAL"))

        async def read() -> None:
            async with modelreg.aio.Registry(fake.url) as registry:
                async for model in registry.models():
                    if model.name == "model-7":
                        others = asyncio.all_tasks() - {asyncio.current_task()}
                        await asyncio.wait(others)
                        break

        asyncio.run(read())
        gc.collect()
        assert caplog.records == []


class TestTables:
    def test_notebooks_show_the_first_rows(self, fake: FakeServer, registry: Registry) -> None:
        fake.answer(LIST_MODELS, page(0, 11, "a"))
        html = registry.models()._repr_html_()
        assert "The first 10 items" in html
        assert "<td>model-9:1</td>" in html
        assert "model-10" not in html
        assert sizes(fake) == [11]

    def test_models_have_the_columns_that_people_look_for(self, fake: FakeServer, registry: Registry) -> None:
        model = model_pb2.Model(id="0123", name="vad", version="1", metrics={"f1": 0.5}, aliases=["production"])
        model.artifact.file_name, model.artifact.size_bytes = "vad.bin", 5_000_000
        model.create_time.seconds = 1_796_055_000
        fake.answer(LIST_MODELS, model_service_pb2.ListModelsResponse(models=[model]))
        head, row = registry.models()._repr_html_().split("</tr>")[:2]
        assert re.findall("<th>(.*?)</th>", head) == ["reference", "metrics", "aliases", "artifact", "create_time"]
        assert re.findall("<td>(.*?)</td>", row) == [
            "vad:1",
            "f1=0.5",
            "production",
            "vad.bin, 5.0 MB",
            "2026-11-30 16:10:00Z",
        ]

    def test_what_the_server_sends_is_escaped(self, fake: FakeServer, registry: Registry) -> None:
        hostile = model_pb2.Model(id="x", name="<script>alert(1)</script>", version="1")
        fake.answer(LIST_MODELS, model_service_pb2.ListModelsResponse(models=[hostile]))
        assert "<script>" not in registry.models()._repr_html_()

    def test_an_asynchronous_list_shows_nothing_that_would_need_a_call(self) -> None:
        assert not hasattr(modelreg.aio.Registry().models(), "_repr_html_")

    def test_a_data_frame_has_a_column_for_each_metric_and_tag(
        self, fake: FakeServer, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # pandas itself is no dependency of the tests. This is all that the client uses of it.
        stand_in: Any = types.ModuleType("pandas")
        stand_in.DataFrame = lambda rows: rows
        monkeypatch.setitem(sys.modules, "pandas", stand_in)
        model = model_pb2.Model(id="x", name="vad", version="1", metrics={"f1": 0.5}, tags={"team": "audio"})
        model.artifact.sha256 = "00"
        fake.answer(LIST_MODELS, model_service_pb2.ListModelsResponse(models=[model]))
        (row,) = registry.models().to_pandas()
        assert next(iter(row.items())) == ("reference", "vad:1")
        assert (row["name"], row["metrics.f1"], row["tags.team"], row["artifact.sha256"]) == ("vad", 0.5, "audio", "00")
        assert "provenance" not in row

    def test_without_pandas_the_error_says_what_to_install(
        self, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "pandas", None)
        with pytest.raises(Unsupported, match="pip install pandas"):
            registry.models().to_pandas()
