"""The product service's settings."""

from pydantic import Field

from chassis.settings import ServiceSettings


class ProductSettings(ServiceSettings):
    """What the product service is told beyond what every service is."""

    port: int = 8002
    reservation_ttl_s: float = Field(default=900.0, gt=0)
    """How long an order's units are held before they are free again."""
    expire_every_s: float = Field(default=5.0, gt=0)
    """How often held reservations are looked through for those whose time is over."""
    read_cache_bytes: int = Field(default=32 * 2**20, ge=0)
    """Memory for answers of the catalogue; 0 keeps none."""
    read_cache_entries: int = Field(default=10_000, ge=1)
