"""The saga: what is done to an order next, and the one loop that does it.

    pending ──reserve──▶ reserved ──authorise──▶ authorised ──commit, capture──▶ confirmed
       │                    │                        │                              │
       └─ out of stock      └─ declined: undo        └─ stock lost: undo            └─ cancelled: undo
       ▼                    ▼                        ▼                              ▼
    rejected             rejected                 cancelled                      cancelled

The status that is committed is the intent: it says which call comes next, and nothing else is remembered. So whoever
finds the order, the request that placed it or any replica after a crash, repeats that call, which the peer takes as
the same one by the order's id, and commits the outcome. A refusal is an outcome; no answer is not: then the same
call is made again.

Taking an order back is decided first (`undo`, committed) and then carried out by calls that succeed in whatever
state they find things, so two replicas that drive one order, one forward and one back, cannot leave it halfway: the
decision supersedes the other's next commit, and what that one did meanwhile is undone as well.

The pattern is from H. Garcia-Molina and K. Salem, "Sagas", SIGMOD 1987.
"""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

import structlog

from chassis.clients import PeerRefused, PeerUnavailable
from chassis.context import Context, context, current
from chassis.crash_points import crash_point
from chassis.problems import Problem, Unavailable
from chassis.telemetry import Telemetry
from services.order.answers import answer_to
from services.order.clients import PaymentClient, PaymentRefused, ProductClient, StockRefused
from services.order.domain import (
    OUT_OF_STOCK,
    Order,
    PaymentDeclined,
    Status,
    Superseded,
    Undo,
    decided_to_undo,
    moved,
)
from services.order.repository import Orders

log = structlog.stdlib.get_logger()

ASK_AGAIN_AFTER_S = 0.05
"""The first pause before a call that got no answer is made again; it doubles each time."""
ASK_AGAIN_MOST_S = 0.8
POSTPONE_MOST_S = 10.0
RECOVER_MOST = 16
"""Orders that a round takes up, all at once: no more than it can drive before their lease runs out."""

Step = Callable[[Order], Awaitable[Order]]


def now() -> datetime:
    """The time that goes into an order's history."""
    return datetime.now(UTC)


class Saga:
    """Drives orders to their end."""

    def __init__(self, orders: Orders, products: ProductClient, payments: PaymentClient, telemetry: Telemetry) -> None:
        self._orders = orders
        self._products = products
        self._payments = payments
        self._telemetry = telemetry
        self._steps: dict[Status, Step] = {
            Status.PENDING: self._reserve,
            Status.RESERVED: self._authorise,
            Status.AUTHORISED: self._confirm,
        }
        self._outcomes = telemetry.counter("souk_orders", "Checkouts that ended, by outcome.", ("outcome",))
        for status in (Status.CONFIRMED, Status.REJECTED, Status.CANCELLED):
            self._outcomes.labels(status)
        seconds = telemetry.histogram("souk_checkout_step_seconds", "Seconds of a step of the saga.", ("step",))
        self._seconds = {step: seconds.labels(step) for step in ("reserve", "authorise", "confirm", "undo")}
        self._recovered = telemetry.counter("souk_sagas_recovered", "Orders taken up after their replica was lost.")
        self._compensations = telemetry.counter("souk_compensations", "Orders taken back.")

    async def advance(self, order: Order, until: float) -> Order:
        """Drive the order until nothing is left to do, asking again where there was no answer.

        Gives up at `until`, in seconds of the event loop's clock, with PeerUnavailable; the order is then as it was
        last committed, and whoever takes it up goes on from there.
        """
        here = context()
        here.order_id = str(order.id)
        pause_s = ASK_AGAIN_AFTER_S
        while order.unfinished:
            try:
                order = await self._stepped(order)
                pause_s = ASK_AGAIN_AFTER_S
            except Superseded:
                order = await self._orders.get(order.id)
            except PeerUnavailable as problem:
                if asyncio.get_running_loop().time() + pause_s >= until:
                    raise
                log.info("peer_asked_again", peer=problem.peer, outcome=problem.outcome, order_status=order.status)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, ASK_AGAIN_MOST_S)
        return order

    def _step(self, order: Order) -> Step:
        return self._steps[order.status] if order.undo is None else self._take_back

    async def _stepped(self, order: Order) -> Order:
        """Take the next step. What a peer will never take, whatever the reason, is taken back."""
        try:
            return await self._step(order)(order)
        except PeerRefused as refused:
            if order.undo is not None or refused.status in {401, 403}:
                raise  # to be mended by an operator, not by giving up the order
            log.error("peer_refused", peer=refused.peer, problem=refused.code, order_status=order.status)  # noqa: TRY400
            undo = Undo(Status.CANCELLED, f"refused by {refused.peer}: {refused.code}")
            return await self._orders.save(order, decided_to_undo(order, undo))

    async def _reserve(self, order: Order) -> Order:
        with self._timed("reserve"):
            try:
                await self._products.reserve(order.id, [(line.product_id, line.quantity) for line in order.lines])
            except StockRefused as refused:
                crash_point("order.reserve.refused")
                # Nothing was taken, but an earlier call may still be on its way: undoing refuses it when it arrives.
                refusal = {"code": "insufficient-stock", "items": refused.items}
                undo = Undo(Status.REJECTED, OUT_OF_STOCK, refusal)
                return await self._orders.save(order, decided_to_undo(order, undo))
            crash_point("order.reserve.answered")
            reserved = await self._orders.save(order, moved(order, Status.RESERVED, now()))
            crash_point("order.reserved")
            return reserved

    async def _authorise(self, order: Order) -> Order:
        with self._timed("authorise"):
            try:
                payment_id = await self._payments.authorise(
                    order.id, order.user_id, order.total_minor, order.currency, order.payment_method
                )
            except PaymentRefused as refused:
                crash_point("order.authorise.refused")
                refusal = {"code": PaymentDeclined.code, "decline_code": refused.decline_code}
                undo = Undo(Status.REJECTED, f"payment_declined: {refused.decline_code}", refusal)
                return await self._orders.save(order, decided_to_undo(order, undo))
            crash_point("order.authorise.answered")
            paid = replace(moved(order, Status.AUTHORISED, now()), payment_id=payment_id)
            paid = await self._orders.save(order, paid)
            crash_point("order.authorised")
            return paid

    async def _confirm(self, order: Order) -> Order:
        with self._timed("confirm"):
            try:
                await self._products.commit(order.id)
                crash_point("order.commit.answered")
                await self._payments.capture(order.id)
                crash_point("order.capture.answered")
            except StockRefused as refused:
                refusal = {"code": "insufficient-stock", "items": refused.items}
                undo = Undo(Status.CANCELLED, OUT_OF_STOCK, refusal)
                return await self._orders.save(order, decided_to_undo(order, undo))
            except PaymentRefused as refused:
                refusal = {"code": PaymentDeclined.code, "decline_code": refused.decline_code}
                undo = Undo(Status.CANCELLED, f"payment_declined: {refused.decline_code}", refusal)
                return await self._orders.save(order, decided_to_undo(order, undo))
            confirmed = await self._end(order, Status.CONFIRMED)
            crash_point("order.confirmed")
            return confirmed

    async def _take_back(self, order: Order) -> Order:
        assert order.undo is not None
        with self._timed("undo"):
            crash_point("order.undo.decided")
            await self._products.release(order.id)
            crash_point("order.undo.stock_released")
            if order.status is not Status.PENDING:  # before that nobody has asked for money
                await self._payments.take_back(order.id, order.undo.reason)
                self._compensations.inc()
                crash_point("order.undo.payment_taken_back")
            taken_back = await self._end(order, order.undo.to, order.undo.reason, order.undo.refusal)
            crash_point("order.taken_back")
            return taken_back

    async def _end(
        self, order: Order, status: Status, reason: str | None = None, refusal: dict[str, Any] | None = None
    ) -> Order:
        """Commit the last status together with the answer that the order's idempotency key gives from now on."""
        ended = moved(order, status, now(), reason)
        ended = await self._orders.settle(order, ended, answer_to(ended, refusal))
        self._outcomes.labels(status).inc()
        log.info(
            "order_ended", order_status=status, reason=reason, total_minor=order.total_minor, currency=order.currency
        )
        return ended

    @contextmanager
    def _timed(self, step: str) -> Generator[None, None, None]:
        here = context()
        started = perf_counter()
        try:
            with here.step(f"saga {step}"):
                yield
        finally:
            self._seconds[step].observe(perf_counter() - started)

    async def recover(self, budget_s: float) -> int:
        """Take up orders that nobody works on, each for `budget_s` at most, and return how many; for a worker."""
        unfinished = await self._orders.claim_unfinished(RECOVER_MOST)
        await asyncio.gather(*(self._recover(order, budget_s) for order in unfinished))
        return len(unfinished)

    async def _recover(self, order: Order, budget_s: float) -> None:
        """Go on with an order in the trace of the request that placed it."""
        until = asyncio.get_running_loop().time() + budget_s
        here = Context(traceparent=order.traceparent, deadline=until)
        here.order_id = str(order.id)
        current.set(here)
        try:
            with self._telemetry.joined(here, "saga recover"):
                ended = await self.advance(order, until)
        except Exception as error:
            # Whatever is wrong with this one must not keep the others of the round waiting.
            delay_s = min(2.0 ** min(order.attempts, 10) / 10, POSTPONE_MOST_S)
            expected = isinstance(error, Problem)
            log.warning(
                "order_not_recovered", problem=str(error), again_in_s=delay_s, exc_info=None if expected else error
            )
            with suppress(Unavailable):  # then the lease runs out
                await self._orders.postpone(order.id, delay_s)
        else:
            self._recovered.inc()
            log.info("order_recovered", order_status=ended.status, attempts=order.attempts)
