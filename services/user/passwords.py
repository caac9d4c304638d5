"""Password hashes by argon2id, in a few threads of their own, so that the event loop never waits for one."""

import asyncio
import os
import secrets
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import perf_counter
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from chassis.problems import Unavailable
from chassis.telemetry import Telemetry

OWASP_FLOOR = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
"""19 MiB, two passes, one lane: the least that OWASP's Password Storage Cheat Sheet takes for argon2id."""
MOST_THREADS = 4
"""Each hash in progress holds 19 MiB, so many cores do not mean as many threads."""
WAITING_PER_THREAD = 24
"""At 22 ms a hash the last in the queue waits about half a second; who comes later is refused at once."""

Result = TypeVar("Result")


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Passwords:
    """Hashes and verifies, for whoever has a place."""

    def __init__(self, hasher: PasswordHasher, telemetry: Telemetry) -> None:
        self._hasher = hasher
        threads = min(_cores(), MOST_THREADS)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._places = threads * (1 + WAITING_PER_THREAD)
        self._taken = 0
        self._nobodys_hash = hasher.hash(secrets.token_urlsafe())
        self._seconds = telemetry.histogram("souk_password_hash_seconds", "Seconds a hash took, waiting included.")
        telemetry.gauge(
            "souk_password_places_taken", "Requests that hash a password or wait for a thread to do so."
        ).set_function(lambda: self._taken)

    @contextmanager
    def place(self) -> Generator[None, None, None]:
        """A place in the queue, for a request that is about to hash; raises Unavailable when all are taken."""
        if self._taken >= self._places:
            raise Unavailable("too many passwords are being checked")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    async def hash(self, password: str) -> str:
        """The encoded hash, which names its parameters and salt."""
        return await self._in_thread(self._hasher.hash, password)

    async def matches(self, password_hash: str | None, password: str) -> bool:
        """Whether the password is the one that was hashed. Without a hash it never is, and takes as long to tell."""
        return await self._in_thread(self._verify, password_hash or self._nobodys_hash, password)

    def outdated(self, password_hash: str) -> bool:
        """Whether the hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(password_hash)

    def _verify(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except VerifyMismatchError:
            return False

    async def _in_thread(self, function: Callable[..., Result], *arguments: str) -> Result:
        started = perf_counter()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)
        finally:
            self._seconds.observe(perf_counter() - started)
