"""Everything that can be known of one seed at one moment: rows, the gateway's ledger, events, answers."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import psycopg
import simplejson
from psycopg.rows import dict_row

from deploy.stripe_simulator.disputes import DISPUTE
from deploy.stripe_simulator.lookups import CHARGE, INTENT
from deploy.stripe_simulator.refunds import REFUND
from deploy.stripe_simulator.store import Page
from shared.payments import Announcement
from tests.simulation.broker import Record
from tests.simulation.shop import Answered, Shop
from tests.simulation.world import World

Row = dict[str, Any]
TABLES: Final = {
    "payment": "id",
    "operation": "id",
    "timeline_entry": "payment_id, sequence",
    "outbox": "position",
    "inbox": "source, message_id",
}
EVENTS: Final = frozenset(map(str, Announcement)) - {str(Announcement.NOTIFICATION_ENDPOINT_DISABLED)}


@dataclass(frozen=True)
class Said:
    """An event as an outsider has seen it on Kafka."""

    id: uuid.UUID
    type: str
    payment_id: uuid.UUID
    sequence: int
    value: dict[str, Any]


@dataclass(frozen=True)
class View:
    """One moment."""

    payments: dict[uuid.UUID, Row]
    operations: list[Row]
    timeline: dict[uuid.UUID, list[Row]]
    outbox: list[Row]
    others: list[Row]  # of the outbox, what is of no payment
    inbox: list[Row]
    intents: list[Row]
    charges: dict[str, Row]
    refunds: list[Row]
    disputes: list[Row]
    said: list[Said]
    answered: list[Answered]
    messages: dict[str, str]
    seen: list[tuple[str, str]]

    def operations_of(self, payment_id: uuid.UUID) -> list[Row]:
        """A payment's operations, oldest first."""
        return [each for each in self.operations if each["payment_id"] == payment_id]

    def intents_of(self, payment_id: uuid.UUID) -> list[Row]:
        """The gateway's charges and holds for a payment."""
        return [each for each in self.intents if each["metadata"].get("payment_id") == str(payment_id)]

    def refunds_of(self, intent_id: str) -> list[Row]:
        """What the gateway gives or gave back of a charge; a hold's released rest is none."""
        return [
            each
            for each in self.refunds
            if each["payment_intent"] == intent_id
            and not each.get("_release")
            and each["status"] not in {"failed", "canceled"}
        ]

    def net_minor(self, intent: Row) -> int:
        """What the gateway has taken of a charge and not given back."""
        taken: int = intent.get("amount_received", 0)
        return taken - sum(int(each["amount"]) for each in self.refunds_of(intent["id"]))


def take(world: World, shop: Shop) -> View:
    """Look at everything."""
    tables = rows_of(world.harness.database, TABLES)
    timeline: dict[uuid.UUID, list[Row]] = {}
    for entry in tables["timeline_entry"]:
        timeline.setdefault(entry["payment_id"], []).append(entry)
    ledger = {
        kind: world.simulator.store.page(kind, Page(limit=1000, oldest_first=True))[0]
        for kind in (INTENT, CHARGE, REFUND, DISPUTE)
    }
    return View(
        payments={row["id"]: row for row in tables["payment"]},
        operations=tables["operation"],
        timeline=timeline,
        outbox=[each for each in tables["outbox"] if each["aggregatetype"] == "payment"],
        others=[each for each in tables["outbox"] if each["aggregatetype"] != "payment"],
        inbox=tables["inbox"],
        intents=ledger[INTENT],
        charges={each["id"]: each for each in ledger[CHARGE]},
        refunds=ledger[REFUND],
        disputes=ledger[DISPUTE],
        said=[_said(each) for each in world.broker.ever if each.topic() in EVENTS],
        answered=list(shop.answered),
        messages={message_id: each.topic for message_id, each in shop.messages.items()},
        seen=list(world.network.witness.seen),
    )


def rows_of(database: psycopg.Connection[Any], tables: Mapping[str, str]) -> dict[str, list[Row]]:
    """All rows of these tables, each in its order, as of one moment and in one round trip."""
    with database.pipeline(), database.transaction():
        database.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursors = {
            name: database.cursor(row_factory=dict_row).execute(
                f"SELECT * FROM {name} ORDER BY {order}"  # noqa: S608 - our own tables' names
            )
            for name, order in tables.items()
        }
    return {name: cursor.fetchall() for name, cursor in cursors.items()}


def _said(record: Record) -> Said:
    headers = {name: value.decode() for name, value in record.headers()}
    return Said(
        id=uuid.UUID(headers["ce_id"]),
        type=record.topic(),
        payment_id=uuid.UUID(headers["ce_subject"]),
        sequence=int(headers["ce_sequence"]),
        value=simplejson.loads(record.value() or b"", use_decimal=True),
    )
