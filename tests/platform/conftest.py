"""Platforms for one test each, with databases of their own."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from chassis.secrets import SERVICES
from tests.platform.assembly import Platform, Shopper

MakePlatform = Callable[..., Platform]


@pytest.fixture
async def make_platform(database_url: Callable[[str], str]) -> AsyncIterator[MakePlatform]:
    """Platforms on demand: `make_platform(replicas=3, checkout_budget_s=0.5)`; `urls` replace databases."""
    async with AsyncExitStack() as stack:

        def make(urls: dict[str, str] | None = None, **options: Any) -> Platform:
            given = urls or {}
            platform = Platform({name: given.get(name) or database_url(name) for name in SERVICES}, **options)
            stack.push_async_callback(platform.aclose)
            return platform

        yield make


@pytest.fixture
def platform(make_platform: MakePlatform) -> Platform:
    """A platform with two order replicas."""
    return make_platform(replicas=2)


@pytest.fixture
async def admin(platform: Platform) -> Shopper:
    """An admin of the platform."""
    return await platform.admin()


@pytest.fixture
async def customer(platform: Platform) -> Shopper:
    """A customer of the platform."""
    return await platform.customer()


Stocked = Callable[..., Awaitable[str]]


@pytest.fixture
def stocked(platform: Platform, admin: Shopper) -> Stocked:
    """Import products on demand.

    `await stocked(10, price_minor=500)` is the id of one with ten units.
    """

    async def stock(units: int, price_minor: int = 1999) -> str:
        return await platform.product_of(admin, stock=units, price_minor=price_minor)

    return stock
