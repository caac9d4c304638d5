"""What the payment service counts."""

from chassis.telemetry import Telemetry


class PaymentMetrics:
    def __init__(self, telemetry: Telemetry) -> None:
        payments = telemetry.counter("souk_payments", "Payments that reached an outcome, by outcome.", ("outcome",))
        self.authorised = payments.labels("authorised")
        self.declined = payments.labels("declined")
        self.captured = payments.labels("captured")
        self.voided = payments.labels("voided")
        self.refunds = telemetry.counter("souk_refunds", "Refunds that the provider has made.")
        self.ledger_imbalance_minor = telemetry.gauge(
            "souk_ledger_imbalance_minor",
            "Minor units by which the ledger's currencies miss zero; anything else is a defect.",
        )
        self.provider_timeouts = telemetry.counter(
            "souk_provider_timeouts", "Calls to the payment provider without an answer, by operation.", ("operation",)
        )
        for operation in ("authorise", "capture", "void", "refund"):
            self.provider_timeouts.labels(operation)
