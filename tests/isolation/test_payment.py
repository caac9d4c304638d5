"""Two transactions of the payment service at once: no amount is captured, refunded or booked twice."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest

from chassis.database import Database
from services.payment import repository
from services.payment.provider import ProviderRefused
from services.payment.repository import Intent, Refund
from services.payment.simulator import Simulator
from tests.databases import Databases
from tests.isolation.meeting import Meeting, Work, ends_either_way, meeting_place

AMOUNT_MINOR = 1_000
LEASE_S = 60.0
MOST = 1_000

BOOKS = """
SELECT status, jsonb_path_query_array(history, '$.status') AS passed, refunded_minor, refunding_minor,
    (SELECT count(DISTINCT movement_id) FROM ledger_entries WHERE payment_id = payments.id) AS movements,
    (SELECT coalesce(sum(amount_minor), 0)::bigint
        FROM ledger_entries WHERE payment_id = payments.id AND account = 'provider_receivable') AS receivable_minor,
    (SELECT coalesce(sum(amount_minor), 0)::bigint
        FROM refunds WHERE payment_id = payments.id AND status = 'done') AS done_minor,
    (SELECT coalesce(sum(amount_minor), 0)::bigint
        FROM refunds WHERE payment_id = payments.id AND status = 'pending') AS pending_minor,
    captured_minor
FROM payments WHERE order_id = $1
"""


@pytest.fixture(scope="session")
async def meeting(postgres: Databases) -> AsyncIterator[Meeting]:
    async with meeting_place(postgres, "payment") as place:
        yield place


@dataclass(frozen=True, slots=True)
class Payment:
    """The payment of one order, and what is done with it."""

    meeting: Meeting
    order_id: UUID
    user_id: UUID

    async def books(self) -> tuple[list[str], int]:
        """The statuses it has passed and the movements in the ledger, once payment, refunds and ledger agree."""
        found = await self.meeting.database.fetchrow(BOOKS, self.order_id)
        assert found is not None
        assert found["refunded_minor"] == found["done_minor"]
        assert found["refunding_minor"] == found["pending_minor"]
        assert found["receivable_minor"] == found["captured_minor"] - found["refunded_minor"]
        passed: list[str] = found["passed"]
        assert found["status"] == (passed[-1] if passed else "pending")
        return passed, found["movements"]

    async def do(self, *works: Work) -> None:
        """Let something have been done before."""
        for work in works:
            assert await work(self.meeting.database) is not None

    async def id(self) -> UUID:
        return (await repository.balance(self.meeting.database, order_id=self.order_id)).payment_id

    def intend(self, amount_minor: int = AMOUNT_MINOR) -> Work:
        return lambda database: repository.intend(
            database, self.order_id, self.user_id, amount_minor, "USD", "tok_visa"
        )

    def authorise(self) -> Work:
        return lambda database: repository.record_authorised(database, self.order_id, "sim_1")

    def decline(self) -> Work:
        return lambda database: repository.record_declined(database, self.order_id, "declined")

    def void(self) -> Work:
        return lambda database: repository.record_voided(database, self.order_id)

    def capture(self) -> Work:
        return lambda database: repository.record_captured(database, self.order_id, "sim_1")

    def begin_refund(self, amount_minor: int | None, refund_id: UUID | None = None, lease_s: float = LEASE_S) -> Work:
        async def begin(database: Database) -> Any:
            payment_id = (await repository.balance(database, order_id=self.order_id)).payment_id
            return await repository.begin_refund(database, payment_id, amount_minor, "r", lease_s, refund_id)

        return begin


@pytest.fixture
def payment(meeting: Meeting) -> Payment:
    return Payment(meeting, uuid4(), uuid4())


def _finish(refund_id: UUID) -> Work:
    return lambda database: repository.finish_refund(database, refund_id)


def _claim(refund_id: UUID) -> Work:
    return lambda database: repository.claim_refund(database, refund_id, LEASE_S)


async def _claim_abandoned(database: Database) -> list[UUID]:
    return [refund.id for refund in await repository.claim_abandoned_refunds(database, LEASE_S, MOST)]


# Charges


@ends_either_way
@pytest.mark.parametrize("amount_minor", [AMOUNT_MINOR, 2 * AMOUNT_MINOR], ids=["the-same", "another"])
async def test_an_order_has_one_payment(meeting: Meeting, payment: Payment, amount_minor: int, commit: bool) -> None:
    met = await meeting.of(payment.intend(), payment.intend(amount_minor), commit=commit)
    assert met.waited
    assert met.second == Intent(same=amount_minor == AMOUNT_MINOR or not commit, document=None)
    assert await payment.books() == ([], 0)


@ends_either_way
@pytest.mark.parametrize(
    ("first", "second", "after", "alone"),
    [
        ("authorise", "authorise", ["authorised"], ["authorised"]),
        ("authorise", "decline", ["authorised"], ["declined"]),
        ("authorise", "void", ["authorised", "voided"], ["voided"]),
        ("authorise", "capture", ["authorised", "captured"], ["captured"]),
        ("decline", "authorise", ["declined"], ["authorised"]),
        ("decline", "decline", ["declined"], ["declined"]),
        ("decline", "void", ["declined"], ["voided"]),
        ("decline", "capture", ["declined"], ["captured"]),
        ("void", "authorise", ["voided"], ["authorised"]),
        ("void", "decline", ["voided"], ["declined"]),
        ("void", "void", ["voided"], ["voided"]),
        ("void", "capture", ["voided"], ["captured"]),
        ("capture", "authorise", ["captured"], ["authorised"]),
        ("capture", "decline", ["captured"], ["declined"]),
        ("capture", "void", ["captured"], ["voided"]),
        ("capture", "capture", ["captured"], ["captured"]),
    ],
)
async def test_of_two_outcomes_of_a_charge_the_second_sees_the_first(
    meeting: Meeting, payment: Payment, first: str, second: str, after: list[str], alone: list[str], commit: bool
) -> None:
    works = {
        "authorise": payment.authorise(),
        "decline": payment.decline(),
        "void": payment.void(),
        "capture": payment.capture(),
    }
    await payment.do(payment.intend())
    met = await meeting.of(works[first], works[second], commit=commit)
    assert met.waited
    assert (met.second is None) is (commit and len(after) == 1)
    passed = after if commit else alone
    assert await payment.books() == (passed, passed.count("captured"))


@ends_either_way
@pytest.mark.parametrize(("first", "second"), [("capture", "void"), ("void", "capture"), ("capture", "capture")])
async def test_what_is_authorised_is_captured_once_or_voided(
    meeting: Meeting, payment: Payment, first: str, second: str, commit: bool
) -> None:
    works = {"void": (payment.void(), "voided"), "capture": (payment.capture(), "captured")}
    await payment.do(payment.intend(), payment.authorise())
    met = await meeting.of(works[first][0], works[second][0], commit=commit)
    assert met.waited
    assert (met.second is None) is commit
    _, outcome = works[first if commit else second]
    assert await payment.books() == (["authorised", outcome], int(outcome == "captured"))


@ends_either_way
@pytest.mark.parametrize("void_first", [True, False], ids=["void-intend", "intend-void"])
async def test_a_payment_that_is_voided_before_it_is_known_stays_voided(
    meeting: Meeting, payment: Payment, void_first: bool, commit: bool
) -> None:
    works = payment.void(), payment.intend()
    met = await meeting.of(*(works if void_first else reversed(works)), commit=commit)
    assert met.waited
    if void_first:
        assert (met.second.same, met.second.document is None) == (True, not commit)
    assert await payment.books() == (["voided"] if commit or not void_first else [], 0)


# Refunds


@ends_either_way
@pytest.mark.parametrize(
    ("first", "second", "both", "alone"),
    [
        (600, 600, 600, 600),
        (600, 400, 1_000, 400),
        (None, None, 1_000, 1_000),
        (600, None, 1_000, 1_000),
        (None, 1, 1_000, 1),
    ],
)
async def test_no_more_is_set_aside_than_was_captured(
    meeting: Meeting, payment: Payment, first: int | None, second: int | None, both: int, alone: int, commit: bool
) -> None:
    await payment.do(payment.intend(), payment.capture())
    met = await meeting.of(payment.begin_refund(first), payment.begin_refund(second), commit=commit)
    assert met.waited
    assert (met.second is None) is (commit and both == (first or AMOUNT_MINOR))
    balance = await repository.balance(meeting.database, order_id=payment.order_id)
    assert AMOUNT_MINOR - balance.refundable_minor == (both if commit else alone)
    await payment.books()


@ends_either_way
async def test_a_payment_of_nothing_is_refunded_once(meeting: Meeting, payment: Payment, commit: bool) -> None:
    await payment.do(payment.intend(0), payment.capture())
    met = await meeting.of(payment.begin_refund(None), payment.begin_refund(None), commit=commit)
    assert met.waited
    assert (met.second is None) is commit
    assert len(await repository.pending_refunds(meeting.database, await payment.id())) == 1


@ends_either_way
async def test_a_refund_is_booked_once(meeting: Meeting, payment: Payment, commit: bool) -> None:
    refund_id = uuid4()
    await payment.do(payment.intend(), payment.capture(), payment.begin_refund(600, refund_id))
    met = await meeting.of(_finish(refund_id), _finish(refund_id), commit=commit)
    assert met.waited
    assert (met.second is None) is commit
    assert await payment.books() == (["captured", "partially_refunded"], 2)


@ends_either_way
async def test_two_refunds_of_a_payment_are_both_booked(meeting: Meeting, payment: Payment, commit: bool) -> None:
    part, rest = uuid4(), uuid4()
    await payment.do(payment.intend(), payment.capture())
    await payment.do(payment.begin_refund(600, part), payment.begin_refund(None, rest))
    met = await meeting.of(_finish(part), _finish(rest), commit=commit)
    assert met.waited
    if commit:
        assert await payment.books() == (["captured", "partially_refunded", "refunded"], 3)
    else:
        assert await payment.books() == (["captured", "partially_refunded"], 2)


@ends_either_way
@pytest.mark.parametrize("finish_first", [True, False], ids=["finish-begin", "begin-finish"])
async def test_a_refund_that_is_booked_leaves_for_the_next_what_is_left(
    meeting: Meeting, payment: Payment, finish_first: bool, commit: bool
) -> None:
    refund_id = uuid4()
    await payment.do(payment.intend(), payment.capture(), payment.begin_refund(600, refund_id))
    works = _finish(refund_id), payment.begin_refund(400)
    met = await meeting.of(*(works if finish_first else reversed(works)), commit=commit)
    assert met.waited
    assert met.second is not None
    balance = await repository.balance(meeting.database, order_id=payment.order_id)
    assert balance.refundable_minor == (0 if commit or finish_first else 400)
    await payment.books()


@ends_either_way
@pytest.mark.parametrize("first", ["claim", "claim-abandoned", "finish"])
@pytest.mark.parametrize("second", ["claim", "claim-abandoned", "finish"])
async def test_a_refund_that_was_left_is_taken_up_by_one(
    meeting: Meeting, payment: Payment, first: str, second: str, commit: bool
) -> None:
    refund_id = uuid4()
    await payment.do(payment.intend(), payment.capture(), payment.begin_refund(600, refund_id, lease_s=-1))
    works = {"claim": _claim(refund_id), "claim-abandoned": _claim_abandoned, "finish": _finish(refund_id)}
    met = await meeting.of(works[first], works[second], commit=commit)
    assert met.waited is (second != "claim-abandoned")
    match second:
        case "claim":
            assert (met.second is None) is commit
        case "claim-abandoned":
            assert refund_id not in met.second
        case _:
            # Whoever has a lease or had one may note what the provider has done, once.
            assert (met.second is None) is (commit and first == "finish")
    assert len((await payment.books())[0]) == (2 if second == "finish" or (first == "finish" and commit) else 1)
    left = refund_id in await _claim_abandoned(meeting.database)
    assert left is (second == "claim-abandoned" and not commit)


# Idempotency keys


@dataclass(frozen=True, slots=True)
class Keyed:
    """A refund under an idempotency key, as `Refunds.refund_once` begins it."""

    payment_id: UUID
    user_id: UUID

    async def begin(self, database: Database) -> Refund | None:
        async with database.transaction() as transaction:
            refund_id = await repository.claim_key(transaction, self.user_id, self.payment_id, "k", b"same")
            if refund_id is None:
                return None
            return await repository.begin_refund(transaction, self.payment_id, 300, "r", LEASE_S, refund_id)

    async def kept(self, database: Database) -> UUID | None:
        """The refund that the key has begun."""
        kept = await repository.kept_answer(database, self.user_id, self.payment_id, "k")
        return kept and kept.refund_id


@pytest.fixture
async def keyed(payment: Payment) -> Keyed:
    await payment.do(payment.intend(), payment.capture())
    return Keyed(await payment.id(), uuid4())


@ends_either_way
async def test_a_key_is_taken_once_and_not_waited_for(meeting: Meeting, keyed: Keyed, commit: bool) -> None:
    met = await meeting.of(keyed.begin, keyed.begin, commit=commit)
    assert not met.waited
    assert met.second is None
    again = await keyed.begin(meeting.database)
    assert (again is None) is commit, "free again where its first request came to nothing"
    assert await keyed.kept(meeting.database) == (again or met.first).id
    assert len(await repository.pending_refunds(meeting.database, keyed.payment_id)) == 1


@ends_either_way
@pytest.mark.parametrize("forget_first", [True, False], ids=["forget-claim", "claim-forget"])
async def test_a_key_that_came_of_age_is_taken_anew_though_it_is_being_forgotten(
    meeting: Meeting, keyed: Keyed, forget_first: bool, commit: bool
) -> None:
    await keyed.begin(meeting.database)
    await meeting.database.execute(
        "UPDATE idempotency_keys SET created_at = now() - interval '25 hours' WHERE payment_id = $1", keyed.payment_id
    )
    works = repository.delete_old_keys, keyed.begin
    met = await meeting.of(*(works if forget_first else reversed(works)), commit=commit)
    assert met.waited
    taken = met.second if forget_first else met.first if commit else None
    assert await keyed.kept(meeting.database) == (taken and taken.id)


# The embedded provider


def _provider(ask: Callable[[Simulator], Awaitable[Any]]) -> Work:
    async def asked(database: Database) -> Any:
        try:
            return await ask(Simulator(database, slow_s=0, lost_answer_s=0))
        except ProviderRefused as refusal:
            return refusal

    return asked


def _charge(key: UUID) -> dict[str, Work]:
    return {
        "authorise": _provider(lambda provider: provider.authorise(key, AMOUNT_MINOR, "USD", "tok_visa")),
        "capture": _provider(lambda provider: provider.capture(key)),
        "void": _provider(lambda provider: provider.void(key)),
    }


@ends_either_way
@pytest.mark.parametrize(
    ("first", "second", "after", "alone"),
    [
        ("authorise", "authorise", "authorised", "authorised"),
        ("authorise", "void", "voided", "voided"),
        ("void", "authorise", "voided", "authorised"),
        ("void", "void", "voided", "voided"),
    ],
)
async def test_the_provider_has_one_charge_for_a_key(
    meeting: Meeting, first: str, second: str, after: str, alone: str, commit: bool
) -> None:
    key = uuid4()
    works = _charge(key)
    met = await meeting.of(works[first], works[second], commit=commit)
    assert met.waited
    assert isinstance(met.second, ProviderRefused) is (commit and (first, second) == ("void", "authorise"))
    status = await meeting.database.fetchval("SELECT status FROM simulator_charges WHERE key = $1", key)
    assert status == (after if commit else alone)


@ends_either_way
@pytest.mark.parametrize(
    ("first", "second", "after", "alone"),
    [
        ("capture", "capture", "captured", "captured"),
        ("capture", "void", "captured", "voided"),
        ("void", "capture", "voided", "captured"),
    ],
)
async def test_the_provider_captures_a_charge_or_voids_it(
    meeting: Meeting, first: str, second: str, after: str, alone: str, commit: bool
) -> None:
    key = uuid4()
    works = _charge(key)
    await works["authorise"](meeting.database)
    met = await meeting.of(works[first], works[second], commit=commit)
    assert met.waited
    assert isinstance(met.second, ProviderRefused) is (commit and first != second)
    status = await meeting.database.fetchval("SELECT status FROM simulator_charges WHERE key = $1", key)
    assert status == (after if commit else alone)


@ends_either_way
@pytest.mark.parametrize("same", [True, False], ids=["the-same", "more-than-is-left"])
async def test_the_provider_makes_a_refund_once_and_none_beyond_the_capture(
    meeting: Meeting, same: bool, commit: bool
) -> None:
    key, refund_id = uuid4(), uuid4()
    works = _charge(key)
    await works["authorise"](meeting.database)
    await works["capture"](meeting.database)
    other_id = refund_id if same else uuid4()
    met = await meeting.of(
        _provider(lambda provider: provider.refund(refund_id, key, 600)),
        _provider(lambda provider: provider.refund(other_id, key, 600)),
        commit=commit,
    )
    assert met.waited
    assert isinstance(met.second, ProviderRefused) is (commit and not same)
    refunded = await meeting.database.fetchval("SELECT refunded_minor FROM simulator_charges WHERE key = $1", key)
    assert refunded == 600
