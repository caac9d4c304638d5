"""A catalogue of real data: imported, searched, and bought from with each payment method; then the books are right."""

import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from chassis.migrations import ROOT
from chassis.secrets import SERVICES
from tests.databases import Databases
from tests.shop import Shop, running_shop
from tests.test_readme import import_catalogue

BOOKS = Path(__file__).parent / "data" / "gutenberg.ndjson"
ADDRESS = {"name": "Ada", "line1": "12 St James Square", "city": "London", "postal_code": "SW1Y 4JH", "country": "GB"}


@pytest.fixture(scope="module")
def bookshop(postgres: Databases, tmp_path_factory: pytest.TempPathFactory) -> Generator[Shop, None, None]:
    """A shop of its own, so that its audit is of these tests alone."""
    urls = {service: postgres.clone(service) for service in SERVICES}
    with running_shop(urls, tmp_path_factory.mktemp("bookshop"), replicas={"order": 2, "product": 2}) as shop:
        assert import_catalogue(shop, BOOKS) == {"created": 171, "updated": 0, "rejected": []}
        yield shop


@pytest.fixture
def reader(bookshop: Shop) -> Generator[httpx2.Client, None, None]:
    """A customer who has signed in."""
    with httpx2.Client(base_url=bookshop.origin, timeout=30) as client:
        email = f"reader-{id(client)}@souk.example"
        password = "a reader of these books"
        client.post("/api/v1/auth/register", json={"email": email, "password": password, "name": "Reader"})
        credentials = {"grant_type": "password", "username": email, "password": password}
        token = client.post("/api/v1/auth/token", data=credentials).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        yield client


def order(client: httpx2.Client, method: str, key: str) -> httpx2.Response:
    """Buy one book about a whale."""
    (book,) = client.get("/api/v1/products", params={"q": "Moby"}).json()["items"]
    items = [{"product_id": book["id"], "quantity": 1}]
    body = {"items": items, "address": ADDRESS, "payment_method": method}
    return client.post("/api/v1/orders", json=body, headers={"Idempotency-Key": key})


def test_each_payment_method_ends_as_it_should_and_the_books_are_right(bookshop: Shop, reader: httpx2.Client) -> None:
    ends: dict[str, tuple[int, Any]] = {}
    for method in ("visa", "mastercard", "declined", "insufficient_funds", "expired_card", "slow", "timeout"):
        answer = order(reader, f"tok_{method}", f"books-{method}")
        found = answer.json()
        ends[method] = (answer.status_code, found.get("decline_code", found["status"]))
        again = order(reader, f"tok_{method}", f"books-{method}")
        assert (again.status_code, again.content) == (answer.status_code, answer.content)
    assert ends == {
        "visa": (201, "confirmed"),
        "mastercard": (201, "confirmed"),
        "declined": (402, "declined"),
        "insufficient_funds": (402, "insufficient_funds"),
        "expired_card": (402, "expired_card"),
        "slow": (201, "confirmed"),
        "timeout": (201, "confirmed"),
    }
    pairs = [f"--url={name}={url}" for name, url in bookshop.services.items()]
    command = (sys.executable, "-m", "drills.audit", "--secrets", str(bookshop.secrets / "audit"), *pairs)
    audited = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (audited.returncode, audited.stderr) == (0, "")
    assert audited.stdout.startswith("7 orders (4 confirmed, 3 rejected), 7 payments")
    assert audited.stdout.endswith("audit: clean\n")
