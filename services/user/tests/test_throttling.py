"""Ten failures in fifteen minutes for one e-mail, counted in the database."""

import asyncio

import pytest
from argon2 import PasswordHasher

from services.user.domain import email_digest
from services.user.repository import LoginAttempts

from .conftest import PASSWORD, Replica, Replicas, unique_email

AGE = "UPDATE login_attempts SET attempted_at = ARRAY(SELECT at - $1::interval FROM unnest(attempted_at) AS at)"
COUNTED = "SELECT cardinality(attempted_at) FROM login_attempts WHERE email_digest = $1"


async def fail(shop: Replica, email: str, times: int) -> None:
    """Fail to log in, in varying case."""
    for attempt in range(times):
        answer = await shop.log_in(email.upper() if attempt % 2 else email, "wrong password")
        assert answer.status_code == 401


@pytest.mark.parametrize("known", [True, False])
async def test_the_eleventh_attempt_is_throttled_whatever_the_password(shop: Replica, known: bool) -> None:
    email = (await shop.register())["email"] if known else unique_email()
    await fail(shop, email, 10)
    for password in (PASSWORD, "wrong password"):
        answer = await shop.log_in(email, password)
        assert answer.status_code == 429
        assert answer.json()["type"] == "/problems/too-many-attempts"
        assert 890 <= int(answer.headers["retry-after"]) <= 900
    assert await shop.metric("souk_logins_total", outcome="throttled") == 2
    assert await shop.metric("souk_logins_total", outcome="failed") == 10


async def test_other_emails_and_refreshing_are_not_throttled_with_it(shop: Replica) -> None:
    user = await shop.register()
    tokens = await shop.tokens(user["email"])
    await fail(shop, user["email"], 10)
    assert (await shop.refresh(tokens["refresh_token"])).status_code == 200
    await shop.tokens((await shop.register())["email"])


async def test_a_success_clears_the_count(shop: Replica) -> None:
    user = await shop.register()
    for _ in range(3):
        await fail(shop, user["email"], 9)
        await shop.tokens(user["email"])


async def test_the_window_slides(shop: Replica) -> None:
    user = await shop.register()
    await fail(shop, user["email"], 4)
    await shop.service.database.execute(AGE.replace("$1", "'10 minutes'"))
    await fail(shop, user["email"], 6)
    answer = await shop.log_in(user["email"])
    assert answer.status_code == 429
    assert 290 <= int(answer.headers["retry-after"]) <= 300
    await shop.service.database.execute(AGE.replace("$1", "'5 minutes'"))
    await fail(shop, user["email"], 4)
    assert (await shop.log_in(user["email"])).status_code == 429


async def test_of_twenty_wrong_ones_at_once_over_two_replicas_ten_are_looked_at(replica: Replicas) -> None:
    replicas = [await replica(), await replica()]
    email = (await replicas[0].register())["email"]
    answers = await asyncio.gather(*(replicas[n % 2].log_in(email, "wrong password") for n in range(20)))
    assert sorted(answer.status_code for answer in answers) == [401] * 10 + [429] * 10


async def test_a_crowd_with_the_right_password_is_not_throttled(shop: Replica) -> None:
    email = (await shop.register())["email"]
    answers = await asyncio.gather(*(shop.log_in(email) for _ in range(30)))
    assert {answer.status_code for answer in answers} == {200}
    assert await shop.service.database.fetchval(COUNTED, email_digest(email)) is None


async def test_an_attempt_that_was_refused_for_lack_of_a_thread_does_not_count(shop: Replica) -> None:
    email = (await shop.register())["email"]
    passwords = shop.service.state.parts.passwords
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_places", 0)
        for _ in range(11):
            answer = await shop.log_in(email)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert (await shop.log_in(email)).status_code == 200


async def test_what_has_left_the_window_is_deleted(shop: Replica) -> None:
    attempts = LoginAttempts(shop.service.database)
    old, recent = unique_email(), unique_email()
    await fail(shop, old, 1)
    await shop.service.database.execute("UPDATE login_attempts SET last_attempted_at = now() - interval '16 minutes'")
    await fail(shop, recent, 1)
    await attempts.delete_old()
    assert await shop.service.database.fetchval(COUNTED, email_digest(old)) is None
    assert await shop.service.database.fetchval(COUNTED, email_digest(recent)) == 1


async def test_nothing_is_kept_of_an_unknown_email(shop: Replica) -> None:
    email = unique_email()
    await fail(shop, email, 1)
    [row] = await shop.service.database.fetch("SELECT * FROM login_attempts")
    assert email not in str(dict(row))


async def test_a_login_brings_the_hash_to_todays_parameters(replica: Replicas) -> None:
    before, after = await replica(), await replica(PasswordHasher(time_cost=2, memory_cost=16, parallelism=1))
    user = await before.register()
    stored = "SELECT password_hash FROM users"
    old = await before.service.database.fetchval(stored)
    await after.tokens(user["email"])
    new = await before.service.database.fetchval(stored)
    assert "m=8,t=1" in old
    assert "m=16,t=2" in new
    await after.tokens(user["email"])
    assert await before.service.database.fetchval(stored) == new
