"""The product service, wired."""

from chassis.app import Service, Transports, create_service
from chassis.direct import Direct
from services.product import routes
from services.product.expiry import expire_reservations
from services.product.metrics import Metrics
from services.product.product_import import MAX_BODY_BYTES
from services.product.read_cache import ReadCache
from services.product.reads import Reads
from services.product.repository import Catalogue, Stock
from services.product.settings import ProductSettings

LOOK_EVERY_S = 5.0
COUNT_EVERY_S = 60.0


def create_app(settings: ProductSettings, transports: Transports | None = None) -> Service:
    """The product service."""
    service = create_service("product", settings, transports)

    catalogue = service.state.catalogue = Catalogue(service.database)
    reads = service.state.reads = Reads(catalogue)
    stock = service.state.stock = Stock(service.database, settings.reservation_ttl_s)
    metrics = service.state.metrics = Metrics(service.telemetry)

    service.include_router(routes.catalogue_routes)
    service.include_router(routes.admin_routes)
    service.include_router(routes.internal_routes)
    service.front = Direct(service.front, routes.internal_routes, {routes.quote, routes.reserve, routes.commit})
    service.body_limits[routes.IMPORT_PATH] = MAX_BODY_BYTES

    service.front = cache = ReadCache(
        service.front,
        reads.answer,
        catalogue.generation,
        most_bytes=settings.read_cache_bytes,
        most_entries=settings.read_cache_entries,
    )
    service.telemetry.registry.register(cache)

    async def look_at_held() -> None:
        held = await stock.held()
        metrics.reservations_live.set(held.reservations)
        metrics.reserved_units.set(held.units)
        metrics.nearly_reserved_products.set(held.nearly_reserved_products)

    async def count_stock() -> None:
        metrics.on_hand_units.set(await stock.on_hand())

    service.worker("expire_reservations", lambda: expire_reservations(stock, metrics), every_s=settings.expire_every_s)
    service.worker("held-stock", look_at_held, every_s=LOOK_EVERY_S)
    service.worker("stock-count", count_stock, every_s=COUNT_EVERY_S)
    return service
