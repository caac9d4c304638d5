"""The reads of the catalogue: from what a request asks for to the bytes that answer it.

Both ways to them end here: the routes, which document and check as FastAPI does, and `read_cache`, which comes before
them and spares a valid request what they cost, twice what the read itself does.
"""

from typing import Any, NamedTuple
from urllib.parse import parse_qsl
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from chassis.problems import InvalidRequest
from services.product.conditional import entity_tag
from services.product.repository import Catalogue, Search
from services.product.schemas import ProductQuery

LIST = "/api/v1/products"
PRODUCT = "/api/v1/products/{product_id}"
CATEGORIES = "/api/v1/categories"
PRODUCT_PREFIX = "/api/v1/products/"

_ID = TypeAdapter(UUID)


class Representation(NamedTuple):
    """JSON in UTF-8 and its entity tag."""

    body: bytes
    tag: str


def represent(body: str, version: int | None = None) -> Representation:
    """JSON text as it is sent."""
    content = body.encode()
    return Representation(content, entity_tag(content, version))


def template(path: str) -> str | None:
    """The path template of the read that a path stands for, or none."""
    if path == LIST:
        return LIST
    if path.startswith(PRODUCT_PREFIX):
        return None if "/" in path[len(PRODUCT_PREFIX) :] else PRODUCT
    return CATEGORIES if path == CATEGORIES else None


class Reads:
    """Lists, products and categories."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def products(self, query: ProductQuery) -> Representation:
        """One page; raises InvalidCursor, and InvalidRequest where there is no order by relevance."""
        if query.sort == "relevance" and query.q is None:
            raise InvalidRequest.field("sort", "relevance is to the words of q")
        sort = query.sort or ("newest" if query.q is None else "relevance")
        search = Search(query.q, query.category, query.min_price, query.max_price, query.in_stock, sort)
        return represent(await self._catalogue.page(search, query.limit, query.cursor))

    async def product(self, product_id: UUID) -> Representation:
        """One product; raises ProductNotFound."""
        product = await self._catalogue.product(product_id)
        return represent(product.body, product.version)

    async def categories(self) -> Representation:
        """The categories that have products."""
        return represent(await self._catalogue.categories())

    async def answer(self, route: str, path: str, query_string: bytes) -> Representation | None:
        """What the route of that template answers; none where it would refuse the path or the query, and say why."""
        asked: Any = None
        try:
            if route == LIST:
                parameters = dict(parse_qsl(query_string.decode("latin-1"), keep_blank_values=True))
                asked = ProductQuery.model_validate(parameters)
            elif route == PRODUCT:
                asked = _ID.validate_python(path[len(PRODUCT_PREFIX) :])
        except ValidationError:
            return None
        match asked:
            case ProductQuery():
                return await self.products(asked)
            case UUID():
                return await self.product(asked)
            case _:
                return await self.categories()
