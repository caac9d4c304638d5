"""Calls that meet, on real connections; barriers and not sleeps make them meet."""

import asyncio
from uuid import UUID, uuid4

import orjson
import pytest

from chassis.database import Database
from chassis.problems import IllegalTransition
from services.payment import repository
from services.payment.domain import RefundExceedsCaptured
from services.payment.simulator import Simulator
from services.payment.tests.harness import Callers, Holding, Json, books, flows, problem, wanted


async def test_one_charge_for_one_order_asked_for_at_once(
    callers: Callers, database: Database, simulator: Simulator
) -> None:
    order_id = uuid4()
    provider = Holding(simulator, "authorise", "before", callers=8)
    asking = [asyncio.create_task(flows(database, provider).authorise(order_id)) for _ in range(8)]
    await provider.reached.wait()
    provider.release.set()
    assert len(set(await asyncio.gather(*asking))) == 1
    await callers.order("POST", order_id, "/capture")
    (await books(database, order_id)).agree()


async def test_captures_at_once_book_once(callers: Callers, database: Database, simulator: Simulator) -> None:
    order_id = UUID((await callers.authorised())["order_id"])
    provider = Holding(simulator, "capture", "after", callers=8)
    capturing = [asyncio.create_task(flows(database, provider).charges.capture(order_id)) for _ in range(8)]
    await provider.reached.wait()
    provider.release.set()
    assert len(set(await asyncio.gather(*capturing))) == 1
    written = await books(database, order_id)
    assert len(written.movements) == 1
    written.agree()


@pytest.mark.parametrize("point", ["before", "after"])
async def test_a_void_that_overtakes_an_authorisation_wins(
    callers: Callers, database: Database, simulator: Simulator, point: str
) -> None:
    order_id = uuid4()
    provider = Holding(simulator, "authorise", point)
    authorising = asyncio.create_task(flows(database, provider).authorise(order_id))
    await provider.reached.wait()
    assert (await callers.order("POST", order_id, "/void")).json()["status"] == "voided"
    provider.release.set()
    assert orjson.loads(await authorising)["status"] == "voided"
    (await books(database, order_id)).agree()


async def test_a_void_that_overtakes_a_refusal_leaves_it_declined(
    callers: Callers, database: Database, simulator: Simulator
) -> None:
    order_id = uuid4()
    provider = Holding(simulator, "authorise", "after")
    authorising = asyncio.create_task(flows(database, provider).authorise(order_id, method="tok_declined"))
    await provider.reached.wait()
    voided = (await callers.order("POST", order_id, "/void")).json()
    assert (voided["status"], voided["decline_code"]) == ("declined", "declined")
    provider.release.set()
    assert orjson.loads(await authorising) == voided
    (await books(database, order_id)).agree()


async def test_a_void_before_the_provider_has_captured_wins(
    callers: Callers, database: Database, simulator: Simulator
) -> None:
    order_id = UUID((await callers.authorised())["order_id"])
    provider = Holding(simulator, "capture", "before")
    capturing = asyncio.create_task(flows(database, provider).charges.capture(order_id))
    await provider.reached.wait()
    assert (await callers.order("POST", order_id, "/void")).status_code == 200
    provider.release.set()
    with pytest.raises(IllegalTransition):
        await capturing
    (await books(database, order_id)).agree()


async def test_a_void_after_the_provider_has_captured_is_refused_and_a_refund_can_follow(
    callers: Callers, database: Database, simulator: Simulator
) -> None:
    order_id = UUID((await callers.authorised())["order_id"])
    provider = Holding(simulator, "capture", "after")
    capturing = asyncio.create_task(flows(database, provider).charges.capture(order_id))
    await provider.reached.wait()
    assert problem(await callers.order("POST", order_id, "/void")) == (409, "illegal-transition")
    refunded = await callers.order("POST", order_id, "/refund", {"reason": "cancelled"})
    assert refunded.json()["status"] == "refunded"
    provider.release.set()
    assert orjson.loads(await capturing)["status"] == "refunded"
    (await books(database, order_id)).agree()


async def test_of_two_refunds_at_once_one_exceeds(callers: Callers, database: Database, simulator: Simulator) -> None:
    payment = await callers.captured(1000)
    provider = Holding(simulator, "refund", "before")
    refunds = flows(database, provider).refunds
    first = asyncio.create_task(refunds.refund(UUID(payment["id"]), 600, "first"))
    await provider.reached.wait()
    with pytest.raises(RefundExceedsCaptured) as refusal:
        await refunds.refund(UUID(payment["id"]), 600, "second")
    assert refusal.value.facts["refundable"]["amount_minor"] == 400
    provider.release.set()
    assert orjson.loads(await first)["refunded"]["amount_minor"] == 600
    (await books(database, UUID(payment["order_id"]))).agree()


async def test_of_many_refunds_at_once_as_many_succeed_as_the_capture_bears(
    callers: Callers, database: Database
) -> None:
    payment = await callers.captured(1000)
    refunding = (callers.refund(payment["id"], {"amount_minor": 300, "reason": "r"}) for _ in range(8))
    answers = await asyncio.gather(*refunding)
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [409] * 5
    written = await books(database, UUID(payment["order_id"]))
    assert written.refunded_minor == 900
    written.agree()


@pytest.mark.parametrize("point", ["before", "after"])
async def test_a_cancel_during_an_admins_refund_gives_back_everything_once(
    callers: Callers, database: Database, simulator: Simulator, point: str
) -> None:
    payment = await callers.captured(1000)
    provider = Holding(simulator, "refund", point)
    part = asyncio.create_task(flows(database, provider).refunds.refund(UUID(payment["id"]), 300, "a scratch"))
    await provider.reached.wait()
    rest = await callers.order("POST", payment["order_id"], "/refund", {"reason": "cancelled"})
    assert (rest.json()["status"], rest.json()["refunded"]["amount_minor"]) == ("refunded", 1000)
    provider.release.set()
    assert orjson.loads(await part)["status"] == "refunded"
    written = await books(database, UUID(payment["order_id"]))
    assert len(written.movements) == 3
    written.agree()


async def test_cancels_at_once_give_back_everything_once(callers: Callers, database: Database) -> None:
    payment = await callers.captured(1000)
    cancelling = (callers.order("POST", payment["order_id"], "/refund", {"reason": "cancelled"}) for _ in range(8))
    answers = await asyncio.gather(*cancelling)
    assert {answer.json()["status"] for answer in answers} == {"refunded"}
    written = await books(database, UUID(payment["order_id"]))
    assert len(written.movements) == 2
    written.agree()


async def test_cancels_at_once_of_a_payment_of_nothing_refund_it_once(
    callers: Callers, database: Database, simulator: Simulator
) -> None:
    payment = await callers.captured(0)
    order_id = UUID(payment["order_id"])
    provider = Holding(simulator, "refund", "before", callers=2)
    refunds = flows(database, provider).refunds
    cancelling = [asyncio.create_task(refunds.refund_rest(order_id, "cancelled")) for _ in range(2)]
    await provider.reached.wait()
    admins = await callers.refund(payment["id"], {"reason": "r"})
    provider.release.set()
    answers = [orjson.loads(document) for document in await asyncio.gather(*cancelling)]
    assert problem(admins) == (409, "refund-exceeds-captured")
    for answer in answers:
        assert [entry["status"] for entry in answer["history"]] == ["authorised", "captured", "refunded"]
    written = await books(database, order_id)
    assert len(written.movements) == 2
    written.agree()


async def test_one_key_at_once_refunds_once(callers: Callers, database: Database) -> None:
    payment, admin = await callers.captured(1000), uuid4()
    body = {"amount_minor": 100, "reason": "r"}
    answers = await asyncio.gather(*(callers.refund(payment["id"], body, admin=admin, key="k") for _ in range(20)))
    done = [answer for answer in answers if answer.status_code == 200]
    assert len([answer for answer in done if "idempotency-replayed" not in answer.headers]) == 1
    assert len({answer.content for answer in done}) == 1
    for answer in answers:
        assert answer.status_code == 200 or problem(answer) == (409, "request-in-progress")
    written = await books(database, UUID(payment["order_id"]))
    assert written.refunded_minor == 100
    written.agree()


async def test_a_key_that_a_request_is_taking_is_409_and_not_waited_for(callers: Callers, database: Database) -> None:
    payment, admin = await callers.captured(1000), uuid4()
    body = {"amount_minor": 100, "reason": "r"}
    async with database.connection() as connection:
        taking = connection.transaction()
        await taking.start()
        try:
            assert await repository.claim_key(connection, admin, UUID(payment["id"]), "k", b"same") is not None
            meanwhile = [callers.refund(payment["id"], body, admin=admin, key="k") for _ in range(20)]
            answers = await asyncio.gather(*meanwhile)
            other = await callers.refund(payment["id"], body, admin=admin, key="another")
        finally:
            await taking.rollback()
    assert {problem(answer) for answer in answers} == {(409, "request-in-progress")}
    assert other.status_code == 200
    assert (await callers.refund(payment["id"], body, admin=admin, key="k")).status_code == 200


async def test_everything_at_once_ends_in_one_of_the_ways(callers: Callers, database: Database) -> None:
    for _ in range(5):
        order_id, body = uuid4(), wanted()
        await asyncio.gather(
            *(callers.order("PUT", order_id, body=body) for _ in range(3)),
            *(callers.order("POST", order_id, "/capture") for _ in range(3)),
            *(callers.order("POST", order_id, "/void") for _ in range(2)),
            *(callers.order("POST", order_id, "/refund", {"reason": "cancelled"}) for _ in range(2)),
        )
        await callers.order("PUT", order_id, body=body)
        (await books(database, order_id)).agree()


async def test_the_answer_of_a_key_is_the_kept_one_though_another_finished_its_refund(
    callers: Callers, database: Database, simulator: Simulator
) -> None:
    payment = await callers.captured(1000)
    caller: Json = {"user_id": uuid4(), "key": "k", "fingerprint": b"same"}
    provider = Holding(simulator, "refund", "after")
    refunds = flows(database, provider, lease_s=0).refunds
    first = asyncio.create_task(refunds.refund_once(UUID(payment["id"]), 300, "r", **caller))
    await provider.reached.wait()
    await flows(database, simulator).refunds.recover()
    await callers.refund(payment["id"], {"amount_minor": 1, "reason": "later"})
    provider.release.set()
    answer, _ = await first
    again, replayed = await flows(database, simulator).refunds.refund_once(UUID(payment["id"]), 300, "r", **caller)
    assert (answer, replayed) == (again, True)
    assert orjson.loads(answer.body)["refunded"]["amount_minor"] == 300
