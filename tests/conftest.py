"""Fixtures of the tests of the platform as a whole."""

from collections.abc import Generator

import pytest

from chassis.secrets import SERVICES
from local.edge import STOREFRONT
from tests.databases import Databases
from tests.shop import Shop, running_shop


@pytest.fixture(scope="session")
def shop(postgres: Databases, tmp_path_factory: pytest.TempPathFactory) -> Generator[Shop, None, None]:
    """A shop of five processes and an edge, one for each worker of the test run."""
    urls = {service: postgres.clone(service) for service in SERVICES}
    with running_shop(urls, tmp_path_factory.mktemp("shop"), {STOREFRONT: 1}) as running:
        yield running
