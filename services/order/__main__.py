"""`python -m services.order`."""

from chassis.server import main
from services.order.app import create_app
from services.order.settings import OrderSettings

main("order", OrderSettings, create_app)
