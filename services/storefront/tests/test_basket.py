"""The basket in the browser's cookie."""

from uuid import UUID

import pytest
from fastapi import Request, Response
from hypothesis import given
from hypothesis import strategies as st

from services.storefront import basket

BASKETS = st.dictionaries(st.uuids(), st.integers(1, basket.MOST_OF_ONE), max_size=basket.MOST_LINES)
A, B = UUID(int=1), UUID(int=2)


def request_with(cookie: str) -> Request:
    headers = [(b"cookie", f"{basket.COOKIE}={cookie}".encode("latin-1"))]
    return Request({"type": "http", "headers": headers})


def cookie_of(kept: basket.Basket) -> str:
    response = Response()
    basket.write(response, kept, secure=True)
    return response.headers["set-cookie"].partition("=")[2].partition(";")[0].strip('"')


@given(BASKETS)
def test_what_was_kept_is_read_again_and_fits_into_a_cookie(kept: dict[UUID, int]) -> None:
    cookie = cookie_of(kept)
    assert len(cookie) < 1000
    assert basket.read(request_with(cookie)) == kept


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P"], exclude_characters=';,"\\'), max_size=2000))
def test_a_damaged_cookie_is_a_basket_that_holds_what_may_be_held(cookie: str) -> None:
    read = basket.read(request_with(cookie))
    assert len(read) <= basket.MOST_LINES
    assert all(1 <= quantity <= basket.MOST_OF_ONE for quantity in read.values())


def test_an_empty_basket_takes_the_cookie_away() -> None:
    response = Response()
    basket.write(response, {}, secure=False)
    assert "Max-Age=0" in response.headers["set-cookie"]


@pytest.mark.parametrize(("held", "more", "then"), [(0, 2, 2), (3, 2, 5), (98, 3, 99), (99, 99, 99)])
def test_more_of_a_product_is_added_up_to_ninety_nine(held: int, more: int, then: int) -> None:
    before = {A: held} if held else {}
    assert basket.added(before, A, more) == {A: then}
    assert before == ({A: held} if held else {})


def test_a_full_basket_takes_no_other_product() -> None:
    full = {UUID(int=number): 1 for number in range(basket.MOST_LINES)}
    other = UUID(int=10**6)
    assert basket.added(full, other, 1) == full
    assert basket.changed_to(full, other, 1) == full
    assert basket.added(full, UUID(int=0), 1)[UUID(int=0)] == 2


def test_a_product_is_set_and_taken_out() -> None:
    assert basket.changed_to({A: 1, B: 2}, A, 7) == {A: 7, B: 2}
    assert basket.changed_to({A: 1, B: 2}, A, 0) == {B: 2}
    assert basket.changed_to({B: 2}, A, 0) == {B: 2}
