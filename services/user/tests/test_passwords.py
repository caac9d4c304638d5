"""Hashing: the parameters, off the event loop, a bounded queue."""

import asyncio
import threading
from typing import Literal

import pytest
from argon2 import PasswordHasher, Type, extract_parameters

from chassis.problems import Unavailable
from chassis.telemetry import Telemetry
from services.user.passwords import MOST_THREADS, OWASP_FLOOR, WAITING_PER_THREAD, Passwords

from .conftest import CHEAP


class HeldHasher(PasswordHasher):
    """Hashes when it is let go, and notes in which threads."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.let_go = threading.Event()
        self.let_go.set()
        self.threads: set[str] = set()

    def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
        self.let_go.wait()
        self.threads.add(threading.current_thread().name)
        return super().hash(password, salt=salt)


def test_the_parameters_are_owasps_floor() -> None:
    parameters = extract_parameters(OWASP_FLOOR.hash("password"))
    assert parameters.type is Type.ID
    assert (parameters.memory_cost, parameters.time_cost, parameters.parallelism) == (19 * 1024, 2, 1)


async def test_a_password_matches_its_hash_alone() -> None:
    passwords = Passwords(CHEAP, Telemetry("user"))
    hashed = await passwords.hash("correct horse")
    assert await passwords.matches(hashed, "correct horse")
    assert not await passwords.matches(hashed, "Correct horse")
    assert not await passwords.matches(None, "correct horse")


async def test_without_a_hash_one_of_the_same_cost_is_verified() -> None:
    verified: list[str] = []

    class Noting(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
            verified.append(str(hash))
            return super().verify(hash, password)

    passwords = Passwords(Noting(time_cost=1, memory_cost=8, parallelism=1), Telemetry("user"))
    await passwords.matches(await passwords.hash("password"), "other")
    await passwords.matches(None, "other")
    known, unknown = (extract_parameters(encoded) for encoded in verified)
    assert known == unknown


async def test_the_event_loop_goes_on_while_all_threads_hash_and_the_queue_is_bounded() -> None:
    hasher = HeldHasher()
    passwords = Passwords(hasher, Telemetry("user"))
    hasher.threads.clear()
    hasher.let_go.clear()
    tasks: list[asyncio.Task[str]] = []

    async def hash_one() -> str:
        with passwords.place():
            return await passwords.hash("password")

    refused = False
    while not refused:  # the loop turns here while every thread is held
        tasks.append(asyncio.create_task(hash_one()))
        await asyncio.sleep(0)
        refused = tasks[-1].done()
    with pytest.raises(Unavailable):
        await tasks.pop()
    assert len(tasks) % (1 + WAITING_PER_THREAD) == 0
    assert 1 <= len(tasks) // (1 + WAITING_PER_THREAD) <= MOST_THREADS
    hasher.let_go.set()
    assert len(await asyncio.gather(*tasks)) == len(tasks)
    assert all(name.startswith("argon2") for name in hasher.threads)
    assert len(await hash_one()) > 0  # places are free again
