"""HTTP in and out: what users, the order service and the audit ask of payments."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse

from chassis.audit import ndjson
from chassis.auth import Admin, Auditor, OrderService, Shopper
from chassis.context import context
from chassis.database import Autocommit
from chassis.idempotency import OptionalKey, fingerprint
from chassis.pagination import Cursor, Limit, decode_cursor, encode_cursor
from chassis.problems import (
    Forbidden,
    IdempotencyKeyInvalid,
    IdempotencyKeyReused,
    IllegalTransition,
    InvalidCursor,
    InvalidRequest,
    RequestInProgress,
    Unauthenticated,
    UnsupportedMediaType,
    documented,
)
from chassis.schemas import JsonBytes, Page
from services.payment import repository
from services.payment.charges import Charges
from services.payment.domain import PaymentNotFound, RefundExceedsCaptured
from services.payment.provider import PaymentProvider
from services.payment.refunds import Refunds
from services.payment.schemas import NewPayment, NewRefund, OrderPayment, Payment, Rest

public = APIRouter(prefix="/api/v1/payments", tags=["payments"])
internal = APIRouter(prefix="/internal/v1", tags=["internal"])


# Coroutines, since FastAPI runs a plain function as a dependency in a thread.
async def _charges(request: Request) -> Charges:
    return request.app.state.charges


async def _refunds(request: Request) -> Refunds:
    return request.app.state.refunds


async def _provider(request: Request) -> PaymentProvider:
    return request.app.state.provider


TheCharges = Annotated[Charges, Depends(_charges)]
TheRefunds = Annotated[Refunds, Depends(_refunds)]
TheProvider = Annotated[PaymentProvider, Depends(_provider)]

PAYMENT: dict[int | str, dict[str, Any]] = {200: {"model": Payment}}
ORDER_PAYMENT: dict[int | str, dict[str, Any]] = {200: {"model": OrderPayment}}


@public.get("", responses={200: {"model": Page[Payment]}, **documented(InvalidCursor, Unauthenticated)})
async def list_payments(
    database: Autocommit, principal: Shopper, order_id: UUID | None = None, limit: Limit = 20, cursor: Cursor = None
) -> JsonBytes:
    """The caller's payments, newest first, or the one of an order, which an admin may read of anybody."""
    query = {"list": "payments", "order_id": order_id}
    before = repository.NEWEST if cursor is None else _position(cursor, query)
    if order_id is None:
        rows = await repository.list_of_user(database, principal.user_id, before, limit + 1)
    else:
        rows = await repository.list_of_order(
            database, order_id, principal.user_id, before, any_user=principal.is_admin
        )
    documents = ",".join(document for _, document in rows[:limit])
    after = f'"{encode_cursor([rows[limit - 1][0]], query)}"' if len(rows) > limit else "null"
    return JsonBytes(f'{{"items":[{documents}],"next_cursor":{after}}}')


def _position(cursor: str, query: dict[str, Any]) -> UUID:
    try:
        (payment_id,) = decode_cursor(cursor, query)
        return UUID(payment_id)
    except (TypeError, ValueError, AttributeError):
        raise InvalidCursor from None


@public.get("/{payment_id}", responses={**PAYMENT, **documented(PaymentNotFound, Unauthenticated)})
async def read_payment(payment_id: UUID, database: Autocommit, principal: Shopper) -> JsonBytes:
    """A payment of the caller's, or anybody's for an admin."""
    return JsonBytes(await repository.read_public(database, payment_id, principal.user_id, any_user=principal.is_admin))


@public.post(
    "/{payment_id}/refund",
    responses={
        **PAYMENT,
        **documented(
            IdempotencyKeyInvalid,
            Unauthenticated,
            Forbidden,
            PaymentNotFound,
            RefundExceedsCaptured,
            RequestInProgress,
            UnsupportedMediaType,
            InvalidRequest,
            IdempotencyKeyReused,
        ),
    },
)
async def refund_payment(
    payment_id: UUID, body: NewRefund, refunds: TheRefunds, principal: Admin, key: OptionalKey
) -> Response:
    """Give back part of a captured payment, or all that is left of it."""
    if key is None:
        return JsonBytes(await refunds.refund(payment_id, body.amount_minor, body.reason))
    answer, replayed = await refunds.refund_once(
        payment_id,
        body.amount_minor,
        body.reason,
        user_id=principal.user_id,
        key=key,
        fingerprint=fingerprint(body.model_dump(mode="json", exclude_unset=True)),
    )
    return answer.response(replayed=replayed)


@internal.put(
    "/payments/{order_id}",
    responses={
        **ORDER_PAYMENT,
        **documented(Unauthenticated, Forbidden, IllegalTransition, UnsupportedMediaType, InvalidRequest),
    },
)
async def authorise_payment(
    order_id: UUID, body: NewPayment, charges: TheCharges, provider: TheProvider, _caller: OrderService
) -> JsonBytes:
    """Authorise the payment of an order, once. 503 while the provider's answer is not known: ask again."""
    if body.payment_method not in provider.payment_methods:
        raise InvalidRequest.field("payment_method", "is not a payment method that is taken here")
    context().order_id = str(order_id)
    amount = body.amount
    return JsonBytes(
        await charges.authorise(order_id, body.user_id, amount.amount_minor, amount.currency, body.payment_method)
    )


@internal.get(
    "/payments/{order_id}", responses={**ORDER_PAYMENT, **documented(Unauthenticated, Forbidden, PaymentNotFound)}
)
async def read_payment_of_order(order_id: UUID, database: Autocommit, _caller: OrderService) -> JsonBytes:
    """The payment of an order as it stands here."""
    return JsonBytes((await repository.read(database, order_id)).document)


@internal.post(
    "/payments/{order_id}/capture",
    responses={**ORDER_PAYMENT, **documented(Unauthenticated, Forbidden, PaymentNotFound, IllegalTransition)},
)
async def capture_payment(order_id: UUID, charges: TheCharges, _caller: OrderService) -> JsonBytes:
    """Capture the whole of what was authorised, once."""
    context().order_id = str(order_id)
    return JsonBytes(await charges.capture(order_id))


@internal.post(
    "/payments/{order_id}/void",
    responses={**ORDER_PAYMENT, **documented(Unauthenticated, Forbidden, IllegalTransition)},
)
async def void_payment(order_id: UUID, charges: TheCharges, _caller: OrderService) -> JsonBytes:
    """End the payment of an order before it is captured; one that is not known here is refused from then on."""
    context().order_id = str(order_id)
    return JsonBytes(await charges.void(order_id))


@internal.post(
    "/payments/{order_id}/refund",
    responses={
        **ORDER_PAYMENT,
        **documented(
            Unauthenticated, Forbidden, PaymentNotFound, IllegalTransition, UnsupportedMediaType, InvalidRequest
        ),
    },
)
async def refund_rest_of_payment(order_id: UUID, body: Rest, refunds: TheRefunds, _caller: OrderService) -> JsonBytes:
    """Give back all that is left of a captured payment, once."""
    context().order_id = str(order_id)
    return JsonBytes(await refunds.refund_rest(order_id, body.reason))


@internal.get(
    "/audit",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"application/x-ndjson": {}}, "description": "A record a line"},
        **documented(Unauthenticated, Forbidden),
    },
)
async def audit(database: Autocommit, _caller: Auditor) -> StreamingResponse:
    """What this service and its provider believe: payments, refunds, ledger entries, provider records."""
    return await ndjson(database, *repository.AUDIT)
