"""Callers of the one running shop, which `tests/conftest.py` starts."""

from collections.abc import Iterator

import httpx2
import pytest

from tests.contract.client import REQUEST_TIMEOUT_S, Storefront
from tests.contract.shopping import Catalogue, Customer, Shop, new_customer


@pytest.fixture(scope="session")
def origin(shop: Shop) -> str:
    """Base URL of the edge."""
    return shop.origin


@pytest.fixture(scope="session")
def wire(origin: str) -> Iterator[httpx2.Client]:
    """One pool of connections to the edge."""
    with httpx2.Client(base_url=origin, timeout=REQUEST_TIMEOUT_S, trust_env=False) as client:
        yield client


@pytest.fixture
def anyone(wire: httpx2.Client) -> Storefront:
    """A caller without a token."""
    return Storefront(wire)


@pytest.fixture(scope="module")
def admin(wire: httpx2.Client, shop: Shop) -> Storefront:
    """The admin, logged in for one module, since an access token lives 15 minutes."""
    anyone = Storefront(wire)
    tokens = anyone.log_in(shop.admin_email, shop.admin_password).expect(200)
    return anyone.bearing(tokens.access_token)


@pytest.fixture
def customer(anyone: Storefront) -> Customer:
    """A new customer."""
    return new_customer(anyone)


@pytest.fixture
def stranger(anyone: Storefront) -> Customer:
    """Another new customer."""
    return new_customer(anyone)


@pytest.fixture
def catalogue(admin: Storefront) -> Catalogue:
    """A place for products in a category that nothing else is in."""
    return Catalogue(admin)
