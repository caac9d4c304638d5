"""The event stream of an order."""

import time

from tests.contract.client import Frame, Storefront
from tests.contract.shopping import Catalogue, Customer, buy, order_body, unique_key

COMMENT_EVERY_S = 15
TOLERANCE_S = 10


def statuses(frames: list[Frame]) -> list[str]:
    """Give the statuses that frames tell of."""
    return [frame.data.status for frame in frames]


def test_the_history_comes_first_and_then_each_change(customer: Customer, catalogue: Catalogue) -> None:
    order = buy(customer, (catalogue.product(stock=1), 1))
    with customer.shop.events(order.id) as stream:
        past = [next(stream) for _ in order.history]
        assert [frame.data for frame in past] == order.history
        catalogue.admin.ship(order.id).expect(200)
        shipped = next(stream)
        catalogue.admin.deliver(order.id).expect(200)
        rest = list(stream)
    delivered = customer.shop.order(order.id).expect(200)
    told = [*past, shipped, *rest]
    assert statuses([shipped, *rest]) == ["shipped", "delivered"]
    assert [frame.data for frame in told] == delivered.history
    assert {frame.event for frame in told} == {"status"}
    numbers = [int(frame.id) for frame in told]
    assert numbers == sorted(set(numbers))


def test_a_cancelled_order_closes_the_stream(customer: Customer, catalogue: Catalogue) -> None:
    order = buy(customer, (catalogue.product(stock=1), 1))
    with customer.shop.events(order.id) as stream:
        past = [next(stream) for _ in order.history]
        customer.shop.cancel(order.id).expect(200, 202)
        assert statuses([*past, *stream])[-1] == "cancelled"


def test_the_stream_of_a_final_order_is_its_history_and_closes(customer: Customer, catalogue: Catalogue) -> None:
    body = order_body((catalogue.product(stock=1), 1), payment_method="tok_declined")
    problem = customer.shop.place_order(body, unique_key()).problem(402, "payment-declined")
    order = customer.shop.order(problem.facts["order_id"]).expect(200)
    with customer.shop.events(order.id) as stream:
        assert [frame.data for frame in stream] == order.history
    assert order.history[-1].status == "rejected"
    assert order.history[-1].reason


def test_last_event_id_resumes_after_it(customer: Customer, catalogue: Catalogue) -> None:
    order = buy(customer, (catalogue.product(stock=1), 1))
    catalogue.admin.ship(order.id).expect(200)
    catalogue.admin.deliver(order.id).expect(200)
    with customer.shop.events(order.id) as stream:
        all_frames = list(stream)
    for seen in range(1, len(all_frames) + 1):
        with customer.shop.events(order.id, last_event_id=all_frames[seen - 1].id) as stream:
            assert list(stream) == all_frames[seen:]


def test_a_stream_resumed_live_goes_on_where_it_was(customer: Customer, catalogue: Catalogue) -> None:
    order = buy(customer, (catalogue.product(stock=1), 1))
    with customer.shop.events(order.id) as stream:
        past = [next(stream) for _ in order.history]
    with customer.shop.events(order.id, last_event_id=past[-1].id) as stream:
        catalogue.admin.ship(order.id).expect(200)
        catalogue.admin.deliver(order.id).expect(200)
        assert statuses(list(stream)) == ["shipped", "delivered"]


def test_a_quiet_stream_is_kept_open_by_comments(customer: Customer, catalogue: Catalogue) -> None:
    order = buy(customer, (catalogue.product(stock=1), 1))
    started = time.monotonic()
    with customer.shop.event_lines(order.id) as lines:
        quiet = 0
        for line in lines:
            quiet += line.startswith(":")
            if quiet == 2:
                break
    assert quiet == 2
    assert time.monotonic() - started < 2 * COMMENT_EVERY_S + TOLERANCE_S


def test_two_readers_are_told_the_same(customer: Customer, catalogue: Catalogue, anyone: Storefront) -> None:
    order = buy(customer, (catalogue.product(stock=1), 1))
    again = anyone.log_in(customer.email, customer.password).expect(200)
    other = anyone.bearing(again.access_token)
    with customer.shop.events(order.id) as first, other.events(order.id) as second:
        customer.shop.cancel(order.id).expect(200, 202)
        assert list(first) == list(second)
