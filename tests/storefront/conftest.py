"""Readers of the one running shop."""

from collections.abc import Iterator

import httpx2
import pytest

from tests.contract.client import Storefront
from tests.contract.shopping import Catalogue, Customer, new_customer
from tests.shop import Shop
from tests.storefront.reader import Reader


@pytest.fixture(scope="session")
def wire(shop: Shop) -> Iterator[httpx2.Client]:
    """Connections to the API, for what a test needs to be there."""
    with httpx2.Client(base_url=shop.origin, timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def admin(wire: httpx2.Client, shop: Shop) -> Storefront:
    """The admin, by the API."""
    anyone = Storefront(wire)
    return anyone.bearing(anyone.log_in(shop.admin_email, shop.admin_password).expect(200).access_token)


@pytest.fixture
def catalogue(admin: Storefront) -> Catalogue:
    """A place for products in a category that nothing else is in."""
    return Catalogue(admin)


@pytest.fixture
def customer(wire: httpx2.Client) -> Customer:
    """A new customer, who is signed in by the API and not in any browser."""
    return new_customer(Storefront(wire))


@pytest.fixture
def reader(shop: Shop) -> Iterator[Reader]:
    """A visitor."""
    reader = Reader(shop.origin)
    yield reader
    reader.client.close()


@pytest.fixture
def signed_in(reader: Reader, customer: Customer) -> Reader:
    """The customer in a browser."""
    assert reader.sign_in(customer.email, customer.password).path == "/"
    return reader


@pytest.fixture
def staff(reader: Reader, shop: Shop) -> Reader:
    """The admin in a browser."""
    assert reader.sign_in(shop.admin_email, shop.admin_password, "/admin").path == "/admin"
    return reader
