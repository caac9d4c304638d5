"""The catalogue's rules that need no database, and the problems that only this service has."""

from chassis.problems import NotFound, Problem


class ProductNotFound(NotFound):
    """No such product, or a retired one."""

    title = "There is no such product"


class PictureNotFound(NotFound):
    """No such picture."""

    title = "There is no such picture"


class ReservationNotFound(NotFound):
    """No reservation was ever made for this order."""

    title = "There is no reservation for this order"


class SkuTaken(Problem):
    """Another product has this SKU, though it may be retired."""

    status, code, title = 409, "sku-taken", "A product with this SKU exists"


def category_name(slug: str) -> str:
    """The name that a category gets when its first product is made: `home-kitchen` becomes `Home kitchen`."""
    words = slug.replace("-", " ").split()
    return " ".join(words).capitalize() or slug


def sort_key(name: str) -> str:
    """What `sort=name` compares, by code point: the name without its case (Unicode's full case folding)."""
    return name.casefold()
