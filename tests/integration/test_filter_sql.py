"""The compiled filters against a reference that evaluates the same tree in Python."""

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    DateTime,
    Double,
    MetaData,
    Table,
    Text,
    event,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from registry_service.domain.filter import And, Comparator, Kind, Node, Not, Or, Pattern, Restriction, Value, parse
from registry_service.embedded.postgres import PostgresAddress
from registry_service.storage.sql.filter_sql import where
from tests.postgres_server import create_database, drop_database, engine_of

DATABASE = "filtered"

# ---- The rows

TEXT_COLUMNS = (
    *("id", "name", "version", "project_id", "project_name", "target_device", "target_device_type", "format"),
    *("origin", "category", "architecture", "creator", "file_name"),
    *("media_type", "sha256"),
)
JSON_COLUMNS = ("overview", "optimization_capabilities", "labels", "metrics", "tags", "provenance")
MODELS = Table(
    "filtered_models",
    MetaData(),
    *(Column(name, Text) for name in TEXT_COLUMNS),
    Column("precision", ARRAY(Text)),
    Column("score", Double),
    Column("size", BigInteger),
    Column("revision", BigInteger),
    Column("create_time", DateTime(timezone=True)),
    Column("update_time", DateTime(timezone=True)),
    *(Column(name, JSONB(none_as_null=True)) for name in JSON_COLUMNS),
    prefixes=["TEMPORARY"],
)
INDEXES = (
    "CREATE INDEX ON filtered_models USING gin (name gin_trgm_ops, version gin_trgm_ops, format gin_trgm_ops)",
    "CREATE INDEX ON filtered_models USING gin (precision, labels, metrics, tags)",
)

COLUMNS = {"precisions": "precision", "size_bytes": "size"}
"""Of fields whose column has another name."""

HOSTILE = "a%b_c\\d"
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
JUNE = datetime(2026, 6, 1, 12, 30, 0, 500_000, tzinfo=UTC)

Row = Mapping[str, Any]
ROWS: tuple[Row, ...] = (
    {
        "id": "whole",
        "name": "yolo",
        "version": "1.0",
        "project_name": HOSTILE,
        "format": "onnx",
        "creator": "",
        "precision": ["fp16", "int8"],
        "score": 0.5,
        "size": 2**63 - 1,
        "revision": 1,
        "create_time": NEW_YEAR,
        "update_time": JUNE,
        "overview": {
            "key": {"sub": 1, "text": "cat"},
            "n": 0.5,
            "b": True,
            "list": ["cat", 1],
            "empty": "",
            "null": None,
        },
        "optimization_capabilities": {},
        "labels": ["cat", {"name": "dog"}],
        "metrics": {"acc": 0.5, "loss": -1},
        "tags": {"team": "vision", "odd key.x": "1", "none": ""},
        "provenance": {
            "source_commit": "abc",
            "framework": "",
            "datasets": [{"name": "coco", "uri": "s3://x", "digest": "sha256:ab"}, {"name": "Cats", "digest": ""}],
            "parent_model_ids": ["whole", "bare"],
            "seed": 7,
            "hyperparameters": {"lr": 0.5, "layers": {"n": 3}},
            "environment": {"python": "3.12"},
        },
    },
    {"id": "bare", "name": "YOLO v2", "version": "1A", "revision": 2, "precision": ["fp32"]},
    {
        "id": "odd",
        "name": "é'\"*",
        "version": "%",
        "format": "",
        "precision": [],
        "score": -1.0,
        "size": 0,
        "overview": "A text about a Cat",
        "optimization_capabilities": ["cat", True, 0.5, None],
        "labels": {"name": "cat"},
        "metrics": {"acc": "0.5", "loss": None},
        "tags": {"team": 5, "none": None},
        "provenance": {
            "source_commit": 5,
            "datasets": "coco",
            "seed": "7",
            "hyperparameters": [1],
            "environment": "python",
        },
    },
    {
        "id": "odder",
        "name": "a\\*b",
        "version": "_",
        "overview": 0.5,
        "optimization_capabilities": True,
        "labels": "cat",
        "metrics": ["acc"],
        "tags": "team",
        "provenance": ["seed"],
        "precision": ["fp16"],
        "create_time": JUNE,
    },
    {
        "id": "nested",
        "name": "line\nbreak",
        "version": "",
        "overview": {"key": "cat", "n": [0.5, True], "b": False, "list": {"cat": 1}},
        "labels": [["cat"], 1, None, {"name": 5}, {"name": {"name": "dog"}}, {"title": "dog"}],
        "metrics": {"acc": 1e300, "loss": 5e-324},
        "tags": {"team": "Vis%ion", "odd key.x": ["1"]},
        "provenance": {
            "datasets": [["coco"], 5, "coco", {"name": ["coco"]}],
            "seed": 2**63 - 1,
            "hyperparameters": {"lr": "0.5"},
        },
    },
    {
        "id": "huge",
        "name": "huge",
        "version": "9",
        "overview": [],
        "labels": [],
        "metrics": {"acc": 10**400, "loss": 0.1},
        "tags": {},
        "provenance": {},
        "score": 0.1,
    },
)


@pytest.fixture(scope="module")
def connection(postgres: PostgresAddress) -> Iterator[Connection]:
    create_database(postgres, DATABASE, "template1")
    engine = engine_of(postgres, DATABASE)
    with engine.connect() as opened:
        opened.execute(text("CREATE EXTENSION pg_trgm"))
        MODELS.create(opened)
        for index in INDEXES:
            opened.execute(text(index))
        for row in ROWS:
            opened.execute(MODELS.insert().values(row))
        yield opened
    engine.dispose()
    drop_database(postgres, DATABASE)


def found(connection: Connection, node: Node) -> set[str]:
    return set(connection.scalars(select(MODELS.c.id).where(where(node, MODELS))))


def matches_of(connection: Connection, filter_text: str) -> set[str]:
    node = parse(filter_text)
    assert node is not None
    return found(connection, node)


# ---- The reference

ORDERS: Mapping[Comparator, Callable[[Any, Any], bool]] = {
    Comparator.EQUAL: operator.eq,
    Comparator.LESS: operator.lt,
    Comparator.LESS_EQUAL: operator.le,
    Comparator.GREATER: operator.gt,
    Comparator.GREATER_EQUAL: operator.ge,
}


def holds(node: Node, row: Row) -> bool:
    match node:
        case And(children):
            return all(holds(child, row) for child in children)
        case Or(children):
            return any(holds(child, row) for child in children)
        case Not(child):
            return not holds(child, row)
        case Restriction():
            return restriction_holds(node, row)


def restriction_holds(restriction: Restriction, row: Row) -> bool:
    field, comparator, value = restriction.field, restriction.comparator, restriction.value
    if field.kind is Kind.ELEMENT:
        elements = inside(row, field.path[:-1])
        texts = [inside(element, field.path[-1:]) for element in elements] if isinstance(elements, list) else []
        if comparator is Comparator.PRESENT:
            return any(isinstance(found, str) and found for found in texts)
        return any(compares(found, comparator, value) for found in texts)
    stored = inside(row, field.path)
    if comparator is Comparator.PRESENT:
        return stored is not None and (field.is_key or stored not in ("", [], {}))
    if field.kind is Kind.LIST:
        names = {("labels",): ["name"], ("provenance", "datasets"): ["name", "digest"]}.get(field.path, [])
        elements = stored if isinstance(stored, list) else []
        candidates = [*elements, *(inside(element, (name,)) for element in elements for name in names)]
        return any(compares(candidate, comparator, value) for candidate in candidates)
    if field.kind is Kind.JSON and comparator is Comparator.CONTAINS:
        return json_has(stored, value)
    return compares(stored, comparator, value)


def inside(value: object, path: tuple[str, ...]) -> Any:
    for key in (COLUMNS.get(path[0], path[0]), *path[1:]):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def json_has(stored: object, value: Value) -> bool:
    if isinstance(stored, list):
        is_plain = not isinstance(value, Pattern) or value.literal is not None
        return is_plain and any(compares(element, Comparator.EQUAL, value) for element in stored)
    if isinstance(stored, dict):
        return isinstance(value, Pattern) and value.literal is not None and stored.get(value.literal) is not None
    return compares(stored, Comparator.CONTAINS if isinstance(value, Pattern) else Comparator.EQUAL, value)


def compares(stored: object, comparator: Comparator, value: Value) -> bool:
    if not isinstance(value, Pattern):
        are_same = is_number(stored) if is_number(value) else isinstance(stored, type(value))
        return are_same and ORDERS[comparator](stored, value)
    if not isinstance(stored, str):
        return False
    expression = ".*".join(re.escape(part) for part in value.parts)
    if comparator is Comparator.CONTAINS:
        return bool(re.search(expression, stored, re.DOTALL | re.IGNORECASE))
    if value.literal is None:
        return bool(re.fullmatch(expression, stored, re.DOTALL))
    return ORDERS[comparator](stored, value.literal)


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# ---- The filters


def quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


WORDS = (
    *(
        "yolo",
        "YOLO",
        "1.0",
        "cat",
        "Cat",
        "dog",
        "coco",
        "vision",
        "VIS",
        "abc",
        "sha256:ab",
        "python",
        "3.12",
        "team",
    ),
    *("fp16", "FP32", "onnx", "0.5", "5", "7", "true", "", "%", "_", "a%b_c\\d", "é", "É", "'", "\n", "bare", "whole"),
    *("key", "sub", "acc", "none", "name", "b", "a"),
)
TEXT_VALUES = (
    st.sampled_from(WORDS).map(quoted)
    # An unescaped star is a wildcard, and `quoted` does not escape it.
    | st.lists(st.sampled_from(["*", "a", "o", "c", "l", "1", "%", "_", "É", "fp", "\\", "'", "."]), max_size=4)
    .map("".join)
    .map(quoted)
    | st.just('"a\\\\\\*b"')
)
NUMBER_VALUES = st.sampled_from(
    ["0", "1", "0.5", "5e-1", "-1", "7", "3", "1e300", "5e-324", "0.1", "9223372036854775807"]
)
TIME_VALUES = st.sampled_from(
    ["2026-01-01", "2026-06-01T12:30:00.5Z", '"2026-06-01T14:30:00.500000+02:00"', "2026-03-01", "0001-01-01"]
)
INTEGER_VALUES = st.sampled_from(["0", "1", "2", "7", "9223372036854775807", "-9223372036854775808"])
JSON_VALUES = TEXT_VALUES | NUMBER_VALUES | st.sampled_from(["true", "false", "cat", "null", "*"])
ALL = ("=", "!=", "<", "<=", ">", ">=", ":")
EQUALITIES = ("=", "!=", ":")

TEXT_FIELDS = (
    *TEXT_COLUMNS,
    *("tags.team", 'tags."odd key.x"', "tags.none", "tags.missing", "artifact.file_name"),
    *("provenance.source_commit", "provenance.framework", "provenance.environment.python"),
)
ELEMENT_FIELDS = ("provenance.datasets.name", "provenance.datasets.uri", "provenance.datasets.digest")
LIST_FIELDS = ("precisions", "labels", "provenance.datasets", "provenance.parent_model_ids")
INTEGER_FIELDS = ("size_bytes", "artifact.size_bytes", "revision", "provenance.seed")
NUMBER_FIELDS = ("score", "metrics.acc", "metrics.loss", "metrics.missing")
JSON_FIELDS = (
    *("overview", "overview.key", "overview.key.sub", "overview.key.text", "overview.n", "overview.b", "overview.list"),
    *("overview.empty", "overview.null", "optimization_capabilities", "provenance.hyperparameters"),
    *("provenance.hyperparameters.lr", "provenance.hyperparameters.layers.n"),
)
MAPS = ("tags", "metrics", "provenance.environment")


def restrictions(
    fields: tuple[str, ...], operators: tuple[str, ...], values: st.SearchStrategy[str]
) -> st.SearchStrategy[str]:
    parts = st.tuples(st.sampled_from(fields), st.sampled_from(operators), values)
    return parts.filter(lambda three: may_be_ordered(*three[1:])).map(" ".join)


def may_be_ordered(comparator: str, value: str) -> bool:
    """Exclude values that the parser refuses: wildcards, booleans and null have no order."""
    return comparator not in {"<", "<=", ">", ">="} or not ("*" in value or value in {"true", "false", "null"})


RESTRICTIONS = st.one_of(
    restrictions(TEXT_FIELDS, ALL, TEXT_VALUES),
    restrictions(ELEMENT_FIELDS, EQUALITIES, TEXT_VALUES),
    restrictions(LIST_FIELDS, EQUALITIES, TEXT_VALUES),
    restrictions(INTEGER_FIELDS, ALL, INTEGER_VALUES),
    restrictions(NUMBER_FIELDS, ALL, NUMBER_VALUES),
    restrictions(("create_time", "update_time"), ALL, TIME_VALUES),
    restrictions(JSON_FIELDS, ALL, JSON_VALUES),
    restrictions(MAPS, (":",), st.sampled_from(WORDS).map(quoted)),
    restrictions(
        (
            *TEXT_FIELDS,
            *ELEMENT_FIELDS,
            *LIST_FIELDS,
            *INTEGER_FIELDS,
            *NUMBER_FIELDS,
            *JSON_FIELDS,
            *MAPS,
            "provenance",
        ),
        ("= null", "!= null", ": *"),
        st.just(""),
    ),
    st.sampled_from(WORDS).map(quoted),
)
FILTERS = st.recursive(
    RESTRICTIONS,
    lambda inner: st.one_of(
        inner.map(lambda one: f"NOT ({one})"),
        inner.map(lambda one: f"-({one})"),
        st.tuples(inner, st.sampled_from([" AND ", " OR ", " "]), inner).map(lambda parts: "({}{}{})".format(*parts)),
    ),
    max_leaves=5,
)


class TestAgainstTheReference:
    @given(FILTERS)
    @settings(max_examples=1_500)
    @example("NOT format = onnx")
    @example("metrics.acc > 0.5 OR metrics.acc <= 0.5")
    @example('overview = "cat" OR optimization_capabilities = "cat"')
    @example("optimization_capabilities : 0.5 AND optimization_capabilities : true")
    def test_a_filter_finds_what_the_reference_finds(self, connection: Connection, filter_text: str) -> None:
        node = parse(filter_text)
        assert node is not None
        expected = {row["id"] for row in ROWS if holds(node, row)}
        assert found(connection, node) == expected
        assert found(connection, Not(node)) == {row["id"] for row in ROWS} - expected

    @given(FILTERS)
    @settings(max_examples=300)
    def test_an_index_finds_what_the_reference_finds(self, connection: Connection, filter_text: str) -> None:
        node = parse(filter_text)
        assert node is not None
        connection.execute(text("SET enable_seqscan = off"))
        try:
            assert found(connection, node) == {row["id"] for row in ROWS if holds(node, row)}
        finally:
            connection.execute(text("RESET enable_seqscan"))


class TestExamples:
    """Fixed examples, since the reference could share a mistake with the code."""

    @pytest.mark.parametrize(
        ("filter_text", "ids"),
        [
            ('name = "yolo"', {"whole"}),
            ('name = "YOLO*"', {"bare"}),
            ('name : "yolo"', {"whole", "bare"}),
            ("yolo", {"whole", "bare"}),
            ('name = "a\\\\\\*b"', {"odder"}),
            ('project_name : "%b_"', {"whole"}),
            ('version = "%"', {"odd"}),
            ('version : "%"', {"odd"}),
            ("precisions : FP16", {"whole", "odder"}),
            ('precisions = "int*"', {"whole"}),
            ('labels : "cat"', {"whole"}),
            ('labels : "dog"', {"whole"}),
            ("tags : team", {"whole", "odd", "nested"}),
            ('tags.team : "VIS"', {"whole", "nested"}),
            ('tags.team = "vision"', {"whole"}),
            ("tags.none : *", {"whole"}),
            ("NOT tags : team", {"bare", "odder", "huge"}),
            ("metrics.acc >= 0.5", {"whole", "nested", "huge"}),
            ("metrics.acc : *", {"whole", "odd", "nested", "huge"}),
            ("overview.key.sub = 1", {"whole"}),
            ("overview.n < 1", {"whole"}),
            ("overview : cat", {"odd"}),
            ("overview : key", {"whole", "nested"}),
            ("overview : n", {"whole", "nested"}),
            ('overview : "null"', set()),
            ('provenance.datasets : "coco"', {"whole", "nested"}),
            ('provenance.datasets.digest = "sha256:ab"', {"whole"}),
            ('provenance.datasets.name : "cat"', {"whole"}),
            ('provenance.parent_model_ids : "bare"', {"whole"}),
            ("provenance.seed > 6", {"whole", "nested"}),
            ("size_bytes = 9223372036854775807", {"whole"}),
            ("create_time < 2026-03-01", {"whole"}),
            ('create_time = "2026-06-01T14:30:00.5+02:00"', {"odder"}),
            ('format != "onnx"', {"bare", "odd", "odder", "nested", "huge"}),
            ('NOT (format = "onnx")', {"bare", "odd", "odder", "nested", "huge"}),
            ('NOT (format = "onnx" OR score > 0)', {"bare", "odd", "odder", "nested"}),
            ("format : *", {"whole"}),
            ("score : *", {"whole", "odd", "huge"}),
            ("labels : *", {"whole", "odd", "odder", "nested"}),
        ],
    )
    def test_the_filter_finds_these_models(self, connection: Connection, filter_text: str, ids: set[str]) -> None:
        assert matches_of(connection, filter_text) == ids


class TestSafety:
    @pytest.mark.parametrize(
        "hostile",
        [
            "'; DROP TABLE filtered_models; --",
            '"quoted"',
            "100%",
            "%s",
            "%(name)s",
            ":name",
            "under_score",
            "back\\slash",
            "$1",
            "?",
        ],
    )
    @pytest.mark.parametrize(
        "template",
        [
            *(
                "name = {}",
                "name : {}",
                "name < {} AND name = x",
                "name = *{}*",
                "precisions : {}",
                "labels : {}",
                "tags.{} = {}",
                "tags : {}",
            ),
            *(
                "metrics.{} > 1",
                "overview.{} = {}",
                "overview.{} : {}",
                "overview : {}",
                "provenance.datasets.name : {}",
            ),
        ],
    )
    def test_hostile_text_is_bound_and_never_part_of_the_statement(
        self, connection: Connection, template: str, hostile: str
    ) -> None:
        marked = f"marker{hostile}marker"
        written = quoted(marked)
        if "*{}*" in template:
            written, template = f'"*{written[1:-1]}*"', template.replace("*{}*", "{}")
        node = parse(template.replace("{}", written))
        assert node is not None
        statements: list[str] = []

        def note(*arguments: Any) -> None:
            statements.append(arguments[2])

        event.listen(connection, "before_cursor_execute", note)
        try:
            assert found(connection, node) == set()
        finally:
            event.remove(connection, "before_cursor_execute", note)
        assert len(statements) == 1
        assert "marker" not in statements[0]
        assert connection.scalar(select(text("count(*)")).select_from(MODELS)) == len(ROWS)

    @pytest.mark.parametrize(
        ("restriction", "ids"),
        [
            (f"= {quoted(HOSTILE)}", {"whole"}),
            (f": {quoted(HOSTILE[1:])}", {"whole"}),
            (f"= {quoted(HOSTILE.replace('_', '%'))}", set()),
            (f": {quoted(HOSTILE.replace('%', '_'))}", set()),
        ],
    )
    def test_stored_hostile_text_is_found(self, connection: Connection, restriction: str, ids: set[str]) -> None:
        assert matches_of(connection, f"project_name {restriction}") == ids


class TestIndexes:
    @pytest.mark.parametrize(
        ("filter_text", "condition"),
        [
            ("format = onnx", "Index Cond: (format = 'onnx'"),
            ("name : yolo", "Index Cond: (name ~~* '%yolo%'"),
            ('name = "yolo*"', "Index Cond: (name ~~ 'yolo%'"),
            ("precisions : fp16", "Index Cond: (\"precision\" @> '{fp16}'"),
            ("labels : cat", "Index Cond: (labels @> '[\"cat\"]'"),
            ("tags.team = vision", 'Index Cond: (tags @> \'{"team": "vision"}\''),
            ("tags : team", "Index Cond: (tags ? 'team'"),
            ("tags.team : vis", "Index Cond: (tags ? 'team'"),
            ("metrics.acc > 0.5", "Index Cond: (metrics ? 'acc'"),
            ("yolo AND NOT format = onnx", "Index Cond: (name ~~* '%yolo%'"),
        ],
    )
    def test_an_index_serves_the_restriction(self, connection: Connection, filter_text: str, condition: str) -> None:
        node = parse(filter_text)
        assert node is not None
        statement = select(MODELS.c.id).where(where(node, MODELS))

        def explain(*arguments: Any) -> tuple[str, Any]:
            return f"EXPLAIN {arguments[2]}", arguments[3]

        connection.execute(text("SET enable_seqscan = off"))
        event.listen(connection, "before_cursor_execute", explain, retval=True)
        try:
            plan = "\n".join(connection.scalars(statement))
        finally:
            event.remove(connection, "before_cursor_execute", explain)
            connection.execute(text("RESET enable_seqscan"))
        assert condition in plan
