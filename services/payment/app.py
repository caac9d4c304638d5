"""The payment service's wiring."""

from chassis.app import Service, Transports, create_service
from chassis.direct import Direct
from services.payment import repository, routes
from services.payment.charges import Charges
from services.payment.metrics import PaymentMetrics
from services.payment.provider import PaymentProvider
from services.payment.refunds import Refunds
from services.payment.settings import PaymentSettings
from services.payment.simulator import Simulator


def create_app(
    settings: PaymentSettings, transports: Transports | None = None, provider: PaymentProvider | None = None
) -> Service:
    """The payment service; `provider` takes the place of the embedded one."""
    service = create_service("payment", settings, transports)
    database = service.database
    metrics = PaymentMetrics(service.telemetry)
    if provider is None:
        provider = Simulator(database, slow_s=settings.simulator_slow_s, lost_answer_s=settings.simulator_lost_answer_s)
    refunds = Refunds(database, provider, metrics, lease_s=settings.refund_lease_s)

    async def check_ledger() -> None:
        metrics.ledger_imbalance_minor.set(await repository.imbalance_minor(database))

    async def delete_old_keys() -> None:
        await repository.delete_old_keys(database)

    service.worker("refund-recovery", refunds.recover, every_s=settings.refund_recovery_every_s)
    service.worker("ledger-check", check_ledger, every_s=settings.ledger_check_every_s)
    service.worker("idempotency-cleanup", delete_old_keys, every_s=settings.idempotency_cleanup_every_s)

    service.state.provider = provider
    service.state.charges = Charges(database, provider, metrics)
    service.state.refunds = refunds
    service.include_router(routes.public)
    service.include_router(routes.internal)
    service.front = Direct(service.front, routes.internal, {routes.authorise_payment, routes.capture_payment})
    return service
