"""The trace of a checkout over real processes, as a collector gets it: one tree over all services, and no word of whose
it is.
"""

import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from chassis.migrations import ROOT
from chassis.secrets import SERVICES
from drills.harmed import arm
from local.edge import STOREFRONT
from tests.collector import Collected, Collector, collecting, tree
from tests.databases import Databases, run_sql
from tests.pages import fenced
from tests.shop import Shop, running_shop

EMAIL = "ada.lovelace@example.com"
PASSWORD = "a password that no span has"
NAME = "Ada Lovelace"
ADDRESS = {"name": NAME, "line1": "12 St James Square", "city": "London", "postal_code": "SW1Y 4JH", "country": "GB"}
SEARCHED = "a gift for Charles"
DIES_AT = "order.authorise.answered"
CALLER_ID = "00f067aa0ba902b7"
ENDS_WITHIN_S = 60


@dataclass(frozen=True, slots=True)
class Told:
    """What happened in the shop: four requests by their trace ids, and who made them."""

    collector: Collector
    placed: str
    replayed: str
    crashed: str
    browsed: str
    order_id: str
    recovered_id: str
    parents: dict[str, str]
    """The `traceparent` that is stored with each order."""
    personal: list[str]


def caller_of(trace_id: str) -> dict[str, str]:
    return {"traceparent": f"00-{trace_id}-{CALLER_ID}-01"}


class Buyer:
    """A customer of a shop that runs."""

    def __init__(self, http: httpx2.Client, shop: Shop) -> None:
        self._http = http
        account = {"email": EMAIL, "password": PASSWORD, "name": NAME}
        registered = http.post("/api/v1/auth/register", json=account)
        assert registered.status_code == 201, registered.text
        self.id: str = registered.json()["id"]
        self.headers = self._signed_in(EMAIL, PASSWORD)
        admin = self._signed_in(shop.admin_email, shop.admin_password)
        price = {"amount_minor": 1999, "currency": "USD"}
        new = {"sku": f"T-{uuid4().hex}", "name": "Lantern", "category": "light", "price": price}
        self.product_id: str = http.post("/api/v1/products", json=new, headers=admin).json()["id"]
        movement = {"delta": 10, "reason": "received"}
        stock = http.post(f"/api/v1/products/{self.product_id}/stock", json=movement, headers=admin)
        assert stock.is_success, stock.text

    def _signed_in(self, email: str, password: str) -> dict[str, str]:
        form = {"grant_type": "password", "username": email, "password": password}
        token = self._http.post("/api/v1/auth/token", data=form).json()["access_token"]
        return {"Authorization": f"Bearer {token}"}

    def order(self, key: str, trace_id: str) -> httpx2.Response:
        """Order one unit, in a trace that the caller records."""
        items = [{"product_id": self.product_id, "quantity": 1}]
        body = {"items": items, "address": ADDRESS, "payment_method": "tok_visa"}
        headers = self.headers | caller_of(trace_id) | {"Idempotency-Key": key}
        return self._http.post("/api/v1/orders", json=body, headers=headers)

    def look_around(self) -> None:
        """Search, and note an address."""
        assert self._http.get("/api/v1/products", params={"q": SEARCHED}).status_code == 200
        noted = self._http.post("/api/v1/users/me/addresses", json=ADDRESS, headers=self.headers)
        assert noted.status_code == 201, noted.text

    def confirmed(self, but: str) -> str:
        """The id of another order that is confirmed, when there is one."""
        deadline = time.monotonic() + ENDS_WITHIN_S
        while time.monotonic() < deadline:
            answer = self._http.get("/api/v1/orders", headers=self.headers)
            orders: list[Any] = answer.json()["items"] if answer.status_code == 200 else []
            found = [order["id"] for order in orders if order["status"] == "confirmed" and order["id"] != but]
            if found:
                return found[0]
            time.sleep(0.1)
        raise AssertionError("the order was not recovered")


@pytest.fixture(scope="module")
def told(postgres: Databases, tmp_path_factory: pytest.TempPathFactory) -> Generator[Told, None, None]:
    """A shop that has sold something, answered it again, and lost a replica in the middle of another order. It has
    ended, so all of its spans were sent.
    """
    urls = {service: postgres.clone(service) for service in SERVICES}
    folder = tmp_path_factory.mktemp("traced")
    placed, replayed, crashed, browsed = (uuid4().hex for _ in range(4))
    with collecting() as collector:
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.origin,
            "OTEL_BSP_SCHEDULE_DELAY": "100",  # milliseconds: what is killed sends no more
            "DOOM": str(folder / "doom.json"),
            "LEASE_S": "2",
            "RECOVER_EVERY_S": "0.2",
        }
        with (
            running_shop(urls, folder, {"order": 2, STOREFRONT: 1}, settings, harmed={"order"}) as shop,
            httpx2.Client(base_url=shop.origin, timeout=30) as http,
        ):
            buyer = Buyer(http, shop)
            buyer.look_around()
            assert http.get("/", params={"q": SEARCHED}, headers=caller_of(browsed)).status_code == 200
            first, again = buyer.order("once", placed), buyer.order("once", replayed)
            assert (first.status_code, again.content) == (201, first.content)
            collector.await_request(placed, "order")
            collector.await_request(replayed, "order")
            collector.await_request(browsed, STOREFRONT)
            arm(folder / "doom.json", DIES_AT, crashed)
            assert buyer.order("killed", crashed).status_code == 502
            order_id = first.json()["id"]
            recovered_id = buyer.confirmed(but=order_id)
            parents = {
                each: run_sql(urls["order"], f"SELECT traceparent FROM orders WHERE id = '{each}'")
                for each in (order_id, recovered_id)
            }
            token = buyer.headers["Authorization"].removeprefix("Bearer ")
        where = [ADDRESS[field] for field in ("line1", "city", "postal_code")]
        personal = [EMAIL, PASSWORD, NAME, *where, SEARCHED, "Charles", buyer.id, token, "tok_visa"]
        yield Told(collector, placed, replayed, crashed, browsed, order_id, recovered_id, parents, personal)


def only(spans: list[Collected], title: str) -> Collected:
    """The one span with this title."""
    (found,) = (span for span in spans if span.title == title)
    return found


(CHECKOUT,) = fenced(ROOT / "docs" / "decisions" / "tracing.md", "text")
"""The spans of a checkout, each below the one that it is a part of."""


def test_a_checkout_is_one_tree_over_all_services(told: Told) -> None:
    spans = told.collector.of(told.placed)
    assert tree(spans, CALLER_ID) == CHECKOUT.splitlines()
    assert len(spans) == len(CHECKOUT.splitlines())  # none of the trace hangs anywhere else
    assert not any(span.failed for span in spans)


def test_a_page_is_one_tree_with_what_it_asked_for(told: Told) -> None:
    spans = told.collector.of(told.browsed)
    (page,) = (span for span in spans if span.parent_id == CALLER_ID)
    assert page.title == f"{STOREFRONT} server GET /"
    calls = {span.span_id: span for span in spans if span.parent_id == page.span_id}
    assert {call.kind for call in calls.values()} == {"client"}
    assert {call.name for call in calls.values()} == {"GET /api/v1/categories", "GET /api/v1/products"}
    served = [span for span in spans if span.kind == "server" and span is not page]
    assert len(served) == len(calls)
    assert all(span.name == calls[span.parent_id].name for span in served)


def test_each_span_lies_within_the_one_that_it_is_a_part_of(told: Told) -> None:
    spans = {span.span_id: span for span in told.collector.of(told.placed)}
    for span in spans.values():
        outer = spans.get(span.parent_id, span)
        assert outer.began_ns <= span.began_ns, span.title
        if outer.service == span.service:  # a server ends its span when the answer is gone, its caller when it has come
            assert span.ended_ns <= outer.ended_ns, span.title


def test_the_order_is_named_where_it_is_worked_on(told: Told) -> None:
    spans = told.collector.of(told.placed)
    for span in spans:
        if span.kind == "internal" or (span.kind == "server" and not span.name.endswith("quotes")):
            assert span.attributes["souk.order_id"] == told.order_id, span.title


def test_a_replayed_checkout_says_so_and_what_it_stands_for(told: Told) -> None:
    spans = told.collector.of(told.replayed)
    replay = only(spans, "order server POST /api/v1/orders")
    assert replay.attributes["souk.idempotency_replayed"] is True
    assert replay.attributes["souk.order_id"] == told.order_id
    assert not any(span.kind == "internal" for span in spans)
    first = only(told.collector.of(told.placed), "order server POST /api/v1/orders")
    assert "souk.idempotency_replayed" not in first.attributes


def test_the_traceparent_that_an_order_keeps_names_the_request_that_placed_it(told: Told) -> None:
    request = only(told.collector.of(told.placed), "order server POST /api/v1/orders")
    assert told.parents[told.order_id] == f"00-{told.placed}-{request.span_id}-01"


def test_a_recovery_goes_on_below_the_request_that_died(told: Told) -> None:
    spans = told.collector.of(told.crashed)
    _, trace_id, parent_id, _ = told.parents[told.recovered_id].split("-")
    recovery = only(spans, "order internal saga recover")
    assert (recovery.trace_id, recovery.parent_id) == (trace_id, parent_id)
    assert trace_id == told.crashed
    assert recovery.attributes["souk.order_id"] == told.recovered_id
    assert [line for line in tree(spans, recovery.span_id) if not line.startswith("  ")] == [
        "order internal saga authorise",
        "order internal saga confirm",
    ]
    assert "payment server PUT /internal/v1/payments/{order_id}" in {
        line.strip() for line in tree(spans, recovery.span_id)
    }


def test_no_span_says_whose_it_is(told: Told) -> None:
    """Of all that the shop has sent, registration, sign-in and search included."""
    assert {span.service for span in told.collector.spans} == {*SERVICES, STOREFRONT}
    assert {"POST /api/v1/auth/register", "POST /api/v1/auth/token", "GET /api/v1/products"} <= {
        span.name for span in told.collector.spans
    }
    for span in told.collector.spans:
        text = f"{span.name} {span.attributes}"
        assert [word for word in told.personal if word in text] == [], span.title
