"""Does anything grow, leak or wear out? An ordinary afternoon for two hours."""

from loadtests.shape import Leg, Limit, Shape

SHAPE = Shape(
    title="A constant rate of shoppers for two hours: as fast at the end as at the beginning.",
    warm_up_s=60,
    legs=(Leg(5400, rate=8), Leg(1800, rate=8)),
    most_failed_share=0.001,
    limits=(
        Limit(95, 500),
        # Of the last half hour alone: what has grown by then shows here first.
        Limit(95, 500, in_last_leg_after_s=0),
        Limit(90, 1000, "POST /api/v1/orders", in_last_leg_after_s=0),
    ),
)
