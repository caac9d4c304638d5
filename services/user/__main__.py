"""`python -m services.user`."""

import asyncio
import sys
from datetime import datetime

from chassis.database import Database
from chassis.problems import Unavailable
from chassis.schemas import rfc3339
from chassis.server import main
from services.user.app import create_app
from services.user.keys import SigningKeys
from services.user.repository import SigningKeyRows
from services.user.settings import UserSettings


def rotate_keys(settings: UserSettings) -> None:
    """Publish a new signing key and say when it takes over."""
    try:
        active_from = asyncio.run(_rotate_keys(settings))
    except Unavailable as problem:
        sys.exit(problem.detail)
    if active_from is None:
        sys.exit("another rotation came first; nothing was changed")
    print(f"a new key is published and signs from {rfc3339(active_from)} on")


async def _rotate_keys(settings: UserSettings) -> datetime | None:
    database = Database(settings)
    try:
        return await SigningKeys(SigningKeyRows(database), settings.encryption_key()).rotate()
    finally:
        await database.close()


main("user", UserSettings, create_app, {"rotate-keys": rotate_keys})
