"""What our tables say of neighbours: subscriptions, announced events, and who still waits to be told."""

from typing import Any

import psycopg

from shared.documents import parse_json
from tests.chaos.told import Entry, digest

TIMEOUT_S = 10
ANNOUNCED = """
    SELECT payment_id::text, announced_id::text, announced_type, announced_payload::text
    FROM timeline_entry WHERE announced_id IS NOT NULL ORDER BY payment_id, sequence
"""
IDS = "SELECT announced_id::text FROM timeline_entry WHERE announced_type = %s"
SUBSCRIPTIONS = "SELECT id::text, subscription_id FROM payment WHERE subscription_id IS NOT NULL"
UNTOLD = """
    SELECT payment_id::text FROM notification_event
    UNION ALL SELECT payment_id::text FROM notification_delivery WHERE state = 'pending'
"""


class History:
    """Reads our tables; belongs to one thread."""

    def __init__(self, database_url: str) -> None:
        """Raises psycopg.OperationalError when the database does not answer."""
        self._connection = psycopg.connect(database_url, autocommit=True, connect_timeout=TIMEOUT_S)

    def entries(self) -> list[Entry]:
        """Every event ever announced, of each payment in their order."""
        return [
            Entry(payment_id, event_id, topic, digest(topic, parse_json(value)))
            for payment_id, event_id, topic, value in self._connection.execute(ANNOUNCED)
        ]

    def ids(self, topic: str) -> set[str]:
        """The ids of all events of a topic ever announced."""
        return {event_id for (event_id,) in self._connection.execute(IDS, [topic])}

    def subscriptions(self) -> dict[str, str]:
        """The subscriptions that have a payment, by its id."""
        rows: list[tuple[Any, Any]] = self._connection.execute(SUBSCRIPTIONS).fetchall()
        return dict(rows)

    def untold(self) -> list[str]:
        """The payments of events that somebody still waits to be told of, once for each event."""
        return [payment_id for (payment_id,) in self._connection.execute(UNTOLD)]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
