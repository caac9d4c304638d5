"""Is what cannot be served refused, and is all well soon after? Six times as many at once, for half a minute."""

from loadtests.shape import HURRIED_S, Leg, Limit, Shape

SHAPE = Shape(
    title="Six times as many shoppers for half a minute, then as many as before: well again within 15 s.",
    warm_up_s=20,
    legs=(Leg(60, rate=8), Leg(30, rate=48), Leg(90, rate=8)),
    # Ours: overload is to be refused, not suffered (docs/decisions/limits.md), so refusals are allowed for.
    most_failed_share=0.25,
    limits=(Limit(95, 500, in_last_leg_after_s=15),),
    think_s=HURRIED_S,
)
