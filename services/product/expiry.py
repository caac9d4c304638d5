"""The end of reservations that were neither committed nor released in time: any replica may do it, all may at once."""

import structlog

from chassis.crash_points import crash_point
from services.product.metrics import Metrics
from services.product.repository import Stock

BATCH = 100
"""Reservations that expire in one transaction, which locks the stock of all their products."""

log = structlog.stdlib.get_logger()


async def expire_reservations(stock: Stock, metrics: Metrics) -> int:
    """Free the units of every reservation whose time is over; return how many there were."""
    expired = 0
    crash_point("product.expire.due")
    while count := await stock.expire(BATCH):
        crash_point("product.expired")
        expired += count
        metrics.reservations["expired"].inc(count)
        log.info("reservations_expired", count=count)
        if count < BATCH:
            break
    return expired
