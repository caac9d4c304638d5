"""The places between two durable effects, each by a name: where a process that dies leaves the most to be put right.

Nothing that is served can make a point do anything: there is no setting for it and no way in from outside. A drill runs
a service by an entry point of its own, which puts a function that kills in this one's place before the service is
imported (drills/harmed.py), and `make drill NAME=crash-points` dies at each of them in turn.
"""


def crash_point(name: str) -> None:
    """Do nothing here; `name` says which effect has just become durable, as `order.reserved`."""
