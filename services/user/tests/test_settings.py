"""What the settings refuse, and the first admin whom they name."""

import asyncio
import base64
from typing import Any

import pytest
from pydantic import ValidationError

from chassis.testing import settings_for
from services.user.first_admin import ensure_first_admin
from services.user.repository import Accounts
from services.user.settings import UserSettings

from .conftest import KEY_ENCRYPTION_KEY, PASSWORD, Replica, Replicas, unique_email


def settings(**values: Any) -> UserSettings:
    """Settings of a user service with these values."""
    usual = {"key_encryption_key": KEY_ENCRYPTION_KEY}
    return settings_for(UserSettings, "user", "postgresql:///unused", **(usual | values))


@pytest.mark.parametrize(
    "key", ["", "secret", "not base64!", base64.b64encode(bytes(16)).decode(), base64.b64encode(bytes(33)).decode()]
)
def test_an_encryption_key_is_32_bytes_in_base64(key: str) -> None:
    with pytest.raises(ValidationError):
        settings(key_encryption_key=key)
    assert len(settings().encryption_key()) == 32


@pytest.mark.parametrize(
    "admin",
    [
        {"admin_email": "admin@example.com"},
        {"admin_password": PASSWORD},
        {"admin_email": "admin", "admin_password": PASSWORD},
        {"admin_email": "admin@example.com", "admin_password": "changeme"},
        {"admin_email": "admin@example.com", "admin_password": "short"},
        {"admin_email": "admin@example.com", "admin_password": ""},
    ],
)
def test_the_first_admin_is_named_whole(admin: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        settings(**admin)


def test_empty_variables_name_no_admin() -> None:
    assert settings(admin_email="", admin_password="").admin_email is None


async def ensure(shop: Replica, email: str, password: str = PASSWORD) -> None:
    """What a replica does before it is ready."""
    parts = shop.service.state.parts
    await ensure_first_admin(
        settings(admin_email=email, admin_password=password), Accounts(shop.service.database), parts.passwords
    )


async def test_the_first_admin_is_made_once_by_several_replicas(shop: Replica) -> None:
    email = unique_email()
    await asyncio.gather(*(ensure(shop, email.upper()) for _ in range(4)))
    headers = await shop.bearer(email)
    [admin] = (await shop.wire.get("/api/v1/users", headers=headers)).json()["items"]
    assert (admin["email"], admin["role"]) == (email, "admin")


async def test_without_settings_there_is_no_admin(shop: Replica) -> None:
    await ensure_first_admin(settings(), Accounts(shop.service.database), shop.service.state.parts.passwords)
    assert await shop.service.database.fetchval("SELECT count(*) FROM users") == 0


async def test_an_admin_who_changed_the_password_keeps_it(shop: Replica) -> None:
    email = unique_email()
    await ensure(shop, email)
    headers = await shop.bearer(email)
    body = {"password": "another password", "current_password": PASSWORD}
    assert (await shop.wire.patch("/api/v1/users/me", headers=headers, json=body)).status_code == 200
    await ensure(shop, email)
    assert (await shop.log_in(email, "another password")).status_code == 200
    assert (await shop.log_in(email)).status_code == 401


async def test_a_customer_with_the_email_becomes_the_admin_whom_the_settings_mean(shop: Replica) -> None:
    user = await shop.register(password="a squatter's password")
    tokens = await shop.tokens(user["email"], "a squatter's password")
    await ensure(shop, user["email"])
    assert (await shop.log_in(user["email"], "a squatter's password")).status_code == 401
    assert (await shop.refresh(tokens["refresh_token"])).status_code == 401
    headers = await shop.bearer(user["email"])
    assert (await shop.wire.get("/api/v1/users/me", headers=headers)).json() == user | {"role": "admin"}


async def test_when_a_service_is_ready_its_admin_can_log_in(replica: Replicas) -> None:
    email = unique_email()
    shop = await replica(admin_email=email, admin_password=PASSWORD)
    assert not shop.service.ready
    await shop.service.start()
    try:
        async with asyncio.timeout(10):
            while not shop.service.ready:
                await shop.service.database.revision()
        assert (await shop.log_in(email)).status_code == 200
    finally:
        await shop.service.stop()
