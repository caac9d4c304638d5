"""How many is too many? More and more, until the shop cannot follow."""

from loadtests.shape import HURRIED_S, Leg, Shape

SHAPE = Shape(
    title="The rate of shoppers rises in a straight line: at which one does the shop cease to follow?",
    warm_up_s=20,
    legs=(Leg(300, rate=4, to_rate=80),),
    most_failed_share=0.001,
    think_s=HURRIED_S,
    find_knee=True,
)
