"""Every crash point in turn: a process dies there by SIGKILL, with the reply to the client lost as well and without.

A point lies between two durable effects, so each effect is tried before (by the point that comes first) and after.
What is done to pass a point stands in `POINTS`, and a test compares that table with the calls in the code. Each attempt
goes on in a trace of its own, by which a process knows that it is to die; whoever carries on is left in peace.

An order that lost its process waits until its lease has run out. In a full run the next order process dies when that is
over, so that the seconds are those of one crash; in a short one leases are short, and crashes come one upon the other.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from uuid import uuid4

from chassis.secrets import SERVICES
from drills.client import Answer
from drills.evidence import Table
from drills.harmed import arm
from drills.oracle import Checkout
from drills.platform import Topology
from drills.shoppers import Shopper, wanted
from drills.stage import Drill, Length, Stage, processes

FINAL_WITHIN_S = 30.0
STRIKES_WITHIN_S = 20.0
EXPIRING = {"RESERVATION_TTL_S": "1", "EXPIRE_EVERY_S": "0.3"}
"""For the points of an expiry: a reservation ends before `tok_slow` is approved, after two seconds."""
HURRIED = {"CHECKOUT_BUDGET_S": "1"}
"""For the point of a 202: a checkout gives up before `tok_slow` is approved."""
SHORT_LEASE = {"LEASE_S": "3"}
IMPORTED = 600
"""Lines of an import: two batches."""


@dataclass(slots=True)
class Attempt:
    """One point, tried once."""

    point: str
    lose_reply: bool
    trace_id: str
    armed: asyncio.Event = field(default_factory=asyncio.Event)
    died: str = ""
    """The replica that was killed; empty where the point was not reached."""
    ready_at: float = 0.0
    """When it was ready again, by `time.monotonic()`."""
    end: str = ""
    """The status that the order has at last, or what else the work was about."""
    ended_at: float = 0.0

    @property
    def seconds(self) -> float:
        """From the replica's being ready again to the end."""
        return max(0.0, self.ended_at - self.ready_at)


class Crashes:
    """The attempts of a drill, and what they share."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.product_id = stage.floor.product_ids[0]
        self._numbers = count()

    async def shopper(self) -> Shopper:
        """Somebody new, signed in."""
        shopper = Shopper(self.stage.floor, next(self._numbers))
        await shopper.sign_in()
        return shopper

    def arm(self, attempt: Attempt) -> None:
        """From now on the first process to reach the point, in this attempt's trace, dies."""
        arm(self.stage.platform.doom, attempt.point, None if attempt.point in TRACELESS else attempt.trace_id)
        attempt.armed.set()

    async def tried(self, attempt: Attempt, work: "Work") -> None:
        """Do the work, and note how it ended."""
        attempt.end = await work(self, attempt)
        attempt.ended_at = time.monotonic()

    async def struck(self, attempt: Attempt, trying: "asyncio.Task[None]") -> None:
        """Wait until a process has died of the attempt, and start it again."""
        arming = asyncio.create_task(attempt.armed.wait())
        await asyncio.wait({arming, trying}, return_when=asyncio.FIRST_COMPLETED)
        arming.cancel()
        if trying.done():
            trying.result()  # an attempt that failed is a fault of the drill
        replica = await self.stage.platform.died(STRIKES_WITHIN_S)
        if replica is not None:
            with self.stage.harm(f"{replica.name} dies at {attempt.point}"):
                replica.kill()
            attempt.died = replica.name
            await self.stage.platform.restart(replica)
            attempt.ready_at = time.monotonic()

    async def bought(self, shopper: Shopper) -> Checkout:
        """Buy something, undisturbed."""
        items = [(self.product_id, 2)]
        return await shopper.buy(items, {"items": wanted(items)}, method="tok_visa")

    async def end_of(self, shopper: Shopper, checkout: Checkout) -> str:
        """The status that the order of a checkout has come to."""
        assert checkout.order_id is not None
        await shopper.settled(checkout.order_id, checkout)
        return str(checkout.seen)

    async def restart(self, service: str, environment: Mapping[str, str]) -> None:
        """Start all replicas of a service again with other settings."""
        for replica in self.stage.platform.of(service):
            replica.environment.update(environment)
            await asyncio.to_thread(replica.end)
        await asyncio.gather(*(self.stage.platform.restart(replica) for replica in self.stage.platform.of(service)))


Work = Callable[[Crashes, Attempt], Awaitable[str]]
"""Prepares, arms the attempt, does what passes the point, insists on an outcome, and says what it was."""


def _order(method: str = "tok_visa", *, cart: bool = False) -> Work:
    async def work(crashes: Crashes, attempt: Attempt) -> str:
        shopper = await crashes.shopper()
        items = [(crashes.product_id, 1)]
        if cart:
            await shopper.fill_cart(items)
        crashes.arm(attempt)
        body = {} if cart else {"items": wanted(items)}
        checkout = await shopper.buy(
            items, body, method=method, lose_reply=attempt.lose_reply, trace_id=attempt.trace_id
        )
        return await crashes.end_of(shopper, checkout)

    return work


async def _short(crashes: Crashes, attempt: Attempt) -> str:
    shopper = await crashes.shopper()
    (product_id,) = await crashes.stage.stock(1, 1, f"SHORT-{attempt.trace_id[:8]}")
    items = [(product_id, 2)]
    crashes.arm(attempt)
    checkout = await shopper.buy(
        items, {"items": wanted(items)}, method="tok_visa", lose_reply=attempt.lose_reply, trace_id=attempt.trace_id
    )
    return await crashes.end_of(shopper, checkout)


async def _cancel(crashes: Crashes, attempt: Attempt) -> str:
    shopper = await crashes.shopper()
    checkout = await crashes.bought(shopper)
    crashes.arm(attempt)
    await shopper.cancel(checkout, lose_reply=attempt.lose_reply, trace_id=attempt.trace_id)
    return await crashes.end_of(shopper, checkout)


async def _refund(crashes: Crashes, attempt: Attempt) -> str:
    shopper = await crashes.shopper()
    checkout = await crashes.bought(shopper)
    assert checkout.order_id is not None
    payment_id, amount_minor = await shopper.payment_of(checkout.order_id)
    crashes.arm(attempt)
    await crashes.stage.keeper.refund(
        checkout.order_id, payment_id, amount_minor // 2, lose_reply=attempt.lose_reply, trace_id=attempt.trace_id
    )
    return "refunded in part"


async def _expire(crashes: Crashes, attempt: Attempt) -> str:
    """Order what is paid for so slowly that the reservation ends first: the units are taken again."""
    return await _slow(crashes, attempt, lose_unit=False)


async def _lose(crashes: Crashes, attempt: Attempt) -> str:
    """The same, but the unit is gone by then: the payment that was authorised is voided."""
    return await _slow(crashes, attempt, lose_unit=True)


async def _slow(crashes: Crashes, attempt: Attempt, *, lose_unit: bool) -> str:
    shopper = await crashes.shopper()
    (product_id,) = await crashes.stage.stock(1, 1, f"SLOW-{attempt.trace_id[:8]}")
    items = [(product_id, 1)]
    if attempt.point not in TRACELESS:
        crashes.arm(attempt)
    buying = asyncio.create_task(
        shopper.buy(
            items, {"items": wanted(items)}, method="tok_slow", lose_reply=attempt.lose_reply, trace_id=attempt.trace_id
        )
    )
    if attempt.point in TRACELESS:
        await crashes.stage.available(product_id, 0)
        crashes.arm(attempt)
    if lose_unit:
        await crashes.stage.available(product_id, 0)
        await crashes.stage.available(product_id, 1)
        await crashes.stage.take_away(product_id, 1)
    checkout = await buying
    return await crashes.end_of(shopper, checkout)


_defer = _order("tok_slow")
"""The checkout is given up before the provider has approved, and 202 is answered."""


async def _import(crashes: Crashes, attempt: Attempt) -> str:
    stage = crashes.stage
    prefix = f"IMPORT-{attempt.trace_id[:8]}"
    crashes.arm(attempt)
    new = await stage.stock(IMPORTED, 7, prefix, lose_reply=attempt.lose_reply, trace_id=attempt.trace_id)
    return f"{len(new)} of {IMPORTED} products"


async def _renew(crashes: Crashes, attempt: Attempt) -> str:
    """Renew a session: where the token is used up by what was lost, it is ended, as a stolen one would be."""
    shopper = await crashes.shopper()
    crashes.arm(attempt)
    answer = await shopper.renew(lose_reply=attempt.lose_reply, trace_id=attempt.trace_id)
    return _renewed(answer)


async def _reuse(crashes: Crashes, attempt: Attempt) -> str:
    """Use a token twice, and then the one that came after it: both are refused."""
    shopper = await crashes.shopper()
    used = shopper.refresh_token
    await shopper.renew()
    following = shopper.refresh_token
    crashes.arm(attempt)
    await shopper.renew(used, used_before=True, lose_reply=attempt.lose_reply, trace_id=attempt.trace_id)
    answer = await shopper.renew(following, used_before=True)
    if answer.status == 200:
        crashes.stage.violations.append("a session went on after one of its tokens was used twice")
    return _renewed(answer)


def _renewed(answer: Answer) -> str:
    return {200: "renewed", 401: "session ended"}.get(answer.status or 0, f"answered {answer.status}")


POINTS: Mapping[str, tuple[str, Work]] = {
    "order.place.priced": ("nothing yet", _order(cart=True)),
    "order.placed": ("the order and its key are stored", _order(cart=True)),
    "product.reserve.asked": ("the order and its key are stored", _order()),
    "product.reserved": ("the units are held", _order()),
    "order.reserve.answered": ("the units are held, and order knows", _order()),
    "order.reserved": ("the order is reserved", _order()),
    "payment.authorise.asked": ("the order is reserved", _order()),
    "payment.intended": ("the payment is wanted", _order()),
    "payment.authorise.provider_approved": ("the provider has approved", _order("tok_timeout")),
    "payment.authorised": ("the payment is authorised", _order()),
    "order.authorise.answered": ("the payment is authorised, and order knows", _order()),
    "order.authorised": ("the order is authorised", _order()),
    "product.commit.asked": ("the order is authorised", _order()),
    "product.committed": ("the units are sold", _order()),
    "order.commit.answered": ("the units are sold, and order knows", _order()),
    "payment.capture.asked": ("the units are sold", _order()),
    "payment.capture.provider_captured": ("the provider has the money", _order()),
    "payment.captured": ("ledger and payment say so", _order()),
    "order.capture.answered": ("the payment is captured, and order knows", _order()),
    "order.confirmed": ("the order is confirmed, its answer stored", _order(cart=True)),
    "payment.authorise.provider_declined": ("the provider has declined", _order("tok_declined")),
    "payment.declined": ("the payment is declined", _order("tok_expired_card")),
    "order.authorise.refused": ("the payment is declined, and order knows", _order("tok_insufficient_funds")),
    "order.reserve.refused": ("nothing is held, and order knows", _short),
    "order.cancel.asked": ("the order is confirmed", _cancel),
    "order.cancel.decided": ("it is decided to take it back", _cancel),
    "order.undo.decided": ("it is decided to take it back", _order("tok_declined")),
    "product.release.asked": ("it is decided to take it back", _cancel),
    "product.released": ("the units are back", _cancel),
    "order.undo.stock_released": ("the units are back, and order knows", _cancel),
    "payment.void.asked": ("the units are back", _cancel),
    "payment.void.provider_voided": ("the provider has voided", _lose),
    "payment.voided": ("the payment is voided", _lose),
    "payment.refund.asked": ("the payment is captured", _refund),
    "payment.refund.begun": ("the refund is set aside", _cancel),
    "payment.refund.provider_refunded": ("the provider has given it back", _refund),
    "payment.refunded": ("ledger and payment say so", _refund),
    "order.undo.payment_taken_back": ("the money is back, and order knows", _cancel),
    "order.taken_back": ("the order has ended", _cancel),
    "order.deferred": ("202 is the answer from now on", _defer),
    "product.expire.due": ("a reservation's time is over", _expire),
    "product.expired": ("its units are free", _expire),
    "product.import.asked": ("nothing yet", _import),
    "product.import.uncommitted": ("rows are written and not committed", _import),
    "product.import.landed": ("a batch has landed", _import),
    "user.rotate.asked": ("nothing yet", _renew),
    "user.rotated": ("the next token is good", _renew),
    "user.family_ended": ("the session is ended", _reuse),
}
"""Each point, what is durable there, and the work that passes it."""

TRACELESS = frozenset({"product.expire.due", "product.expired"})
"""Points of a worker, which goes on in no request's trace."""
PHASES: Sequence[tuple[str, Mapping[str, str], frozenset[Work]]] = (
    ("product", EXPIRING, frozenset({_expire, _lose})),
    ("order", HURRIED, frozenset({_defer})),
)
"""What needs other settings comes last: which service's, and the work."""


async def run(stage: Stage) -> None:
    """Try every point, twice."""
    crashes = Crashes(stage)
    special = {work for _, _, works in PHASES for work in works}
    attempts = await _try(crashes, [point for point, (_, work) in POINTS.items() if work not in special])
    for service, environment, works in PHASES:
        await crashes.restart(service, environment)
        attempts += await _try(crashes, [point for point, (_, work) in POINTS.items() if work in works])
    rows = [
        (
            each.point,
            POINTS[each.point][0],
            "lost too" if each.lose_reply else "",
            each.died or "nobody",
            each.end or "nothing",
            f"{each.seconds:.1f}",
        )
        for each in attempts
    ]
    stage.tables.append(
        Table("Crash points", ("point", "durable there", "reply", "killed", "end", "seconds to the end"), rows)
    )
    missed = [each.point for each in attempts if not each.died]
    reached = f"{len(attempts) - len(missed)} of {len(attempts)} attempts" + f", not {missed}" * bool(missed)
    stage.promise("a process died at every point", reached, not missed)
    slowest = max(attempts, key=lambda each: each.seconds)
    stage.promise(
        f"everything has its end {FINAL_WITHIN_S:.0f} s after the process is back",
        f"at most {slowest.seconds:.1f} s, {slowest.point}",
        slowest.seconds <= FINAL_WITHIN_S,
        of_time=True,
    )
    stage.floor.closed.set()


async def _try(crashes: Crashes, points: Sequence[str]) -> list[Attempt]:
    attempts: list[Attempt] = []
    trying: list[asyncio.Task[None]] = []
    for point in points:
        for lose_reply in (False, True):
            if crashes.stage.length.full and point.startswith("order."):
                await asyncio.gather(*trying)
            attempt = Attempt(point, lose_reply, uuid4().hex)
            attempts.append(attempt)
            trying.append(asyncio.create_task(crashes.tried(attempt, POINTS[point][1])))
            await crashes.struck(attempt, trying[-1])
    await asyncio.gather(*trying)
    return attempts


def _topology(length: Length) -> Topology:
    return Topology(harmed=frozenset(SERVICES), environment={} if length.full else {"order": SHORT_LEASE})


CRASH_POINTS = Drill(
    "crash-points",
    "A process is killed at every place between two durable effects, in turn: each order comes to its one right end.",
    0,
    run,
    processes(_topology),
)
