"""One application on one database for the whole run; each test makes its own payments."""

from collections.abc import AsyncIterator, Iterator

import httpx2
import pytest

from chassis.app import Service
from chassis.database import Database
from chassis.testing import UserTokens, client, settings_for
from services.payment.app import create_app
from services.payment.settings import PaymentSettings
from services.payment.simulator import Simulator
from services.payment.tests.harness import Callers
from tests.databases import Databases


@pytest.fixture(scope="session")
def settings(postgres: Databases) -> Iterator[PaymentSettings]:
    url = postgres.clone("payment")
    yield settings_for(PaymentSettings, "payment", url, simulator_slow_s=0, simulator_lost_answer_s=0)
    postgres.drop(url)


@pytest.fixture(scope="session")
def tokens() -> UserTokens:
    return UserTokens()


@pytest.fixture(scope="session")
async def service(settings: PaymentSettings, tokens: UserTokens) -> AsyncIterator[Service]:
    service = create_app(settings, {"user": tokens.transport()})
    yield service
    await service.database.close()


@pytest.fixture(scope="session")
def database(service: Service) -> Database:
    return service.database


@pytest.fixture(scope="session")
def simulator(service: Service) -> Simulator:
    return service.state.provider


@pytest.fixture(scope="session")
async def http(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    async with client(service) as opened:
        yield opened


@pytest.fixture(scope="session")
def callers(http: httpx2.AsyncClient, tokens: UserTokens) -> Callers:
    return Callers(http, tokens)
