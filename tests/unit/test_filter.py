import inspect
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from registry_service.domain.errors import InvalidFilterError
from registry_service.domain.filter import (
    MAX_DEPTH,
    MAX_LENGTH,
    MAX_RESTRICTIONS,
    And,
    Comparator,
    Field,
    Kind,
    Node,
    Not,
    Or,
    Pattern,
    Restriction,
    Subject,
    Value,
    parse,
    with_field_renamed,
)
from registry_service.domain.vocabulary import Action

DOCUMENTED = (
    'name = "yolo*"',
    "score >= 0.5 AND metrics.mAP50 > 0.6",
    'name : "yolo"',
    'precisions : "fp16"',
    'labels : "cat"',
    'tags : "team"',
    'tags.team = "vision"',
    'NOT (format = "onnx" OR create_time < "2026-01-01T00:00:00Z")',
    "yolo",
)


def outline(node: Node | None) -> str:
    """Writes the tree with all its parentheses."""
    match node:
        case None:
            return "everything"
        case And(children):
            return "(" + " and ".join(map(outline, children)) + ")"
        case Or(children):
            return "(" + " or ".join(map(outline, children)) + ")"
        case Not(child):
            return f"not {outline(child)}"
        case Restriction(field, comparator, value):
            shown = "*".join(value.parts) if isinstance(value, Pattern) else value
            return " ".join([".".join(field.path), comparator.value, *([] if value is None else [str(shown)])])


def only(text: str) -> Restriction:
    node = parse(text)
    assert isinstance(node, Restriction)
    return node


def error_of(text: str) -> tuple[str, int]:
    with pytest.raises(InvalidFilterError) as raised:
        parse(text)
    return raised.value.message, int(raised.value.metadata["position"])


class TestGrammar:
    @pytest.mark.parametrize("blank", ["", " ", "\t\n "])
    def test_a_blank_filter_is_every_model(self, blank: str) -> None:
        assert parse(blank) is None

    @pytest.mark.parametrize("text", DOCUMENTED)
    def test_the_documented_examples_parse(self, text: str) -> None:
        assert parse(text) is not None

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("a AND b OR c", "(name : a and (name : b or name : c))"),
            ("a OR b AND c", "((name : a or name : b) and name : c)"),
            ("a b OR c d", "(name : a and (name : b or name : c) and name : d)"),
            ("(a b) OR c", "((name : a and name : b) or name : c)"),
            ("a (b OR c)", "(name : a and (name : b or name : c))"),
            ("(a)(b)", "(name : a and name : b)"),
            ("NOT a OR b", "(not name : a or name : b)"),
            ("NOT (a OR b)", "not (name : a or name : b)"),
            ("NOT(a)", "not name : a"),
            ("-a b", "(not name : a and name : b)"),
            ("-(a b)", "not (name : a and name : b)"),
            ("NOT NOT a", "name : a"),
            ("--a", "name : a"),
            ("NOT -a", "name : a"),
            ('NOT version != "1"', "version = 1"),
            ("((a))", "name : a"),
        ],
    )
    def test_or_binds_tighter_than_and_and_not_tighter_than_both(self, text: str, expected: str) -> None:
        assert outline(parse(text)) == expected

    @pytest.mark.parametrize("text", ["name=a", "name =a", "name= a", "\tname\n=\n'a'", '"name" = a'])
    def test_white_space_and_quotes_make_no_difference(self, text: str) -> None:
        assert outline(parse(text)) == "name = a"

    @pytest.mark.parametrize(
        ("text", "searched"),
        [("yolo", "yolo"), ('"two words"', "two words"), ("v1.5", "v1.5"), ("x-large", "x-large"), ("yo*lo", "yo*lo")],
    )
    def test_a_bare_word_is_searched_in_the_name(self, text: str, searched: str) -> None:
        assert outline(parse(text)) == f"name : {searched}"

    def test_a_minus_before_a_number_is_a_sign_in_a_value_alone(self) -> None:
        assert outline(parse("score > -1.5e-3 -7")) == "(score > -0.0015 and not name : 7)"

    @pytest.mark.parametrize("operator", ["=", "<", "<=", ">", ">="])
    def test_every_comparator_of_the_grammar_is_known(self, operator: str) -> None:
        assert only(f"score {operator} 1").comparator.value == operator

    def test_not_equal_is_the_opposite_of_equal(self) -> None:
        assert parse("format != onnx") == parse("NOT format = onnx")


class TestTexts:
    @pytest.mark.parametrize(
        ("written", "parts"),
        [
            ("'it is'", ("it is",)),
            ('"say \\"hi\\""', ('say "hi"',)),
            ("'it\\'s'", ("it's",)),
            ('"it\'s"', ("it's",)),
            ('"back\\\\slash"', ("back\\slash",)),
            ('"line\\nbreak"', ("line\nbreak",)),
            ('"100%_"', ("100%_",)),
            ('""', ("",)),
            ('"*"', ("", "")),
            ('"*.foo"', ("", ".foo")),
            ('"foo*"', ("foo", "")),
            ('"a*b*c"', ("a", "b", "c")),
            ('"a***"', ("a", "")),
            ('"2\\*3"', ("2*3",)),
            ("2\\*3", ("2*3",)),
            ('"\\\\*"', ("\\", "")),
            ("sha256:ab.cd", ("sha256:ab.cd",)),
            ('"null"', ("null",)),
            ('"AND"', ("AND",)),
        ],
    )
    def test_quotes_escapes_and_wildcards_mean_what_they_say(self, written: str, parts: tuple[str, ...]) -> None:
        assert only(f"name = {written}").value == Pattern(parts)

    def test_precision_is_compared_in_lower_case(self) -> None:
        assert only("precisions : FP16").value == Pattern(("fp16",))


class TestFields:
    @pytest.mark.parametrize(
        ("text", "field"),
        [
            ("id = x", Field(("id",), Kind.TEXT)),
            ("size_bytes = 1", Field(("size_bytes",), Kind.INTEGER)),
            ("artifact.size_bytes = 1", Field(("size_bytes",), Kind.INTEGER)),
            ("artifact.sha256 = x", Field(("sha256",), Kind.TEXT)),
            ("revision = 1", Field(("revision",), Kind.INTEGER)),
            ("score = 1", Field(("score",), Kind.NUMBER)),
            ("update_time > 2026-01-01", Field(("update_time",), Kind.TIME)),
            ("metrics.mAP50 > 1", Field(("metrics", "mAP50"), Kind.NUMBER, is_key=True)),
            ("tags.team = x", Field(("tags", "team"), Kind.TEXT, is_key=True)),
            ('tags."odd key.x" = x', Field(("tags", "odd key.x"), Kind.TEXT, is_key=True)),
            ("tags.AND = x", Field(("tags", "AND"), Kind.TEXT, is_key=True)),
            ("provenance.source_commit = x", Field(("provenance", "source_commit"), Kind.TEXT)),
            ("provenance.datasets : x", Field(("provenance", "datasets"), Kind.LIST)),
            ("provenance.datasets.digest = x", Field(("provenance", "datasets", "digest"), Kind.ELEMENT)),
            ("provenance.parent_model_ids : x", Field(("provenance", "parent_model_ids"), Kind.LIST)),
            ("provenance.seed = 7", Field(("provenance", "seed"), Kind.INTEGER)),
            (
                "provenance.hyperparameters.lr.start < 1",
                Field(("provenance", "hyperparameters", "lr", "start"), Kind.JSON, is_key=True),
            ),
            (
                "provenance.environment.python : 3",
                Field(("provenance", "environment", "python"), Kind.TEXT, is_key=True),
            ),
            ("overview.key.sub = 1", Field(("overview", "key", "sub"), Kind.JSON, is_key=True)),
        ],
    )
    def test_every_documented_path_finds_its_field(self, text: str, field: Field) -> None:
        assert only(text).field == field

    @pytest.mark.parametrize(
        "text", ["tags : team", 'tags : "team"', "tags.team : *", 'tags.team : "*"', "tags.team != null"]
    )
    def test_a_map_has_a_key_where_the_key_is_present(self, text: str) -> None:
        assert only(text) == Restriction(Field(("tags", "team"), Kind.TEXT, is_key=True), Comparator.PRESENT)

    @pytest.mark.parametrize("name", ["name", "score", "create_time", "labels", "tags", "provenance", "overview"])
    def test_a_star_asks_for_presence_and_null_for_absence(self, name: str) -> None:
        assert outline(parse(f"{name}:*")) == f"{name} :*"
        assert outline(parse(f"{name} = null")) == f"not {name} :*"

    def test_an_object_has_its_declared_fields(self) -> None:
        assert outline(parse("provenance : seed")) == "provenance.seed :*"


class TestValues:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("score = 1", 1.0),
            ("score = -.5", -0.5),
            ("score = 1e3", 1000.0),
            ('score = "0.5"', 0.5),
            ("size_bytes = 1e3", 1000),
            ("size_bytes = 9223372036854775807", 2**63 - 1),
            ("size_bytes = -9223372036854775808", -(2**63)),
            ("size_bytes : 5", 5),
            ("overview.x = 5", 5),
            ("overview.x = 0.5", 0.5),
            ("overview.x = true", True),
            ("overview.x = false", False),
            ('overview.x = "5"', Pattern(("5",))),
            ('overview.x = "true"', Pattern(("true",))),
            ("overview.x = 1e30", 1e30),
            ("overview.x = five", Pattern(("five",))),
            ("tags.x = 5", Pattern(("5",))),
            ("tags.x = true", Pattern(("true",))),
        ],
    )
    def test_a_value_has_the_type_of_its_field(self, text: str, value: Value) -> None:
        found = only(text).value
        assert found == value
        assert type(found) is type(value)

    @pytest.mark.parametrize(
        ("written", "time"),
        [
            ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
            ('"2026-01-31T12:30:00Z"', datetime(2026, 1, 31, 12, 30, tzinfo=UTC)),
            ("2026-01-31T12:30:00Z", datetime(2026, 1, 31, 12, 30, tzinfo=UTC)),
            ("2026-01-31t12:30:00z", datetime(2026, 1, 31, 12, 30, tzinfo=UTC)),
            ('"2026-01-31 12:30:00Z"', datetime(2026, 1, 31, 12, 30, tzinfo=UTC)),
            ("2012-04-21T11:30:00-04:00", datetime(2012, 4, 21, 15, 30, tzinfo=UTC)),
            ("2012-04-21T11:30:00+04:30", datetime(2012, 4, 21, 7, 0, tzinfo=UTC)),
            ("2026-01-31T00:00:00.5Z", datetime(2026, 1, 31, 0, 0, 0, 500_000, tzinfo=UTC)),
            ("2026-01-31T00:00:00.123456789Z", datetime(2026, 1, 31, 0, 0, 0, 123_456, tzinfo=UTC)),
            ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ],
    )
    def test_a_time_is_that_of_rfc_3339_or_a_date(self, written: str, time: datetime) -> None:
        assert only(f"create_time >= {written}").value == time


class TestErrors:
    @pytest.mark.parametrize(
        ("text", "position", "told"),
        [
            ("nmae = x", 1, "unknown field nmae; did you mean name?"),
            ("score > 1 AND nmae = x", 15, "did you mean name?"),
            ("zzz = x", 1, "the fields are aliases, architecture, artifact, category"),
            ("artifact.siez_bytes = 1", 10, "unknown field siez_bytes in artifact; did you mean size_bytes?"),
            ("provenance.source_comit = x", 12, "did you mean source_commit?"),
            ("provenance : source_comit", 14, "did you mean source_commit?"),
            ("precision : fp16", 1, "unknown field precision; did you mean precisions?"),
            ("schema.format = onnx", 1, "unknown field schema; did you mean signature?"),
            ("size > 1", 1, "unknown field size; did you mean artifact.size_bytes?"),
            ("f1 > 0.5", 1, "unknown field f1; did you mean metrics.f1?"),
            ("name = x loss <= -1e-3", 10, "unknown field loss; did you mean metrics.loss?"),
            ("seed = 7", 1, "unknown field seed; did you mean provenance.seed?"),
            ("producer : x", 1, "unknown field producer; did you mean signature.producer?"),
            ("scoer > 0.5", 1, "unknown field scoer; did you mean score?"),
            ("created > 2026-01-01", 1, "unknown field created; did you mean create_time?"),
            ("artifact.size > 1", 10, "unknown field size in artifact; did you mean size_bytes?"),
            ('created_date : "2026"', 1, "unknown field created_date; did you mean create_time?"),
            ("signature.schema = x", 11, "unknown field schema in signature"),
            ("signature.precision : x", 11, "did you mean precisions?"),
            ("artifact = x", 1, "artifact.size_bytes"),
            ("score.x = 1", 7, "score has no fields"),
            ("metrics.a.b > 1", 11, "quote a key that contains a dot"),
            ("tags.te* = x", 6, "wildcard"),
            ("tags : te*", 8, "wildcard"),
            ("score = high", 9, "score: must be a number, not high"),
            ("metrics.acc > high", 15, "metrics.acc: must be a number"),
            ("score = 1*", 9, "wildcard"),
            ("score = 1e999", 9, "beyond the range of a double"),
            ("score = nan", 9, "must be a number, not nan"),
            ("score = inf", 9, "must be a number, not inf"),
            ("overview.x = 1e999", 14, "beyond the range of a double"),
            ("size_bytes = 1.5", 14, "is not a 64-bit integer"),
            ("size_bytes = 9223372036854775808", 14, "is not a 64-bit integer"),
            ("size_bytes = 1e999999999", 14, "is not a 64-bit integer"),
            ("size_bytes = 1e99999999999999999999", 14, "is not a 64-bit integer"),
            ("provenance.seed = -9223372036854775809", 19, "is not a 64-bit integer"),
            ("create_time > yesterday", 15, "yesterday is not a time"),
            ("create_time > 2026-02-30", 15, "is not a valid time"),
            ("create_time > 2026-01-01T00:00:00", 15, "is not a time"),
            ("create_time > 2026-W01-1", 15, "is not a time"),
            ("create_time > 0001-01-01T00:00:00+23:59", 15, "is not a valid time"),
            ("create_time > 9999-12-31T23:59:60Z", 15, "is not a valid time"),
            ("labels < cat", 8, "labels: operator < is not supported for a list"),
            ("precisions >= fp16", 12, "precisions: operator >= is not supported for a list"),
            ("tags = team", 6, "tags: operator = is not supported for a map"),
            ("provenance != x", 12, "provenance: operator != is not supported for an object"),
            ("provenance.datasets.name < x", 26, "operator < is not supported"),
            ("overview < true", 12, "operator < is not supported for true and false"),
            ("name < null", 8, "operator < is not supported for null"),
            ("name < a*", 8, "operator < does not support wildcards"),
            ("name = lower(x)", 8, "functions are not supported: lower()"),
            ("lower(name) = x", 1, "functions are not supported: lower()"),
            ("expr.matches(name)", 1, "functions are not supported"),
            ("name = (a OR b)", 8, "expected one value after ="),
            ("name = a,b", 9, "unexpected ,"),
            ("name = a = b", 10, "unexpected ="),
            ("name == a", 7, "missing value after ="),
            ("name =", 7, "missing value after ="),
            ("name = AND score > 1", 8, "not a keyword"),
            ("= a", 1, "instead of ="),
            ("a AND", 6, "the filter ends"),
            ("a OR ", 6, "the filter ends"),
            ("NOT", 4, "the filter ends"),
            ("a AND OR b", 7, "instead of OR"),
            ("AND a", 1, "instead of AND"),
            ("a and b", 3, "write AND in upper case"),
            ("(a", 1, "missing ) for this ("),
            ("a)", 2, "unbalanced )"),
            ("()", 2, "instead of )"),
            ("a. b", 2, "missing name after the dot"),
            ("a .b", 3, "unexpected ."),
            ("a - b", 3, "missing restriction after -"),
            ("a -", 3, "missing restriction after -"),
            ("!a", 1, "write NOT"),
            ("'a'b", 4, "expected a space or a keyword before b"),
            ("name = 'a", 8, "missing closing quote"),
            ("it's", 3, "missing closing quote"),
            ("name = 'a\\q'", 10, "unknown escape \\q"),
            ("name = \\", 8, "missing character after the backslash"),
            ("name = 'a\0'", 10, "U+0000 is not supported"),
            ("name = '\ud800'", 9, "U+D800 is not supported"),
        ],
    )
    def test_an_error_says_what_is_wrong_and_where(self, text: str, position: int, told: str) -> None:
        message, found = error_of(text)
        assert told in message
        assert found == position
        assert message.endswith(f" (position {position}).")

    @pytest.mark.parametrize(
        ("text", "position", "told"),
        [
            ('name LIKE "a%"', 6, "name: unknown operator LIKE; the operators are =, !=, <, <=, >, >= and :"),
            ('name like "a%"', 6, "unknown operator like"),
            ('name NOT LIKE "a%"', 6, "unknown operator NOT"),
            ('name IN ("a", "b")', 6, "unknown operator IN"),
            ('name in ("a" OR "b")', 6, "unknown operator in"),
            ("score BETWEEN 1 AND 2", 7, "unknown operator BETWEEN"),
            ("format IS NULL", 8, "unknown operator IS"),
            ('name ~ "a"', 6, "unknown operator ~"),
            ('name ~* "a"', 6, "unknown operator ~*"),
            ('name =~ "a"', 7, "unknown operator in ~"),
            ("name =~a", 7, "unknown operator in ~a"),
            ('name !~ "a"', 6, "write NOT"),
            ("name <> a", 7, "missing value after <"),
            ("name === a", 7, "missing value after ="),
            ("score => 1", 8, "missing value after ="),
            ("score ≥ 1", 7, "unknown operator ≥"),
            ("score≥1", 1, "unknown operator score≥1"),
            ("name~yolo", 1, "unknown operator name~yolo"),
            ("name eq yolo", 6, "unknown operator eq"),
            ("tags.team is vision", 11, "unknown operator is"),
            ('name "yolo"', 6, 'unknown operator "yolo"'),
            ('"cat" IN labels', 7, "unknown operator IN"),
            ("format = onnx && score > 1", 15, "unknown operator &&"),
            ("format = onnx || score > 1", 15, "unknown operator ||"),
            ("format = onnx&&score", 10, "unknown operator in onnx&&score"),
            ("format = onnx | openvino", 15, "unknown operator |"),
            ("yolo||resnet", 1, "unknown operator yolo||resnet"),
            ("yolo XOR resnet", 6, "unknown operator XOR"),
            ("score > 1 ORDER BY name", 11, "unknown operator ORDER"),
            ("score > 1 LIMIT 5", 11, "unknown operator LIMIT"),
            ("yolo ; drop", 6, "unknown operator ;"),
            ("name", 5, "missing operator after the field name"),
            ("NOT tags.team", 14, "missing operator after the field tags.team"),
            ("(score) > 1", 7, "missing operator after the field score"),
        ],
    )
    def test_an_operator_of_another_language_is_an_error_with_its_position(
        self, text: str, position: int, told: str
    ) -> None:
        message, found = error_of(text)
        assert told in message
        assert found == position

    @pytest.mark.parametrize(
        "text",
        [
            'name : "seg" precisions : fp16',
            "yolo small",
            "YOLO SMALL",
            "YOLO -nano",
            "v1.5 c++ a&b",
            'format = onnx "like"',
            "'name' \"is\" 'a||b'",
            "name : like OR name : is",
            "name = 'a||b' OR tags.x = '~'",
            "tags.like = in",
            "likeness island inception order",
            "a\\~b",
            "*",
        ],
    )
    def test_a_search_stays_a_search(self, text: str) -> None:
        assert parse(text) is not None

    def test_what_the_client_wrote_is_shortened_in_an_error(self) -> None:
        message, _ = error_of(f"{'x' * 5_000} = 1")
        assert len(message) < 1_000


class TestLimits:
    def test_a_filter_may_be_as_long_as_the_limit_and_no_longer(self) -> None:
        longest = "x" * MAX_LENGTH
        assert outline(parse(longest)) == f"name : {longest}"
        assert error_of(longest + "x")[1] == MAX_LENGTH + 1

    def test_parentheses_may_be_as_deep_as_the_limit_and_no_deeper(self) -> None:
        assert outline(parse("(" * MAX_DEPTH + "a" + ")" * MAX_DEPTH)) == "name : a"
        assert error_of("(" * (MAX_DEPTH + 1) + "a" + ")" * (MAX_DEPTH + 1))[1] == MAX_DEPTH + 1

    def test_there_may_be_as_many_restrictions_as_the_limit_and_no_more(self) -> None:
        most = " ".join(["ab"] * MAX_RESTRICTIONS)
        root = parse(most)
        assert isinstance(root, And)
        assert len(root.children) == MAX_RESTRICTIONS
        assert error_of(most + " OR ab")[1] == len(most) + 5

    def test_a_path_may_have_as_many_names_as_the_limit_and_no_more(self) -> None:
        longest = "overview" + ".x" * (MAX_DEPTH - 1)
        assert len(only(f"{longest} = 1").field.path) == MAX_DEPTH
        assert error_of(f"{longest}.x = 1")[1] == len(longest) + 2

    @pytest.mark.parametrize(
        "text", ["(" * 8_000, "-" * 8_000, "NOT " * 2_000, "-(" * 4_000, "NOT(" * 2_000, "a." * 4_000]
    )
    def test_repetition_ends_in_an_error_not_in_a_deep_stack(self, text: str) -> None:
        error_of(text)

    def test_thousands_of_minuses_cancel_each_other(self) -> None:
        assert outline(parse("-" * 8_001 + "a")) == "not name : a"


PIECES = st.sampled_from(
    [
        *(
            "name",
            "score",
            "tags",
            "metrics",
            "provenance",
            "overview",
            "artifact",
            "create_time",
            "labels",
            "seed",
            "x",
        ),
        *("AND", "OR", "NOT", "-", "(", ")", ",", ".", ":", "=", "!=", "<", "<=", ">", ">=", "!", "*", "\\", '"', "'"),
        *(
            " ",
            "\n",
            "1",
            "-1",
            "1e5",
            "1e999999",
            "true",
            "null",
            "2026-01-01",
            "T00:00:00Z",
            '"a*"',
            "'\\*'",
            "\0",
            "é",
        ),
    ]
)


class TestEvents:
    """The same language over the fields of an event."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("sequence > 5 yolo", "(sequence > 5 and name : yolo)"),
            ("event_time >= 2026-01-01", "time >= 2026-01-01 00:00:00+00:00"),
            (
                "actor = a request_id = b alias = c reason : d",
                "(actor = a and request_id = b and alias = c and reason : d)",
            ),
            ("model_id = m OR project_id = p OR project_name:*", "(model_id = m or project_id = p or project_name :*)"),
            ("action = ACTION_ALIAS_ROLLED_BACK", "action = alias.rolled_back"),
            ("action = 'ACTION_ALIAS_*'", "action = alias.*"),
            ("action = ACTION_MODEL_GROUP_UPDATED", "action = model_group.updated"),
            ("action = 'ACTION_MODEL_GROUP_*'", "action = model_group.*"),
            ("action = 'ACTION_*_DELETED'", "action = *.deleted"),
            ("action = 'model.*'", "action = model.*"),
            ("action = 'ACTION_*ROLLED_BACK'", "action = *rolled_back"),
            ("action = 'ACTION_MODEL_G*'", "action = model_g*"),
            ("action = '*'", "action = *"),
            ("action : ALIAS", "action : ALIAS"),
            ("action : ACTION_MODEL_GROUP", "action : model_group"),
            ("action : 'rolled*back'", "action : rolled*back"),
            ("action > ACTION_ALIAS_SET", "action > alias.set"),
            ("action:* action != null", "(action :* and action :*)"),
        ],
    )
    def test_filters(self, text: str, expected: str) -> None:
        assert outline(parse(text, Subject.EVENT)) == expected

    @pytest.mark.parametrize(
        "text", ["score > 1", "after.score > 1", "hash = a", "artifact.size_bytes = 1", "tags : a"]
    )
    def test_other_fields_are_none(self, text: str) -> None:
        with pytest.raises(InvalidFilterError, match="unknown field"):
            parse(text, Subject.EVENT)

    def test_a_model_has_none_of_an_events_fields(self) -> None:
        for name in ("sequence", "event_time", "actor", "request_id", "action", "model_id", "alias", "reason"):
            with pytest.raises(InvalidFilterError, match="unknown field"):
                parse(f"{name} = 1")


class TestRenaming:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("", ""),
            ("time > 2026-01-31", "event_time > 2026-01-31"),
            ("time>2026 -time<2027 OR (time:*)", "event_time>2026 -event_time<2027 OR (event_time:*)"),
            ('NOT "time" = null', 'NOT "event_time" = null'),
            ("name = time", "name = time"),
            ('name = "time = 1" AND "time > 1"', 'name = "time = 1" AND "time > 1"'),
            ("time AND tags.time = 1 AND time.zone = 2", "time AND tags.time = 1 AND time.zone = 2"),
            ("create_time = 1  time\n=\n1 ", "create_time = 1  event_time\n=\n1 "),
        ],
    )
    def test_only_the_field_gets_the_other_name(self, text: str, expected: str) -> None:
        assert with_field_renamed(text, "time", "event_time") == expected


class TestEnums:
    """Values of which there are few, so that others are mistakes."""

    @pytest.mark.parametrize("action", [action for action in Action if action])
    @pytest.mark.parametrize("comparator", ["=", ":", "<"])
    def test_every_action_is_known_as_it_is_kept_and_as_the_api_shows_it(self, action: Action, comparator: str) -> None:
        name = "ACTION_" + action.value.replace(".", "_").upper()
        for written in (action.value, name):
            assert outline(parse(f'action {comparator} "{written}"', Subject.EVENT)) == f"action {comparator} {action}"

    @pytest.mark.parametrize(
        ("subject", "text", "expected"),
        [
            (Subject.MODEL, "artifact.kind = KIND_FOLDER", "artifact_kind = folder"),
            (Subject.MODEL, "artifact.kind = 'f*'", "artifact_kind = f*"),
            (Subject.MODEL_GROUP, "metric_goals.x = METRIC_GOAL_MAXIMIZE", "metric_goals.x = maximize"),
            (Subject.MODEL_GROUP, "metric_goals.x != 'METRIC_GOAL_MIN*'", "not metric_goals.x = min*"),
            (Subject.MODEL_GROUP, "metric_goals.'odd key' : MAX", "metric_goals.odd key : MAX"),
            (
                Subject.MODEL_GROUP,
                "tags.x = bigger metric_goals : bigger",
                "(tags.x = bigger and metric_goals.bigger :*)",
            ),
        ],
    )
    def test_other_enums_are_as_those(self, subject: Subject, text: str, expected: str) -> None:
        assert outline(parse(text, subject)) == expected

    ACTIONS = (
        "ACTION_MODEL_REGISTERED, ACTION_MODEL_UPDATED, ACTION_MODEL_DELETED, ACTION_ALIAS_SET,"
        " ACTION_ALIAS_ROLLED_BACK, ACTION_ALIAS_DELETED, ACTION_MODEL_GROUP_UPDATED, ACTION_MODEL_GROUP_DELETED,"
        " ACTION_TOKEN_CREATED, ACTION_TOKEN_REVOKED"
    )

    @pytest.mark.parametrize(
        ("subject", "text", "hint"),
        [
            (Subject.EVENT, "action = |ALIAS_SET", "did you mean ACTION_ALIAS_SET?"),
            (Subject.EVENT, "name = a AND action != |'alias_s*'", "did you mean ACTION_ALIAS_S*?"),
            (Subject.EVENT, "action : |ALIAS_SET", "did you mean ACTION_ALIAS_SET?"),
            (Subject.EVENT, "action = |Alias.Set", "did you mean ACTION_ALIAS_SET?"),
            (Subject.EVENT, "action = |ACTION_ALIAS_ROLLEDBACK", "did you mean ACTION_ALIAS_ROLLED_BACK?"),
            (Subject.EVENT, "action = |'ACTION_ALAIS_*'", f"the values are {ACTIONS}"),
            (Subject.EVENT, "action = |ACTION_UNSPECIFIED", f"the values are {ACTIONS}"),
            (Subject.EVENT, "action = |''", f"the values are {ACTIONS}"),
            (Subject.EVENT, "action : |promoted", f"the values are {ACTIONS}"),
            (Subject.EVENT, "action >= |alias", "did you mean ACTION_ALIAS_SET?"),
            (Subject.MODEL, "artifact.kind = |folderr", "did you mean KIND_FOLDER?"),
            (Subject.MODEL, "-artifact.kind = |FILE", "did you mean KIND_FILE?"),
            (Subject.MODEL, "artifact.kind = |'fo*o*er'", "the values are KIND_FILE, KIND_FOLDER"),
            (Subject.MODEL, "artifact.kind = |'file*e'", "the values are KIND_FILE, KIND_FOLDER"),
            (
                Subject.MODEL_GROUP,
                "metric_goals.x = |bigger",
                "the values are METRIC_GOAL_MAXIMIZE, METRIC_GOAL_MINIMIZE",
            ),
            (Subject.MODEL_GROUP, "metric_goals.x = |maximise", "did you mean METRIC_GOAL_MAXIMIZE?"),
        ],
    )
    def test_a_value_that_is_none_is_refused_where_it_begins(self, subject: Subject, text: str, hint: str) -> None:
        before, value = text.split("|")
        with pytest.raises(InvalidFilterError) as raised:
            parse(before + value, subject)
        assert raised.value.message == f"filter: unknown value {value}; {hint} (position {len(before) + 1})."
        assert raised.value.metadata["position"] == str(len(before) + 1)

    @pytest.mark.parametrize("value", ["ACTION_" + "_" * 8_000, "ACTION_" + "*a" * 4_000, "é" * 8_000, "*e" * 4_000])
    def test_a_long_value_is_refused_too(self, value: str) -> None:
        with pytest.raises(InvalidFilterError, match="unknown value"):
            parse(f"action = '{value}'", Subject.EVENT)


class TestAnyText:
    @given(st.text() | st.lists(PIECES, max_size=30).map("".join) | st.lists(PIECES, max_size=30).map(" ".join))
    @example("size=1e" + "9" * 5_000)
    @example("size=" + "9" * 8_000)
    @example("score=-0." + "0" * 8_000 + "1")
    @settings(max_examples=500)
    def test_any_text_is_a_filter_or_an_error_inside_of_it(self, text: str) -> None:
        try:
            parse(text)
        except InvalidFilterError as error:
            assert 1 <= int(error.metadata["position"]) <= len(text) + 1  # noqa: PT017 - both ways out are right

    @given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
    def test_any_text_can_be_quoted(self, text: str) -> None:
        escaped = "".join("\\" + character if character in "\\\"'*" else character for character in text)
        for quote in "\"'":
            assert only(f"name = {quote}{escaped}{quote}").value == Pattern((text,))

    def test_the_deepest_filter_fits_a_small_stack(self) -> None:
        deepest = "-(a OR " * MAX_DEPTH + "b" + ")" * MAX_DEPTH
        limit = sys.getrecursionlimit()
        depth = len(inspect.stack(0))
        sys.setrecursionlimit(depth + 300)
        try:
            assert parse(deepest) is not None
        finally:
            sys.setrecursionlimit(limit)
