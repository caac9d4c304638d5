"""A small service on a database of its own, and clients of it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

import httpx2
import pytest

from chassis.app import Service, Transports
from chassis.auth import AccessTokens
from chassis.settings import ServiceSettings
from chassis.testing import UserTokens, client, settings_for
from chassis.tests import application
from tests.databases import Databases, run_sql


class Build(Protocol):
    """Makes a service with other settings than the usual; it is closed when the test ends."""

    def __call__(
        self,
        transports: Transports | None = None,
        *,
        access_tokens: AccessTokens | None = None,
        **overrides: object,
    ) -> Service: ...


@pytest.fixture(scope="session")
def notes_url(postgres: Databases) -> Iterator[str]:
    url = postgres.create()
    run_sql(url, application.SCHEMA)
    yield url
    postgres.drop(url)


@pytest.fixture(scope="session")
def tokens() -> UserTokens:
    return UserTokens()


@pytest.fixture
async def build(notes_url: str, tokens: UserTokens) -> AsyncIterator[Build]:
    built: list[Service] = []

    def make(
        transports: Transports | None = None,
        *,
        access_tokens: AccessTokens | None = None,
        **overrides: object,
    ) -> Service:
        database_url = str(overrides.pop("database_url", notes_url))
        settings = settings_for(ServiceSettings, "product", database_url, **overrides)
        built.append(
            application.create_app(settings, transports or {"user": tokens.transport()}, access_tokens=access_tokens)
        )
        return built[-1]

    yield make
    for service in built:
        await service.database.close()
        if service.telemetry.tracing is not None:
            await asyncio.to_thread(service.telemetry.tracing.close)


@pytest.fixture
def service(build: Build) -> Service:
    return build()


@pytest.fixture
async def http(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    async with client(service) as opened:
        yield opened
