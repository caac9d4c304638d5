"""The payment service's own settings. Durations are seconds."""

from pydantic import Field

from chassis.settings import ServiceSettings


class PaymentSettings(ServiceSettings):
    port: int = 8003

    refund_lease_s: float = Field(default=10.0, gt=0)
    """How long a refund is left to whoever began it. Longer than the provider takes, else it is asked twice."""
    refund_recovery_every_s: float = Field(default=5.0, gt=0)
    ledger_check_every_s: float = Field(default=60.0, gt=0)
    idempotency_cleanup_every_s: float = Field(default=600.0, gt=0)

    simulator_slow_s: float = Field(default=2.0, ge=0)
    """How long the embedded provider takes to approve `tok_slow`."""
    simulator_lost_answer_s: float = Field(default=0.5, ge=0)
    """How long a call waits for the answer that `tok_timeout` loses."""
