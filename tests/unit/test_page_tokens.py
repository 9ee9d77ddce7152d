"""Tokens of pages hold where a listing stands, for one query only."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_service.domain.errors import InvalidArgumentError
from registry_service.domain.listing import (
    LOWEST_NUMBER,
    SortValue,
    decode_page_token,
    encode_page_token,
    page_size,
    parse_order,
)

QUERY = ("score > 1", "name")
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
VALUES: dict[type, st.SearchStrategy[SortValue]] = {
    str: TEXT,
    float: st.floats(allow_nan=False) | st.just(LOWEST_NUMBER),
    int: st.integers(0, 2**63 - 1),
    datetime: st.datetimes(timezones=st.just(UTC)),
}


class TestTokens:
    @given(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=4), st.data())
    def test_what_goes_in_comes_out(self, kinds: list[type], data: st.DataObject) -> None:
        values = tuple(data.draw(VALUES[kind]) for kind in kinds)
        token = encode_page_token(QUERY, values)
        assert decode_page_token(token, QUERY, kinds) == values

    @given(st.lists(TEXT, min_size=2, max_size=2), st.lists(TEXT, min_size=2, max_size=2))
    def test_it_belongs_to_its_query(self, one: list[str], other: list[str]) -> None:
        token = encode_page_token(one, ("x",))
        if one == other:
            assert decode_page_token(token, other, [str]) == ("x",)
        else:
            with pytest.raises(InvalidArgumentError, match="another filter or order"):
                decode_page_token(token, other, [str])

    @given(TEXT)
    def test_it_can_stand_in_an_address(self, text: str) -> None:
        token = encode_page_token(QUERY, (text,))
        assert token.replace("-", "").replace("_", "").isalnum()

    def test_a_time_comes_out_in_utc(self) -> None:
        time = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=5)))
        assert decode_page_token(encode_page_token(QUERY, (time,)), QUERY, [datetime]) == (time,)

    def test_no_token_is_the_beginning(self) -> None:
        assert decode_page_token("", QUERY, [str]) is None

    @pytest.mark.parametrize(
        ("value", "kind"),
        [
            ("x", int),
            (1, str),
            (1.5, int),
            ("x", float),
            (True, int),
            (True, float),
            ("2026-01-01", datetime),
            (1, datetime),
        ],
    )
    def test_a_value_of_another_type_is_refused(self, value: SortValue, kind: type) -> None:
        with pytest.raises(InvalidArgumentError, match="must be a token"):
            decode_page_token(encode_page_token(QUERY, (value,)), QUERY, [kind])

    @pytest.mark.parametrize("values", [(), ("a",), ("a", "b", "c")])
    def test_another_number_of_values_is_refused(self, values: tuple[str, ...]) -> None:
        with pytest.raises(InvalidArgumentError, match="must be a token"):
            decode_page_token(encode_page_token(QUERY, values), QUERY, [str, str])


class TestOrders:
    @pytest.mark.parametrize(
        ("order", "expected"),
        [
            ("", "create_time- id-"),
            ("  ", "create_time- id-"),
            ("name", "name+ id+"),
            ("name desc", "name- id-"),
            (" name   asc ,score  desc ", "name+ score- id-"),
            ("id desc", "id-"),
            ("id, name desc", "id+ name-"),
            ("version desc", "version- create_time- id-"),
            ("name, version", "name+ version+ create_time+ id+"),
            ("version, name desc", "version+ name- id-"),
            ("create_time desc, version", "create_time- version+ id+"),
        ],
    )
    def test_an_order_ends_with_the_id_in_its_last_direction(self, order: str, expected: str) -> None:
        assert " ".join(f"{field.name}{'-' if field.descending else '+'}" for field in parse_order(order)) == expected

    @pytest.mark.parametrize(("requested", "size"), [(0, 50), (1, 1), (1000, 1000), (1001, 1000)])
    def test_a_page_has_a_size(self, requested: int, size: int) -> None:
        assert page_size(requested) == size
