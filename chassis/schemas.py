"""Wire shapes that more than one service speaks, and the types that its fields are made of."""

from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from fastapi import Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, Strict

from chassis.codes import COUNTRIES, CURRENCIES

MAX_AMOUNT_MINOR = 10**12
"""The largest amount that is taken, in minor units: a hundred lines of 99 of it still fit a bigint."""


def storable(text: str) -> str:
    """Return the text where PostgreSQL can store it; raises ValueError."""
    if "\x00" in text:
        raise ValueError("must not contain NUL")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # JSON can write half of a surrogate pair, UTF-8 cannot
            raise ValueError("must not contain half of a surrogate pair") from None
    return text


def _currency(code: str) -> str:
    if code not in CURRENCIES:
        raise ValueError("must be a currency code of ISO 4217")
    return code


def _country(code: str) -> str:
    if code not in COUNTRIES:
        raise ValueError("must be a country code of ISO 3166-1 alpha-2")
    return code


Text = Annotated[str, AfterValidator(storable)]
"""A string as PostgreSQL can store it."""
Id = Annotated[UUID, Strict(False)]
"""A UUID, written as a string."""
Currency = Annotated[str, AfterValidator(_currency)]
Country = Annotated[str, AfterValidator(_country)]
Quantity = Annotated[int, Field(ge=1, le=99)]
AmountMinor = Annotated[int, Field(ge=0, le=MAX_AMOUNT_MINOR)]
"""An amount in minor units, such as cents."""


def rfc3339(moment: datetime) -> str:
    """A time in UTC as RFC 3339 writes it, in microseconds, ending in Z."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


Time = Annotated[datetime, PlainSerializer(rfc3339, return_type=str, when_used="json")]


class Body(BaseModel):
    """A request's body: every field typed strictly, unknown fields refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Answer(BaseModel):
    """A response's body."""

    model_config = ConfigDict(frozen=True)


class Money(Body):
    """An amount in minor units of an ISO 4217 currency."""

    amount_minor: AmountMinor
    currency: Currency


class Address(Body):
    """Where an order goes."""

    name: Annotated[Text, Field(min_length=1, max_length=100)]
    line1: Annotated[Text, Field(min_length=1, max_length=200)]
    line2: Annotated[Text, Field(max_length=200)] | None = None
    city: Annotated[Text, Field(min_length=1, max_length=200)]
    region: Annotated[Text, Field(max_length=200)] | None = None
    postal_code: Annotated[Text, Field(min_length=1, max_length=20)]
    country: Country


Item = TypeVar("Item")


class Page(Answer, Generic[Item]):
    """One page of a list; `next_cursor` is null on the last."""

    items: list[Item]
    next_cursor: str | None


class FieldErrorDocument(Answer):
    """What is wrong with one field."""

    field: str
    detail: str


class ProblemDocument(Answer):
    """An error as RFC 9457 has it; further members are facts of its kind."""

    model_config = ConfigDict(extra="allow", frozen=True, title="Problem")

    type: str
    title: str
    status: int
    detail: str
    instance: str
    trace_id: str
    errors: list[FieldErrorDocument] | None = None


class JsonBytes(Response):
    """JSON that is made already, by PostgreSQL or by a pydantic model."""

    media_type = "application/json"

    def __init__(self, content: bytes | str, status_code: int = 200, headers: dict[str, str] | None = None) -> None:
        super().__init__(content, status_code, headers)


def json_of(model: BaseModel) -> bytes:
    """A model as JSON in UTF-8."""
    return model.__pydantic_serializer__.to_json(model)


def facts(model: BaseModel) -> dict[str, Any]:
    """A model as the plain values that JSON has."""
    return model.model_dump(mode="json")
