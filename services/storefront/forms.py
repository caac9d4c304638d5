"""What a form sent: text by name, and nothing else. Passwords keep their blanks."""

import re
from collections.abc import Mapping

from fastapi import Request

from services.storefront.basket import MOST_OF_ONE

MOST_FIELDS = 40
KEY = re.compile("[!-~]{1,255}")
"""What an idempotency key may be: a header carries it."""


class Form(dict[str, str]):
    """The fields of a form; one that was not sent is empty."""

    def __missing__(self, name: str) -> str:
        return ""

    def quantity(self, least: int = 1) -> int | None:
        """The field `quantity`; none where it is no number from `least` to MOST_OF_ONE."""
        text = self["quantity"]
        number = int(text) if text.isascii() and text.isdigit() and len(text) <= 3 else -1
        return number if least <= number <= MOST_OF_ONE else None

    def key(self) -> str | None:
        """The field `key`, which makes a form that is sent twice the same; none where no page of the shop made it."""
        return self["key"] if KEY.fullmatch(self["key"]) else None


async def form_of(request: Request) -> Form:
    """The form of a request; files are left out."""
    async with request.form(max_files=0, max_fields=MOST_FIELDS) as sent:
        return Form(
            {
                name: value if "password" in name else value.strip()
                for name, value in sent.items()
                if isinstance(value, str)
            }
        )


ADDRESS = ("name", "line1", "line2", "city", "region", "postal_code", "country")


def address_of(form: Mapping[str, str]) -> dict[str, str]:
    """The address that a form holds, as the API takes it: what is empty and may be left out is."""
    found = {field: form[field] for field in ADDRESS}
    found["country"] = found["country"].upper()
    return {field: value for field, value in found.items() if value or field not in {"line2", "region"}}
