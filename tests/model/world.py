"""What the databases of order, product and payment hold of one order, and what each SQL statement does to it.

A statement is known here by its text, the constant of the repository that runs it, so one that is new is asked for in
vain and fails the search.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import orjson

from services.order import repository as orders
from services.payment import repository as payments
from services.payment import simulator
from services.product import repository as products

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
ORDER_ID = UUID(int=1)
USER_ID = UUID(int=2)
PRODUCT_ID = UUID(int=3)
PAYMENT_ID = UUID(int=4)
KEY = "key"
TRACEPARENT = f"00-{1:032x}-{1:016x}-00"
QUANTITY = 1
UNITS = 2
"""On hand at first: enough for taking what is ordered twice, were that possible, and all for a rival."""
TOTAL_MINOR = 500
CURRENCY = "USD"
REFERENCE = "sim_1"


class World(NamedTuple):
    """Everything that is committed. JSON columns are kept as text."""

    # The order service's
    order: str | None = None
    history: str = "[]"
    payment_id: str | None = None
    undo: str | None = None
    version: int = 0
    lease: bool = False
    deferred: bool = False
    answer: tuple[int, bytes, str | None] | None = None
    method: str = "tok_visa"
    # Product's. A tombstone is a reservation without items that is released from the beginning.
    reservation: str | None = None
    on_hand: int = UNITS
    reserved: int = 0
    sold_to_rival: int = 0
    # Payment's
    payment: str | None = None
    asked_for: bool = False
    captured_minor: int = 0
    refunded_minor: int = 0
    refunding_minor: int = 0
    refunds: tuple[tuple[str, int], ...] = ()
    ledger: tuple[tuple[str, int], ...] = ()
    # The provider's own record
    charge: str | None = None
    charge_captured_minor: int = 0
    charge_refunded_minor: int = 0
    charge_refunds: tuple[int, ...] = ()

    @property
    def available(self) -> int:
        """Units that can be bought."""
        return self.on_hand - self.reserved


class Row(tuple[Any, ...]):
    """A row as asyncpg gives it: by position and by name."""

    names: tuple[str, ...]

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(self.names.index(key) if isinstance(key, str) else key)


def row(**columns: Any) -> Row:
    """A row of these columns."""
    made = Row(columns.values())
    made.names = tuple(columns)
    return made


Rows = Sequence[Row]
Answer = Rows | Exception
"""What a statement answers: rows, or the error of a constraint."""
Statement = Callable[..., tuple[World, Answer]]
STATEMENTS: dict[str, Statement] = {}


def statement(text: str) -> Callable[[Statement], Statement]:
    """Register what a statement does."""

    def register(function: Statement) -> Statement:
        STATEMENTS[text] = function
        return function

    return register


def _json(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value, default=str).decode()


# The order service


def order_row(world: World) -> Row:
    """The order, as the statements that read it return it."""
    line = {
        "product_id": str(PRODUCT_ID),
        "sku": "sku",
        "name": "Kettle",
        "quantity": QUANTITY,
        "unit_price_minor": TOTAL_MINOR,
    }
    return row(
        id=ORDER_ID,
        user_id=USER_ID,
        status=world.order,
        lines=[line],
        currency=CURRENCY,
        address={"line1": "1 Market Square"},
        payment_method=world.method,
        payment_id=world.payment_id and UUID(world.payment_id),
        history=orjson.loads(world.history),
        undo=None if world.undo is None else orjson.loads(world.undo),
        from_cart=False,
        traceparent=TRACEPARENT,
        version=world.version,
        attempts=0,
        created_at=MOMENT,
    )


@statement(orders.PLACE)
def place(world: World, *args: Any) -> tuple[World, Rows]:
    if world.order is not None:
        return world, []
    history = _json(args[8])
    assert history is not None
    placed = world._replace(order="pending", history=history, version=1, lease=True, method=args[7])
    return placed, [row(id=ORDER_ID)]


@statement(orders.GET)
def get(world: World, _order_id: UUID) -> tuple[World, Rows]:
    return world, [order_row(world)]


@statement(orders.GET_OF_USER)
def get_of_user(world: World, _order_id: UUID, _user_id: UUID, _any_user: bool) -> tuple[World, Rows]:
    return world, [order_row(world)]


@statement(orders.MOVE)
def move(
    world: World, _: UUID, version: int, status: str, history: Any, payment_id: UUID | None, undo: Any, _lease: float
) -> tuple[World, Rows]:
    if version != world.version:
        return world, []
    moved = world._replace(
        order=str(status),
        history=_json(history),
        payment_id=payment_id and str(payment_id),
        undo=_json(undo),
        version=version + 1,
        lease=True,
    )
    return moved, [row(version=moved.version)]


@statement(orders.SETTLE)
def settle(
    world: World,
    _: UUID,
    version: int,
    status: str,
    history: Any,
    payment_id: UUID | None,
    answer_status: int | None,
    body: bytes | None,
    location: str | None,
) -> tuple[World, Rows]:
    if version != world.version:
        return world, []
    answer = world.answer
    if answer is None and answer_status is not None and body is not None:
        answer = (answer_status, body, location)
    settled = world._replace(
        order=str(status),
        history=_json(history),
        payment_id=payment_id and str(payment_id),
        undo=None,
        version=version + 1,
        lease=False,
        answer=answer,
    )
    return settled, [row(version=settled.version)]


@statement(orders.DEFER)
def defer(world: World, _order_id: UUID) -> tuple[World, Rows]:
    return world._replace(deferred=True), []


@statement(orders.ANSWER_OF)
def answer_of(world: World, _order_id: UUID) -> tuple[World, Rows]:
    if world.answer is None:
        return world, []
    status, body, location = world.answer
    return world, [row(status=status, body=body, location=location)]


@statement(orders.CLAIM_UNFINISHED)
def claim_unfinished(world: World, _lease_s: float, _limit: int) -> tuple[World, Rows]:
    """By then the lease is over: when that is, the search decides."""
    return world, [order_row(world)] if world.lease else []


@statement(orders.POSTPONE)
def postpone(world: World, _order_id: UUID, _delay_s: float) -> tuple[World, Rows]:
    return world, []


# The product service


@statement(products.RESERVE)
def reserve(
    world: World, _: UUID, _products: Sequence[UUID], quantities: Sequence[int], _ttl_s: float
) -> tuple[World, Rows]:
    known = world.reservation
    same = None if known is None else known != "tombstone"
    needed = known in {None, "expired"}
    short = None
    if needed and world.available < quantities[0]:
        short = [{"product_id": str(PRODUCT_ID), "requested": quantities[0], "available": world.available}]
    if needed and short is None:
        world = world._replace(reservation="held", reserved=world.reserved + quantities[0])
    return world, [
        row(
            status="released" if known == "tombstone" else known,
            same=same,
            known_expires_at=known and MOMENT,
            short=short,
            expires_at=MOMENT if needed and short is None else None,
        )
    ]


@statement("SELECT /* is known */ EXISTS (SELECT FROM reservations WHERE order_id = $1)")
def is_known(world: World, _order_id: UUID) -> tuple[World, Rows]:
    return world, [row(exists=world.reservation is not None)]


@statement(products.COMMIT)
def commit(world: World, _order_id: UUID) -> tuple[World, Rows]:
    known = world.reservation
    if known is None:
        return world, []
    short = None
    if known == "expired" and world.available < QUANTITY:
        short = [{"product_id": str(PRODUCT_ID), "requested": QUANTITY, "available": world.available}]
    if known in {"held", "expired"} and short is None:
        world = world._replace(
            reservation="committed",
            on_hand=world.on_hand - QUANTITY,
            reserved=world.reserved - (QUANTITY if known == "held" else 0),
        )
    return world, [row(status="released" if known == "tombstone" else known, expires_at=MOMENT, short=short)]


@statement(products.RELEASE)
def release(world: World, _order_id: UUID) -> tuple[World, Rows]:
    known = world.reservation
    match known:
        case None:
            return world._replace(reservation="tombstone"), [row(status=None, new=True)]
        case "held":
            world = world._replace(reservation="released", reserved=world.reserved - QUANTITY)
        case "committed":
            world = world._replace(reservation="released", on_hand=world.on_hand + QUANTITY)
        case "expired":
            world = world._replace(reservation="released")
        case _:
            pass
    return world, [row(status="released" if known == "tombstone" else known, new=False)]


@statement(products.EXPIRE)
def expire(world: World, _most: int) -> tuple[World, Rows]:
    """By then its time is over: when that is, the search decides."""
    if world.reservation != "held":
        return world, [row(count=0)]
    return world._replace(reservation="expired", reserved=world.reserved - QUANTITY), [row(count=1)]


# The payment service


def _document(world: World) -> str:
    decline_code = "declined" if world.payment == "declined" else None
    return orjson.dumps({"id": str(PAYMENT_ID), "status": world.payment, "decline_code": decline_code}).decode()


def _payment(world: World) -> Rows:
    return [row(status=world.payment, document=_document(world))]


@statement(payments.INTEND)
def intend(world: World, *_: Any) -> tuple[World, Rows]:
    world = world._replace(payment=world.payment or "pending", asked_for=True)
    return world, [row(same=True, document=None if world.payment == "pending" else _document(world))]


@statement(payments.SETTLE)
def settle_payment(
    world: World, _: UUID, sources: Sequence[str], status: str, _decline_code: str | None, _reference: str | None
) -> tuple[World, Rows]:
    if world.payment not in sources:
        return world, []
    world = world._replace(payment=status)
    return world, _payment(world)


@statement(payments.VOID)
def void(world: World, _: UUID, sources: Sequence[str]) -> tuple[World, Rows]:
    if world.payment is not None and world.payment not in sources:
        return world, []
    world = world._replace(payment="voided")
    return world, _payment(world)


@statement(payments.RECORD_CAPTURE)
def record_capture(world: World, _: UUID, sources: Sequence[str], *_rest: Any) -> tuple[World, Rows]:
    if world.payment not in sources:
        return world, []
    if any(movement == "capture" for movement, _ in world.ledger):
        raise AssertionError("the ledger's primary key refuses a second movement of one capture")
    world = world._replace(
        payment="captured", captured_minor=TOTAL_MINOR, ledger=(*world.ledger, ("capture", TOTAL_MINOR))
    )
    return world, _payment(world)


@statement(payments.READ)
def read_payment(world: World, _order_id: UUID) -> tuple[World, Rows]:
    return world, [] if world.payment is None else _payment(world)


@statement(payments.BALANCE_OF_ORDER)
def balance(world: World, _order_id: UUID) -> tuple[World, Rows]:
    if world.payment is None:
        return world, []
    return world, [
        row(
            id=PAYMENT_ID,
            status=world.payment,
            currency=CURRENCY if world.asked_for else None,
            captured_minor=world.captured_minor,
            refunded_minor=world.refunded_minor,
            refundable_minor=world.captured_minor - world.refunded_minor - world.refunding_minor,
        )
    ]


def refund_id(number: int) -> UUID:
    """The id of a refund, by its place in the world."""
    return UUID(int=100 + number)


@statement(payments.BEGIN_REFUND)
def begin_refund(
    world: World, _id: None, _payment: UUID, _amount: None, sources: Sequence[str], _reason: str, _lease_s: float
) -> tuple[World, Rows]:
    left_minor = world.captured_minor - world.refunded_minor - world.refunding_minor
    if world.payment not in sources or left_minor <= 0:
        return world, []
    number = len(world.refunds)
    world = world._replace(
        refunding_minor=world.refunding_minor + left_minor, refunds=(*world.refunds, ("pending", left_minor))
    )
    return world, [row(id=refund_id(number), order_id=ORDER_ID, amount_minor=left_minor)]


@statement(payments.PENDING_REFUNDS)
def pending_refunds(world: World, _payment_id: UUID) -> tuple[World, Rows]:
    return world, [
        row(id=refund_id(number), order_id=ORDER_ID, amount_minor=amount_minor)
        for number, (status, amount_minor) in enumerate(world.refunds)
        if status == "pending"
    ]


@statement(payments.RELEASE_REFUND)
def release_refund(world: World, _refund_id: UUID) -> tuple[World, Rows]:
    return world, []


@statement(payments.FINISH_REFUND)
def finish_refund(world: World, refund_id: UUID, *_: Any) -> tuple[World, Rows]:
    number = refund_id.int - 100
    status, amount_minor = world.refunds[number]
    if status != "pending":
        return world, []
    refunded_minor = world.refunded_minor + amount_minor
    world = world._replace(
        payment="refunded" if refunded_minor == world.captured_minor else "partially_refunded",
        refunded_minor=refunded_minor,
        refunding_minor=world.refunding_minor - amount_minor,
        refunds=(*world.refunds[:number], ("done", amount_minor), *world.refunds[number + 1 :]),
        ledger=(*world.ledger, (f"refund {number}", amount_minor)),
    )
    return world, [row(document=_document(world))]


# The provider


@statement(simulator.AUTHORISE)
def charge_authorise(
    world: World, _: UUID, _method: str, _amount: int, _currency: str, status: str, _code: str | None
) -> tuple[World, Rows]:
    is_new = world.charge is None
    world = world._replace(charge=world.charge or status)
    decline_code = "declined" if world.charge == "declined" else None
    return world, [row(reference=REFERENCE, status=world.charge, decline_code=decline_code, is_new=is_new)]


@statement(simulator.CAPTURE)
def charge_capture(world: World, _: UUID) -> tuple[World, Rows]:
    if world.charge not in {"authorised", "captured"}:
        return world, []
    return world._replace(charge="captured", charge_captured_minor=TOTAL_MINOR), [row(reference=REFERENCE)]


@statement(simulator.VOID)
def charge_void(world: World, _: UUID) -> tuple[World, Rows]:
    if world.charge in {None, "authorised"}:
        world = world._replace(charge="voided")
    return world, [row(status=world.charge, decline_code="declined" if world.charge == "declined" else None)]


@statement(simulator.REFUND)
def charge_refund(world: World, key: UUID, _charge: UUID, amount_minor: int) -> tuple[World, Answer]:
    if key.int in world.charge_refunds:
        return world, []
    if world.charge_refunded_minor + amount_minor > world.charge_captured_minor:
        return world, asyncpg.CheckViolationError("refunded_at_most_captured")
    return world._replace(
        charge_refunded_minor=world.charge_refunded_minor + amount_minor,
        charge_refunds=(*world.charge_refunds, key.int),
    ), []
