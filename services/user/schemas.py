"""What goes over the wire."""

from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qsl

from fastapi import Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from chassis.auth import Role
from chassis.problems import InvalidRequest, UnsupportedMediaType, field_errors
from chassis.schemas import Address, Answer, Body, Id, Text, Time
from services.user.domain import MOST_EMAIL_CHARACTERS, normal_email

Email = Annotated[
    Text,
    Field(min_length=3, max_length=MOST_EMAIL_CHARACTERS, json_schema_extra={"format": "email"}),
    AfterValidator(normal_email),
]
"""An e-mail, case-folded."""
Password = Annotated[Text, Field(min_length=8, max_length=128)]
Name = Annotated[Text, Field(min_length=1, max_length=100)]


def _never_null(schema: dict[str, Any]) -> None:
    """Say in the JSON schema of an optional field that it may be left out, and not that it may be null."""
    schema.update(schema.pop("anyOf")[0])
    del schema["default"]


FORM = "application/x-www-form-urlencoded"
MOST_FORM_FIELDS = 100


class User(Answer):
    """An account."""

    id: Id
    email: str
    name: str
    role: Role
    created_at: Time


class Registration(Body):
    """A new customer."""

    email: Email
    password: Password
    name: Name


class ProfileChange(Body):
    """What is left out stays; a new password needs the current one."""

    name: Name | None = Field(default=None, json_schema_extra=_never_null)
    password: Password | None = Field(default=None, json_schema_extra=_never_null)
    current_password: Text | None = Field(default=None, json_schema_extra=_never_null)

    @field_validator("*", mode="before")
    @classmethod
    def _not_null(cls, value: object) -> object:
        if value is None:
            raise ValueError("must not be null; leave it out to keep what is there")
        return value


class SavedAddress(Address):
    """An entry of an address book."""

    id: Id


class Tokens(Answer):
    """RFC 6749, 5.1. `expires_in` is the access token's life in seconds."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - a kind of token
    expires_in: int
    refresh_token: str


class Jwk(Answer):
    """A public Ed25519 key, RFC 8037, 2."""

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    x: str
    kid: str
    alg: Literal["EdDSA"]
    use: Literal["sig"]


class Jwks(Answer):
    """RFC 7517, 5."""

    keys: list[Jwk]


class Form(BaseModel):
    """A body of form fields. Unknown ones are ignored, and an empty one counts as left out (RFC 6749, 3.2)."""

    model_config = ConfigDict(frozen=True)

    @classmethod
    async def read(cls, request: Request) -> Self:
        """Parse the body; raises UnsupportedMediaType or InvalidRequest."""
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != FORM:
            raise UnsupportedMediaType(f"the body must be {FORM}")
        try:
            fields = parse_qsl((await request.body()).decode(), errors="strict", max_num_fields=MOST_FORM_FIELDS)
        except ValueError:
            raise InvalidRequest.field("body", "is not a form in UTF-8") from None
        try:
            return cls.model_validate(dict(fields))
        except ValidationError as error:
            raise InvalidRequest(field_errors(error.errors())) from None

    @classmethod
    def documented(cls) -> dict[str, Any]:
        """`openapi_extra` of a route that reads this form."""
        return {"requestBody": {"required": True, "content": {FORM: {"schema": cls.model_json_schema()}}}}


class TokenForm(Form):
    """The password grant or the refresh token grant, RFC 6749, 4.3.2 and 6."""

    grant_type: Text
    username: Text | None = Field(default=None, json_schema_extra=_never_null)
    password: Text | None = Field(default=None, json_schema_extra=_never_null)
    refresh_token: Text | None = Field(default=None, json_schema_extra=_never_null)

    def required(self, *names: str) -> list[str]:
        """The values of these fields; raises InvalidRequest naming each one that is missing."""
        values: dict[str, str | None] = {name: getattr(self, name) for name in names}
        missing = [name for name, value in values.items() if value is None]
        if missing:
            raise InvalidRequest([{"field": name, "detail": "Field required"} for name in missing])
        return [value for value in values.values() if value is not None]


class RevocationForm(Form):
    """RFC 7009, 2.1. All tokens that can be revoked are of one kind, so `token_type_hint` is not looked at."""

    token: Text
