"""Refresh tokens and password changes that race."""

import asyncio
from collections import Counter

import pytest

from services.user.repository import Accounts, RefreshFamilies
from services.user.sessions import RefreshToken

from .conftest import PASSWORD, Replica, Replicas


@pytest.mark.parametrize("uses", [2, 8])
async def test_of_several_uses_at_once_one_wins_and_the_family_ends(replica: Replicas, uses: int) -> None:
    replicas = [await replica(), await replica()]
    user = await replicas[0].register()
    token = (await replicas[0].tokens(user["email"]))["refresh_token"]
    answers = await asyncio.gather(*(replicas[n % 2].refresh(token) for n in range(uses)))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 401: uses - 1}
    [winner] = [answer.json() for answer in answers if answer.status_code == 200]
    assert (await replicas[0].refresh(winner["refresh_token"])).status_code == 401
    assert sum([await one.metric("souk_refresh_tokens_reused_total") for one in replicas]) == 1


async def test_a_use_that_waits_for_anothers_row_lock_loses(shop: Replica) -> None:
    user = await shop.register()
    text = (await shop.tokens(user["email"]))["refresh_token"]
    token = RefreshToken.parse(text)
    assert token is not None
    async with shop.service.database.transaction() as winner:
        await winner.execute("UPDATE refresh_families SET secret_digest = $2 WHERE id = $1", token.family_id, b"next")
        loser = asyncio.create_task(shop.refresh(text))
        while not await shop.service.database.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
            pass
    assert (await loser).status_code == 401
    assert await shop.service.database.fetchval("SELECT count(*) FROM refresh_families") == 0


async def test_a_login_checked_before_a_password_change_opens_nothing_after_it(shop: Replica) -> None:
    user = await shop.register()
    accounts, families = Accounts(shop.service.database), RefreshFamilies(shop.service.database)
    checked = await accounts.find(user["email"])
    assert checked is not None
    await accounts.change_password(checked, "another hash", None)
    assert await families.open(checked, b"digest") is None


async def test_a_session_opened_while_the_password_changes_is_not_good(shop: Replica) -> None:
    user = await shop.register()
    tokens = await shop.tokens(user["email"])
    # What the login's insert leaves when the change's snapshot was too early to see it.
    await shop.service.database.execute("UPDATE users SET session_epoch = session_epoch + 1")
    assert (await shop.refresh(tokens["refresh_token"])).status_code == 401


async def test_of_two_password_changes_at_once_one_wins(replica: Replicas) -> None:
    replicas = [await replica(), await replica()]
    user = await replicas[0].register()
    headers = await replicas[0].bearer(user["email"])
    answers = await asyncio.gather(
        *(
            one.wire.patch(
                "/api/v1/users/me",
                headers=headers,
                json={"password": f"another password {number}", "current_password": PASSWORD},
            )
            for number, one in enumerate(replicas)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200, 403]
    [winner] = [number for number, answer in enumerate(answers) if answer.status_code == 200]
    assert (await replicas[0].log_in(user["email"], f"another password {winner}")).status_code == 200


async def test_a_login_of_an_account_that_is_deleted_meanwhile_opens_nothing(shop: Replica) -> None:
    user = await shop.register()
    accounts, families = Accounts(shop.service.database), RefreshFamilies(shop.service.database)
    checked = await accounts.find(user["email"])
    assert checked is not None
    await accounts.delete(checked.user_id)
    assert await families.open(checked, b"digest") is None


async def test_expired_families_are_deleted(shop: Replica) -> None:
    user = await shop.register()
    expired, alive = await shop.tokens(user["email"]), await shop.tokens(user["email"])
    token = RefreshToken.parse(expired["refresh_token"])
    assert token is not None
    await shop.service.database.execute("UPDATE refresh_families SET expires_at = now() WHERE id = $1", token.family_id)
    await RefreshFamilies(shop.service.database).delete_expired()
    assert await shop.service.database.fetchval("SELECT count(*) FROM refresh_families") == 1
    assert (await shop.refresh(alive["refresh_token"])).status_code == 200


@pytest.mark.parametrize("text", ["", "nonsense", "é", "A" * 63, "A" * 68])
def test_what_is_no_refresh_token_is_told_without_the_database(text: str) -> None:
    assert RefreshToken.parse(text) is None
