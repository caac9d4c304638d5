"""Carts: what a buyer has chosen, at the prices and the availability of now."""

from uuid import UUID

from chassis.database import Database
from chassis.problems import InvalidRequest
from chassis.schemas import Money
from services.order import repository
from services.order.clients import ProductClient, Quote
from services.order.domain import ProductNotFound
from services.order.repository import MOST_CART_LINES, CartItem
from services.order.schemas import CartAnswer, CartLine


class Carts:
    """The buyers' carts."""

    def __init__(self, database: Database, products: ProductClient, currency: str) -> None:
        self._database = database
        self._products = products
        self._currency = currency

    async def get(self, user_id: UUID) -> CartAnswer:
        """The cart with live prices."""
        items = await repository.cart(self._database, user_id)
        return self._answer(items, await self._quotes(items))

    async def put(self, user_id: UUID, product_id: UUID, quantity: int) -> CartAnswer:
        """Set how many of a product the cart holds; there may be fewer in stock. Raises ProductNotFound,
        InvalidRequest.
        """
        items = [item for item in await repository.cart(self._database, user_id) if item.product_id != product_id]
        if len(items) >= MOST_CART_LINES:  # before the call: product quotes no more than a cart may hold
            raise _full()
        quotes = await self._products.quotes([(product_id, quantity), *((i.product_id, i.quantity) for i in items)])
        quote = quotes.get(product_id)
        if quote is None:
            raise ProductNotFound
        item = CartItem(product_id, quantity, quote.name, quote.unit_price_minor, quote.currency)
        if not await repository.put_item(self._database, user_id, item):
            raise _full()
        return self._answer(await repository.cart(self._database, user_id), quotes)

    async def _quotes(self, items: list[CartItem]) -> dict[UUID, Quote]:
        return await self._products.quotes([(item.product_id, item.quantity) for item in items]) if items else {}

    def _answer(self, items: list[CartItem], quotes: dict[UUID, Quote]) -> CartAnswer:
        """Price the cart. What it holds in two currencies cannot be ordered, and has no total but that of the first."""
        lines = [_line(item, quotes.get(item.product_id)) for item in items]
        priced = [line for line in lines if line.problem is None]
        currency = (priced or lines)[0].unit_price.currency if lines else self._currency
        total_minor = sum(line.line_total.amount_minor for line in priced if line.unit_price.currency == currency)
        return CartAnswer(items=lines, total=Money.model_construct(amount_minor=total_minor, currency=currency))


def _full() -> InvalidRequest:
    return InvalidRequest.field("product_id", f"a cart holds {MOST_CART_LINES} products at most")


def _line(item: CartItem, quote: Quote | None) -> CartLine:
    gone = quote is None
    quote = quote or Quote("", item.name, item.unit_price_minor, item.currency, 0)
    return CartLine(
        product_id=item.product_id,
        name=quote.name,
        quantity=item.quantity,
        unit_price=Money(amount_minor=quote.unit_price_minor, currency=quote.currency),
        line_total=Money.model_construct(amount_minor=quote.unit_price_minor * item.quantity, currency=quote.currency),
        available=quote.available,
        problem="gone" if gone else "short" if quote.available < item.quantity else None,
    )
