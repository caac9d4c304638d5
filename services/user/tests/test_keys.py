"""Signing keys: the first, their rotation, their encryption."""

import asyncio
import base64
from uuid import uuid4

import jwt
import pytest

from chassis import auth
from services.user.keys import (
    FRESH_FOR_S,
    KEPT_S,
    PUBLISHED_AHEAD_S,
    PUBLISHED_FOR_S,
    SigningKeys,
    UndecryptableSigningKey,
)
from services.user.repository import SigningKeyRows

from .conftest import KEY_ENCRYPTION_KEY, Replica, Replicas

ACTIVATE_IN_S = """
    UPDATE signing_keys SET active_from = now() + make_interval(secs => $1)
    WHERE number = (SELECT max(number) FROM signing_keys)
"""
AGE_BY_S = "UPDATE signing_keys SET active_from = active_from - make_interval(secs => $1)"


class Clock:
    """A monotonic clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def keys_of(shop: Replica, clock: Clock | None = None, encryption_key: bytes | None = None) -> SigningKeys:
    """The keys as a further process sees them."""
    key = encryption_key or base64.b64decode(KEY_ENCRYPTION_KEY)
    return SigningKeys(SigningKeyRows(shop.service.database), key, clock=clock or Clock())


async def kids(keys: SigningKeys) -> list[str]:
    """The published keys' ids."""
    return [key["kid"] for key in (await keys.jwks())["keys"]]


def kid_of(headers: dict[str, str]) -> str:
    """The id of the key that signed a token."""
    return jwt.get_unverified_header(headers["Authorization"].removeprefix("Bearer "))["kid"]


async def test_of_many_first_keys_at_once_one_is_kept(shop: Replica) -> None:
    replicas = [keys_of(shop) for _ in range(8)]
    signers = await asyncio.gather(*(keys.signer() for keys in replicas))
    assert len({signer.kid for signer in signers}) == 1
    assert len({str(await kids(keys)) for keys in replicas}) == 1
    assert await shop.service.database.fetchval("SELECT count(*) FROM signing_keys") == 1


async def test_a_new_key_is_published_before_it_signs(shop: Replica) -> None:
    clock = Clock()
    running = keys_of(shop, clock)
    old = (await running.signer()).kid
    assert await keys_of(shop).rotate() is not None
    clock.now += FRESH_FOR_S + 0.1  # the longest that a replica does without a look at the database
    published = await kids(running)
    assert (len(published), published[0]) == (2, old)
    assert (await running.signer()).kid == old


async def test_a_new_key_takes_over_at_its_time_without_another_look(shop: Replica) -> None:
    clock = Clock()
    running = keys_of(shop, clock)
    await running.rotate()
    await shop.service.database.execute(ACTIVATE_IN_S, 3.0)
    old, new = await kids(running)
    assert (await running.signer()).kid == old
    await shop.service.database.execute("DELETE FROM signing_keys")
    clock.now += 4.0
    assert (await running.signer()).kid == new


def test_every_replica_publishes_a_new_key_before_anyone_signs_with_it() -> None:
    assert PUBLISHED_AHEAD_S > FRESH_FOR_S + PUBLISHED_FOR_S


async def test_a_rotation_fails_no_request_on_any_replica(replica: Replicas) -> None:
    first = await replica()
    user = await first.register()
    before = await first.bearer(user["email"])
    assert await keys_of(first).rotate() is not None
    await first.service.database.execute(ACTIVATE_IN_S, 0.0)
    second = await replica()  # its first look at the keys is after the rotation
    after = await second.bearer(user["email"])
    assert kid_of(before) != kid_of(after)
    third = await replica()
    for shop in (second, third):
        for headers in (before, after):
            assert (await shop.wire.get("/api/v1/users/me", headers=headers)).status_code == 200
    published = (await third.wire.get("/api/v1/auth/jwks")).json()["keys"]
    assert [key["kid"] for key in published] == [kid_of(before), kid_of(after)]


async def test_a_replica_meets_a_new_key_in_a_token_and_fetches_it(
    shop: Replica, replica: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "KEYS_AT_MOST_EVERY_S", 0.0)  # the key was published for longer than this, by the clock
    user = await shop.register()
    await shop.bearer(user["email"])
    clock = Clock()
    running = keys_of(shop, clock)
    shop.service.state.access_tokens._fetch_keys = running.jwks  # pyright: ignore[reportPrivateUsage]
    await shop.wire.get("/api/v1/users/me", headers=await shop.bearer(user["email"]))
    await keys_of(shop).rotate()
    await shop.service.database.execute(ACTIVATE_IN_S, 0.0)
    clock.now += FRESH_FOR_S + 0.1
    other = await replica()
    headers = await other.bearer(user["email"])
    assert (await shop.wire.get("/api/v1/users/me", headers=headers)).status_code == 200


async def test_a_superseded_key_is_published_until_its_last_token_has_expired(shop: Replica) -> None:
    keys = keys_of(shop)
    await keys.rotate()
    await shop.service.database.execute(ACTIVATE_IN_S, 0.0)
    await shop.service.database.execute(AGE_BY_S, KEPT_S - 60)
    await keys.delete_superseded()
    assert len(await kids(keys_of(shop))) == 2
    await shop.service.database.execute(AGE_BY_S, 61.0)
    assert len(await kids(keys_of(shop))) == 1
    await keys.delete_superseded()
    assert await shop.service.database.fetchval("SELECT array_agg(number) FROM signing_keys") == [2]


async def test_of_two_rotations_at_once_at_most_one_is_a_rotation_too_many(shop: Replica) -> None:
    await keys_of(shop).signer()
    rotated = await asyncio.gather(*(keys_of(shop).rotate() for _ in range(2)))
    added = [active_from for active_from in rotated if active_from is not None]
    assert added
    assert await shop.service.database.fetchval("SELECT count(*) FROM signing_keys") == 1 + len(added)


async def test_the_private_key_is_encrypted_and_bound_to_its_id(shop: Replica) -> None:
    signer = await keys_of(shop).signer()
    stored = await shop.service.database.fetchval("SELECT private_key_encrypted FROM signing_keys")
    assert signer.private_key.private_bytes_raw() not in stored
    await shop.service.database.execute("UPDATE signing_keys SET kid = 'another'")
    with pytest.raises(UndecryptableSigningKey):
        await keys_of(shop).signer()


async def test_after_a_lost_encryption_key_a_rotation_helps(shop: Replica) -> None:
    token = (await keys_of(shop).signer()).access_token(uuid4(), "customer")
    kid = jwt.get_unverified_header(token)["kid"]
    replacement = keys_of(shop, encryption_key=bytes(32))
    with pytest.raises(UndecryptableSigningKey):
        await replacement.signer()
    assert await kids(replacement) == [kid]
    await replacement.rotate()
    await shop.service.database.execute(ACTIVATE_IN_S, 0.0)
    restarted = keys_of(shop, encryption_key=bytes(32))
    assert (await restarted.signer()).kid != kid
    assert kid in await kids(restarted)


async def test_a_lost_encryption_key_fails_signing_and_not_readiness(shop: Replica, replica: Replicas) -> None:
    user = await shop.register()
    headers = await shop.bearer(user["email"])
    restarted = await replica(key_encryption_key=base64.b64encode(bytes(32)).decode())
    await restarted.service.start()
    await asyncio.wait_for(restarted.service.started.wait(), 10)
    assert (await restarted.log_in(user["email"])).status_code == 500
    assert (await restarted.wire.get("/api/v1/users/me", headers=headers)).status_code == 200


async def test_a_database_clock_that_was_set_back_leaves_a_key_to_sign_with(shop: Replica) -> None:
    keys = keys_of(shop)
    oldest = (await keys.signer()).kid
    await keys.rotate()
    await shop.service.database.execute(AGE_BY_S, -3600.0)
    later = keys_of(shop)
    assert (await later.signer()).kid == oldest
    assert len(await kids(later)) == 2


async def test_signing_asks_the_database_for_nothing(shop: Replica) -> None:
    keys = keys_of(shop)
    await keys.signer()
    await shop.service.database.execute("DELETE FROM signing_keys")
    assert (await keys.signer()).access_token(uuid4(), "admin")
