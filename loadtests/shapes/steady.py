"""Is every answer right, and in time? As many as on an ordinary afternoon, for five minutes."""

from loadtests.shape import Leg, Limit, Shape

SHAPE = Shape(
    title="A constant rate of shoppers: every answer right, and in time.",
    warm_up_s=30,
    legs=(Leg(300, rate=8),),
    most_failed_share=0.001,
    # Ours: what a shopper does not notice, and what one accepts of a payment. `tok_slow`, 3 of 100 checkouts, takes its
    # provider 2 s and `tok_timeout`, 4 of 100, a repetition; so the p99 of a checkout is theirs.
    limits=(
        Limit(95, 250, "GET /api/v1/products"),
        Limit(95, 250, "GET /api/v1/products/{id}"),
        Limit(90, 1000, "POST /api/v1/orders"),
        Limit(99, 6000, "POST /api/v1/orders"),
        Limit(95, 500),
    ),
)
