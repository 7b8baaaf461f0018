"""Account for every order of a benchmark, by row: answers, our rows, charges, refunds and events."""

from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass

from deploy.local.demo.audit import audit
from deploy.local.demo.evidence import Database, charge_row, refund_row
from deploy.local.demo.rows import EventRow, PaymentRow
from tests.load.arrivals import ACCEPTED, Arrival
from tests.load.outcomes import Outcomes, Seen
from tests.load.scenarios import COURSES
from tests.simulator import Simulator

AMOUNT_MINOR = 15000


@dataclass(frozen=True, slots=True)
class Books:
    """Our rows by order, one for each operation, and whose rows anything contradicts."""

    rows: dict[str, list[PaymentRow]]
    wrong: set[str]  # payment ids, and what at the gateway or on Kafka belongs to no payment
    strangers: int  # how many of them are no payment of an order here


def gather(database_url: str, simulator: Simulator, outcomes: Outcomes) -> Books:
    """Join our tables, the simulator's ledger and everything heard, in each direction."""
    with closing(Database(database_url)) as database:
        payments = database.payments()
    charges = [charge_row(each) for each in simulator.charges()]
    refunds = [refund_row(each) for each in simulator.refunds()]
    events = [_event(seen) for heard in outcomes.by_order.values() for seen in heard]
    wrong = {finding.subject for finding in audit(charges, refunds, payments, events)}
    rows: dict[str, list[PaymentRow]] = defaultdict(list)
    for row in payments:
        rows[str(row.order_id)].append(row)
    return Books(rows, wrong, len(wrong - {row.payment_id for row in payments}))


def unaccounted(arrivals: Iterable[Arrival], books: Books, outcomes: Outcomes) -> list[str]:
    """The orders for which anything is missing, double or different; none is the only good answer.

    An order that was not accepted must have left nothing; one whose answer was lost may have either.
    """
    return [each.order_id for each in arrivals if not _accounted(each, books, outcomes)]


def _accounted(arrival: Arrival, books: Books, outcomes: Outcomes) -> bool:
    rows = books.rows.get(arrival.order_id, [])
    if not rows and arrival.status not in ACCEPTED:
        return True
    if len({row.payment_id for row in rows}) != 1 or rows[0].payment_id in books.wrong:
        return False
    payment, course = rows[0], COURSES[arrival.scenario]
    heard = {seen.event_id: seen.topic for seen in outcomes.by_order.get(arrival.order_id, [])}
    return (
        payment.amount_minor == AMOUNT_MINOR
        and payment.status == course.status
        and (payment.captured_minor, payment.refunded_minor) == (course.captured_minor, course.refunded_minor)
        and tuple(sorted(heard.values())) == course.topics
    )


def _event(seen: Seen) -> EventRow:
    value = seen.value
    return EventRow(
        event_id=seen.event_id,
        topic=seen.topic,
        payment_id=seen.payment_id,
        operation_id=seen.operation_id,
        refund_id=value.get("refundId"),
        order_id=seen.order_id,
        status=value.get("status"),
        amount=value["amount"],
        amount_minor=value["amountMinor"],
        currency=value["currency"],
        transaction_id=value.get("transactionId"),
    )
