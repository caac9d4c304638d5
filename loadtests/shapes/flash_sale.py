"""Is it sold exactly as often as it is there? Everyone wants one product, and there is not enough of it."""

from loadtests.shape import HURRIED_S, Leg, Limit, Shape

SHAPE = Shape(
    title="Everyone on one product of which there are 500: sold out, never oversold, and the rest of the shop open.",
    warm_up_s=10,
    legs=(Leg(20, rate=4), Leg(60, rate=24), Leg(30, rate=4)),
    most_failed_share=0.05,
    limits=(Limit(95, 500, in_last_leg_after_s=10),),
    # Ours: half of those who come for a sale want to buy.
    mix={"visitor": 50, "buyer": 50},
    think_s=HURRIED_S,
    hot_units=500,
)
