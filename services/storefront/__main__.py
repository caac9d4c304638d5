"""`python -m services.storefront`."""

from chassis.server import command_line, serve
from services.storefront.app import create_app
from services.storefront.settings import StorefrontSettings


def _serve(settings: StorefrontSettings) -> None:
    serve(create_app(settings), settings.host, settings.port)


command_line("storefront", StorefrontSettings, {"serve": _serve})
