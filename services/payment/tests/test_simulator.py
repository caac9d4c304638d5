"""The embedded provider keeps the port's promises."""

import asyncio
from uuid import uuid4

import pytest

from chassis.database import Database
from services.payment.provider import ProviderDeclined, ProviderRefused, ProviderTimeout
from services.payment.simulator import Simulator


async def test_a_key_is_charged_once_however_often_it_is_asked_for(simulator: Simulator) -> None:
    key = uuid4()
    references = await asyncio.gather(*(simulator.authorise(key, 100, "USD", "tok_visa") for _ in range(5)))
    assert len(set(references)) == 1
    assert await simulator.capture(key) == await simulator.capture(key) == references[0]


async def test_the_answer_of_tok_timeout_is_lost_once(simulator: Simulator) -> None:
    key = uuid4()
    with pytest.raises(ProviderTimeout):
        await simulator.authorise(key, 100, "USD", "tok_timeout")
    assert await simulator.authorise(key, 100, "USD", "tok_timeout")


async def test_slow_is_taken_though_nobody_waits_for_the_answer(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, key = Simulator(database, slow_s=2, lost_answer_s=0), uuid4()
    slept: asyncio.Queue[float] = asyncio.Queue()

    async def sleep(delay_s: float) -> None:
        slept.put_nowait(delay_s)
        await asyncio.Event().wait()

    monkeypatch.setattr("services.payment.simulator.asyncio.sleep", sleep)
    asking = asyncio.create_task(slow.authorise(key, 100, "USD", "tok_slow"))
    assert await slept.get() == 2
    asking.cancel()
    assert await slow.authorise(key, 100, "USD", "tok_slow")


async def test_a_void_refuses_the_charge_that_comes_after_it(simulator: Simulator) -> None:
    key = uuid4()
    await simulator.void(key)
    await simulator.void(key)
    with pytest.raises(ProviderRefused, match="voided"):
        await simulator.authorise(key, 100, "USD", "tok_visa")
    with pytest.raises(ProviderRefused):
        await simulator.capture(key)


async def test_a_void_tells_what_was_declined_and_what_was_captured(simulator: Simulator) -> None:
    declined, captured = uuid4(), uuid4()
    with pytest.raises(ProviderDeclined, match="expired_card"):
        await simulator.authorise(declined, 100, "USD", "tok_expired_card")
    with pytest.raises(ProviderDeclined, match="expired_card"):
        await simulator.void(declined)
    await simulator.authorise(captured, 100, "USD", "tok_visa")
    await simulator.capture(captured)
    with pytest.raises(ProviderRefused, match="captured"):
        await simulator.void(captured)


async def test_a_refund_is_made_once_and_never_exceeds(simulator: Simulator, database: Database) -> None:
    charge, refund = uuid4(), uuid4()
    await simulator.authorise(charge, 100, "USD", "tok_visa")
    await simulator.capture(charge)
    await asyncio.gather(*(simulator.refund(refund, charge, 60) for _ in range(5)))
    with pytest.raises(ProviderRefused):
        await simulator.refund(uuid4(), charge, 41)
    refunded = "SELECT refunded_minor FROM simulator_charges WHERE key = $1"
    assert await database.fetchval(refunded, charge) == 60
    assert await database.fetchval("SELECT count(*) FROM simulator_refunds WHERE charge_key = $1", charge) == 1


async def test_a_refund_of_an_unknown_charge_is_refused(simulator: Simulator) -> None:
    with pytest.raises(ProviderRefused):
        await simulator.refund(uuid4(), uuid4(), 1)
