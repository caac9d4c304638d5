"""The cluster that the environment names for `make deploy`, with the shop in it."""

import ssl
from collections.abc import AsyncGenerator

import httpx2
import pytest

from deploy.target import STATE
from drills.cluster import Cluster
from tests.cluster.inside import Inside


@pytest.fixture(scope="session")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """The platform in the cluster, all of it up."""
    found = Cluster(tmp_path_factory.mktemp("cluster"))
    await found.start()
    return found


@pytest.fixture(scope="session")
async def inside(cluster: Cluster) -> AsyncGenerator[Inside]:
    """What happens within pods."""
    found = await Inside.of(cluster)
    yield found
    await found.aclose()


@pytest.fixture(scope="session")
def authority() -> ssl.SSLContext:
    """Trust in the local authority that signed the edge's certificate, and in no other."""
    return ssl.create_default_context(cafile=str(STATE / "secrets" / "authority" / "ca.crt"))


@pytest.fixture
async def client() -> AsyncGenerator[httpx2.AsyncClient]:
    """A client of this machine, which opens a connection for each request."""
    limits = httpx2.Limits(max_keepalive_connections=0)
    async with httpx2.AsyncClient(timeout=10, limits=limits) as made:
        yield made
