"""What the edge routes, and what it never does."""

import re

import httpx2
import pytest

from tests.contract.client import SERVICES, Service, Storefront
from tests.contract.shopping import Customer, Shop

NOBODY = "01890a5d-ac96-774b-bcce-b302099a8057"
CALLS: dict[Service, set[tuple[str, str]]] = {
    "user": {
        ("post", "/api/v1/auth/register"),
        ("post", "/api/v1/auth/token"),
        ("post", "/api/v1/auth/revoke"),
        ("get", "/api/v1/auth/jwks"),
        ("get", "/api/v1/users/me"),
        ("patch", "/api/v1/users/me"),
        ("delete", "/api/v1/users/me"),
        ("get", "/api/v1/users/me/addresses"),
        ("post", "/api/v1/users/me/addresses"),
        ("put", "/api/v1/users/me/addresses/{}"),
        ("delete", "/api/v1/users/me/addresses/{}"),
        ("get", "/api/v1/users"),
    },
    "product": {
        ("get", "/api/v1/products"),
        ("post", "/api/v1/products"),
        ("get", "/api/v1/products/{}"),
        ("patch", "/api/v1/products/{}"),
        ("delete", "/api/v1/products/{}"),
        ("post", "/api/v1/products/{}/stock"),
        ("post", "/api/v1/products/import"),
        ("get", "/api/v1/categories"),
    },
    "payment": {
        ("get", "/api/v1/payments"),
        ("get", "/api/v1/payments/{}"),
        ("post", "/api/v1/payments/{}/refund"),
    },
    "order": {
        ("get", "/api/v1/cart"),
        ("delete", "/api/v1/cart"),
        ("put", "/api/v1/cart/items/{}"),
        ("delete", "/api/v1/cart/items/{}"),
        ("get", "/api/v1/orders"),
        ("post", "/api/v1/orders"),
        ("get", "/api/v1/orders/{}"),
        ("post", "/api/v1/orders/{}/cancel"),
        ("post", "/api/v1/orders/{}/ship"),
        ("post", "/api/v1/orders/{}/deliver"),
        ("get", "/api/v1/orders/{}/events"),
    },
}
INTERNAL: list[tuple[Service, str, str]] = [
    ("product", "POST", "/internal/v1/quotes"),
    ("product", "PUT", f"/internal/v1/reservations/{NOBODY}"),
    ("product", "POST", f"/internal/v1/reservations/{NOBODY}/commit"),
    ("product", "DELETE", f"/internal/v1/reservations/{NOBODY}"),
    ("payment", "PUT", f"/internal/v1/payments/{NOBODY}"),
    ("payment", "GET", f"/internal/v1/payments/{NOBODY}"),
    ("payment", "POST", f"/internal/v1/payments/{NOBODY}/capture"),
    ("payment", "POST", f"/internal/v1/payments/{NOBODY}/void"),
    ("payment", "POST", f"/internal/v1/payments/{NOBODY}/refund"),
    ("user", "GET", "/internal/v1/audit"),
    ("product", "GET", "/internal/v1/audit"),
    ("payment", "GET", "/internal/v1/audit"),
    ("order", "GET", "/internal/v1/audit"),
]


def html(wire: httpx2.Client, path: str) -> str:
    """Read a page, following where it leads."""
    response = wire.get(path, follow_redirects=True)
    assert response.status_code == 200
    assert response.headers["content-type"].partition(";")[0] == "text/html"
    return response.text


@pytest.mark.parametrize(
    "path",
    ["/livez", "/readyz", "/metrics", "/internal", "/internal/", "/nothing", "/api", "/api/v2/products"],
)
def test_the_edge_does_not_route_what_is_no_prefix(wire: httpx2.Client, path: str) -> None:
    assert wire.get(path).status_code == 404


@pytest.mark.parametrize(("method", "path"), sorted({(method, path) for _, method, path in INTERNAL}))
def test_the_edge_never_routes_internal_calls(wire: httpx2.Client, method: str, path: str) -> None:
    assert wire.request(method, path, json={}).status_code == 404


@pytest.mark.parametrize("path", ["/api/v1/productsx", "/api/v1/authority", "/api/v1/orders2", "/api/v1/carts"])
def test_a_prefix_ends_at_a_slash(wire: httpx2.Client, path: str) -> None:
    assert wire.get(path).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/products/%2e%2e/%2e%2e/%2e%2e/metrics",
        "/api/v1/products/..%2f..%2f..%2fmetrics",
        "//metrics",
        "/api/v1/orders/%2e%2e/%2e%2e/%2e%2e/internal/v1/audit",
    ],
)
def test_no_detour_leads_to_what_is_not_routed(wire: httpx2.Client, path: str) -> None:
    response = wire.get(wire.base_url.copy_with(raw_path=path.encode()))
    assert response.status_code in {400, 401, 404, 422}


def test_the_storefront_page_is_html(wire: httpx2.Client) -> None:
    html(wire, "/")


def test_the_docs_list_each_service(wire: httpx2.Client) -> None:
    page = html(wire, "/docs")
    for service in SERVICES:
        assert f"/docs/{service}" in page


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_has_a_docs_page(wire: httpx2.Client, service: Service) -> None:
    assert f"/docs/{service}/openapi.json" in html(wire, f"/docs/{service}")


@pytest.mark.parametrize("service", SERVICES)
def test_the_openapi_document_has_every_call_of_the_service(anyone: Storefront, service: Service) -> None:
    document = anyone.call("GET", f"/docs/{service}/openapi.json").expect(200)
    assert document["openapi"].startswith("3.")
    documented = {
        (method, re.sub(r"\{[^}]*\}", "{}", path)) for path, item in document["paths"].items() for method in item
    }
    assert documented >= CALLS[service]


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_each_service_answers_its_probes_itself(shop: Shop, service: Service, path: str) -> None:
    response = httpx2.get(shop.services[service] + path, trust_env=False)
    assert response.status_code == 200
    assert response.headers["x-request-id"]


@pytest.mark.parametrize(("service", "method", "path"), INTERNAL)
def test_internal_calls_without_a_credential_are_401(shop: Shop, service: Service, method: str, path: str) -> None:
    response = httpx2.request(method, shop.services[service] + path, json={}, trust_env=False)
    assert response.status_code == 401
    assert response.headers["www-authenticate"]
    assert response.headers["content-type"].partition(";")[0] == "application/problem+json"


@pytest.mark.parametrize(("service", "method", "path"), INTERNAL)
def test_a_customers_token_is_no_service_credential(
    shop: Shop, customer: Customer, service: Service, method: str, path: str
) -> None:
    headers = {"Authorization": f"Bearer {customer.tokens.access_token}"}
    response = httpx2.request(method, shop.services[service] + path, json={}, headers=headers, trust_env=False)
    assert response.status_code in {401, 403}
