"""The admin whom the settings name, before the service is ready."""

import structlog

from services.user.passwords import Passwords
from services.user.repository import Accounts
from services.user.settings import UserSettings

NAME = "Administrator"

log = structlog.stdlib.get_logger()


async def ensure_first_admin(settings: UserSettings, accounts: Accounts, passwords: Passwords) -> None:
    """Make sure that the settings' e-mail is an admin's. Idempotent, also for several replicas at once.

    An admin who is there keeps the password, which may have been changed since. A customer with this e-mail becomes the
    admin with the settings' password, and the customer's sessions end.
    """
    if settings.admin_email is None or settings.admin_password is None:
        return
    if await accounts.is_admin(settings.admin_email):
        return
    with passwords.place():
        password_hash = await passwords.hash(settings.admin_password.get_secret_value())
    await accounts.make_admin(settings.admin_email, NAME, password_hash)
    log.info("first_admin_made")
