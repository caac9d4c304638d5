"""Two transactions of the user service at once: a token is good once, a limit holds, an e-mail is one account's."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest

from chassis.database import Database
from chassis.problems import NotFound, Unauthenticated
from chassis.schemas import Address
from services.user.domain import MOST_ADDRESSES, MOST_FAILED_LOGINS, AddressBookFull, EmailTaken
from services.user.repository import (
    Account,
    Accounts,
    Addresses,
    LoginAttempts,
    RefreshFamilies,
    Renewed,
    SigningKeyRows,
)
from tests.databases import Databases
from tests.isolation.meeting import Meeting, Work, ends_either_way, meeting_place

HOME = Address(name="Ada Example", line1="1 Market Square", city="Springfield", postal_code="12345", country="US")

TOKEN = """
SELECT convert_from(secret_digest, 'UTF8') FROM refresh_families AS family
JOIN users ON users.id = family.user_id AND users.session_epoch = family.session_epoch
WHERE family.id = $1
"""


@pytest.fixture(scope="session")
async def meeting(postgres: Databases) -> AsyncIterator[Meeting]:
    async with meeting_place(postgres, "user") as place:
        yield place


@dataclass(frozen=True, slots=True)
class Customer:
    """An account with a password, one login, and one address."""

    meeting: Meeting
    email: str
    account: Account
    family_id: UUID
    address_id: UUID

    async def now(self) -> Account | None:
        return await Accounts(self.meeting.database).find(self.email)

    async def token(self) -> str | None:
        """Which refresh token is good now."""
        return await self.meeting.database.fetchval(TOKEN, self.family_id)

    def rotate(self, to: bytes = b"next") -> Work:
        return lambda database: RefreshFamilies(database).rotate(self.family_id, b"first", to)

    def end(self) -> Work:
        return lambda database: RefreshFamilies(database).end(self.family_id)

    def open(self) -> Work:
        return lambda database: RefreshFamilies(database).open(self.account, b"first")

    def change_password(self) -> Work:
        return lambda database: Accounts(database).change_password(self.account, "changed", None)

    def rehash(self) -> Work:
        return lambda database: Accounts(database).rehash(self.account, "rehashed")

    def delete(self) -> Work:
        return lambda database: Accounts(database).delete(self.account.user_id)

    def promote(self, password_hash: str) -> Work:
        return lambda database: Accounts(database).make_admin(self.email, "Admin", password_hash)

    def add_address(self) -> Work:
        return lambda database: Addresses(database).add(self.account.user_id, HOME)

    def delete_address(self) -> Work:
        return lambda database: Addresses(database).delete(self.account.user_id, self.address_id)

    async def addresses(self) -> int:
        """How many there are, which is as many as are counted."""
        counted, stored = "SELECT address_count FROM users", "SELECT count(*) FROM addresses"
        database, user_id = self.meeting.database, self.account.user_id
        count: int = await database.fetchval(f"{counted} WHERE id = $1", user_id)
        assert await database.fetchval(f"{stored} WHERE user_id = $1", user_id) == count
        return count


@pytest.fixture
async def customer(meeting: Meeting) -> Customer:
    email = f"{uuid4().hex}@example.com"
    accounts = Accounts(meeting.database)
    user = await accounts.create(email, "Ada Example", "hash")
    account = await accounts.find(email)
    assert account is not None
    family_id = await RefreshFamilies(meeting.database).open(account, b"first")
    assert family_id is not None
    address = await Addresses(meeting.database).add(user.id, HOME)
    return Customer(meeting, email, account, family_id, address.id)


# Accounts


@ends_either_way
async def test_an_e_mail_is_one_account_s(meeting: Meeting, commit: bool) -> None:
    email = f"{uuid4().hex}@example.com"
    met = await meeting.of(
        lambda database: Accounts(database).create(email, "Ada", "first"),
        lambda database: Accounts(database).create(email, "Bob", "second"),
        commit=commit,
    )
    assert met.waited
    assert isinstance(met.second, EmailTaken) is commit
    account = await Accounts(meeting.database).find(email)
    assert account is not None
    assert account.password_hash == ("first" if commit else "second")


@ends_either_way
@pytest.mark.parametrize("first", ["change_password", "rehash"])
@pytest.mark.parametrize("second", ["change_password", "rehash"])
async def test_a_password_is_replaced_only_where_it_is_the_one_that_was_checked(
    meeting: Meeting, customer: Customer, first: str, second: str, commit: bool
) -> None:
    hashes = {"change_password": "changed", "rehash": "rehashed"}
    met = await meeting.of(getattr(customer, first)(), getattr(customer, second)(), commit=commit)
    assert met.waited
    if second == "change_password":
        assert (met.second is None) is commit
    account = await customer.now()
    assert account is not None
    done = first if commit else second
    assert account.password_hash == hashes[done]
    assert account.session_epoch == int(done == "change_password")


@ends_either_way
async def test_an_admin_is_made_once(meeting: Meeting, customer: Customer, commit: bool) -> None:
    met = await meeting.of(customer.promote("first"), customer.promote("second"), commit=commit)
    assert met.waited
    account = await customer.now()
    assert account is not None
    assert (account.role, account.session_epoch) == ("admin", 1)
    assert account.password_hash == ("first" if commit else "second")


# Sessions


@ends_either_way
async def test_a_refresh_token_is_good_once(meeting: Meeting, customer: Customer, commit: bool) -> None:
    met = await meeting.of(customer.rotate(b"next"), customer.rotate(b"other"), commit=commit)
    assert met.waited
    assert met.second == (None if commit else Renewed(customer.account.user_id, "customer"))
    assert await customer.token() == ("next" if commit else "other")


@ends_either_way
@pytest.mark.parametrize("end_first", [True, False], ids=["end-rotate", "rotate-end"])
async def test_a_session_that_ends_while_it_is_renewed_has_ended(
    meeting: Meeting, customer: Customer, end_first: bool, commit: bool
) -> None:
    works = customer.end(), customer.rotate()
    met = await meeting.of(*(works if end_first else reversed(works)), commit=commit)
    assert met.waited
    if not end_first:
        assert met.second is True, "it was alive"
    assert await customer.token() == ("next" if end_first and not commit else None)


@ends_either_way
async def test_a_session_is_ended_by_one(meeting: Meeting, customer: Customer, commit: bool) -> None:
    met = await meeting.of(customer.end(), customer.end(), commit=commit)
    assert met.waited
    assert met.second is not commit


@ends_either_way
@pytest.mark.parametrize("change_first", [True, False], ids=["change-rotate", "rotate-change"])
async def test_no_session_outlives_a_change_of_the_password(
    meeting: Meeting, customer: Customer, change_first: bool, commit: bool
) -> None:
    works = customer.change_password(), customer.rotate()
    met = await meeting.of(*(works if change_first else reversed(works)), commit=commit)
    assert met.waited
    assert await customer.token() == ("next" if change_first and not commit else None)


@ends_either_way
@pytest.mark.parametrize("change_first", [True, False], ids=["change-open", "open-change"])
async def test_no_session_is_opened_with_a_password_that_is_being_changed(
    meeting: Meeting, customer: Customer, change_first: bool, commit: bool
) -> None:
    works = customer.change_password(), customer.open()
    met = await meeting.of(*(works if change_first else reversed(works)), commit=commit)
    assert not met.waited, "the epoch decides, whenever the row is written"
    family_id = met.second if change_first else met.first
    renewed = await RefreshFamilies(meeting.database).rotate(family_id, b"first", b"next")
    assert (renewed is None) is (commit or not change_first)


@ends_either_way
@pytest.mark.parametrize("delete_first", [True, False], ids=["delete-open", "open-delete"])
async def test_an_account_that_is_deleted_leaves_no_session(
    meeting: Meeting, customer: Customer, delete_first: bool, commit: bool
) -> None:
    works = customer.delete(), customer.open()
    met = await meeting.of(*(works if delete_first else reversed(works)), commit=commit)
    assert met.waited
    deleted = commit or not delete_first
    assert (await customer.now() is None) is deleted
    sessions = "SELECT count(*) FROM refresh_families WHERE user_id = $1"
    assert await meeting.database.fetchval(sessions, customer.account.user_id) == (0 if deleted else 2)


# Address books


@ends_either_way
async def test_an_address_book_holds_no_more_than_its_limit(meeting: Meeting, customer: Customer, commit: bool) -> None:
    for _ in range(MOST_ADDRESSES - 2):
        await customer.add_address()(meeting.database)
    met = await meeting.of(customer.add_address(), customer.add_address(), commit=commit)
    assert met.waited
    assert isinstance(met.second, AddressBookFull) is commit
    assert await customer.addresses() == MOST_ADDRESSES


@ends_either_way
async def test_an_address_is_deleted_and_counted_once(meeting: Meeting, customer: Customer, commit: bool) -> None:
    met = await meeting.of(customer.delete_address(), customer.delete_address(), commit=commit)
    assert met.waited
    assert isinstance(met.second, NotFound) is commit
    assert await customer.addresses() == 0


@ends_either_way
@pytest.mark.parametrize("add_first", [True, False], ids=["add-delete", "delete-add"])
async def test_addresses_that_come_and_go_are_all_counted(
    meeting: Meeting, customer: Customer, add_first: bool, commit: bool
) -> None:
    works = customer.add_address(), customer.delete_address()
    met = await meeting.of(*(works if add_first else reversed(works)), commit=commit)
    assert met.waited
    assert await customer.addresses() == (1 if commit else 0 if add_first else 2)


@ends_either_way
async def test_a_place_is_free_only_once_the_deletion_is_committed(
    meeting: Meeting, customer: Customer, commit: bool
) -> None:
    for _ in range(MOST_ADDRESSES - 1):
        await customer.add_address()(meeting.database)
    met = await meeting.of(customer.delete_address(), customer.add_address(), commit=commit)
    assert not met.waited
    assert isinstance(met.second, AddressBookFull)
    assert await customer.addresses() == MOST_ADDRESSES - commit


@ends_either_way
@pytest.mark.parametrize("delete_first", [True, False], ids=["delete-add", "add-delete"])
async def test_an_account_that_is_deleted_has_no_address(
    meeting: Meeting, customer: Customer, delete_first: bool, commit: bool
) -> None:
    works = customer.delete(), customer.add_address()
    met = await meeting.of(*(works if delete_first else reversed(works)), commit=commit)
    assert met.waited
    assert isinstance(met.second, Unauthenticated) is (commit and delete_first)
    stored = "SELECT count(*) FROM addresses WHERE user_id = $1"
    deleted = commit or not delete_first
    assert await meeting.database.fetchval(stored, customer.account.user_id) == (0 if deleted else 2)


# Attempts to log in


@ends_either_way
@pytest.mark.parametrize("counted", [0, MOST_FAILED_LOGINS - 1], ids=["first", "last"])
async def test_as_many_attempts_are_let_through_as_there_are(meeting: Meeting, counted: int, commit: bool) -> None:
    digest = uuid4().bytes

    async def attempt(database: Database) -> Any:
        return await LoginAttempts(database).reserve(digest)

    for _ in range(counted):
        assert await attempt(meeting.database) is None
    met = await meeting.of(attempt, attempt, commit=commit)
    assert met.waited
    assert (met.second is not None) is (commit and counted > 0)
    attempts = "SELECT cardinality(attempted_at) FROM login_attempts WHERE email_digest = $1"
    assert await meeting.database.fetchval(attempts, digest) == min(counted + 1 + commit, MOST_FAILED_LOGINS)


@ends_either_way
@pytest.mark.parametrize("delete_first", [True, False], ids=["delete-reserve", "reserve-delete"])
async def test_an_attempt_is_counted_though_older_ones_are_being_deleted(
    meeting: Meeting, delete_first: bool, commit: bool
) -> None:
    digest = uuid4().bytes

    async def attempt(database: Database) -> Any:
        return await LoginAttempts(database).reserve(digest)

    async def delete_old(database: Database) -> None:
        await LoginAttempts(database).delete_old()

    await attempt(meeting.database)
    await meeting.database.execute(
        "UPDATE login_attempts SET last_attempted_at = now() - interval '1 hour' WHERE email_digest = $1", digest
    )
    works = delete_old, attempt
    met = await meeting.of(*(works if delete_first else reversed(works)), commit=commit)
    assert met.waited
    attempts = "SELECT cardinality(attempted_at) FROM login_attempts WHERE email_digest = $1"
    counted = await meeting.database.fetchval(attempts, digest)
    if delete_first:
        assert counted == (1 if commit else 2)
    else:
        assert counted == (2 if commit else None)


# Signing keys


def _add_first(kid: str) -> Work:
    return lambda database: SigningKeyRows(database).add_first(kid, b"public", b"private")


def _add_next(kid: str) -> Work:
    return lambda database: SigningKeyRows(database).add_next(kid, b"public", b"private", 15.0)


@pytest.fixture
async def no_keys(meeting: Meeting) -> None:
    await meeting.database.execute("DELETE FROM signing_keys")


@ends_either_way
@pytest.mark.usefixtures("no_keys")
@pytest.mark.parametrize("first", [_add_first, _add_next])
@pytest.mark.parametrize("second", [_add_first, _add_next])
async def test_one_first_key_is_kept(meeting: Meeting, first: Any, second: Any, commit: bool) -> None:
    met = await meeting.of(first("first"), second("second"), commit=commit)
    assert met.waited
    assert await _kids(meeting) == ["first" if commit else "second"]


@ends_either_way
@pytest.mark.usefixtures("no_keys")
async def test_of_two_rotations_at_once_one_adds_a_key(meeting: Meeting, commit: bool) -> None:
    await _add_first("first")(meeting.database)
    met = await meeting.of(_add_next("next"), _add_next("other"), commit=commit)
    assert met.waited
    assert (met.second is None) is commit
    assert await _kids(meeting) == ["first", "next" if commit else "other"]


async def _kids(meeting: Meeting) -> list[str]:
    return [row["kid"] for row in await meeting.database.fetch("SELECT kid FROM signing_keys ORDER BY number")]
