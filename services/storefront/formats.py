"""Prices and times in the words of the browser's own language, as `Accept-Language` names it."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any

from babel import Locale, UnknownLocaleError
from babel.dates import format_datetime
from babel.numbers import format_currency, format_decimal, get_currency_precision

FALLBACK = Locale.parse("en_US")


@cache
def _known(tag: str) -> Locale | None:
    try:
        return Locale.parse(tag, sep="-")
    except (UnknownLocaleError, ValueError):
        return None


def locale_of(accept_language: str) -> Locale:
    """The first language of the header (RFC 9110, 12.5.4) that is known, by its weights; else US English."""
    wanted: list[tuple[float, int, str]] = []
    for place, part in enumerate(accept_language[:200].split(",")[:10]):
        tag, _, weight = part.strip().partition(";q=")
        try:
            wanted.append((-float(weight or 1), place, tag.strip()[:20]))
        except ValueError:
            continue
    for _, _, tag in sorted(wanted):
        found = _known(tag)
        if found is not None:
            return found
    return FALLBACK


def money(amount: Mapping[str, Any], locale: Locale) -> str:
    """`{"amount_minor": 1999, "currency": "USD"}` as `$19.99`."""
    return format_currency(in_major(amount), amount["currency"], locale=locale)


def number(count: int, locale: Locale) -> str:
    """`50012` as `50,012`."""
    return format_decimal(count, locale=locale)


def in_major(amount: Mapping[str, Any]) -> Decimal:
    """The amount in units of its currency, with as many places as that has."""
    return Decimal(amount["amount_minor"]).scaleb(-get_currency_precision(amount["currency"]))


def in_minor(text: str, currency: str) -> int:
    """What somebody typed as a price, in minor units: `19.99` and `19,99` are 1999 cents.

    Raises ValueError where it is no amount of that currency.
    """
    try:
        amount = Decimal(text.strip().replace(",", ".")).scaleb(get_currency_precision(currency))
    except InvalidOperation:
        raise ValueError("must be an amount, such as 19.99") from None
    if not amount.is_finite() or amount != amount.to_integral_value() or abs(amount) > 10**12:
        raise ValueError("must be an amount, such as 19.99")
    return int(amount)


def moment(at: str, locale: Locale) -> str:
    """An RFC 3339 time in UTC, in words; a module puts it into the browser's own time zone."""
    return format_datetime(datetime.fromisoformat(at), "medium", locale=locale) + " UTC"
