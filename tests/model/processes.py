"""The code that is checked, stepped by hand: a process stops at every statement and every call to a peer.

What runs is the services' own code: Checkout, Saga and cancel(), their clients, payment's Charges and Refunds with the
embedded provider, product's Stock. Under it lie three things of the model's: an event loop on which nothing happens
by itself, a database that asks the search what a statement answers, and a peer that asks it what becomes of a call.

A process that was told the same answers in the same order stands at the same place, whatever the rest of the world
did meanwhile. So a place is a node that is reached once, by running the code from its beginning with those answers, and
found by them ever after; a state of the search is no more than a few numbers. Two ways that lead to the same line of
the same coroutines with the same values in hand, as asking again does, lead to one node.
"""

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import Context as Variables
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID

import orjson

from chassis.auth import Principal
from chassis.balancing import CallPolicy
from chassis.clients import Peer, PeerRefused, PeerUnavailable
from chassis.context import Context, current
from chassis.database import Database
from chassis.problems import Problem, Unavailable
from chassis.telemetry import Telemetry
from chassis.tracing import Span
from services.order.cancellation import cancel
from services.order.checkout import Checkout
from services.order.clients import PaymentClient, ProductClient, UserClient
from services.order.domain import Order
from services.order.repository import Orders
from services.order.saga import Saga
from services.order.schemas import NewOrder
from services.payment.charges import Charges
from services.payment.metrics import PaymentMetrics
from services.payment.refunds import Refunds
from services.payment.simulator import Simulator
from services.product.repository import Stock
from services.product.schemas import Wanted
from tests.model.world import (
    CURRENCY,
    KEY,
    ORDER_ID,
    PRODUCT_ID,
    QUANTITY,
    TOTAL_MINOR,
    TRACEPARENT,
    USER_ID,
    Row,
    Rows,
)

BUDGET_S = 5.0
FINGERPRINT = b"the same body"
QUOTE = {
    "product_id": str(PRODUCT_ID),
    "sku": "sku",
    "name": "Kettle",
    "unit_price": {"amount_minor": TOTAL_MINOR, "currency": CURRENCY},
    "available": QUANTITY,
}


@dataclass(frozen=True, slots=True)
class Statement:
    """A process waits for a statement of its database."""

    text: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """A process waits for a peer's answer."""

    peer: str
    method: str
    path: str
    body: bytes

    def __str__(self) -> str:
        return f"{self.method} {self.peer} {self.path.removeprefix('/internal/v1')}"


@dataclass(frozen=True, slots=True)
class Ended:
    """A process is over: what it returned, or what it raised."""

    returned: Any = None
    raised: Exception | None = None


Place = Statement | Call | Ended


@dataclass(frozen=True, slots=True)
class Unanswered:
    """What a caller is told of a call whose answer does not come; with `over` its budget is used up by then."""

    over: bool


LOST = Unavailable("the database does not answer")
"""What a process is told of a statement that was committed though the connection was lost."""


class Loop(asyncio.AbstractEventLoop):
    """An event loop that does what is ready and then stops. Its clock stands still, and no pause takes any time."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.waits_for: tuple[Statement | Call, asyncio.Future[Any]] | None = None
        self.tasks: list[asyncio.Task[Any]] = []
        self._ready: deque[tuple[Callable[..., object], tuple[Any, ...], Variables | None]] = deque()

    def time(self) -> float:
        return self.now_s

    def get_debug(self) -> bool:
        return False

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **_: Any) -> asyncio.Task[Any]:
        self.tasks.append(asyncio.Task(coro, loop=self))
        return self.tasks[-1]

    def call_soon(self, callback: Any, *args: Any, context: Variables | None = None) -> Any:
        self._ready.append((callback, args, context))

    def call_later(self, delay: float, callback: Any, *args: Any, context: Variables | None = None) -> Any:  # noqa: ARG002
        """At once: how long a pause is decides nothing."""
        self._ready.append((callback, args, context))
        return Cancellable

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """A process that is left where it stands ends as in a crash: unheard."""

    def settle(self) -> None:
        """Run until everything waits."""
        asyncio._set_running_loop(self)  # pyright: ignore[reportPrivateUsage]
        try:
            while self._ready:
                callback, args, variables = self._ready.popleft()
                if variables is None:
                    callback(*args)
                else:
                    variables.run(callback, *args)
        finally:
            asyncio._set_running_loop(None)  # pyright: ignore[reportPrivateUsage]


class Cancellable:
    """Stands for a timer's handle."""

    @staticmethod
    def cancel() -> None:
        """It has run already."""


async def _answer(place: Statement | Call) -> Any:
    """Stop here until the search has decided what the answer is."""
    loop = cast("Loop", asyncio.get_running_loop())
    assert loop.waits_for is None, "a process does one thing at a time"
    answer: asyncio.Future[Any] = loop.create_future()
    loop.waits_for = (place, answer)
    return await answer


class ModelDatabase:
    """Stands for a service's database."""

    async def fetch(self, query: str, *args: Any) -> Rows:
        return await _answer(Statement(query, args))

    async def fetchrow(self, query: str, *args: Any) -> Row | None:
        rows = await self.fetch(query, *args)
        return rows[0] if rows else None

    async def fetchval(self, query: str, *args: Any) -> Any:
        rows = await self.fetch(query, *args)
        return rows[0][0] if rows else None

    async def execute(self, query: str, *args: Any) -> str:
        await self.fetch(query, *args)
        return ""


class ModelPeer:
    """Stands for the way to another service; tells its callers what `chassis.clients.Peer` would."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def call(self, method: str, path: str, body: Any = None, *, policy: CallPolicy | None = None) -> Any:
        """A repetition on another endpoint is one more request on its way: late, while the caller asks again."""
        assert policy is None or policy.idempotent
        if path.endswith("/quotes"):  # asked before there is an order: not part of the saga
            return {"items": [QUOTE]}
        answer = await _answer(Call(self._name, method, path, orjson.dumps(body, default=str)))
        match answer:
            case Unanswered(over):
                if over:
                    cast("Loop", asyncio.get_running_loop()).now_s = 2 * BUDGET_S
                raise PeerUnavailable(self._name, "timeout")
            case Problem():
                document = orjson.loads(orjson.dumps(answer.document(path), default=str))
                raise PeerRefused(self._name, answer.status, document)
            case _:
                return answer


class Platform:
    """The services' own objects, on the model's databases and peers."""

    def __init__(self) -> None:
        database = cast("Database", ModelDatabase())
        telemetry = Telemetry("model")
        products = ProductClient(cast("Peer", ModelPeer("product")))
        payments = PaymentClient(cast("Peer", ModelPeer("payment")))
        users = UserClient(cast("Peer", ModelPeer("user")))
        self._orders = Orders(database, lease_s=10.0)
        self._saga = Saga(self._orders, products, payments, telemetry)
        self._checkout = Checkout(
            database, self._orders, self._saga, products, users, budget_s=BUDGET_S, currency=CURRENCY
        )
        metrics = PaymentMetrics(Telemetry("payment"))
        provider = Simulator(database, slow_s=0, lost_answer_s=0)
        self._charges = Charges(database, provider, metrics)
        self._refunds = Refunds(database, provider, metrics, lease_s=10.0)
        self._stock = Stock(database, reservation_ttl_s=900.0)

    async def checkout(self, method: str) -> Any:
        """What `POST /api/v1/orders` does."""
        address = {
            "name": "Ada",
            "line1": "1 Market Square",
            "city": "Springfield",
            "postal_code": "12345",
            "country": "US",
        }
        wanted = NewOrder.model_validate(
            {
                "items": [{"product_id": str(PRODUCT_ID), "quantity": QUANTITY}],
                "address": address,
                "payment_method": method,
            }
        )
        outcome = await self._checkout.place(USER_ID, wanted, KEY, FINGERPRINT)
        return outcome.answer

    async def cancel(self) -> Order:
        """What `POST /api/v1/orders/{id}/cancel` does."""
        return await cancel(self._orders, self._saga, ORDER_ID, Principal(USER_ID, "customer"), BUDGET_S)

    async def recover(self) -> int:
        """A round of the recovery worker of some replica."""
        return await self._saga.recover(BUDGET_S)

    async def answer(self, call: Call) -> Any:
        """What the peer that is called does, from its route on."""
        body = orjson.loads(call.body)
        match call.peer, call.method, call.path.rpartition("/")[2]:
            case "product", "PUT", _:
                await self._stock.reserve(ORDER_ID, [Wanted.model_validate(item) for item in body["items"]])
            case "product", "POST", "commit":
                await self._stock.commit(ORDER_ID)
            case "product", "DELETE", _:
                await self._stock.release(ORDER_ID)
            case "payment", "PUT", _:
                amount_minor, currency = body["amount"]["amount_minor"], body["amount"]["currency"]
                return orjson.loads(
                    await self._charges.authorise(ORDER_ID, USER_ID, amount_minor, currency, body["payment_method"])
                )
            case "payment", "POST", "capture":
                return orjson.loads(await self._charges.capture(ORDER_ID))
            case "payment", "POST", "void":
                return orjson.loads(await self._charges.void(ORDER_ID))
            case "payment", "POST", "refund":
                return orjson.loads(await self._refunds.refund_rest(ORDER_ID, body["reason"]))
            case _:
                raise AssertionError(f"the model does not know {call}")
        return None


Begin = Callable[[], Coroutine[Any, Any, Any]]


IRRELEVANT = frozenset({"pause_s", "answer", "args"})
"""Locals on which nothing depends but how long a pause is, or that are spent."""
PLAIN = (str, int, float, bytes, tuple, list, dict, UUID, Order, Statement, Call, type(None))


def _position(loop: Loop) -> str:
    """Where the coroutines of a process stand, with what they have in hand: equal positions have equal futures."""
    found: list[str] = [f"{loop.now_s}"]
    for task in loop.tasks:
        coroutine: Any = None if task.done() else task.get_coro()
        while inspect.iscoroutine(coroutine) and coroutine.cr_frame is not None:
            frame = coroutine.cr_frame
            plain: dict[str, Any] = {
                name: value
                for name, value in frame.f_locals.items()
                if name not in IRRELEVANT and isinstance(value, PLAIN)
            }
            found.append(f"{coroutine.__qualname__} {frame.f_lasti} {plain!r}")
            coroutine = coroutine.cr_await
    return "\n".join(found)


class Traced(Context):
    """A context whose calls all have the same parent, since two runs that differ in it only are at the same place."""

    def __init__(self) -> None:
        super().__init__(traceparent=TRACEPARENT)

    def traceparent(self, span: Span | None = None) -> str:
        assert span is None
        return TRACEPARENT


def run(begin: Begin, answers: Sequence[Any]) -> tuple[Place, str]:
    """Run a process from its beginning, giving it these answers: where it stops then, and what tells this place from
    others.
    """
    loop = Loop()

    async def in_trace(process: Awaitable[Any]) -> Any:
        current.set(Traced())
        return await process

    task = loop.create_task(in_trace(begin()))
    loop.settle()
    for answer in answers:
        assert loop.waits_for is not None
        _, waiting = loop.waits_for
        loop.waits_for = None
        if isinstance(answer, Exception) and (answer is LOST or not isinstance(answer, Problem)):
            waiting.set_exception(answer)
        else:
            waiting.set_result(answer)
        loop.settle()
    if loop.waits_for is not None:
        return loop.waits_for[0], _position(loop)
    assert task.done()
    error = task.exception()
    if error is not None and not isinstance(error, Exception):
        raise error
    ended = Ended(raised=error) if error is not None else Ended(returned=task.result())
    return ended, f"{ended!r} {getattr(error, 'facts', '')}"


@dataclass(slots=True)
class Node:
    """A place in a process: what it is about to do, or how it ended. `after` are the nodes that follow by answer."""

    number: int
    name: str
    begin: Begin
    answers: tuple[Any, ...]
    place: Place
    after: dict[int, "Node"] = field(default_factory=dict[int, "Node"])
