"""ListModels: every model once and in order, despite concurrent changes, and by an index."""

import base64
import itertools
import json
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from hypothesis import example, given, settings
from hypothesis import strategies as st
from modelregistry.v1 import model_pb2, model_service_pb2
from sqlalchemy import Engine, text

from registry_service.domain import listing
from registry_service.domain.filter import parse
from registry_service.domain.listing import ListQuery, parse_order, sort_values
from registry_service.storage.sql.database import SqlDatabase
from tests.plans import nodes, sent_to
from tests.registry import RunningRegistry
from tests.streams import expect
from tests.stub_client import Client, refused
from tests.version_order import sort_key

INVALID = grpc.StatusCode.INVALID_ARGUMENT

CODE_POINTS = (
    "a",
    "Z",
    "z",
    "é",
    "É",
    "e\u0301",
    " ",
    "_",
    "\u00df",
    "ss",
    "\uffee",
    "\U0001f600",
    "中",
    "0",
    "10",
    "9",
    "",
)

# Many are equal except for the last number, which is unique.
VERSIONS = ("{0}v{2}", "1.{1}.0-rc.{2}", "v1.{1}+{2}", "1.{1}.dev{2}", "{2}.{0}", "1.{1}.post{2}", "1.{2}")


METRICS = ("{}", '{"mAP50": 0.5}', '{"mAP50": -1e300}', '{"mAP50": 7, "a.b \\"c": 1}', '{"a.b \\"c": 5e-324}')


def insert_models(engine: Engine, number: int) -> None:
    """Insert models without artifacts, which lists never read."""
    dice = random.Random(number)
    row = """
        INSERT INTO models (id, name, version, project_name, format, description, precision, score, overview,
            optimization_capabilities, labels, metrics, tags, provenance, created_date, last_updated_date, create_time,
            update_time, revision, creator, file_name, media_type, size, sha256, file_url, object_key)
        VALUES (:id, :name, :version, :project_name, :format, :description, '{fp32}', :score, '{}',
            '{}', '[]', :metrics, '{}', '{}', '', '', :create_time,
            :update_time, :revision, :creator, 'a', 'a/b', :size, repeat('0', 64), '', :id)
    """
    rows = []
    for index in range(number):
        second = dice.randrange(20)
        rows.append(
            {
                "id": f"{dice.choice('aA_-zZ09')}{dice.randrange(10**17):017}-{index}",
                # Many differ only at the end, some only beyond the compared prefix.
                "name": dice.choice(CODE_POINTS) + "n" * dice.choice([1, 399, 450]) + dice.choice(CODE_POINTS),
                "version": dice.choice(VERSIONS).format(dice.choice(CODE_POINTS), index // 3, index),
                "score": dice.choice([None, None, -1e300, -1.5, 0.0, 0.1, 5e-324, 7, 1e300]),
                "project_name": dice.choice([None, "", *CODE_POINTS]),
                "format": dice.choice([None, "onnx", "ONNX", "openvino"]),
                "description": "d" * dice.choice([0, 399, 450]) + dice.choice(CODE_POINTS),
                "metrics": dice.choice(METRICS),
                "revision": dice.choice([1, 2, 10]),
                "creator": dice.choice(["", "ada", "Ada"]),
                "size": dice.choice([1, 2, 10, 2**62]),
                "create_time": f"2026-01-01T00:00:{second:02}.{dice.choice(['000001', '5', '999999'])}Z",
                "update_time": f"2026-01-01T00:01:{dice.randrange(20):02}Z",
            }
        )
    with engine.begin() as connection:
        connection.execute(text(row), rows)


KEYS: dict[str, Callable[[model_pb2.Model], Any]] = {
    "id": lambda model: model.id,
    "name": lambda model: model.name[:400],
    "version": lambda model: sort_key(model.version),
    "score": lambda model: model.score if model.HasField("score") else float("-inf"),
    "project_name": lambda model: model.project_name[:400],
    "format": lambda model: model.format,
    "description": lambda model: model.description[:400],
    "creator": lambda model: model.creator,
    "revision": lambda model: model.revision,
    "artifact.size_bytes": lambda model: model.artifact.size_bytes,
    "metrics.mAP50": lambda model: model.metrics.get("mAP50", float("-inf")),
    'metrics."a.b \\"c"': lambda model: model.metrics.get('a.b "c', float("-inf")),
    "create_time": lambda model: model.create_time.ToNanoseconds(),
    "update_time": lambda model: model.update_time.ToNanoseconds(),
}


def in_order(models: list[model_pb2.Model], order: str) -> list[str]:
    """Return the ids of the models in Python's order: strings by code points."""
    fields = [
        item.rsplit(None, 1) if item.endswith((" asc", " desc")) else [item]
        for item in map(str.strip, order.split(","))
    ]
    if fields[-1][0] == "version":
        fields.append(["create_time", *fields[-1][1:]])
    if all(field[0] != "id" for field in fields):
        fields.append(["id", *fields[-1][1:]])
    result = list(models)
    for name, *direction in reversed(fields):
        result.sort(key=KEYS[name], reverse=direction == ["desc"])
    return [model.id for model in result]


ORDERS = (
    *(f"{name}{direction}" for name in KEYS for direction in ("", " desc")),
    *("name, score desc", "score desc, version", "update_time desc, name, id desc", "create_time, update_time desc"),
    *("metrics.mAP50 desc, project_name", "format, metrics.mAP50, version desc", "revision, format desc, name"),
    *("score, name", "name desc, version desc", "score asc , create_time   desc", "version desc, name"),
)


class TestPages:
    @pytest.mark.parametrize("order", ORDERS)
    def test_pages_have_each_model_once_and_in_order(self, registry: RunningRegistry, order: str) -> None:
        insert_models(registry.engine, 120)
        client = registry.client
        models = client.all()
        assert len(models) == 120
        expected = in_order(models, order)
        for size in (7, 119, 120, 121):
            listed = [model.id for model in client.iterate(order_by=order, page_size=size)]
            assert listed == expected, size

    def test_the_newest_come_first_by_default(self, registry: RunningRegistry) -> None:
        insert_models(registry.engine, 30)
        models = registry.client.all()
        assert [model.id for model in models] == in_order(models, "create_time desc")

    @pytest.mark.parametrize("order", ["version", "version desc", "version desc, score", "version, id desc"])
    def test_the_versions_of_a_group_are_ordered(self, client: Client, order: str) -> None:
        parts = itertools.product(("1", "1.0", "2.0", "1.10"), ("", "-rc.1", ".dev2", "+cpu", ".post1"))
        for number, (release, suffix) in enumerate(parts):
            client.register(name="vad", version=release + suffix, score=number % 3)
            client.register(name="other", version=f"{release}.{number}{suffix}")
        group = client.resolve("vad").model.model_group_id
        models = client.all(f'model_group_id = "{group}"')
        assert len(models) == 20
        for size in (3, 20, 50):
            listed = client.all(f'model_group_id = "{group}"', order_by=order, page_size=size)
            assert [model.id for model in listed] == in_order(models, order), size
        listed = client.all(f'score > 0 AND model_group_id = "{group}"', order_by=order, page_size=4)
        assert [model.id for model in listed] == in_order([model for model in models if model.score > 0], order)

    @pytest.mark.parametrize(
        ("size", "expected"), [(0, 50), (1, 1), (999, 999), (1000, 1000), (5000, 1000), (2**31 - 1, 1000)]
    )
    def test_a_page_has_the_requested_size(self, registry: RunningRegistry, size: int, expected: int) -> None:
        insert_models(registry.engine, 1001)
        page = registry.client.models.ListModels(model_service_pb2.ListModelsRequest(page_size=size))
        assert len(page.models) == expected
        assert page.next_page_token

    @pytest.mark.parametrize("size", [-1, -(2**31)])
    def test_a_negative_size_is_refused(self, client: Client, size: int) -> None:
        with refused(INVALID) as refusal:
            client.all(page_size=size)
        assert refusal.fields == ["page_size"]

    def test_a_last_page_that_is_full_has_no_token(self, registry: RunningRegistry) -> None:
        insert_models(registry.engine, 10)
        page = registry.client.models.ListModels(model_service_pb2.ListModelsRequest(page_size=10))
        assert len(page.models) == 10
        assert page.next_page_token == ""

    def test_a_page_fits_into_any_clients_message_limit(self, client: Client) -> None:
        # With 5,000 characters of four bytes in every text, all models do not fit into one page.
        text_fields = ("project_id", "project_name", "target_device", "target_device_type", "format", "origin")
        long: dict[str, Any] = dict.fromkeys((*text_fields, "category", "architecture"), "\U0001f600" * 5000)
        for number in range(30):
            client.register(name=f"n{number}", **long)
        page = client.models.ListModels(model_service_pb2.ListModelsRequest(page_size=1000))
        assert 1 <= len(page.models) < 30
        assert len(client.names(page_size=1000)) == 30

    def test_an_empty_registry_has_an_empty_page(self, client: Client) -> None:
        assert client.models.ListModels(model_service_pb2.ListModelsRequest()) == model_service_pb2.ListModelsResponse()

    def test_the_size_may_change_between_pages(self, registry: RunningRegistry) -> None:
        insert_models(registry.engine, 60)
        seen, token = [], ""
        for size in itertools.cycle([1, 7, 20]):
            page = registry.client.models.ListModels(
                model_service_pb2.ListModelsRequest(page_size=size, page_token=token, order_by="name")
            )
            seen += [model.id for model in page.models]
            if not (token := page.next_page_token):
                break
        assert seen == in_order(registry.client.all(), "name")

    @pytest.mark.parametrize("order", ["name", "create_time desc", "score desc, name"])
    def test_pages_have_each_lasting_model_once_during_other_changes(
        self, registry: RunningRegistry, order: str
    ) -> None:
        insert_models(registry.engine, 120)
        client = registry.client
        staying = client.all()
        stop = threading.Event()

        def register_and_delete(worker: int) -> int:
            for number in itertools.count():
                if stop.is_set():
                    return number
                model = client.register(
                    name=f"{CODE_POINTS[number % 16]}{worker}", version=str(number), score=number % 3
                )
                client.delete(model.id)
            raise AssertionError

        with ThreadPoolExecutor(2) as threads:
            workers = [threads.submit(register_and_delete, worker) for worker in range(2)]
            try:
                for _ in range(3):
                    seen = [model.id for model in client.iterate(order_by=order, page_size=9)]
                    assert len(seen) == len(set(seen))
                    stayed = {model.id for model in staying}
                    assert [model_id for model_id in seen if model_id in stayed] == in_order(staying, order)
            finally:
                stop.set()
            assert all(worker.result() > 0 for worker in workers)


class TestOrders:
    @pytest.mark.parametrize(
        "order",
        [
            "nonsense",
            "name asc desc",
            "name down",
            "name DESC",
            "name,",
            ",",
            "name,name desc",
            "id; DROP TABLE models",
            "metrics",
            "metrics.a.b",
            'metrics.""',
            'metrics."a',
            'metrics."\0"',
            "artifact",
            "overview",
            "scoer",
            "score desc name",
            "name,version,score,format,origin,category,creator,revision,id",
            "(name)",
            "name\x00",
            "x" * 100000,
            "tags",
        ],
        ids=lambda order: repr(order)[:20],
    )
    def test_an_invalid_order_is_refused_in_a_short_message(self, client: Client, order: str) -> None:
        with refused(INVALID) as refusal:
            client.all(order_by=order)
        assert refusal.fields == ["order_by"]
        assert len(refusal.message) < 300

    @pytest.mark.parametrize(
        ("order", "message"),
        [
            ("scoer", "order_by: unknown field scoer; did you mean score? (position 1)."),
            ("name, metric.mAP50", "unknown field metric.mAP50; did you mean metrics.KEY? (position 7)."),
            ("-metrics.auc", "order_by: write metrics.auc desc instead of -metrics.auc (position 1)."),
            ("name, -score", "order_by: write score desc instead of -score (position 7)."),
            (
                "created desc",
                "did you mean creator or create_time or metrics.created? (position 1).",
            ),
            ("auc desc", "order_by: unknown field auc; did you mean metrics.auc? (position 1)."),
            ("-nosuch", "order_by: unknown field -nosuch; expected a scalar field of Model or metrics.KEY"),
            ("artifact.size", "did you mean artifact.size_bytes? (position 1)."),
            ("name DESC", "order_by: expected asc, desc or a comma after name (position 6)."),
            ("name desc, name", "order_by: name appears twice (position 12)."),
        ],
    )
    def test_an_order_that_is_refused_is_explained(self, client: Client, order: str, message: str) -> None:
        with refused(INVALID) as refusal:
            client.all(order_by=order)
        assert message in refusal.message


def token_of(values: list[Any], query: tuple[str, ...] = ("", "")) -> str:
    """Forge a page token, as a reader of the source code could."""
    data = json.dumps([listing._fingerprint(query), values])
    return base64.urlsafe_b64encode(data.encode()).decode().rstrip("=")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["\ud800", "a\0", "0" * 5000, "2026-01-01T00:00:00+00:00", "9999-12-31T23:59:59-23:59"])
    | st.sampled_from([10**400, -(2**63), 2**63, float("nan"), float("inf"), -0.0]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["t", "x"]) | st.text(), inner, max_size=2)
    ),
    max_leaves=6,
)
TIMES = st.fixed_dictionaries(
    {
        "t": st.datetimes(timezones=st.timezones()).map(lambda time: time.isoformat())
        | st.sampled_from(
            [
                "0001-01-01T00:00:00+14:00",
                "9999-12-31T23:59:59.999999-14:00",
                "2026-01-01T00:00:00",
                "2026-01-01",
                "2026-01-01T00:00:00+00:00:30.5",
                "2026-W01-1T00:00:00Z",
                "20260101T000000+2359",
                5,
                None,
            ]
        )
    }
)


class TestTokens:
    def test_a_page_token_works_for_its_own_query_only(self, registry: RunningRegistry) -> None:
        insert_models(registry.engine, 10)
        models = registry.client.models
        request = model_service_pb2.ListModelsRequest(filter="score > 0", order_by="name", page_size=1)
        token = models.ListModels(request).next_page_token
        assert token
        for others in ({"filter": "score > 1"}, {"order_by": "name desc"}, {"filter": ""}, {"order_by": ""}):
            other = model_service_pb2.ListModelsRequest(page_token=token)
            other.MergeFrom(request)
            for name, value in others.items():
                setattr(other, name, value)
            with refused(INVALID) as refusal:
                models.ListModels(other)
            assert refusal.fields == ["page_token"]

    @pytest.mark.parametrize(
        "token",
        ["x", "not a token", "AAAA", "☃", "=" * 8, "e30", "bnVsbA", "W10", "WzFd", "x" * 1_000_001, "\0"],
        ids=lambda token: repr(token)[:20],
    )
    def test_random_page_tokens_are_refused(self, client: Client, token: str) -> None:
        with refused(INVALID) as refusal:
            client.all(page_token=token)
        assert refusal.fields == ["page_token"]
        assert len(refusal.message) < 300

    def test_a_tampered_page_token_is_never_a_server_error(self, registry: RunningRegistry) -> None:
        insert_models(registry.engine, 10)
        models = registry.client.models
        request = model_service_pb2.ListModelsRequest(order_by="create_time, name", page_size=1)
        token = models.ListModels(request).next_page_token
        for place in range(0, len(token), 2):
            for character in "A_":
                request.page_token = token[:place] + character + token[place + 1 :]
                answers_or_refuses(registry.client, request)
            request.page_token = token[:place]
            answers_or_refuses(registry.client, request)

    @given(JSON)
    @settings(max_examples=150)
    def test_page_tokens_with_forged_json_are_refused(self, registry: RunningRegistry, value: Any) -> None:
        token = base64.urlsafe_b64encode(json.dumps(value).encode()).decode()
        with refused(INVALID) as refusal:
            registry.client.all(page_token=token)
        assert refusal.fields == ["page_token"]

    def test_a_page_token_of_another_version_order_is_refused(self, registry: RunningRegistry) -> None:
        insert_models(registry.engine, 2)
        request = model_service_pb2.ListModelsRequest(order_by="version, id")
        request.page_token = token_of(["1", ""], ("", "version, id"))
        with refused(INVALID) as refusal:
            registry.client.models.ListModels(request)
        assert refusal.fields == ["page_token"]
        request.page_token = token_of(["", ""], ("", "version, id", listing.VERSION_ORDER))
        assert len(registry.client.models.ListModels(request).models) == 2

    @given(st.sampled_from(["name", "score", "create_time", "id"]), JSON | TIMES, st.text(max_size=3) | JSON)
    @example("name", "\ud800", "x")
    @example("name", "x", "\udfff")
    @example("score", 10**400, "x")
    @example("score", float("nan"), "x")
    @example("create_time", {"t": "2026-01-01T00:00:00+00:00:30.5"}, "x")
    @example("create_time", {"t": "0001-01-01T00:00:00+14:00"}, "x")
    @example("create_time", {"t": "9999-12-31T23:59:59-14:00"}, "x")
    @settings(max_examples=300)
    def test_a_forged_page_token_is_never_a_server_error(
        self, registry: RunningRegistry, order: str, value: Any, model_id: Any
    ) -> None:
        values = [value] if order == "id" else [value, model_id]
        request = model_service_pb2.ListModelsRequest(order_by=order, page_token=token_of(values, ("", order)))
        answers_or_refuses(registry.client, request)


def answers_or_refuses(client: Client, request: model_service_pb2.ListModelsRequest) -> None:
    try:
        client.models.ListModels(request)
    except grpc.RpcError as error:
        expect(error, INVALID)


class TestFilters:
    @pytest.fixture
    def three(self, client: Client) -> Client:
        client.register(
            b"a" * 10, id="first-model-0001", name="YOLOX-S", version="1.0", project_name="p",
            precisions=["fp16", "int8"], score=0.5, format="onnx",
            labels=ListValue(values=[Value(string_value="cat")]), metrics={"mAP50": 0.7},
            tags={"team": "vision", "odd key": "x"},
            overview=Value(struct_value=Struct(fields={"a": Value(number_value=1)})),
            provenance={"framework": "pytorch", "seed": 7, "datasets": [{"name": "coco", "digest": "sha256:00"}],
                        "parent_model_ids": ["second-model-0002"]},
            artifact={"file_name": "a.bin"},
        )  # fmt: skip
        client.register(b"b" * 20, id="second-model-0002", name="yolo 2", score=0.25, tags={"team": "audio"})
        client.register(
            b"c" * 30, id="third-model-00003", name="resnet", format="openvino", score=-1, target_device="GPU"
        )
        return client

    @pytest.mark.parametrize(
        ("filter_text", "found"),
        [
            ("", "123"),
            ('name = "yolo*"', "2"),
            ('name : "yolo"', "12"),
            ("resnet", "3"),
            ('id = "second-model-0002"', "2"),
            ("score >= 0.5 AND metrics.mAP50 > 0.6", "1"),
            ("score > -1 AND score < 0.5", "2"),
            ('precisions : "fp16"', "1"),
            ('precisions : "fp32"', "23"),
            ('labels : "cat"', "1"),
            ('tags : "team"', "12"),
            ('tags.team = "vision"', "1"),
            ('tags."odd key" = "x"', "1"),
            ('NOT (format = "onnx" OR create_time < "2026-01-01T00:00:00Z")', "23"),
            ('create_time > "2026-01-01T00:00:00Z"', "123"),
            ('update_time < "2026-01-01T00:00:00Z"', ""),
            ("overview.a = 1", "1"),
            ("artifact.size_bytes > 10", "23"),
            ('artifact.file_name = "a.bin"', "1"),
            ("revision = 1", "123"),
            ("provenance.seed = 7", "1"),
            ('provenance.framework = "pytorch"', "1"),
            ('provenance.datasets.digest = "sha256:00"', "1"),
            ('provenance.parent_model_ids : "second-model-0002"', "1"),
            ('target_device = "CPU"', "12"),
            ("project_name : *", "1"),
            ("format = null", "2"),
            ("yolo AND (score < 0.3 OR format = onnx)", "12"),
        ],
    )
    def test_models_are_found_by_the_fields_of_the_intel_compatible_api(
        self, three: Client, filter_text: str, found: str
    ) -> None:
        ids = {"1": "first-model-0001", "2": "second-model-0002", "3": "third-model-00003"}
        assert [model.id for model in three.iterate(filter_text, order_by="id")] == [ids[number] for number in found]
        assert [model.id for model in three.iterate(filter_text, order_by="id", page_size=1)] == [
            ids[number] for number in found
        ]

    @pytest.mark.parametrize(
        ("filter_text", "position"),
        [
            ("nme = 1", 1),
            ("name = ", 8),
            ("name = a AND (", 15),
            ("score > high", 9),
            ("a" * 9000, 8193),
            ("name < 'x*'", 8),
            ("artifact.kind = folderr", 17),
        ],
        ids=lambda value: str(value)[:20],
    )
    def test_an_error_in_a_filter_has_its_position(self, client: Client, filter_text: str, position: int) -> None:
        with refused(INVALID, "INVALID_FILTER") as refusal:
            client.all(filter_text)
        assert refusal.metadata == {"field": "filter", "position": str(position)}
        assert refusal.fields == ["filter"]
        assert str(position) in refusal.message

    @pytest.mark.parametrize(
        "filter_text", ["'", "name = 'a\0b'", 'name = "\'; DROP TABLE models; --"', "tags.'%s' = '%(x)s'"]
    )
    def test_hostile_filters_are_answered_or_refused(self, client: Client, filter_text: str) -> None:
        client.register()
        answers_or_refuses(client, model_service_pb2.ListModelsRequest(filter=filter_text))
        assert len(client.all()) == 1


def bulk(engine: Engine) -> None:
    models = text("""
        INSERT INTO models (id, name, version, project_name, precision, score, format, overview,
            optimization_capabilities, labels, metrics, tags, provenance, created_date, last_updated_date,
            create_time, update_time, revision, creator, file_name, media_type, size, sha256, file_url, object_key)
        SELECT 'model-' || lpad(n::text, 12, '0'), CASE WHEN n % 4 = 0 THEN 'grouped' ELSE md5(n::text) END,
            'v' || n || CASE WHEN n % 8 = 0 THEN '-rc.1' ELSE '' END, CASE WHEN n % 4 > 0 THEN 'p' || n END,
            '{fp32}', (n * 7919) % 20011,
            'onnx', '{}', '{}', '[]', '{}', jsonb_build_object('team', 't' || n % 2000, 'n', n::text), '{}', '', '',
            timestamptz '2026-01-01Z' + n * interval '1 minute',
            timestamptz '2027-01-01Z' + n * interval '1 minute',
            1, '', 'a', 'a/b', 1, repeat('0', 64), '', n::text
        FROM generate_series(CAST(:first AS integer), :first + 1999) AS n
        """)
    # In parts, since a statement times out after half a minute.
    for first in range(1, 20_000, 2_000):
        with engine.begin() as connection:
            connection.execute(models, {"first": first})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE models"))


def plan_of(engine: Engine, query: ListQuery) -> dict[str, Any]:
    """Explain the statement of the repository with its parameters."""
    with sent_to(engine) as sent, SqlDatabase(engine).transaction() as transaction:
        models = transaction.models.list(query).models
    assert models
    [(statement, parameters)] = sent
    with engine.connect() as connection:
        row = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).scalar_one()
    plan: dict[str, Any] = row[0]["Plan"]
    return plan


def indexes_of_models(plan: dict[str, Any]) -> list[str]:
    names = [node["Index Name"] for node in nodes(plan) if "Index Name" in node]
    return [name for name in names if name.startswith(("pk_models", "ix_models_", "uq_models_"))]


class TestIndexes:
    """Pages of 20,000 models are found without reading all of them."""

    def test_every_page_is_found_by_an_index(self, engine: Engine) -> None:
        # One test, since inserting this many models takes longer than the rest.
        bulk(engine)
        indexes = {
            "id": "pk_models",
            **{name: f"ix_models_{name}" for name in ("name", "score", "create_time", "update_time")},
            "version": "ix_models_version_order",
        }
        for (name, index), direction in itertools.product(indexes.items(), ("", " desc")):
            order = parse_order(name + direction)
            first = ListQuery(filter=None, order=order, after=None, limit=51)
            self.is_found_by(plan_of(engine, first), index)
            with SqlDatabase(engine).transaction() as transaction:
                middle = transaction.models.list(ListQuery(filter=None, order=order, after=None, limit=1000)).models[-1]
            page = plan_of(engine, ListQuery(filter=None, order=order, after=sort_values(middle, order), limit=51))
            self.is_found_by(page, index)
            of_models = [node for node in nodes(page) if node.get("Relation Name") == "models"]
            scan, _row = [node for node in of_models if "Index Cond" in node]
            assert scan["Index Name"] == index
            assert scan["Node Type"] == "Index Scan", "the page begins where the token says, not at the start"
        for filter_text, index in (
            ('name : "4238A0B"', "ix_models_text"),
            ('name = "c4ca4238a0b923820dcc509a6f75849b"', "ix_models_name"),
            ('version = "v77"', "ix_models_version"),
            ('project_name = "p77"', "ix_models_text"),
            ('tags.n = "77"', "ix_models_elements"),
            ('tags.team = "t5" AND score > 1', "ix_models_elements"),
            ('id = "model-000000000077"', "pk_models"),
        ):
            query = ListQuery(filter=parse(filter_text), order=parse_order("name"), after=None, limit=51)
            plan = plan_of(engine, query)
            assert indexes_of_models(plan) == [index, "pk_models"], (filter_text, plan)
            assert all("Index Cond" in node for node in nodes(plan) if "Index Name" in node), (filter_text, plan)
            scans = [node["Node Type"] for node in nodes(plan) if node.get("Relation Name") == "models"]
            assert "Seq Scan" not in scans, (filter_text, plan)

        with engine.connect() as connection:
            group = connection.execute(text("SELECT id FROM model_groups WHERE name = 'grouped'")).scalar_one()
        node = parse(f'model_group_id = "{group}" AND score >= 0')
        for direction in ("", " desc"):
            order = parse_order("version" + direction)
            first = ListQuery(filter=node, order=order, after=None, limit=51)
            with SqlDatabase(engine).transaction() as transaction:
                middle = transaction.models.list(replace(first, limit=900)).models[-1]
            for query in (first, replace(first, after=sort_values(middle, order))):
                plan = plan_of(engine, query)
                scans = [node for node in nodes(plan) if node.get("Relation Name") == "models"]
                # Releases, pre-releases, and the models of the page.
                assert {scan["Node Type"] for scan in scans} == {"Index Scan"}, plan
                assert [scan["Index Name"] for scan in scans] == [*["ix_models_group"] * 2, "pk_models"], plan
                assert all(node["Plan Rows"] <= 104 for node in nodes(plan) if "Sort" in node["Node Type"]), plan

    @staticmethod
    def is_found_by(plan: dict[str, Any], index: str) -> None:
        found = list(nodes(plan))
        # The models of the page are then taken by their ids.
        assert indexes_of_models(plan) == [index, "pk_models"], plan
        assert all(node["Node Type"] != "Seq Scan" for node in found if node.get("Relation Name") == "models"), plan
        # Only the page itself may be sorted.
        assert all(node["Plan Rows"] <= 52 for node in found if "Sort" in node["Node Type"]), plan
