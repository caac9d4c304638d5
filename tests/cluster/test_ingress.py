"""The Ingress from outside: each prefix reaches its service and no other, by either scheme; nothing else gets in."""

import socket
import ssl
from collections.abc import Mapping
from uuid import uuid4

import httpx2
import pytest

from drills.cluster import Cluster
from tests.cluster.test_services import more_each

pytestmark = pytest.mark.cluster

PREFIXES: Mapping[str, Mapping[str, int]] = {
    "user": {"/api/v1/auth/nothing": 404, "/api/v1/users/me": 401, "/docs/user": 200, "/docs": 200},
    "product": {"/api/v1/products?limit=1": 200, "/api/v1/categories": 200, "/docs/product": 200},
    "payment": {"/api/v1/payments": 401, "/docs/payment": 200},
    "order": {"/api/v1/cart": 401, "/api/v1/orders": 401, "/docs/order": 200},
    "storefront": {"/sign-in": 200, "/favicon.svg": 200, "/robots.txt": 200},
}
"""Paths by the service that they must reach, with what it answers to somebody who is not signed in."""
REQUESTS = 7


@pytest.fixture(params=["http", "https"])
def origin(request: pytest.FixtureRequest, cluster: Cluster) -> str:
    """Where the edge answers, by either scheme."""
    port = cluster.target.http_port if request.param == "http" else cluster.target.https_port
    return f"{request.param}://localhost:{port}"


@pytest.fixture
async def edge(origin: str, authority: ssl.SSLContext) -> httpx2.AsyncClient:
    """A client of the edge that believes the local authority only."""
    return httpx2.AsyncClient(base_url=origin, verify=authority, timeout=10)


@pytest.mark.parametrize("service", PREFIXES)
async def test_the_prefixes_of_a_service_reach_it_and_no_other(
    cluster: Cluster, edge: httpx2.AsyncClient, service: str
) -> None:
    before = {name: await cluster.served(name) for name in PREFIXES}
    async with edge:
        for path, status in PREFIXES[service].items():
            for _ in range(REQUESTS):
                assert (await edge.get(path)).status_code == status, path
    after = {name: await cluster.served(name) for name in PREFIXES}
    more = {name: sum(more_each(before[name], after[name]).values()) for name in PREFIXES}
    assert more.pop(service) >= REQUESTS * len(PREFIXES[service])
    assert max(more.values()) < REQUESTS, more


@pytest.mark.parametrize(
    "path",
    [
        "/internal/v1/audit", "/internal/v1/quotes", "/metrics", "/livez", "/readyz", "/api", "/api/v1", "/api/v1/",
        "/api/v1/usersfoo", "/api/v1/products-of", "/docsx", "/ping", "/dashboard/", "/api/rawdata", "/.well-known/x",
        "/api/v1/../../metrics", "//metrics", "/%2e%2e/metrics",
    ],
)  # fmt: skip
async def test_nothing_else_gets_in(edge: httpx2.AsyncClient, origin: str, path: str) -> None:
    async with edge:
        answer = await edge.get(origin + path)
    assert answer.status_code in {400, 404}
    assert "souk_" not in answer.text


async def test_the_root_is_the_shop(edge: httpx2.AsyncClient) -> None:
    async with edge:
        answer = await edge.get("/")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/html")


async def test_who_came_by_https_keeps_the_sign_in_for_https_alone(edge: httpx2.AsyncClient, origin: str) -> None:
    account = {"name": "Ada", "email": f"ada-{uuid4().hex}@souk.example", "password": "correct horse battery staple"}
    async with edge:
        answer = await edge.post("/register", data=account)
    assert answer.status_code == 303
    kept = [cookie.lower() for cookie in answer.headers.get_list("set-cookie")]
    assert {cookie.partition("=")[0] for cookie in kept} >= {"souk_access", "souk_refresh"}
    assert {"; secure" in cookie for cookie in kept} == {origin.startswith("https")}


async def test_a_redirect_names_the_host_by_which_the_client_came(edge: httpx2.AsyncClient) -> None:
    async with edge:
        answer = await edge.get("/orders", follow_redirects=True)
        assert answer.history, "who is not signed in is led to where one signs in"
        assert answer.url.host == "localhost"
        assert answer.url.port == edge.base_url.port
        assert answer.url.scheme == edge.base_url.scheme


async def test_the_certificate_is_of_the_local_authority_and_names_the_host(
    cluster: Cluster, authority: ssl.SSLContext
) -> None:
    port = cluster.target.https_port
    async with httpx2.AsyncClient(verify=authority, timeout=10) as client:
        for host in ("localhost", "127.0.0.1"):
            assert (await client.get(f"https://{host}:{port}/api/v1/categories")).status_code == 200
    async with httpx2.AsyncClient(timeout=10) as stranger:
        with pytest.raises(httpx2.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await stranger.get(f"https://localhost:{port}/api/v1/categories")


def test_http_2_is_spoken(cluster: Cluster, authority: ssl.SSLContext) -> None:
    authority.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("localhost", cluster.target.https_port), timeout=5) as plain,
        authority.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        assert tls.selected_alpn_protocol() == "h2"
        assert tls.version() == "TLSv1.3"
