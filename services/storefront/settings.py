"""The storefront's variables."""

from chassis.settings import ApplicationSettings, Origins


class StorefrontSettings(ApplicationSettings):
    """What the storefront is told. It holds no secret: it asks for everything in the name of whoever is signed in."""

    port: int = 8005
    product_url: Origins = "http://127.0.0.1:8002"
    payment_url: Origins = "http://127.0.0.1:8003"
    order_url: Origins = "http://127.0.0.1:8004"
