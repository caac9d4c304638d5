"""The services' OpenAPI documents: `python -m tests.openapi` writes docs/openapi, `--check` says which are stale.

The applications are built with made-up settings and never started, so this needs no database and no environment.
"""

import argparse
import base64
import sys
from collections.abc import Iterator

from chassis.app import Service, openapi_bytes
from chassis.migrations import ROOT
from chassis.testing import settings_for
from services.order.app import create_app as create_order
from services.order.settings import OrderSettings
from services.payment.app import create_app as create_payment
from services.payment.settings import PaymentSettings
from services.product.app import create_app as create_product
from services.product.settings import ProductSettings
from services.user.app import create_app as create_user
from services.user.settings import UserSettings

FOLDER = ROOT / "docs" / "openapi"
NOWHERE = "postgresql://souk@/souk?host=/nowhere"


def create_services() -> Iterator[Service]:
    """Build the four applications as they are, with nothing behind them."""
    key = base64.b64encode(bytes(32)).decode()
    yield create_user(settings_for(UserSettings, "user", NOWHERE, key_encryption_key=key))
    yield create_product(settings_for(ProductSettings, "product", NOWHERE))
    yield create_payment(settings_for(PaymentSettings, "payment", NOWHERE))
    yield create_order(settings_for(OrderSettings, "order", NOWHERE))


def main() -> None:
    """Do what the command line asks; stale documents are exit status 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.openapi", description="Write docs/openapi from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a document is stale")
    check: bool = parser.parse_args().check
    stale: list[str] = []
    for service in create_services():
        path = FOLDER / f"{service.service_name}.json"
        content = openapi_bytes(service)
        if path.exists() and path.read_bytes() == content:
            continue
        stale.append(str(path.relative_to(ROOT)))
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    if check and stale:
        sys.exit(f"stale, run make openapi: {' '.join(stale)}")


if __name__ == "__main__":
    main()
