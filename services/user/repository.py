"""Every SQL statement of the user service."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from chassis.auth import Role
from chassis.database import Database
from chassis.problems import NotFound, Unauthenticated
from chassis.schemas import Address
from services.user.domain import (
    FAILED_LOGINS_WINDOW_S,
    MOST_ADDRESSES,
    MOST_FAILED_LOGINS,
    REFRESH_TOKEN_LIFE_DAYS,
    AddressBookFull,
    EmailTaken,
)
from services.user.schemas import SavedAddress, User

AUDIT = "SELECT /* audit */ json_build_object('kind', 'user', 'id', id, 'role', role)::text FROM users ORDER BY id"
"""What the audit reads of this service."""

GONE = "the account of this token does not exist any more"


@dataclass(frozen=True, slots=True)
class Account:
    """What a login is checked against."""

    user_id: UUID
    role: Role
    password_hash: str
    session_epoch: int


class Accounts:
    """Users and their passwords."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, email: str, name: str, password_hash: str) -> User:
        """Add a customer; raises EmailTaken, also for the slower of two at once."""
        row = await self._database.fetchrow(
            """
            INSERT INTO users /* add customer */ (email, name, role, password_hash) VALUES ($1, $2, 'customer', $3)
            ON CONFLICT (email) DO NOTHING
            RETURNING id, email, name, role, created_at
            """,
            email,
            name,
            password_hash,
        )
        if row is None:
            raise EmailTaken
        return User(**row)

    async def get(self, user_id: UUID) -> User:
        """Raises Unauthenticated where the account is gone: its access token outlives it by up to 15 minutes."""
        row = await self._database.fetchrow(
            "SELECT /* user */ id, email, name, role, created_at FROM users WHERE id = $1", user_id
        )
        if row is None:
            raise Unauthenticated(GONE)
        return User(**row)

    async def find(self, email: str) -> Account | None:
        """The account with this e-mail, which need not be a well-formed one."""
        row = await self._database.fetchrow(
            "SELECT /* account */ id AS user_id, role, password_hash, session_epoch FROM users WHERE email = $1", email
        )
        return None if row is None else Account(**row)

    async def page(self, email: str | None, before: UUID | None, count: int) -> list[User]:
        """Up to `count` users, newest first, that come after the one with the id `before`."""
        rows = await self._database.fetch(
            """
            SELECT /* users */ id, email, name, role, created_at FROM users
            WHERE ($1::text IS NULL OR email = $1) AND ($2::uuid IS NULL OR id < $2)
            ORDER BY id DESC LIMIT $3
            """,
            email,
            before,
            count,
        )
        return [User(**row) for row in rows]

    async def rename(self, user_id: UUID, name: str) -> User:
        """Change the name; raises Unauthenticated where the account is gone."""
        row = await self._database.fetchrow(
            "UPDATE users /* rename user */ SET name = $2 WHERE id = $1 RETURNING id, email, name, role, created_at",
            user_id,
            name,
        )
        if row is None:
            raise Unauthenticated(GONE)
        return User(**row)

    async def change_password(self, account: Account, password_hash: str, name: str | None) -> User | None:
        """Set a new password, and a name if there is one, and end every refresh token.

        None where the password is not the one that was checked any more. Raising the epoch ends the tokens, those of a
        login that is under way included; that their rows go too only tidies up.
        """
        row = await self._database.fetchrow(
            """
            WITH /* change password */ changed AS (
                UPDATE users
                SET password_hash = $3, name = coalesce($4, name), session_epoch = session_epoch + 1
                WHERE id = $1 AND password_hash = $2
                RETURNING id, email, name, role, created_at
            ), ended AS (
                DELETE FROM refresh_families USING changed WHERE user_id = changed.id
            )
            SELECT * FROM changed
            """,
            account.user_id,
            account.password_hash,
            password_hash,
            name,
        )
        return None if row is None else User(**row)

    async def rehash(self, account: Account, password_hash: str) -> None:
        """Store the same password under today's parameters, unless it was changed meanwhile."""
        await self._database.execute(
            "UPDATE users /* rehash password */ SET password_hash = $3 WHERE id = $1 AND password_hash = $2",
            account.user_id,
            account.password_hash,
            password_hash,
        )

    async def delete(self, user_id: UUID) -> None:
        """Erase the account with its addresses and refresh tokens; raises Unauthenticated where it is gone already."""
        deleted = await self._database.fetchval(
            "DELETE FROM users /* delete user */ WHERE id = $1 RETURNING true", user_id
        )
        if deleted is None:
            raise Unauthenticated(GONE)

    async def is_admin(self, email: str) -> bool:
        """Whether an admin has this e-mail."""
        return await self._database.fetchval(
            "SELECT /* is admin */ EXISTS (SELECT FROM users WHERE email = $1 AND role = 'admin')", email
        )

    async def make_admin(self, email: str, name: str, password_hash: str) -> None:
        """Add an admin, or make one of the customer with this e-mail; an admin stays as it is.

        A customer's password and sessions end: whoever registered the e-mail may not be the one whom the settings mean.
        """
        await self._database.execute(
            """
            INSERT INTO users /* make admin */ (email, name, role, password_hash) VALUES ($1, $2, 'admin', $3)
            ON CONFLICT (email) DO UPDATE
            SET role = 'admin', password_hash = excluded.password_hash, session_epoch = users.session_epoch + 1
            WHERE users.role <> 'admin'
            """,
            email,
            name,
            password_hash,
        )


class Addresses:
    """Address books."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, user_id: UUID, after: UUID | None, count: int) -> list[SavedAddress]:
        """Up to `count` addresses, oldest first, that come after the one with the id `after`."""
        rows = await self._database.fetch(
            """
            SELECT /* addresses */ id, name, line1, line2, city, region, postal_code, country FROM addresses
            WHERE user_id = $1 AND ($2::uuid IS NULL OR id > $2)
            ORDER BY id LIMIT $3
            """,
            user_id,
            after,
            count,
        )
        return [SavedAddress(**row) for row in rows]

    async def add(self, user_id: UUID, address: Address) -> SavedAddress:
        """Add an address; raises AddressBookFull, exactly, since the count is guarded by the row that holds it."""
        address_id = await self._database.fetchval(
            """
            WITH /* add address */ owner AS (
                UPDATE users SET address_count = address_count + 1
                WHERE id = $1 AND address_count < $9
                RETURNING id
            )
            INSERT INTO addresses (user_id, name, line1, line2, city, region, postal_code, country)
            SELECT owner.id, $2, $3, $4, $5, $6, $7, $8 FROM owner
            RETURNING id
            """,
            user_id,
            *_columns(address),
            MOST_ADDRESSES,
        )
        if address_id is None:
            known = await self._database.fetchval("SELECT /* is known */ true FROM users WHERE id = $1", user_id)
            if known is None:
                raise Unauthenticated(GONE)
            raise AddressBookFull
        return SavedAddress(id=address_id, **address.model_dump())

    async def replace(self, user_id: UUID, address_id: UUID, address: Address) -> SavedAddress:
        """Replace an address of this user; raises NotFound."""
        replaced = await self._database.fetchval(
            """
            UPDATE addresses /* replace address */
            SET name = $3, line1 = $4, line2 = $5, city = $6, region = $7, postal_code = $8, country = $9
            WHERE id = $2 AND user_id = $1
            RETURNING id
            """,
            user_id,
            address_id,
            *_columns(address),
        )
        if replaced is None:
            raise NotFound
        return SavedAddress(id=replaced, **address.model_dump())

    async def delete(self, user_id: UUID, address_id: UUID) -> None:
        """Delete an address of this user; raises NotFound."""
        deleted = await self._database.fetchval(
            """
            WITH /* delete address */ gone AS (
                DELETE FROM addresses WHERE id = $2 AND user_id = $1 RETURNING user_id
            )
            UPDATE users SET address_count = address_count - 1 FROM gone WHERE users.id = gone.user_id
            RETURNING true
            """,
            user_id,
            address_id,
        )
        if deleted is None:
            raise NotFound

    async def get(self, user_id: UUID, address_id: UUID) -> Address:
        """An address of this user; raises NotFound."""
        row = await self._database.fetchrow(
            """
            SELECT /* address */ name, line1, line2, city, region, postal_code, country FROM addresses
            WHERE id = $2 AND user_id = $1
            """,
            user_id,
            address_id,
        )
        if row is None:
            raise NotFound
        return Address(**row)


def _columns(address: Address) -> Sequence[Any]:
    return (
        address.name,
        address.line1,
        address.line2,
        address.city,
        address.region,
        address.postal_code,
        address.country,
    )


class LoginAttempts:
    """The count behind throttling: the last ten attempts for an e-mail that did not succeed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def reserve(self, email_digest: bytes) -> int | None:
        """Count an attempt before it is made; the seconds to wait instead where ten in the window are counted.

        An attempt counts as failed until it succeeds, so that twenty at once cannot all be looked at before the first
        is counted. Accepted cost: near the limit, attempts still under way in other replicas count as failed.
        """
        row = await self._database.fetchrow(
            """
            WITH /* reserve attempt */ reserved AS (
                INSERT INTO login_attempts AS known (email_digest, attempted_at, last_attempted_at)
                VALUES ($1, ARRAY[now()], now())
                ON CONFLICT (email_digest) DO UPDATE
                SET attempted_at =
                        (known.attempted_at || now())[greatest(1, cardinality(known.attempted_at) + 2 - $2):],
                    last_attempted_at = now()
                WHERE cardinality(known.attempted_at) < $2
                    OR known.attempted_at[1] <= now() - make_interval(secs => $3)
                RETURNING true
            )
            SELECT EXISTS (SELECT FROM reserved) AS allowed, (
                SELECT ceil(extract(epoch FROM attempted_at[1] - now()) + $3)::int
                FROM login_attempts WHERE email_digest = $1
            ) AS retry_after_s
            """,
            email_digest,
            MOST_FAILED_LOGINS,
            float(FAILED_LOGINS_WINDOW_S),
        )
        assert row is not None
        if row["allowed"]:
            return None
        # The row as of the statement's beginning: it may have come, or moved on, in the meantime.
        return min(max(row["retry_after_s"] or FAILED_LOGINS_WINDOW_S, 1), FAILED_LOGINS_WINDOW_S)

    async def clear(self, email_digest: bytes) -> None:
        """Forget what is counted: an attempt succeeded."""
        await self._database.execute(
            "DELETE FROM login_attempts /* clear attempts */ WHERE email_digest = $1", email_digest
        )

    async def delete_old(self) -> None:
        """Delete what has left the window."""
        await self._database.execute(
            """
            DELETE FROM login_attempts /* delete old attempts */
            WHERE last_attempted_at < now() - make_interval(secs => $1)
            """,
            float(FAILED_LOGINS_WINDOW_S),
        )


@dataclass(frozen=True, slots=True)
class Renewed:
    """Whom a refresh token that was good belongs to."""

    user_id: UUID
    role: Role


class RefreshFamilies:
    """Refresh tokens: a row for all that came of one login, with the digest of the one that is good now."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self, account: Account, secret_digest: bytes) -> UUID | None:
        """Begin a family for a login; none where the account was deleted or got another password since the check."""
        return await self._database.fetchval(
            """
            INSERT INTO refresh_families /* open session */ (user_id, session_epoch, secret_digest, expires_at)
            SELECT id, session_epoch, $3, now() + make_interval(days => $4) FROM users
            WHERE id = $1 AND session_epoch = $2
            FOR KEY SHARE
            RETURNING id
            """,
            account.user_id,
            account.session_epoch,
            secret_digest,
            REFRESH_TOKEN_LIFE_DAYS,
        )

    async def rotate(self, family_id: UUID, secret_digest: bytes, next_digest: bytes) -> Renewed | None:
        """Put the next token in this one's place; none where this is not the good one.

        Of two uses at once one waits for the other's row lock and then finds another digest.
        """
        row = await self._database.fetchrow(
            """
            UPDATE refresh_families AS family /* rotate token */
            SET secret_digest = $3, expires_at = now() + make_interval(days => $4)
            FROM users
            WHERE family.id = $1 AND family.secret_digest = $2 AND family.expires_at > now()
                AND users.id = family.user_id AND users.session_epoch = family.session_epoch
            RETURNING users.id AS user_id, users.role
            """,
            family_id,
            secret_digest,
            next_digest,
            REFRESH_TOKEN_LIFE_DAYS,
        )
        return None if row is None else Renewed(**row)

    async def end(self, family_id: UUID) -> bool:
        """End a family; whether it was alive."""
        return (
            await self._database.fetchval(
                """
            DELETE FROM refresh_families AS family /* end session */ USING users
            WHERE family.id = $1 AND users.id = family.user_id
            RETURNING family.expires_at > now() AND users.session_epoch = family.session_epoch
            """,
                family_id,
            )
            is True
        )

    async def delete_expired(self) -> None:
        """Delete the families whose last token has expired."""
        await self._database.execute(
            "DELETE FROM refresh_families /* delete expired sessions */ WHERE expires_at <= now()"
        )


@dataclass(frozen=True, slots=True)
class SigningKeyRow:
    """A signing key as it is stored; `active_in_s` is negative once it may sign."""

    kid: str
    public_key: bytes
    private_key_encrypted: bytes
    active_in_s: float


class SigningKeyRows:
    """The signing keys, numbered in the order in which they become active."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def published(self, kept_s: float) -> list[SigningKeyRow]:
        """The keys to publish, oldest first: the active one, later ones, and any superseded less than `kept_s` ago.

        `clock_timestamp()` is after the snapshot that it reads, so a first key that another replica has just committed
        is active; `now()` may be before it.
        """
        rows = await self._database.fetch(
            """
            SELECT /* signing keys */ kid, public_key, private_key_encrypted,
                extract(epoch FROM active_from - clock_timestamp())::float8 AS active_in_s
            FROM (SELECT *, lead(active_from) OVER (ORDER BY number) AS superseded_at FROM signing_keys) AS keys
            WHERE superseded_at IS NULL OR superseded_at > now() - make_interval(secs => $1)
            ORDER BY number
            """,
            kept_s,
        )
        return [SigningKeyRow(**row) for row in rows]

    async def add_first(self, kid: str, public_key: bytes, private_key_encrypted: bytes) -> None:
        """Add the first key, active at once; of several at once one is kept."""
        await self._database.execute(
            """
            INSERT INTO signing_keys /* add first key */
                (number, kid, public_key, private_key_encrypted, active_from)
            SELECT 1, $1, $2, $3, now() WHERE NOT EXISTS (SELECT FROM signing_keys)
            ON CONFLICT (number) DO NOTHING
            """,
            kid,
            public_key,
            private_key_encrypted,
        )

    async def add_next(
        self, kid: str, public_key: bytes, private_key_encrypted: bytes, active_in_s: float
    ) -> datetime | None:
        """Add a key that becomes active in `active_in_s`; when that is, or none where another was added at once."""
        return await self._database.fetchval(
            """
            INSERT INTO signing_keys /* add next key */
                (number, kid, public_key, private_key_encrypted, active_from)
            SELECT coalesce(max(number), 0) + 1, $1, $2, $3, now() + make_interval(secs => $4) FROM signing_keys
            ON CONFLICT (number) DO NOTHING
            RETURNING active_from
            """,
            kid,
            public_key,
            private_key_encrypted,
            active_in_s,
        )

    async def delete_superseded(self, since_s: float) -> None:
        """Delete the keys that were superseded at least `since_s` ago."""
        await self._database.execute(
            """
            DELETE FROM signing_keys /* delete superseded keys */
            WHERE number IN (
                SELECT number FROM (
                    SELECT number, lead(active_from) OVER (ORDER BY number) AS superseded_at FROM signing_keys
                ) AS keys
                WHERE superseded_at <= now() - make_interval(secs => $1)
            )
            """,
            since_s,
        )
