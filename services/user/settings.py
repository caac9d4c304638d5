"""What the user service is told beyond what every service is."""

from base64 import b64decode
from binascii import Error
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from chassis.settings import Secret, ServiceSettings
from services.user.schemas import Email

ENCRYPTION_KEY_BYTES = 32


def _encryption_key(secret: SecretStr) -> SecretStr:
    try:
        length = len(b64decode(secret.get_secret_value(), validate=True))
    except Error:
        length = 0
    if length != ENCRYPTION_KEY_BYTES:
        raise ValueError(f"must be {ENCRYPTION_KEY_BYTES} bytes in base64")
    return secret


def _none_if_empty(value: object) -> object:
    """Compose and Kubernetes hand an optional variable over as an empty one."""
    return None if value == "" else value


class UserSettings(ServiceSettings):
    port: int = 8001

    key_encryption_key: Annotated[Secret, AfterValidator(_encryption_key)]
    """32 bytes in base64: encrypts the private signing keys in the database."""

    admin_email: Annotated[Email | None, BeforeValidator(_none_if_empty)] = None
    admin_password: Annotated[
        Annotated[Secret, Field(min_length=8, max_length=128)] | None, BeforeValidator(_none_if_empty)
    ] = None
    """The first admin, both or neither. An admin who is there already keeps the password."""

    @model_validator(mode="after")
    def _admin_is_whole(self) -> Self:
        if (self.admin_email is None) != (self.admin_password is None):
            raise ValueError("ADMIN_EMAIL and ADMIN_PASSWORD are set together or not at all")
        return self

    def encryption_key(self) -> bytes:
        """The bytes of `key_encryption_key`."""
        return b64decode(self.key_encryption_key.get_secret_value())
