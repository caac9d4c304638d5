"""A locustfile whose shoppers ask for one product once and leave, so that what a run shows is the arrivals' own."""

from loadtests import locustfile
from loadtests.locustfile import Arrivals
from loadtests.visitor import Visitor

__all__ = ["Arrivals", "Glance"]


class Glance(Visitor):
    def shop(self) -> None:
        self.look_at(self.floor.liked(self.draw))


locustfile.SHOPPERS["visitor"] = Glance
