"""A cursor is good for the list that made it, unchanged; anything else is refused."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.pagination import decode_cursor, encode_cursor
from chassis.problems import InvalidCursor

QUERY = {"list": "products", "category": "books", "sort": "price"}
POSITION = [1999, "0198c0de-0000-7000-8000-000000000001"]
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

Plain = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text()


@given(st.lists(Plain), st.dictionaries(st.text(), Plain))
def test_a_cursor_gives_its_position_back(position: list[object], query: dict[str, object]) -> None:
    assert decode_cursor(encode_cursor(position, query), query) == position


def test_a_position_may_hold_what_json_has_no_type_for() -> None:
    cursor = encode_cursor([UUID(POSITION[1])], QUERY) if isinstance(POSITION[1], str) else ""
    assert decode_cursor(cursor, QUERY) == [POSITION[1]]


@pytest.mark.parametrize("position", range(len(encode_cursor(POSITION, QUERY))))
def test_a_cursor_damaged_anywhere_is_refused(position: int) -> None:
    cursor = encode_cursor(POSITION, QUERY)
    others = [letter for letter in ALPHABET + "=+/. é\n" if letter != cursor[position]]
    damaged = [cursor[:position] + letter + cursor[position + 1 :] for letter in others]
    for attempt in (*damaged, cursor[:position], cursor[:position] + cursor[position + 1 :]):
        with pytest.raises(InvalidCursor):
            decode_cursor(attempt, QUERY)


@pytest.mark.parametrize("ending", ["=", "==", "A", " ", "\n", "."])
def test_a_cursor_with_something_behind_it_is_refused(ending: str) -> None:
    with pytest.raises(InvalidCursor):
        decode_cursor(encode_cursor(POSITION, QUERY) + ending, QUERY)


@pytest.mark.parametrize(
    "query",
    [
        {},
        QUERY | {"list": "orders"},
        QUERY | {"category": "toys"},
        QUERY | {"sort": "-price"},
        QUERY | {"in_stock": True},
        {"list": "products", "category": "books"},
    ],
)
def test_another_lists_cursor_is_refused(query: dict[str, object]) -> None:
    with pytest.raises(InvalidCursor):
        decode_cursor(encode_cursor(POSITION, QUERY), query)


def test_the_order_of_the_filters_does_not_matter() -> None:
    assert decode_cursor(encode_cursor(POSITION, QUERY), dict(reversed(QUERY.items()))) == POSITION


@given(st.text(max_size=200))
def test_made_up_text_is_no_cursor(text: str) -> None:
    with pytest.raises(InvalidCursor):
        decode_cursor(text, QUERY)
