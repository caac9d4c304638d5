"""The port to whoever moves the money.

    ProviderError
    ├── ProviderDeclined    a definite no to the charge, with its decline code
    ├── ProviderRefused     a definite no to the call: the charge's state does not allow it
    └── ProviderTimeout     no answer: whether it was done is unknown

Every call is idempotent by its key, so what is unknown is asked again. A call ends within seconds, with an answer or
with ProviderTimeout; no transaction and no connection of the service's is held over it.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol
from uuid import UUID

import structlog
from prometheus_client import Counter

from chassis.problems import Unavailable

log = structlog.stdlib.get_logger()


class ProviderError(Exception):
    """What a provider answers instead of what was asked."""


class ProviderDeclined(ProviderError):
    """The buyer's bank declines."""

    def __init__(self, decline_code: str) -> None:
        super().__init__(decline_code)
        self.decline_code = decline_code


class ProviderRefused(ProviderError):
    """Not possible in the state that the charge has; `state` is the provider's own word for it."""

    def __init__(self, state: str) -> None:
        super().__init__(state)
        self.state = state


class ProviderTimeout(ProviderError):
    """The outcome is unknown: ask again with the same key."""


class PaymentProvider(Protocol):
    """A charge's key is the order's id, a refund's key the refund's."""

    @property
    def payment_methods(self) -> frozenset[str]:
        """The tokens that stand for a buyer's means of payment."""
        ...

    async def authorise(self, key: UUID, amount_minor: int, currency: str, payment_method: str) -> str:
        """Set the amount aside and return the provider's reference of the charge.

        Raises ProviderDeclined; ProviderRefused when the key was voided before, be it before it was ever seen.
        """
        ...

    async def capture(self, key: UUID) -> str:
        """Take all that was authorised and return the reference; ProviderRefused unless authorised or captured."""
        ...

    async def void(self, key: UUID) -> None:
        """Set nothing aside for this key, now or later, a key never seen included.

        Raises ProviderDeclined when the charge was declined, ProviderRefused when it was captured.
        """
        ...

    async def refund(self, key: UUID, charge_key: UUID, amount_minor: int) -> None:
        """Give back part of a captured charge; ProviderRefused when it is more than is left."""
        ...


@contextmanager
def known_outcome(operation: str, timeouts: Counter) -> Generator[None]:
    """Answer what the provider leaves unknown as Unavailable, and count it: whoever asked asks again."""
    try:
        yield
    except ProviderTimeout:
        timeouts.labels(operation).inc()
        log.warning("provider_timeout", operation=operation)
        raise Unavailable("the payment provider's answer is not known yet") from None
