"""The order service's settings."""

from pydantic import Field

from chassis.settings import Origins, ServiceSettings


class OrderSettings(ServiceSettings):
    """What the order service is told beyond what every service is."""

    port: int = 8004
    product_url: Origins = "http://127.0.0.1:8002"
    payment_url: Origins = "http://127.0.0.1:8003"
    checkout_budget_s: float = 5.0
    """How long `POST /api/v1/orders` waits for an outcome before it answers 202."""
    max_checkouts: int = Field(default=12, ge=1)
    """`POST /api/v1/orders` served at once, counted apart from other requests."""
    lease_s: float = 10.0
    """How long an order belongs to the replica that works on it; any other may take it up then."""
    recover_every_s: float = 1.0
    currency: str = "USD"
    """The currency of an empty cart's total."""
