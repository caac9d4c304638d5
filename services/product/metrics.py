"""What the product service counts beyond HTTP."""

from chassis.telemetry import Telemetry

OUTCOMES = ("held", "committed", "released", "expired", "refused")


class Metrics:
    """The business metrics of one service, their children made at once so that all series exist from the start."""

    def __init__(self, telemetry: Telemetry) -> None:
        reservations = telemetry.counter(
            "souk_reservations",
            "Reservations by what became of them; refused are those for which there was not enough stock.",
            ("outcome",),
        )
        self.reservations = {outcome: reservations.labels(outcome) for outcome in OUTCOMES}
        self.reservations_live = telemetry.gauge(
            "souk_reservations_live", "Reservations that hold stock and are neither committed nor expired."
        )
        self.reserved_units = telemetry.gauge("souk_stock_reserved_units", "Units that reservations hold.")
        self.nearly_reserved_products = telemetry.gauge(
            "souk_products_nearly_reserved", "Products of which reservations hold 90% or more of what is on hand."
        )
        self.on_hand_units = telemetry.gauge("souk_stock_on_hand_units", "Units on hand, of all products.")
        lines = telemetry.counter("souk_import_lines", "Lines of imports by what became of them.", ("outcome",))
        self.import_lines = {outcome: lines.labels(outcome) for outcome in ("created", "updated", "rejected")}
