"""What the order service tells of the orders that are under way."""

from chassis.telemetry import Telemetry


class OrderMetrics:
    def __init__(self, telemetry: Telemetry) -> None:
        self.unfinished = telemetry.gauge(
            "souk_orders_unfinished", "Orders that something is left to do for, in the hands of whichever replica."
        )
        self.oldest_unfinished_s = telemetry.gauge(
            "souk_order_oldest_unfinished_seconds",
            "Seconds since the last step of the unfinished order that has waited longest for its next; 0 without one.",
        )
