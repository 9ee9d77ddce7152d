"""The forms and queries of the Intel-compatible API, without a server."""

import json
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_service.compat.answers import RestError
from registry_service.compat.forms import Texts, changes, form_texts
from registry_service.compat.multipart import MultipartReader, PartHeader
from registry_service.compat.queries import query_of
from registry_service.compat.values import json_object, labels
from registry_service.domain.validation import MAX_JSON_DEPTH


def refusal(call: Any, *arguments: Any) -> int:
    with pytest.raises(RestError) as caught:
        call(*arguments)
    status: int = caught.value.answer.status
    return status


def form(**values: str) -> Texts:
    texts = Texts()
    for name, value in values.items():
        texts.add(name, value.encode())
    return texts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('["a", "b"]', ("a", "b")),
        ("['a', 'b']", ("a", "b")),
        (" [{'name': 'cow', 'is_empty': False}] ", ({"name": "cow", "is_empty": False},)),
        ("[]", ()),
        ("", ()),
    ],
)
def test_labels_are_a_list_as_json_or_python_writes_it(text: str, expected: tuple[object, ...]) -> None:
    assert labels([text]) == expected


def test_repeated_labels_are_a_label_each() -> None:
    assert labels(["x", "", "y"]) == ("x", "y")


@pytest.mark.parametrize(
    "text",
    [
        "cow",
        "cow, sheep",
        '"cow"',
        "5",
        "None",
        "[1]",
        "('a',)",
        "{'a'}",
        '["\\u0000"]',
        '["\\ud800"]',
        "[" * 5000,
        "__import__('os')",
        "[b'a']",
        "[[]]",
        "[" * 100_000 + "]" * 100_000,
    ],
)
def test_anything_else_is_no_list_of_labels(text: str) -> None:
    assert refusal(labels, [text]) == 422


@pytest.mark.parametrize(
    "text",
    [
        "",
        "words",
        "5",
        "null",
        "true",
        "[1]",
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": -Infinity}',
        "{'a': 1}",
        "[" * 5000,
        f'{{"a": 1{"0" * 400}}}',
        f'{{"a": 1{"0" * 5000}}}',
        '{"\\u0000": 1}',
        '{"a": "\\udc00"}',
    ],
)
def test_what_no_reader_could_take_is_no_json_object(text: str) -> None:
    assert refusal(json_object, "overview", text) == 422


def test_json_is_as_deep_as_grpc_can_read() -> None:
    def nested(depth: int) -> str:
        return '{"a":' * depth + "1" + "}" * depth

    assert json_object("overview", nested(MAX_JSON_DEPTH)) == json.loads(nested(MAX_JSON_DEPTH))
    assert refusal(json_object, "overview", nested(MAX_JSON_DEPTH + 1)) == 422


def test_a_blank_text_changes_nothing() -> None:
    assert changes(form(name="", origin="new", overview="", labels="", precision="", size="0", foo="1")) == {
        "origin": "new",
        "compat_size": 0,
    }
    assert refusal(changes, form(name="", foo="1", id="other")) == 400


@pytest.mark.parametrize("size", ["-1", str(2**63), "1.5", "", "9" * 5000])
def test_a_size_that_is_none_is_refused(size: str) -> None:
    assert refusal(changes, form(size=size)) == 422


def test_urlencoded_text_that_is_no_utf8_is_refused() -> None:
    assert refusal(changes, form_texts("application/x-www-form-urlencoded", iter([b"name=%E9"]))) == 422
    assert changes(form_texts("application/x-www-form-urlencoded", iter([b"name=a+%C3", b"%A9"]))) == {"name": "a é"}


@pytest.mark.parametrize(
    ("path", "must_match", "status"),
    [
        ("/models", False, None),
        ("/models?", False, None),
        ("/models?name=", False, None),
        ("/models?name=&version=1", True, None),
        ("/models?name=a&name=", False, None),
        ("/models?Name=a", None, 422),
        ("/models?name=a%25", None, 400),
        ("/models?name=%3C&name=a", True, None),
        ("/models?name=a%00", None, 422),
        ("/models?" + "name=a&" * 2000, None, 422),
    ],
)
def test_queries(path: str, must_match: bool | None, status: int | None) -> None:
    if status is None:
        assert query_of(path).must_match is must_match
    else:
        assert refusal(query_of, path) == status


BODY = (
    b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\nYOLO\r\n'
    b'--x\r\ncontent-disposition: form-data; name="file"; filename="my \\"model\\".zip"\r\n'
    b"Content-Type: application/zip\r\n\r\n\r\n--y\r\n-\r\n--x--\r\n"
)


@given(st.lists(st.integers(0, len(BODY)), max_size=20))
def test_a_form_may_be_cut_anywhere(cuts: list[int]) -> None:
    places = sorted({0, len(BODY), *cuts})
    pieces = (BODY[start:end] for start, end in pairwise(places))
    reader = MultipartReader(pieces, "multipart/form-data; boundary=x")
    found = [(part, b"".join(reader.data())) for part in reader.parts()]
    assert found == [
        (PartHeader(name="name", file_name=None, content_type=""), b"YOLO"),
        (PartHeader(name="file", file_name='my "model".zip', content_type="application/zip"), b"\r\n--y\r\n-"),
    ]


@given(st.integers(0, len(BODY) - 5))
def test_a_form_that_ends_early_is_broken(end: int) -> None:
    def read() -> None:
        reader = MultipartReader(iter([BODY[:end]]), "multipart/form-data; boundary=x")
        for _ in reader.parts():
            b"".join(reader.data())

    assert refusal(read) == 400


@given(st.binary(max_size=300))
def test_no_body_is_too_odd_for_an_answer(body: bytes) -> None:
    for kind in ("multipart/form-data; boundary=x", "multipart/form-data", "application/x-www-form-urlencoded", "?"):
        with suppress(RestError):
            changes(form_texts(kind, iter([b"--x\r\n" + body, body])))
