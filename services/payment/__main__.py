"""`python -m services.payment`."""

from chassis.server import main
from services.payment.app import create_app
from services.payment.settings import PaymentSettings

main("payment", PaymentSettings, create_app)
