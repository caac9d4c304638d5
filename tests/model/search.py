"""Every way in which one order can go, to the depth of two faults.

The search is breadth first over states; a state is what the databases hold, where each process stands, which requests
are on their way, which faults are spent. What runs is the services' own code (`processes.py`), over a model of each SQL
statement (`world.py`), which `test_world.py` replays on PostgreSQL, so the model cannot drift from either; that
statements are atomic is taken for granted here, and shown by `tests/isolation`. The coroutines are stepped by hand,
which leaves no order to an event loop, and a place in them is found by the answers that led there, so that code runs
once for each place and not for each state.

In each state any process may take its next step; the buyer may cancel, once; a rival may buy every unit that is free,
once; and when nobody works on the order its lease is over and another replica takes it up. These cost nothing. A fault
does, whichever it is:

- a call gets no answer, whether the request was lost, is late (it stays on its way and may be carried out at any
  later moment), was carried out in part, or whole; the caller asks again, or gives up;
- a process is killed between two statements, the driver of an order or what carries out a request;
- a statement is committed and its answer lost;
- a lease runs out while its driver is merely slow, so that two or three replicas drive one order at once;
- a reservation expires.

In every state the audit of the drills must find nothing, units and money be conserved, the buyer's answer stand, and
the end be reachable without a further fault.
"""

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Any, NamedTuple

from chassis.idempotency import StoredAnswer
from chassis.problems import IllegalTransition, Problem, Unavailable
from drills.audit import Beliefs, check
from services.product.repository import EXPIRE
from tests.model import world as model
from tests.model.processes import LOST, Call, Ended, Node, Place, Platform, Statement, Unanswered, run
from tests.model.world import MOMENT, TOTAL_MINOR, UNITS, World

MOST_DRIVERS = 2
"""Of the saga at once: the request that placed the order, and replicas that took it up."""


class Told(NamedTuple):
    """An outcome that the buyer was told."""

    status: int
    body: bytes


class State(NamedTuple):
    """Numbers of a world, of the nodes of the processes, and what was spent.

    A process is the node of a driver (0 where it is gone) and that of the request that it waits for (0 for none).
    """

    world: int
    processes: tuple[tuple[int, int], ...]
    faults: int
    cancelled: bool
    told: Told | None


class Violation(Exception):
    """A promise that does not hold in a state that can be reached."""


Step = tuple[str, bool, State]
"""What happens, whether it is free of faults, and the state after it."""


@dataclass(slots=True)
class Found:
    """What a search has seen."""

    states: int = 0
    steps: int = 0
    at_rest: int = 0
    ends: set[tuple[str | None, int | None]] = field(default_factory=set[tuple[str | None, int | None]])
    violation: str | None = None
    trace: list[str] = field(default_factory=list[str])


class Executed(NamedTuple):
    """A statement that a process has run in a world, and what the model made of it."""

    world: World
    text: str
    arguments: tuple[Any, ...]
    after: World
    answer: Any


class Search:
    """One search; its parameters are the buyer's payment method, the faults, and whether leases keep replicas apart."""

    def __init__(
        self,
        *,
        method: str = "tok_visa",
        faults: int = 2,
        leases: bool = True,
        replaced: Mapping[str, model.Statement] | None = None,
    ) -> None:
        self._platform = Platform()
        self._method = method
        self._faults = faults
        self._leases = leases
        self._statements = {**model.STATEMENTS, **(replaced or {})}
        self._nodes: list[Node | None] = [None]
        self._positions: dict[tuple[str, str], int] = {}
        self._roots: dict[Any, int] = {}
        self._worlds: list[World] = []
        self._world_numbers: dict[World, int] = {}
        self._answers: list[Any] = []
        self._answer_numbers: dict[str, int] = {}
        self._executed: dict[tuple[int, int], tuple[int, int]] = {}
        self._audited: dict[tuple[int, bool], str | None] = {}

    # Places

    def _root(self, name: str, key: Any, begin: Any) -> int:
        number = self._roots.get(key)
        if number is None:
            number = self._roots[key] = self._node(name, begin, ())
        return number

    def _node(self, name: str, begin: Any, answers: tuple[Any, ...]) -> int:
        place, position = run(begin, answers)
        known = self._positions.setdefault((name, position), len(self._nodes))
        if known == len(self._nodes):
            self._nodes.append(Node(known, name, begin, answers, place))
        return known

    def _at(self, number: int) -> Node:
        node = self._nodes[number]
        assert node is not None
        return node

    def _after(self, number: int, answer: int) -> int:
        node = self._at(number)
        found = node.after.get(answer)
        if found is None:
            made = self._node(node.name, node.begin, (*node.answers, self._answers[answer]))
            found = node.after[answer] = self._at(made)
        return found.number

    def _answer(self, answer: Any) -> int:
        key = f"{type(answer).__name__} {answer!r} {getattr(answer, 'facts', '')}"
        number = self._answer_numbers.get(key)
        if number is None:
            number = self._answer_numbers[key] = len(self._answers)
            self._answers.append(answer)
        return number

    def _world(self, world: World) -> int:
        number = self._world_numbers.get(world)
        if number is None:
            number = self._world_numbers[world] = len(self._worlds)
            self._worlds.append(world)
        return number

    def _execute(self, world: int, node: int) -> tuple[int, int]:
        """The world after a process's statement, and its answer."""
        done = self._executed.get((world, node))
        if done is None:
            place = self._at(node).place
            assert isinstance(place, Statement)
            after, answer = self._statements[place.text](self._worlds[world], *place.arguments)
            done = self._executed[world, node] = (self._world(after), self._answer(answer))
        return done

    def executed(self) -> Iterator[Executed]:
        """Every statement in every world in which it was run."""
        for (world, node), (after, answer) in self._executed.items():
            place = self._at(node).place
            assert isinstance(place, Statement)
            yield Executed(self._worlds[world], place.text, place.arguments, self._worlds[after], self._answers[answer])
        for world in [*self._worlds]:
            if world.reservation == "held":
                after, answer = self._statements[EXPIRE](world, 1)
                yield Executed(world, EXPIRE, (1,), after, answer)

    # Steps

    def first(self) -> State:
        """The order is stored; nothing else has happened."""
        method = self._method
        node = self._root("the buyer's request", "checkout", lambda: self._platform.checkout(method))
        world, answer = self._execute(self._world(World()), node)
        assert self._worlds[world].order == "pending"
        return State(world, (self._waiting(self._after(node, answer)),), self._faults, cancelled=False, told=None)

    def _waiting(self, driver: int) -> tuple[int, int]:
        """A driver together with the request that it now makes, if it makes one."""
        place = self._at(driver).place
        if not isinstance(place, Call):
            return driver, 0
        call = place
        return driver, self._root(str(call), call, lambda: self._platform.answer(call))

    def _with(
        self, state: State, index: int, *processes: tuple[int, int], world: int | None = None, fault: bool = False
    ) -> State:
        """The state with a process in another place, or gone."""
        told = state.told
        kept: list[tuple[int, int]] = [*state.processes[:index], *state.processes[index + 1 :]]
        for driver, request in processes:
            if driver and isinstance(ended := self._at(driver).place, Ended):
                told = self._heard(state, driver, ended) or told
                if request:
                    kept.append((0, request))
            elif driver or not isinstance(self._at(request).place, Ended):
                kept.append((driver, request))
        return State(
            state.world if world is None else world,
            tuple(sorted(kept)),
            state.faults - fault,
            state.cancelled,
            told,
        )

    def _heard(self, state: State, driver: int, ended: Ended) -> Told | None:
        """What the buyer was told now; raises Violation for what nobody should be told."""
        world, name = self._worlds[state.world], self._at(driver).name
        if ended.raised is not None:
            taken_back = world.order == "rejected" or (world.undo is not None and '"rejected"' in world.undo)
            refused = name == "a cancellation" and isinstance(ended.raised, IllegalTransition)
            if not isinstance(ended.raised, Unavailable) and not (refused and taken_back):
                raise Violation(f"{name} ended with {ended.raised!r}")
            return None
        if not isinstance(ended.returned, StoredAnswer) or ended.returned.status == 202:
            return None
        told = Told(ended.returned.status, ended.returned.body)
        if state.told not in {None, told}:
            raise Violation(f"the buyer was told {state.told}, and now {told}")
        return told

    def _answered(self, driver: int, ended: Ended) -> list[int]:
        """Where the driver stands once its peer's answer has come."""
        if isinstance(ended.raised, Problem) and not isinstance(ended.raised, Unavailable):
            return [self._after(driver, self._answer(ended.raised))]
        if ended.raised is not None:
            return self._unanswered(driver)
        return [self._after(driver, self._answer(ended.returned))]

    def _unanswered(self, driver: int) -> list[int]:
        return [self._after(driver, self._answer(Unanswered(over))) for over in (False, True)]

    def _moved(
        self, state: State, index: int, driver: int, request: int, world: int, *, fault: bool
    ) -> Iterator[State]:
        """A request has got on to a node: to its end, where its caller hears of it, or not."""
        ended = self._at(request).place
        if driver and isinstance(ended, Ended):
            for heard in self._answered(driver, ended):
                yield self._with(state, index, self._waiting(heard), world=world, fault=fault)
        else:
            yield self._with(state, index, (driver, request), world=world, fault=fault)

    def steps(self, state: State) -> Iterator[Step]:
        """All that can happen next."""
        faults = state.faults > 0
        for index, (driver, request) in enumerate(state.processes):
            acting = request or driver
            node = self._at(acting)
            world, answer = self._execute(state.world, acting)
            after = self._after(acting, answer)
            what = f"{node.name}: {_name(node.place)}"
            if request:
                for next_state in self._moved(state, index, driver, after, world, fault=False):
                    yield what, True, next_state
            else:
                yield what, True, self._with(state._replace(world=world), index, self._waiting(after))
            if not faults:
                continue
            lost = self._after(acting, self._answer(LOST))
            if request:
                for next_state in self._moved(state, index, driver, lost, world, fault=True):
                    yield f"{what}, whose answer is lost", False, next_state
            else:
                yield (
                    f"{what}, whose answer is lost",
                    False,
                    self._with(state._replace(world=world), index, self._waiting(lost), fault=True),
                )
            if request and node.answers:
                if driver:
                    for heard in self._unanswered(driver):
                        yield (
                            f"{node.name} is killed",
                            False,
                            self._with(state, index, self._waiting(heard), fault=True),
                        )
                else:
                    yield f"{node.name} is killed", False, self._with(state, index, fault=True)
            if driver:
                orphan = ((0, request),) if request else ()
                name = self._at(driver).name
                yield f"{name} is killed", False, self._with(state, index, *orphan, fault=True)
                if request:
                    for heard in self._unanswered(driver):
                        what = f"{name} waits no longer for {node.name}"
                        yield what, False, self._with(state, index, *orphan, self._waiting(heard), fault=True)
        yield from self._events(state)

    def _events(self, state: State) -> Iterator[Step]:
        world = self._worlds[state.world]
        if not state.cancelled:
            node = self._root("a cancellation", "cancel", self._platform.cancel)
            processes = tuple(sorted((*state.processes, (node, 0))))
            yield "the buyer cancels", True, state._replace(processes=processes, cancelled=True)
        if world.available and not world.sold_to_rival:
            sold = world._replace(on_hand=world.reserved, sold_to_rival=world.available)
            yield "a rival buys what is free", True, state._replace(world=self._world(sold))
        drivers = [self._at(driver).name for driver, _ in state.processes if driver]
        at_work = [name for name in drivers if name != "a cancellation"]
        free = not at_work or not self._leases
        if world.lease and len(at_work) < MOST_DRIVERS and (free or state.faults):
            node = self._root("another replica", "recover", self._platform.recover)
            claimed, answer = self._execute(state.world, node)
            taken = self._waiting(self._after(node, answer))
            processes = tuple(sorted((*state.processes, taken)))
            after = State(claimed, processes, state.faults - (not free), state.cancelled, state.told)
            yield "the lease is over, and another replica takes the order up", free, after
        if world.reservation == "held" and state.faults:
            expired, _ = self._statements[EXPIRE](world, 1)
            after = state._replace(world=self._world(expired), faults=state.faults - 1)
            yield "the reservation expires", False, after

    # Promises

    def at_rest(self, state: State) -> bool:
        """Whether nothing is left to happen but, maybe, that requests arrive which nobody waits for."""
        world = self._worlds[state.world]
        return not world.lease and all(
            not driver and not self._at(request).answers for driver, request in state.processes
        )

    def judge(self, state: State) -> str | None:
        """The promise that this state breaks."""
        world, rest = self._worlds[state.world], self.at_rest(state)
        key = (state.world, rest)
        if key not in self._audited:
            self._audited[key] = _conserved(world) or _audited(world, rest=rest)
        broken = self._audited[key]
        if broken or world.answer is None:
            return broken or ("an order at rest has its answer" if rest else None)
        status, body, _ = world.answer
        if state.told is not None and state.told != Told(status, body):
            return f"the buyer was told {state.told.status}, the key answers {status}"
        if rest:
            sold = status == 201
            if sold != (world.order == "confirmed") and not (sold and world.order == "cancelled" and state.cancelled):
                return f"the key answers {status} for an order that is {world.order}"
            if not sold and not (state.cancelled or world.sold_to_rival or world.method == "tok_declined"):
                return f"the order was {world.order} though nobody refused"
        return None

    def run(self) -> Found:
        """Search until every state is seen, or one breaks a promise."""
        found = Found()
        first = self.first()
        numbers: dict[State, int] = {first: 0}
        states = [first]
        parents = array("l", [-1])
        source, target = array("l"), array("l")
        rest: list[int] = []
        position = 0
        while position < len(states):
            state = states[position]
            try:
                broken = self.judge(state)
                if broken:
                    return self._broken(found, broken, states, parents, position)
                if self.at_rest(state):
                    rest.append(position)
                    world = self._worlds[state.world]
                    found.ends.add((world.order, world.answer and world.answer[0]))
                for _, free, after in self.steps(state):
                    found.steps += 1
                    number = numbers.get(after)
                    if number is None:
                        number = numbers[after] = len(states)
                        states.append(after)
                        parents.append(position)
                    if free:
                        source.append(position)
                        target.append(number)
            except (Violation, AssertionError) as error:
                return self._broken(found, str(error), states, parents, position)
            position += 1
        found.states, found.at_rest = len(states), len(rest)
        stuck = _unreachable(len(states), rest, source, target)
        if stuck is not None:
            return self._broken(found, "the order never comes to its end", states, parents, stuck)
        return found

    def _broken(self, found: Found, why: str, states: list[State], parents: "array[int]", position: int) -> Found:
        """The shortest way to a state, told in words."""
        found.states, found.violation = len(states), why
        way: list[int] = []
        while position >= 0:
            way.append(position)
            position = parents[position]
        way.reverse()
        for before, after in pairwise(way):
            found.trace.append(next(what for what, _, state in self.steps(states[before]) if state == states[after]))
        return found


def _unreachable(count: int, rest: list[int], source: "array[int]", target: "array[int]") -> int | None:
    """The first state from which no rest can be reached by the steps from `source` to `target`."""
    into: list[list[int]] = [[] for _ in range(count)]
    for before, after in zip(source, target, strict=True):
        into[after].append(before)
    reached = bytearray(count)
    pending = list(rest)
    for state in pending:
        reached[state] = 1
    while pending:
        for before in into[pending.pop()]:
            if not reached[before]:
                reached[before] = 1
                pending.append(before)
    first = reached.find(0)
    return None if first < 0 else first


def _name(place: Place) -> str:
    """A statement by the name of its constant."""
    assert isinstance(place, Statement)
    return model.STATEMENTS[place.text].__name__


def _conserved(world: World) -> str | None:
    """Units and money are neither made nor lost, in whatever state."""
    committed = world.reservation == "committed"
    held = world.reservation == "held"
    if world.on_hand + committed + world.sold_to_rival != UNITS or world.reserved != held or world.available < 0:
        return f"units: {world}"
    if world.charge_captured_minor not in {0, TOTAL_MINOR}:
        return f"captured {world.charge_captured_minor} of {TOTAL_MINOR}"
    if not 0 <= world.charge_refunded_minor <= world.charge_captured_minor:
        return f"refunded {world.charge_refunded_minor} of {world.charge_captured_minor}"
    if world.captured_minor > world.charge_captured_minor or world.refunded_minor > world.charge_refunded_minor:
        return "our books are ahead of the provider's"
    return None


def _audited(world: World, *, rest: bool) -> str | None:
    """The first thing that the audit of the drills finds."""
    order_id, payment_id, product_id = str(model.ORDER_ID), str(model.PAYMENT_ID), str(model.PRODUCT_ID)
    total = {"amount_minor": TOTAL_MINOR, "currency": model.CURRENCY}
    items = [{"product_id": product_id, "quantity": model.QUANTITY}]
    at = MOMENT.isoformat()
    beliefs = Beliefs()
    unfinished = world.lease or world.undo is not None or world.order in {"pending", "reserved", "authorised"}
    beliefs.add(
        {"kind": "order", "id": order_id, "user_id": str(model.USER_ID), "status": world.order, "total": total}
        | {"unfinished": unfinished, "lines": items, "payment_id": world.payment_id, "updated_at": at}
    )
    if world.payment is not None:
        beliefs.add(
            {"kind": "payment", "id": payment_id, "order_id": order_id, "user_id": str(model.USER_ID)}
            | {"status": world.payment, "currency": model.CURRENCY, "updated_at": at}
            | {"captured_minor": world.captured_minor, "refunded_minor": world.refunded_minor}
        )
    for number, (status, _) in enumerate(world.refunds):
        refund = {"kind": "refund", "id": str(number), "payment_id": payment_id, "status": status, "updated_at": at}
        beliefs.add(refund)
    for movement, amount_minor in world.ledger:
        capture = movement == "capture"
        accounts = ("provider_receivable", "sales_revenue") if capture else ("sales_returns", "provider_receivable")
        for account, sign in zip(accounts, (1, -1), strict=True):
            beliefs.add(
                {"kind": "ledger_entry", "movement_id": payment_id if capture else movement, "payment_id": payment_id}
                | {"account": account, "amount_minor": sign * amount_minor, "currency": model.CURRENCY}
            )
    if world.charge is not None:
        beliefs.add(
            {"kind": "provider_record", "order_id": order_id, "status": world.charge, "currency": model.CURRENCY}
            | {"captured_minor": world.charge_captured_minor, "refunded_minor": world.charge_refunded_minor}
        )
    received = UNITS - world.sold_to_rival
    beliefs.add(
        {"kind": "stock", "product_id": product_id, "on_hand": world.on_hand, "reserved": world.reserved}
        | {"received": received}
    )
    if world.reservation is not None:
        known = world.reservation
        beliefs.add(
            {"kind": "reservation", "order_id": order_id, "expires_at": at, "updated_at": at}
            | {"status": "released" if known == "tombstone" else known, "items": [] if known == "tombstone" else items}
        )
    if rest and unfinished:
        return f"an order at rest is {world.order}"
    violations = check(beliefs, MOMENT + timedelta(hours=1) if rest else MOMENT)
    return str(violations[0]) if violations else None
