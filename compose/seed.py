"""`python -m compose.seed`: put the demo catalogue into the shop while its edge is still closed."""

import asyncio
import os
import sys
from pathlib import Path

from drills.edge import ReverseProxy
from local.seed import SeedFailed, SignInRefused, seed


def main() -> None:
    """Do as local mode does, over the network: past the edge, which opens when this has ended."""
    network = ReverseProxy({"user": [os.environ["USER_URL"]], "product": [os.environ["PRODUCT_URL"]]})
    password = Path("/run/secrets/admin_password").read_text()
    try:
        asyncio.run(seed({"user": network, "product": network}, os.environ["ADMIN_EMAIL"], password, print))
    except SignInRefused as refused:
        print(refused)
    except SeedFailed as error:
        sys.exit(f"souk: {error}")


if __name__ == "__main__":
    main()
