"""`python -m drills.audit`: whether all four services tell the same story, to the cent and the unit.

Each service streams what it believes (`GET /internal/v1/audit`), as of one moment. The moments differ, so what is
not final yet is not compared, and on a running shop a violation is what two readings show of the same subject.
"""

import argparse
import asyncio
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2

from chassis.auth import ServiceCredential
from chassis.secrets import AUDIT, SERVICES
from chassis.settings import ServiceSettings

Record = dict[str, Any]

SOLD = frozenset({"confirmed", "shipped", "delivered"})
FINAL = SOLD | {"rejected", "cancelled"}
CAPTURED = frozenset({"captured", "partially_refunded", "refunded"})
AT_PROVIDER: dict[str, frozenset[str | None]] = {
    "pending": frozenset({None, "authorised", "declined", "voided"}),
    "authorised": frozenset({"authorised"}),
    "declined": frozenset({"declined"}),
    "voided": frozenset({"voided"}),
    **dict.fromkeys(CAPTURED, frozenset({"captured"})),
}
"""What the provider's record may say, by the status of our payment; none where it has no record."""
CAPTURE_POSTING = ("provider_receivable", "sales_revenue")
REFUND_POSTING = ("sales_returns", "provider_receivable")
"""The account that a movement debits, and the one that it credits. A debit is positive, a credit negative."""
SETTLES_WITHIN = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, order=True)
class Violation:
    """A promise that does not hold: its name, of what, and what was found."""

    promise: str
    subject: str
    found: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.subject}: {self.found}"


@dataclass(slots=True)
class Beliefs:
    """What the services believe, keyed by what it is about."""

    orders: dict[str, Record] = field(default_factory=dict[str, Record])
    payments: dict[str, Record] = field(default_factory=dict[str, Record])
    payments_twice: list[str] = field(default_factory=list[str])
    refunds: list[Record] = field(default_factory=list[Record])
    ledger: list[Record] = field(default_factory=list[Record])
    provider: dict[str, Record] = field(default_factory=dict[str, Record])
    stock: dict[str, Record] = field(default_factory=dict[str, Record])
    reservations: dict[str, Record] = field(default_factory=dict[str, Record])

    def without(self, order_ids: Collection[str]) -> "Beliefs":
        """The same but for these orders and what was done for them; refunds, ledger and stock stay whole."""

        def kept(records: dict[str, Record]) -> dict[str, Record]:
            return {order_id: record for order_id, record in records.items() if order_id not in order_ids}

        return replace(
            self, orders=kept(self.orders), payments=kept(self.payments), reservations=kept(self.reservations)
        )

    def add(self, record: Record) -> None:
        """Take in one record of a service's stream."""
        match record["kind"]:
            case "order":
                self.orders[record["id"]] = record
            case "payment":
                if record["order_id"] in self.payments:
                    self.payments_twice.append(record["order_id"])
                self.payments[record["order_id"]] = record
            case "refund":
                self.refunds.append(record)
            case "ledger_entry":
                self.ledger.append(record)
            case "provider_record":
                self.provider[record["order_id"]] = record
            case "stock":
                self.stock[record["product_id"]] = record
            case "reservation":
                self.reservations[record["order_id"]] = record
            case "user":
                pass  # an order may outlive its user, so nothing can be told from who is there
            case kind:
                raise ValueError(f"unknown record {kind}")


def check(beliefs: Beliefs, now: datetime) -> list[Violation]:
    """Every violation in what the services believe, sorted."""
    found = [
        *_orders(beliefs),
        *_payments(beliefs),
        *_ledger(beliefs),
        *_stock(beliefs),
        *_overdue(beliefs, now),
    ]
    return sorted(found)


def _moving(beliefs: Beliefs, order_id: str) -> bool:
    """Whether the order's saga is at work, so that the services may be at different steps of it."""
    order = beliefs.orders.get(order_id)
    return order is not None and order["unfinished"]


def _orders(beliefs: Beliefs) -> Iterable[Violation]:
    for order_id, order in beliefs.orders.items():
        if order["unfinished"]:
            continue
        total, status = order["total"], order["status"]
        payment = beliefs.payments.get(order_id)
        reservation = beliefs.reservations.get(order_id)
        if status in SOLD:
            if payment is None or payment["status"] not in CAPTURED:
                yield Violation("a sold order is paid", order_id, f"payment {payment and payment['status']}")
            elif (payment["captured_minor"], payment["currency"]) != (total["amount_minor"], total["currency"]):
                captured = f"{payment['captured_minor']} {payment['currency']}"
                wanted = f"{total['amount_minor']} {total['currency']}"
                yield Violation("a sold order is paid in its exact total", order_id, f"{captured}, not {wanted}")
            elif payment["id"] != order["payment_id"] or payment["user_id"] != order["user_id"]:
                yield Violation("a sold order names its payment", order_id, f"payment {order['payment_id']}")
            if reservation is None or reservation["status"] != "committed":
                state = reservation and reservation["status"]
                yield Violation("a sold order's stock is committed", order_id, f"reservation {state}")
            elif _items(reservation["items"]) != _items(order["lines"]):
                yield Violation("a sold order's stock is that of its lines", order_id, "other items are committed")
        elif status in FINAL:
            if payment is not None and payment["captured_minor"] != payment["refunded_minor"]:
                kept = payment["captured_minor"] - payment["refunded_minor"]
                yield Violation("an order that ended unsold costs nothing", order_id, f"{kept} kept")
            if payment is not None and payment["status"] == "authorised":
                yield Violation("an order that ended unsold holds no money", order_id, "still authorised")
            if reservation is not None and reservation["status"] in {"held", "committed"}:
                yield Violation("an order that ended unsold holds no stock", order_id, reservation["status"])


def _items(items: Iterable[Record]) -> Counter[str]:
    return Counter({item["product_id"]: item["quantity"] for item in items})


def _payments(beliefs: Beliefs) -> Iterable[Violation]:
    refunding = {refund["payment_id"] for refund in beliefs.refunds if refund["status"] != "done"}
    for order_id in beliefs.payments_twice:
        yield Violation("an order is paid once", order_id, "several payments")
    for order_id, payment in beliefs.payments.items():
        if _moving(beliefs, order_id):
            continue
        if order_id not in beliefs.orders and payment["captured_minor"] != payment["refunded_minor"]:
            yield Violation("a capture belongs to an order", order_id, f"{payment['captured_minor']} captured")
        record = beliefs.provider.get(order_id)
        ours = (payment["captured_minor"], payment["refunded_minor"])
        theirs = (0, 0) if record is None else (record["captured_minor"], record["refunded_minor"])
        if ours != theirs and payment["id"] not in refunding:
            yield Violation("the provider's record agrees", order_id, f"ours {ours}, the provider's {theirs}")
        if record is not None and sum(theirs) and record["currency"] != payment["currency"]:
            yield Violation("the provider's record agrees", order_id, f"currency {record['currency']}")
        status = record and record["status"]
        if status not in AT_PROVIDER[payment["status"]]:
            yield Violation("the provider's record agrees", order_id, f"ours {payment['status']}, theirs {status}")
    for order_id, record in beliefs.provider.items():
        if order_id not in beliefs.payments and record["status"] in {"authorised", "captured"}:
            found = f"{record['status']} by the provider, unknown to us"
            yield Violation("the provider's record agrees", order_id, found)


def _ledger(beliefs: Beliefs) -> Iterable[Violation]:
    by_currency: Counter[str] = Counter()
    movements: defaultdict[str, list[Record]] = defaultdict(list)
    by_payment: Counter[str] = Counter()
    for entry in beliefs.ledger:
        by_currency[entry["currency"]] += entry["amount_minor"]
        movements[entry["movement_id"]].append(entry)
        by_payment[entry["payment_id"]] += abs(entry["amount_minor"])
    for currency, total_minor in by_currency.items():
        if total_minor:
            yield Violation("the ledger sums to zero", currency, f"{total_minor}")
    payments = {payment["id"]: payment for payment in beliefs.payments.values()}
    for movement_id, entries in movements.items():
        payment = payments.get(entries[0]["payment_id"])
        if len(entries) != 2 or sum(entry["amount_minor"] for entry in entries):
            yield Violation("a movement is two rows that balance", movement_id, f"{len(entries)} rows")
        elif payment is not None:
            # A capture's movement goes by the payment's id, a refund's by the refund's.
            debit, credit = CAPTURE_POSTING if movement_id == payment["id"] else REFUND_POSTING
            amount_minor, currency = abs(entries[0]["amount_minor"]), payment["currency"]
            booked = {(entry["account"], entry["amount_minor"], entry["currency"]) for entry in entries}
            if booked != {(debit, amount_minor, currency), (credit, -amount_minor, currency)}:
                found = ", ".join(f"{account} {signed_minor} {unit}" for account, signed_minor, unit in sorted(booked))
                yield Violation("a movement is on its accounts, in its payment's currency", movement_id, found)
    for payment in payments.values():
        moved = 2 * (payment["captured_minor"] + payment["refunded_minor"])
        if by_payment[payment["id"]] != moved:
            found = f"{by_payment[payment['id']] // 2} moved, not {moved // 2}"
            yield Violation("the ledger has every movement of a payment", payment["order_id"], found)
    for payment_id in by_payment.keys() - payments.keys():
        yield Violation("a ledger entry belongs to a payment", payment_id, "no such payment")


def _stock(beliefs: Beliefs) -> Iterable[Violation]:
    held: Counter[str] = Counter()
    committed: Counter[str] = Counter()
    for order_id, reservation in beliefs.reservations.items():
        by_status = {"held": held, "committed": committed}.get(reservation["status"])
        if by_status is not None:
            by_status.update(_items(reservation["items"]))
        if reservation["status"] == "committed" and order_id not in beliefs.orders:
            yield Violation("committed stock belongs to an order", order_id, "no such order")
    for product_id, stock in beliefs.stock.items():
        if stock["on_hand"] + committed[product_id] != stock["received"]:
            found = f"{stock['on_hand']} on hand + {committed[product_id]} committed, {stock['received']} received"
            yield Violation("stock on hand and committed is all that was received", product_id, found)
        if stock["reserved"] != held[product_id]:
            found = f"{stock['reserved']} reserved, {held[product_id]} held"
            yield Violation("reserved stock is what reservations hold", product_id, found)
        if not 0 <= stock["reserved"] <= stock["on_hand"]:
            yield Violation("nothing is oversold", product_id, f"{stock['reserved']} of {stock['on_hand']} reserved")
    for product_id in (held.keys() | committed.keys()) - beliefs.stock.keys():
        yield Violation("a reservation is of a product", product_id, "no such product")


def _overdue(beliefs: Beliefs, now: datetime) -> Iterable[Violation]:
    """Whatever is older than a minute and still under way."""

    def overdue(record: Record, since: str = "updated_at") -> bool:
        return now - datetime.fromisoformat(record[since]) > SETTLES_WITHIN

    for order_id, order in beliefs.orders.items():
        if order["unfinished"] and overdue(order):
            yield Violation("an order settles within a minute", order_id, order["status"])
    for order_id, payment in beliefs.payments.items():
        if payment["status"] in {"pending", "authorised"} and overdue(payment):
            yield Violation("a payment settles within a minute", order_id, payment["status"])
    for refund in beliefs.refunds:
        if refund["status"] != "done" and overdue(refund):
            yield Violation("a refund settles within a minute", refund["id"], refund["status"])
    for order_id, reservation in beliefs.reservations.items():
        if reservation["status"] == "held" and overdue(reservation, "expires_at"):
            yield Violation("a reservation ends within a minute of its expiry", order_id, "still held")


async def read(urls: Mapping[str, str], credential: ServiceCredential, client: httpx2.AsyncClient) -> Beliefs:
    """Ask all services at once what they believe."""
    beliefs = Beliefs()

    async def stream(service: str) -> None:
        headers = {"Authorization": credential.authorization(service)}
        async with client.stream("GET", f"{urls[service]}/internal/v1/audit", headers=headers) as answer:
            if answer.status_code != 200:
                await answer.aread()
                raise CannotAudit(f"the {service} service answered {answer.status_code}: {answer.text}")
            async for line in answer.aiter_lines():
                if line:
                    beliefs.add(json.loads(line))

    await asyncio.gather(*(stream(service) for service in SERVICES))
    return beliefs


class CannotAudit(Exception):
    """A service could not be asked."""


async def audit(reading: Callable[[], Any], *, again_after_s: float = 2.0) -> tuple[Beliefs, list[Violation]]:
    """Read and check; where something is wrong read once more, and return only what is wrong both times.

    It is as the second reading found it: of a shop that goes on selling the numbers move, the broken promise stays.
    """
    beliefs = await reading()
    violations = check(beliefs, datetime.now(UTC))
    if violations:
        await asyncio.sleep(again_after_s)
        beliefs = await reading()
        before = {(violation.promise, violation.subject) for violation in violations}
        again = check(beliefs, datetime.now(UTC))
        violations = [violation for violation in again if (violation.promise, violation.subject) in before]
    return beliefs, violations


async def run(urls: Mapping[str, str], secrets: Path) -> int:
    """Audit the shop at `urls`, print the verdict, and return the exit status."""
    settings = ServiceSettings.model_validate(
        {
            "port": 0,
            "database_url": "unused",
            "service_key": (secrets / "service_key").read_text(),
            "service_jwks": (secrets / "service_jwks").read_text(),
        }
    )
    credential = ServiceCredential(AUDIT, settings)
    async with httpx2.AsyncClient(timeout=60) as client:
        beliefs, violations = await audit(lambda: read(urls, credential, client))
    by_status = Counter(order["status"] for order in beliefs.orders.values())
    print(
        f"{len(beliefs.orders)} orders ({', '.join(f'{n} {s}' for s, n in sorted(by_status.items())) or 'none'}), "
        f"{len(beliefs.payments)} payments, {len(beliefs.ledger)} ledger entries, {len(beliefs.stock)} products, "
        f"{len(beliefs.reservations)} reservations"
    )
    for violation in violations:
        print(f"VIOLATION {violation}")
    print(f"audit: {len(violations)} violations" if violations else "audit: clean")
    return 1 if violations else 0


def main() -> None:
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(prog="python -m drills.audit", description="Audit a running shop.")
    parser.add_argument("--data", type=Path, default=Path("var"), help="the data folder of `make run`")
    parser.add_argument("--secrets", type=Path, help="the folder with the audit's key, where it is not in --data")
    parser.add_argument("--url", action="append", default=[], metavar="SERVICE=URL", help="where a service answers")
    arguments = parser.parse_args()
    try:
        urls: dict[str, str] = dict(pair.split("=", 1) for pair in arguments.url) or json.loads(
            (arguments.data / "shop.json").read_text()
        )
        status = asyncio.run(run(urls, arguments.secrets or arguments.data / "secrets" / "audit"))
    except FileNotFoundError as error:
        sys.exit(f"audit: {error.filename} is not there: is the shop running, with this data folder?")
    except (CannotAudit, httpx2.HTTPError) as error:
        sys.exit(f"audit: {error or type(error).__name__}")
    sys.exit(status)


if __name__ == "__main__":
    main()
