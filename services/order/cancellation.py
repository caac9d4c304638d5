"""Cancelling an order: decide it, then have the saga carry it out."""

import asyncio
from uuid import UUID

from chassis.auth import Principal
from chassis.clients import PeerUnavailable
from chassis.context import context
from chassis.crash_points import crash_point
from services.order.domain import CANCELLED_BY_CUSTOMER, Order, Status, Superseded, Undo, decided_to_undo
from services.order.repository import Orders
from services.order.saga import Saga


async def cancel(orders: Orders, saga: Saga, order_id: UUID, principal: Principal, budget_s: float) -> Order:
    """Cancel the caller's order and return it: `cancelled`, or still on its way there.

    A confirmed order is taken back here. One whose checkout is at work is taken back by whoever works on it, who
    finds the decision at the next commit. Repeating it is a no-op. Raises OrderNotFound, IllegalTransition.
    """
    until = asyncio.get_running_loop().time() + budget_s
    context().deadline = until
    order, decided = await _decide(orders, order_id, principal)
    if decided is None or order.status is not Status.CONFIRMED:
        return decided or order
    try:
        return await saga.advance(decided, until)
    except PeerUnavailable:
        await orders.postpone(order_id, 0)
        return await orders.get(order_id)


async def _decide(orders: Orders, order_id: UUID, principal: Principal) -> tuple[Order, Order | None]:
    """The order as it was, and with the decision where it is new."""
    while True:
        order = await orders.get_for(order_id, principal.user_id, any_user=principal.is_admin)
        if order.status is Status.CANCELLED or (order.undo is not None and order.undo.to is Status.CANCELLED):
            return order, None
        try:
            undo = Undo(Status.CANCELLED, CANCELLED_BY_CUSTOMER)
            crash_point("order.cancel.asked")
            decided = await orders.save(order, decided_to_undo(order, undo))
            crash_point("order.cancel.decided")
            return order, decided
        except Superseded:
            continue
