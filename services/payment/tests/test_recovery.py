"""A process that ends between any two effects: asking again heals it, and so does the recovery worker."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID, uuid4

import orjson
import pytest

from chassis.database import Database
from chassis.problems import RequestInProgress, Unavailable
from services.payment.provider import ProviderTimeout
from services.payment.simulator import Simulator
from services.payment.tests.harness import Crash, Crashing, Flows, Holding, Intercepted, Json, books, flows

POINTS = ["before", "after"]
Step = Callable[[Flows, UUID], Awaitable[object]]

STEPS: dict[str, tuple[list[Step], Step, str]] = {
    "authorise": ([], lambda on, order: on.authorise(order), "authorised"),
    "declined": ([], lambda on, order: on.authorise(order, method="tok_declined"), "declined"),
    "capture": ([lambda on, order: on.authorise(order)], lambda on, order: on.charges.capture(order), "captured"),
    "void": ([lambda on, order: on.authorise(order)], lambda on, order: on.charges.void(order), "voided"),
    "void of nothing": ([], lambda on, order: on.charges.void(order), "voided"),
    "refund": (
        [lambda on, order: on.authorise(order), lambda on, order: on.charges.capture(order)],
        lambda on, order: on.refunds.refund_rest(order, "cancelled"),
        "refunded",
    ),
}
OPERATIONS = {"declined": "authorise", "void of nothing": "void"}


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("name", STEPS)
async def test_a_crash_heals_when_it_is_asked_for_again(
    database: Database, simulator: Simulator, name: str, point: str
) -> None:
    order_id, sound = uuid4(), flows(database, simulator)
    before, step, status = STEPS[name]
    for earlier in before:
        await earlier(sound, order_id)
    with pytest.raises(Crash):
        await step(flows(database, Crashing(simulator, OPERATIONS.get(name, name), point)), order_id)
    await step(sound, order_id)
    written = await books(database, order_id)
    assert written.status == status
    written.agree()


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("name", STEPS)
async def test_a_call_that_is_cut_short_heals_when_it_is_asked_for_again(
    database: Database, simulator: Simulator, name: str, point: str
) -> None:
    order_id, sound = uuid4(), flows(database, simulator)
    before, step, status = STEPS[name]
    for earlier in before:
        await earlier(sound, order_id)
    provider = Holding(simulator, OPERATIONS.get(name, name), point)
    call = asyncio.ensure_future(step(flows(database, provider), order_id))
    await provider.reached.wait()
    call.cancel()
    await asyncio.wait([call])
    assert call.cancelled()
    await step(sound, order_id)
    written = await books(database, order_id)
    assert written.status == status
    written.agree()


@pytest.mark.parametrize("point", POINTS)
async def test_a_capture_whose_answer_was_lost_is_found_by_the_void_that_follows(
    database: Database, simulator: Simulator, point: str
) -> None:
    """As an order does that gives up: it voids, and where that is refused, refunds."""
    order_id, sound = uuid4(), flows(database, simulator)
    await sound.authorise(order_id)
    with pytest.raises(Crash):
        await flows(database, Crashing(simulator, "capture", point)).charges.capture(order_id)
    if point == "before":
        await sound.charges.void(order_id)
    else:
        with pytest.raises(Exception, match="captured cannot be voided"):
            await sound.charges.void(order_id)
        await sound.refunds.refund_rest(order_id, "cancelled")
    written = await books(database, order_id)
    assert written.status == {"before": "voided", "after": "refunded"}[point]
    written.agree()


async def _payment_captured(on: Flows) -> tuple[UUID, UUID]:
    order_id = uuid4()
    await on.authorise(order_id)
    return order_id, UUID(orjson.loads(await on.charges.capture(order_id))["id"])


@pytest.mark.parametrize("point", POINTS)
async def test_the_worker_finishes_a_refund_that_was_left(database: Database, simulator: Simulator, point: str) -> None:
    order_id, payment_id = await _payment_captured(flows(database, simulator))
    with pytest.raises(Crash):
        await flows(database, Crashing(simulator, "refund", point), lease_s=0).refunds.refund(payment_id, 300, "r")
    workers = [flows(database, simulator).refunds for _ in range(3)]
    await asyncio.gather(*(worker.recover() for worker in workers))
    written = await books(database, order_id)
    assert (written.status, written.refunded_minor) == ("partially_refunded", 300)
    written.agree()


async def test_the_worker_leaves_a_refund_to_whoever_is_at_it(database: Database, simulator: Simulator) -> None:
    order_id, payment_id = await _payment_captured(flows(database, simulator))
    with pytest.raises(Crash):
        await flows(database, Crashing(simulator, "refund", "before")).refunds.refund(payment_id, 300, "r")
    await flows(database, simulator).refunds.recover()
    assert (await books(database, order_id)).pending_refunds == 1


class Silent(Intercepted):
    """Does what it is asked and never answers."""

    async def after(self, _operation: str, /) -> None:
        raise ProviderTimeout


async def test_a_refund_without_an_answer_is_unknown_and_free_for_the_next_who_asks(
    database: Database, simulator: Simulator
) -> None:
    order_id, payment_id = await _payment_captured(flows(database, simulator))
    with pytest.raises(Unavailable):
        await flows(database, Silent(simulator)).refunds.refund(payment_id, 300, "r")
    assert (await books(database, order_id)).pending_refunds == 1
    await flows(database, simulator).refunds.recover()
    (await books(database, order_id)).agree()


async def test_one_refund_that_stays_unknown_does_not_hold_up_the_others(
    database: Database, simulator: Simulator
) -> None:
    class SilentOnce(Intercepted):
        async def after(self, operation: str, /) -> None:
            if self.calls.count(operation) == 1:
                raise ProviderTimeout

    orders: list[UUID] = []
    for _ in range(2):
        order_id, payment_id = await _payment_captured(flows(database, simulator))
        with pytest.raises(Crash):
            await flows(database, Crashing(simulator, "refund", "before"), lease_s=0).refunds.refund(payment_id, 1, "r")
        orders.append(order_id)
    await flows(database, SilentOnce(simulator)).refunds.recover()
    assert sorted([(await books(database, order_id)).pending_refunds for order_id in orders]) == [0, 1]
    await flows(database, simulator).refunds.recover()
    for order_id in orders:
        (await books(database, order_id)).agree()


@pytest.mark.parametrize("point", POINTS)
async def test_a_key_finds_its_own_refund_after_a_crash(database: Database, simulator: Simulator, point: str) -> None:
    order_id, payment_id = await _payment_captured(flows(database, simulator))
    caller: Json = {"user_id": uuid4(), "key": "k", "fingerprint": b"same"}
    refunds = flows(database, Crashing(simulator, "refund", point), lease_s=0).refunds
    with pytest.raises(Crash):
        await refunds.refund_once(payment_id, 300, "r", **caller)
    first, first_replayed = await flows(database, simulator).refunds.refund_once(payment_id, 300, "r", **caller)
    again, again_replayed = await flows(database, simulator).refunds.refund_once(payment_id, 300, "r", **caller)
    assert (first_replayed, again_replayed) == (False, True)
    assert first == again
    written = await books(database, order_id)
    assert written.refunded_minor == 300
    written.agree()


async def test_a_key_whose_refund_the_worker_finished_has_its_answer(database: Database, simulator: Simulator) -> None:
    _, payment_id = await _payment_captured(flows(database, simulator))
    caller: Json = {"user_id": uuid4(), "key": "k", "fingerprint": b"same"}
    refunds = flows(database, Crashing(simulator, "refund", "after"), lease_s=0).refunds
    with pytest.raises(Crash):
        await refunds.refund_once(payment_id, 300, "r", **caller)
    await flows(database, simulator).refunds.recover()
    answer, replayed = await flows(database, simulator).refunds.refund_once(payment_id, 300, "r", **caller)
    assert replayed
    assert orjson.loads(answer.body)["refunded"]["amount_minor"] == 300


async def test_a_key_whose_request_died_is_in_progress_until_its_lease_ends(
    database: Database, simulator: Simulator
) -> None:
    _, payment_id = await _payment_captured(flows(database, simulator))
    caller: Json = {"user_id": uuid4(), "key": "k", "fingerprint": b"same"}
    with pytest.raises(Crash):
        await flows(database, Crashing(simulator, "refund", "before")).refunds.refund_once(
            payment_id, 300, "r", **caller
        )
    with pytest.raises(RequestInProgress):
        await flows(database, simulator).refunds.refund_once(payment_id, 300, "r", **caller)
