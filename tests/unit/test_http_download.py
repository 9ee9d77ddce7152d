"""The HTTP side of a download, case by case (RFC 9110, RFC 6266)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from registry_service.domain.errors import ArtifactEtagMismatchError, RangeNotSatisfiableError
from registry_service.domain.models import Artifact, Model
from registry_service.transport.grpc.http_download import (
    DownloadPlan,
    content_disposition,
    plan_download,
    plan_file_download,
)

SHA256 = "ab" * 32
ETAG = f'"{SHA256}"'
SIZE = 1000
REGISTERED = datetime(2026, 3, 1, 12, 30, 45, 999_999, tzinfo=UTC)
DATE = "Sun, 01 Mar 2026 12:30:45 GMT"
LATER = "Sun, 01 Mar 2026 12:30:46 GMT"
EARLIER = "Sun, 01 Mar 2026 12:30:44 GMT"

MODEL = Model(
    id="0123456789abcdef",
    name="n",
    version="v",
    created_date="",
    last_updated_date="",
    create_time=REGISTERED,
    update_time=REGISTERED + timedelta(days=9),
    artifact=Artifact(
        file_name="model.zip", media_type="application/zip", size=SIZE, sha256=SHA256, file_url="", object_key="k"
    ),
)


CONDITIONS = ("range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since")
HEADER_VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126)) | st.from_regex(
    r"(bytes=)?[0-9-]{0,30}|[A-Z][a-z]{2}, \d{1,25} [A-Z][a-z]{2} \d{1,25} [0-9:]{0,9} [+A-Z0-9-]{0,25}",
    fullmatch=True,
)


def plan(size: int = SIZE, **headers: str) -> DownloadPlan:
    model = replace(MODEL, artifact=replace(MODEL.artifact, size=size))
    return plan_download(model, {name.replace("_", "-"): value for name, value in headers.items()})


def header(planned: DownloadPlan, name: str) -> str | None:
    values = [value for key, value in planned.metadata if key == name]
    assert len(values) <= 1
    return values[0] if values else None


def status(planned: DownloadPlan) -> int:
    return int(header(planned, "x-http-status") or 0)


class TestWhole:
    def test_it_is_described(self) -> None:
        planned = plan()
        assert status(planned) == 200
        assert (planned.offset, planned.length) == (0, SIZE)
        # The media type that was declared could be one that browsers run.
        assert planned.content_type == "application/octet-stream"
        assert dict(planned.metadata) == {
            "x-http-status": "200",
            "etag": ETAG,
            "last-modified": DATE,
            "accept-ranges": "bytes",
            "content-disposition": 'attachment; filename="model.zip"',
            "x-content-length": "1000",
        }

    def test_a_head_says_the_same_without_a_body(self) -> None:
        get, head = plan(), plan(x_envoy_original_method="HEAD")
        assert head.length == 0
        assert dict(head.metadata) == dict(get.metadata) | {"x-content-type": "application/octet-stream"}

    def test_a_head_knows_no_ranges(self) -> None:
        head = plan(x_envoy_original_method="HEAD", range="bytes=0-9")
        assert status(head) == 200
        assert header(head, "x-content-length") == "1000"
        assert header(head, "content-range") is None

    def test_times_are_in_gmt_whatever_the_models_zone(self) -> None:
        elsewhere = replace(MODEL, create_time=REGISTERED.astimezone(timezone(timedelta(hours=5, minutes=30))))
        assert header(plan_download(elsewhere, {}), "last-modified") == DATE


class TestRanges:
    @pytest.mark.parametrize(
        ("wanted", "first", "last"),
        [
            ("bytes=0-0", 0, 0),
            ("bytes=0-999", 0, 999),
            ("bytes=0-", 0, 999),
            ("bytes=10-19", 10, 19),
            ("bytes=999-", 999, 999),
            ("bytes=500-5000", 500, 999),
            ("bytes=500-999999999999999999", 500, 999),
            ("bytes=-1", 999, 999),
            ("bytes=-1000", 0, 999),
            ("bytes=-5000", 0, 999),
            ("BYTES=1-2", 1, 2),
        ],
    )
    def test_a_range_is_answered_with_206(self, wanted: str, first: int, last: int) -> None:
        planned = plan(range=wanted)
        assert status(planned) == 206
        assert (planned.offset, planned.length) == (first, last - first + 1)
        assert header(planned, "content-range") == f"bytes {first}-{last}/1000"
        assert header(planned, "x-content-length") == str(last - first + 1)
        assert header(planned, "etag") == ETAG
        assert header(planned, "content-disposition") is not None

    @pytest.mark.parametrize("wanted", ["bytes=1000-", "bytes=1000-1000", "bytes=5000-6000", "bytes=-0"])
    def test_a_range_past_the_end_is_answered_with_416(self, wanted: str) -> None:
        planned = plan(range=wanted)
        assert status(planned) == 416
        assert planned.length == 0
        assert header(planned, "content-range") == "bytes */1000"
        assert isinstance(planned.error, RangeNotSatisfiableError)
        assert header(planned, "x-content-length") == "0"

    @pytest.mark.parametrize(
        "wanted",
        [
            *("", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=1-2-3", "bytes=5-4", "bytes=0x1-", "bytes=1.0-2"),
            *("items=0-1", "bytes=0-1,5-6", "bytes=0-1,", "bytes=--1", "bytes=+1-2", f"bytes={'9' * 4000}-", "0-1"),
        ],
        ids=lambda wanted: wanted[:20],
    )
    def test_what_is_no_single_range_is_answered_with_the_whole(self, wanted: str) -> None:
        planned = plan(range=wanted)
        assert status(planned) == 200
        assert planned.length == SIZE

    @pytest.mark.parametrize("wanted", ["bytes=0-", "bytes=0-0", "bytes=-1"])
    def test_nothing_has_no_ranges(self, wanted: str) -> None:
        assert status(plan(0, range=wanted)) == 416
        assert status(plan(0)) == 200

    @pytest.mark.parametrize(
        ("condition", "expected"),
        [
            (ETAG, 206),
            (DATE, 206),
            (f"W/{ETAG}", 200),  # a weak one never matches strongly
            ('"other"', 200),
            (SHA256, 200),
            (EARLIER, 200),
            (LATER, 200),
            ("nonsense", 200),
            ("", 200),
        ],
    )
    def test_if_range_decides_between_part_and_whole(self, condition: str, expected: int) -> None:
        assert status(plan(range="bytes=0-9", if_range=condition)) == expected
        assert status(plan(if_range=condition)) == 200


class TestConditions:
    @pytest.mark.parametrize("tags", [ETAG, f"W/{ETAG}", "*", f'"a", {ETAG}', f'{ETAG},"b"', f' "x" ,\tW/{ETAG} '])
    def test_a_tag_that_matches_is_answered_with_304(self, tags: str) -> None:
        for method in ("GET", "HEAD"):
            planned = plan(if_none_match=tags, x_envoy_original_method=method, range="bytes=0-1")
            assert status(planned) == 304
            assert planned.length == 0
            assert header(planned, "etag") == ETAG
            assert header(planned, "x-content-length") is None

    @pytest.mark.parametrize("tags", ['"other"', SHA256, "", f'"{SHA256.upper()}"', "W/*"])
    def test_a_tag_that_does_not_match_is_answered_in_full(self, tags: str) -> None:
        expected = 304 if tags == "W/*" else 200  # is no tag at all; either will do
        assert status(plan(if_none_match=tags)) in {200, expected}

    @pytest.mark.parametrize(
        ("since", "expected"),
        [
            (DATE, 304),
            (LATER, 304),
            (EARLIER, 200),
            ("Sunday, 01-Mar-26 12:30:45 GMT", 304),
            ("Sun Mar  1 12:30:45 2026", 304),
            ("Sun, 01 Mar 2026 13:30:45 +0100", 304),
            ("nonsense", 200),
            ("", 200),
            ("Sun, 01 Mar 99999999999999999999 12:30:45 GMT", 200),
            ("Sun, 01 Mar 2026 12:30:45 +9999999999999999", 200),
            ("Sun, 99 Mar 2026 99:99:99 GMT", 200),
        ],
    )
    def test_a_date_is_compared_by_the_second(self, since: str, expected: int) -> None:
        assert status(plan(if_modified_since=since)) == expected

    @pytest.mark.parametrize("tags", [ETAG, "*", f'"a", {ETAG}', f'{ETAG},"b"', f' "x" ,\t{ETAG} '])
    def test_a_wanted_tag_that_matches_changes_nothing(self, tags: str) -> None:
        assert status(plan(if_match=tags)) == 200
        assert status(plan(if_match=tags, range="bytes=0-1")) == 206
        assert status(plan(if_match=tags, if_none_match=ETAG)) == 304

    @pytest.mark.parametrize("tags", ['"other"', f"W/{ETAG}", SHA256, "", f'"{SHA256.upper()}"', '"a", "b"'])
    def test_a_wanted_tag_that_does_not_match_is_answered_with_412(self, tags: str) -> None:
        for method in ("GET", "HEAD"):
            planned = plan(if_match=tags, if_none_match=ETAG, x_envoy_original_method=method, range="bytes=0-1")
            assert status(planned) == 412
            assert planned.length == 0
            assert (header(planned, "etag"), header(planned, "x-content-length")) == (ETAG, "0")
            assert isinstance(planned.error, ArtifactEtagMismatchError)
            assert header(planned, "content-disposition") is None

    @pytest.mark.parametrize(
        ("since", "expected"), [(DATE, 200), (LATER, 200), (EARLIER, 412), ("nonsense", 200), ("", 200)]
    )
    def test_what_changed_since_a_date_is_answered_with_412(self, since: str, expected: int) -> None:
        assert status(plan(if_unmodified_since=since)) == expected

    def test_a_wanted_tag_goes_before_a_date(self) -> None:
        assert status(plan(if_match=ETAG, if_unmodified_since=EARLIER)) == 200
        assert status(plan(if_match='"other"', if_unmodified_since=LATER)) == 412

    def test_a_tag_goes_before_a_date(self) -> None:
        assert status(plan(if_none_match='"other"', if_modified_since=LATER)) == 200
        assert status(plan(if_none_match=ETAG, if_modified_since=EARLIER)) == 304

    @given(st.fixed_dictionaries({}, optional=dict.fromkeys(CONDITIONS, HEADER_VALUES)))
    @example({"if-range": "Mon, 01 Jan 2024 00:00:00 +99999999999999999"})
    @example({"if-modified-since": "Mon, 01 Jan 10000000000000000000000 00:00:00 GMT"})
    def test_whatever_comes_has_an_answer(self, headers: dict[str, str]) -> None:
        planned = plan_download(MODEL, headers)
        assert status(planned) in {200, 206, 304, 412, 416}
        assert 0 <= planned.offset <= planned.offset + planned.length <= SIZE


class TestFileNames:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("model.zip", 'attachment; filename="model.zip"'),
            ("a b;c=d.zip", 'attachment; filename="a b;c=d.zip"'),
            ('a"b\\c%d', "attachment; filename=\"a_b_c_d\"; filename*=UTF-8''a%22b%5Cc%25d"),
            ("mödel ☃.zip", "attachment; filename=\"m_del _.zip\"; filename*=UTF-8''m%C3%B6del%20%E2%98%83.zip"),
            ("a\r\nx: y", "attachment; filename=\"a__x: y\"; filename*=UTF-8''a%0D%0Ax%3A%20y"),
        ],
    )
    def test_a_browser_gets_the_name_in_full(self, name: str, expected: str) -> None:
        assert content_disposition(name) == expected

    @pytest.mark.parametrize("mark", ["\u061c", "\u200e", "\u200f", "\u202a", "\u202e", "\u2066", "\u2069"])
    def test_no_mark_turns_a_name_around(self, mark: str) -> None:
        assert content_disposition(f"photo{mark}gpj.exe") == 'attachment; filename="photo_gpj.exe"'

    @given(st.text(st.characters(codec="utf-8"), min_size=1))
    def test_no_name_breaks_the_header(self, name: str) -> None:
        value = content_disposition(name)
        assert value.isascii()
        assert value.isprintable()
        assert value.split(";")[0] == "attachment"


class TestFiles:
    def test_a_file_is_described_like_an_artifact(self) -> None:
        planned = plan_file_download(MODEL, "weights/model.bin", 77, {})
        assert status(planned) == 200
        assert (planned.offset, planned.length, planned.content_type) == (0, 77, "application/octet-stream")
        assert header(planned, "content-disposition") == 'attachment; filename="model.bin"'
        assert header(planned, "cache-control") == "private, immutable"
        assert header(planned, "last-modified") == DATE
        assert header(planned, "x-content-length") == "77"

    def test_its_etag_is_its_own_and_stays(self) -> None:
        def etag(model: Model, path: str) -> str:
            found = header(plan_file_download(model, path, 77, {}), "etag")
            assert found is not None
            return found

        other = replace(MODEL, artifact=replace(MODEL.artifact, sha256="cd" * 32))
        tags = [etag(model, path) for model in (MODEL, other) for path in ("a", "b", "a/b")]
        assert len({*tags, ETAG}) == 7
        assert all(len(tag) == 66 and tag.startswith('"') for tag in tags)
        assert etag(replace(MODEL, id="f" * 16), "a") == tags[0]

    def test_ranges_and_conditions_are_of_the_file(self) -> None:
        planned = plan_file_download(MODEL, "a", 77, {"range": "bytes=70-"})
        assert (status(planned), planned.offset, planned.length) == (206, 70, 7)
        assert header(planned, "content-range") == "bytes 70-76/77"
        etag = header(planned, "etag") or ""
        assert status(plan_file_download(MODEL, "a", 77, {"if-none-match": etag})) == 304
        assert status(plan_file_download(MODEL, "a", 77, {"if-none-match": ETAG})) == 200
        assert status(plan_file_download(MODEL, "a", 77, {"range": "bytes=1-2", "if-range": ETAG})) == 200
        assert status(plan_file_download(MODEL, "a", 77, {"range": "bytes=77-"})) == 416

    @pytest.mark.parametrize(
        ("path", "name"), [("a/b/", "b"), ("/", "file"), ("a\r\nb", "a__b"), ('a/"x"', "_x_"), (".", ".")]
    )
    def test_the_saved_name_is_the_last_part_of_the_path(self, path: str, name: str) -> None:
        planned = plan_file_download(MODEL, path, 1, {})
        assert (header(planned, "content-disposition") or "").startswith(f'attachment; filename="{name}"')
