"""An order as it is written on the wire is the order that the documented shape describes."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg.pgproto.pgproto
import pytest

from chassis.schemas import json_of
from services.order.domain import Entry, Line, Order, Status
from services.order.schemas import OrderAnswer, order_json

AT = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
PLACE = {"name": "Zoë", "line1": "1 Quay", "city": "Lisbon", "postal_code": "1100", "country": "PT"}


@pytest.mark.parametrize("payment_id", [None, asyncpg.pgproto.pgproto.UUID(str(uuid4()))])
@pytest.mark.parametrize("address", [PLACE, {"region": "Lisboa", "line2": "2nd floor", **PLACE}])
def test_an_order_is_written_as_its_model_would_write_it(payment_id: UUID | None, address: dict[str, str]) -> None:
    order = Order(
        id=uuid4(),
        user_id=uuid4(),
        status=Status.REJECTED,
        lines=(Line(uuid4(), "MUG-1", 'Mug "é"', 2, 1999), Line(uuid4(), "", "", 1, 0)),
        currency="EUR",
        address=address,
        payment_method="tok_visa",
        from_cart=False,
        traceparent="00-00000000000000000000000000000001-0000000000000001-00",
        created_at=AT,
        history=(Entry(Status.PENDING, AT), Entry(Status.REJECTED, AT + timedelta(microseconds=7), "out of stock")),
        payment_id=payment_id,
    )
    written = order_json(order)
    answer = OrderAnswer.model_validate_json(written)
    assert json_of(answer) == written
    assert (answer.id, answer.payment_id, answer.total.amount_minor) == (order.id, payment_id, 3998)
    assert (answer.reason, answer.address.line2) == ("out of stock", address.get("line2"))
