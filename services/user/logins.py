"""Telling whether a password is an account's, no more than ten wrong ones in fifteen minutes."""

import asyncio
from weakref import WeakValueDictionary

import structlog

from chassis.problems import TooManyAttempts
from chassis.telemetry import Telemetry
from services.user.domain import email_digest
from services.user.passwords import Passwords
from services.user.repository import Account, Accounts, LoginAttempts

log = structlog.stdlib.get_logger()


class Logins:
    """Checks of passwords, counted by e-mail in the database."""

    def __init__(self, accounts: Accounts, attempts: LoginAttempts, passwords: Passwords, telemetry: Telemetry) -> None:
        self._accounts = accounts
        self._attempts = attempts
        self._passwords = passwords
        self._turns: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        outcomes = telemetry.counter("souk_logins", "Passwords checked by outcome.", ("outcome",))
        self._outcomes = {outcome: outcomes.labels(outcome) for outcome in ("succeeded", "failed", "throttled")}

    async def check(self, email: str, password: str) -> Account | None:
        """The account that this e-mail and password open, or none: an unknown e-mail takes the same time.

        Raises TooManyAttempts, for unknown e-mails too, and Unavailable: where all places are taken that is no attempt,
        where the database fails after the attempt was counted it stays counted.
        """
        digest = email_digest(email)
        # One after the other for one e-mail: a crowd that logs in to one account with the right password must not be
        # throttled for the attempts that its members have reserved, and one account takes no more than one thread.
        turn = self._turns.setdefault(digest, asyncio.Lock())
        async with turn:
            with self._passwords.place():
                account = await self._attempt(digest, email.casefold(), password)
        self._outcomes["failed" if account is None else "succeeded"].inc()
        return account

    async def _attempt(self, digest: bytes, email: str, password: str) -> Account | None:
        retry_after_s = await self._attempts.reserve(digest)
        if retry_after_s is not None:
            self._outcomes["throttled"].inc()
            raise TooManyAttempts(
                "too many failed attempts for this e-mail", headers={"Retry-After": str(retry_after_s)}
            )
        account = await self._accounts.find(email)
        if not await self._passwords.matches(account and account.password_hash, password) or account is None:
            return None
        await self._attempts.clear(digest)
        if self._passwords.outdated(account.password_hash):
            await self._accounts.rehash(account, await self._passwords.hash(password))
            log.info("password_rehashed", user_id=account.user_id)
        return account
