"""The user service, wired."""

from argon2 import PasswordHasher

from chassis.app import Service, Transports, create_service
from chassis.auth import AccessTokens
from services.user import routes
from services.user.first_admin import ensure_first_admin
from services.user.keys import SigningKeys
from services.user.logins import Logins
from services.user.passwords import OWASP_FLOOR, Passwords
from services.user.repository import Accounts, Addresses, LoginAttempts, RefreshFamilies, SigningKeyRows
from services.user.sessions import Sessions
from services.user.settings import UserSettings

TIDY_EVERY_S = 60.0


def create_app(
    settings: UserSettings, transports: Transports | None = None, *, hasher: PasswordHasher = OWASP_FLOOR
) -> Service:
    """The service. A test passes a cheaper `hasher`."""
    # It verifies access tokens with the keys in its own database, which the service below holds.
    service = create_service("user", settings, transports, access_tokens=AccessTokens(lambda: keys.jwks()))

    accounts = Accounts(service.database)
    attempts = LoginAttempts(service.database)
    families = RefreshFamilies(service.database)
    keys = SigningKeys(SigningKeyRows(service.database), settings.encryption_key())
    passwords = Passwords(hasher, service.telemetry)
    logins = Logins(accounts, attempts, passwords, service.telemetry)
    sessions = Sessions(families, keys, service.telemetry)

    async def tidy() -> None:
        await attempts.delete_old()
        await families.delete_expired()
        await keys.delete_superseded()

    service.prepare(keys.jwks)  # makes the first; one that cannot sign must not end readiness, as others still verify
    service.prepare(lambda: ensure_first_admin(settings, accounts, passwords))
    service.worker("tidy", tidy, every_s=TIDY_EVERY_S)

    service.state.parts = routes.Parts(accounts, Addresses(service.database), passwords, logins, sessions, keys)
    for router in (routes.auth, routes.users, routes.internal):
        service.include_router(router)
    return service
