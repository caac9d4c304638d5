"""Prices and times in the reader's language, and prices that somebody typed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.storefront import formats


def amount(minor: int, currency: str = "USD") -> dict[str, Any]:
    return {"amount_minor": minor, "currency": currency}


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "en_US"),
        ("de", "de"),
        ("de-CH,fr;q=0.5", "de_CH"),
        ("fr;q=0.5,ja;q=0.9", "ja"),
        ("xx-nonsense, nl", "nl"),
        ("de;q=much", "en_US"),
        ("*", "en_US"),
        (";;;,,,", "en_US"),
        ("a" * 5000, "en_US"),
    ],
)
def test_the_language_is_the_first_that_is_known(accepted: str, language: str) -> None:
    assert str(formats.locale_of(accepted)) == language


@given(st.text(max_size=300))
def test_any_header_has_a_language(accepted: str) -> None:
    assert formats.locale_of(accepted)


@pytest.mark.parametrize(
    ("minor", "currency", "language", "text"),
    [
        (0, "USD", "en", "$0.00"),
        (123456789, "USD", "en", "$1,234,567.89"),
        (1999, "EUR", "de", "19,99\xa0€"),
        (500, "JPY", "en", "¥500"),
        (12345, "KWD", "en", "KWD12.345"),
    ],
)
def test_a_price_has_as_many_places_as_its_currency(minor: int, currency: str, language: str, text: str) -> None:
    assert formats.money(amount(minor, currency), formats.locale_of(language)) == text


@pytest.mark.parametrize(
    ("language", "text"), [("en-GB", "1,000,000"), ("de-DE", "1.000.000"), ("fr", "1\u202f000\u202f000")]
)
def test_a_number_is_written_as_the_language_does(language: str, text: str) -> None:
    assert formats.number(10**6, formats.locale_of(language)) == text


@given(st.integers(-(10**12), 10**12))
def test_a_price_that_is_shown_for_editing_is_read_as_it_was(minor: int) -> None:
    assert formats.in_minor(str(formats.in_major(amount(minor))), "USD") == minor


@pytest.mark.parametrize(("text", "minor"), [("19.99", 1999), ("19,99", 1999), (" 5 ", 500), ("0", 0), ("-1", -100)])
def test_a_typed_price_is_in_minor_units(text: str, minor: int) -> None:
    assert formats.in_minor(text, "USD") == minor


@pytest.mark.parametrize("text", ["", "a lot", "1.999", "NaN", "Infinity", "1e99", "1.2.3", "1,234.50"])
def test_what_is_no_price_is_said(text: str) -> None:
    with pytest.raises(ValueError, match=r"such as 19\.99"):
        formats.in_minor(text, "USD")


def test_a_time_is_in_words_and_says_that_it_is_utc() -> None:
    text = formats.moment("2026-11-28T07:41:02.123456Z", formats.locale_of("en-GB"))
    assert text == "28 Nov 2026, 07:41:02 UTC"
