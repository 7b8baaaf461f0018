"""Account for every order of a benchmark, row by row: answer, our rows, gateway charge and event."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psycopg

from tests.load.arrivals import Arrival
from tests.load.outcomes import Outcomes
from tests.simulator import Simulator

ACCEPTED = {200, 202}

_QUERY = """
    SELECT p.order_id, p.id::text, p.status, p.amount_minor, p.transaction_id, o.id::text, o.state
    FROM payment p LEFT JOIN operation o ON o.payment_id = p.id
"""


@dataclass(frozen=True, slots=True)
class Books:
    """Our rows by order, and the gateway's charges by operation."""

    rows: dict[str, list[tuple[Any, ...]]]
    charges: dict[str, list[dict[str, Any]]]
    key_of_order: dict[str, str]  # the idempotency key at the gateway


def gather(database_url: str, simulator: Simulator) -> Books:
    """Read our tables and the simulator's ledger."""
    rows: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    with psycopg.connect(database_url) as connection:
        for order_id, *rest in connection.execute(_QUERY):
            rows[order_id].append(tuple(rest))
    charges: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for charge in simulator.charges():
        charges[charge["metadata"]["operation_id"]].append(charge)
    return Books(rows, charges, {order: found[0][4] for order, found in rows.items()})


def unaccounted(arrivals: Iterable[Arrival], books: Books, outcomes: Outcomes) -> list[str]:
    """The orders for which anything is missing, double or different; none is the only good answer.

    An order that was not accepted must have left nothing; one whose answer was lost may have either.
    """
    return [each.order_id for each in arrivals if not _accounted(each, books, outcomes)]


def _accounted(arrival: Arrival, books: Books, outcomes: Outcomes) -> bool:
    rows = books.rows.get(arrival.order_id, [])
    if not rows and arrival.status not in ACCEPTED:
        return True
    if len(rows) != 1:
        return False
    payment_id, status, amount_minor, transaction_id, operation_id, state = rows[0]
    events = outcomes.by_order.get(arrival.order_id, [])
    charged = [each for each in books.charges.get(operation_id, []) if each["status"] == "succeeded"]
    return (
        (status, state) == ("succeeded", "succeeded")
        and [each["id"] for each in charged] == [transaction_id]
        and charged[0]["amount_captured"] == amount_minor
        and {(each.topic, each.payment_id) for each in events} == {("payment-succeeded", payment_id)}
        and len({each.event_id for each in events}) == 1
        and events[0].value["amountMinor"] == amount_minor
    )
