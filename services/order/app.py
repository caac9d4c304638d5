"""The order service: its wiring, and nothing else."""

from chassis.app import Service, Transports, create_service
from chassis.direct import Direct
from services.order import routes
from services.order.carts import Carts
from services.order.checkout import Checkout
from services.order.clients import PaymentClient, ProductClient, UserClient
from services.order.events import StatusFeed
from services.order.metrics import OrderMetrics
from services.order.repository import Orders
from services.order.saga import Saga
from services.order.settings import OrderSettings

FORGET_EVERY_S = 60.0
FORGET_MOST = 10_000
COUNT_EVERY_S = 5.0


def create_app(settings: OrderSettings, transports: Transports | None = None) -> Service:
    """Build the order service; nothing is opened before it is used."""
    service = create_service("order", settings, transports)

    products = ProductClient(service.peer("product", settings.product_url))
    payments = PaymentClient(service.peer("payment", settings.payment_url))
    users = UserClient(service.peer("user", settings.user_url))

    orders = Orders(service.database, settings.lease_s)
    saga = Saga(orders, products, payments, service.telemetry)
    metrics = OrderMetrics(service.telemetry)

    service.state.settings = settings
    service.state.orders = orders
    service.state.saga = saga
    service.state.carts = Carts(service.database, products, settings.currency)
    service.state.feed = StatusFeed(orders, service.stopping)
    service.state.checkout = Checkout(
        service.database,
        orders,
        saga,
        products,
        users,
        budget_s=settings.checkout_budget_s,
        currency=settings.currency,
    )

    async def count_unfinished() -> None:
        unfinished = await orders.unfinished()
        metrics.unfinished.set(unfinished.orders)
        metrics.oldest_unfinished_s.set(unfinished.oldest_s)

    service.worker("saga-recovery", lambda: saga.recover(settings.checkout_budget_s), every_s=settings.recover_every_s)
    service.worker("unfinished-orders", count_unfinished, every_s=COUNT_EVERY_S)
    service.worker("idempotency-keys", lambda: orders.forget_keys(FORGET_MOST), every_s=FORGET_EVERY_S)

    service.include_router(routes.cart)
    service.include_router(routes.orders)
    service.include_router(routes.internal)
    service.bound("checkout", "POST", routes.orders.prefix, settings.max_checkouts)
    service.front = Direct(service.front, routes.orders, {routes.place_order})
    return service
