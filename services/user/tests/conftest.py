"""A user service on a database of its own, and callers of it."""

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from argon2 import PasswordHasher

from chassis.app import Service
from chassis.testing import client, settings_for
from services.user.app import create_app
from services.user.settings import UserSettings

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
KEY_ENCRYPTION_KEY = base64.b64encode(bytes(range(32))).decode()
PASSWORD = "correct horse battery staple"


def unique_email() -> str:
    """An e-mail that nobody has."""
    return f"{uuid4().hex}@example.com"


class Replica:
    """One process's worth of user service, with the calls that most tests make."""

    def __init__(self, service: Service, wire: httpx2.AsyncClient) -> None:
        self.service = service
        self.wire = wire

    async def register(self, email: str | None = None, **members: str) -> dict[str, Any]:
        """A new customer, who must be taken."""
        body = {"email": email or unique_email(), "password": PASSWORD, "name": "Ada Example"} | members
        answer = await self.wire.post("/api/v1/auth/register", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def log_in(self, email: str, password: str = PASSWORD) -> httpx2.Response:
        """The answer to the password grant."""
        form = {"grant_type": "password", "username": email, "password": password}
        return await self.wire.post("/api/v1/auth/token", data=form)

    async def refresh(self, refresh_token: str) -> httpx2.Response:
        """The answer to the refresh token grant."""
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        return await self.wire.post("/api/v1/auth/token", data=form)

    async def tokens(self, email: str, password: str = PASSWORD) -> dict[str, Any]:
        """The tokens of a login, which must succeed."""
        answer = await self.log_in(email, password)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def bearer(self, email: str, password: str = PASSWORD) -> dict[str, str]:
        """The `Authorization` header of a user who logs in."""
        return {"Authorization": f"Bearer {(await self.tokens(email, password))['access_token']}"}

    async def metric(self, name: str, **labels: str) -> float:
        """A sample of this replica's metrics; 0 where there is none yet."""
        return self.service.telemetry.registry.get_sample_value(name, labels) or 0.0


Replicas = Callable[..., Awaitable[Replica]]


@pytest.fixture
def user_database(database_url: Callable[[str], str]) -> str:
    """The URL of a migrated database of this test's own."""
    return database_url("user")


@pytest.fixture
async def replica(user_database: str) -> AsyncIterator[Replicas]:
    """Start replicas of the service on this test's database; settings may be given."""
    async with AsyncExitStack() as stack:

        async def start(hasher: PasswordHasher = CHEAP, **settings: Any) -> Replica:
            values = {"database_url": user_database, "key_encryption_key": KEY_ENCRYPTION_KEY} | settings
            service = create_app(settings_for(UserSettings, "user", **values), hasher=hasher)
            stack.push_async_callback(service.database.close)
            return Replica(service, await stack.enter_async_context(client(service)))

        yield start


@pytest.fixture
async def shop(replica: Replicas) -> Replica:
    """One replica."""
    return await replica()


Caller = tuple[dict[str, Any], dict[str, str]]


@pytest.fixture
async def customer(shop: Replica) -> Caller:
    """A registered customer and their `Authorization`."""
    user = await shop.register()
    return user, await shop.bearer(user["email"])


@pytest.fixture
async def admin(shop: Replica) -> dict[str, str]:
    """The `Authorization` of an admin."""
    user = await shop.register()
    await shop.service.database.execute("UPDATE users SET role = 'admin' WHERE email = $1", user["email"])
    return await shop.bearer(user["email"])
