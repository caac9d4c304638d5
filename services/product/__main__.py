"""`python -m services.product`."""

from chassis.server import main
from services.product.app import create_app
from services.product.settings import ProductSettings

main("product", ProductSettings, create_app)
