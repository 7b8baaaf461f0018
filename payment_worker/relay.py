"""Carry events from the outbox to Kafka: in each payment's order, deleted only after the delivery report."""

import threading
import uuid
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, delete, func, select, update

from payment_worker.metrics import DELIVERED, LEADS, PARKED
from shared.database import is_database_down, reason_of
from shared.events import Event, InvalidEvent, Message, encode
from shared.health import Pulse
from shared.kafka import Deliveries
from shared.models import Outbox
from shared.payments import Announcement
from shared.telemetry import get_logger
from shared.tracing import span

log = get_logger(__name__)

BATCH = 500
# A round costs the same for one event as for ten: it waits this long for company. Twice in a payment's way.
PACE_S = 0.02
IDLE_LAST_S = 0.2
STANDBY_S = 0.5
RETRY_LAST_S = 5.0
LEADER = "outbox relay"
TOO_LARGE = "too large for Kafka"

_pick = select(Outbox).where(Outbox.parked_reason.is_(None)).order_by(Outbox.position).limit(BATCH)
# Refused by a database that only reads, as a failover may leave one behind.
_may_write = select(Outbox.id).limit(0).with_for_update()
_remove = delete(Outbox).where(Outbox.id.in_(bindparam("ids", expanding=True)))


class Relay:
    """One relay process. Only the one that holds the advisory lock carries; others stand by."""

    def __init__(self, engine: Engine, deliveries: Deliveries, topic_prefix: str) -> None:
        """Stands by until `run` or `run_once` gets the lock."""
        self._engine = engine
        self._deliveries = deliveries
        self._prefix = topic_prefix
        self._connection: Connection | None = None
        self.leads = False
        self.pulse = Pulse()

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Ready when it leads or stands by for the one that does; not while the database is away."""
        role = "leads" if self.leads else "stands by"
        connected = self._connection is not None
        return connected, {"role": role if connected else "waits for the database"}

    def run(self, stop: threading.Event) -> None:
        """Carry until `stop` is set; outages of the database or the broker are waited out."""
        pause_s, retry_s = PACE_S, IDLE_LAST_S
        while not stop.is_set():
            self.pulse.beat()
            try:
                carried = self.run_once()
            except Exception as error:
                if not is_database_down(error):
                    raise
                log.warning("the database is away", reason=reason_of(error), retry_s=retry_s)
                self.close()
                stop.wait(retry_s)
                retry_s = min(RETRY_LAST_S, retry_s * 2)
                continue
            retry_s = IDLE_LAST_S
            pause_s = PACE_S if carried else min(IDLE_LAST_S, pause_s * 2)
            stop.wait(pause_s if self.leads else STANDBY_S)
        self.close()
        self._deliveries.close()

    def run_once(self) -> int:
        """Carry one batch; return how many events were confirmed. 0 when standing by."""
        connection = self._lead()
        if connection is None:
            return 0
        messages = self._encode(connection, connection.execute(_pick))
        if not messages:
            return 0
        too_large: list[uuid.UUID] = []
        delivered = self._deliveries.deliver(
            (
                (event_id, each.topic, each.key, each.value, each.headers)
                for event_id, each in messages.items()
            ),
            too_large.append,
        )
        for event_id in too_large:
            _park(connection, event_id, TOO_LARGE)
        if delivered:
            connection.execute(_remove, {"ids": list(delivered)})
            DELIVERED.inc(len(delivered))
        return len(delivered)

    def close(self) -> None:
        """Give up the lock, so that a standby takes over at once."""
        if self._connection is not None:
            # Not back to the pool: the lock belongs to the server's session, which must end.
            self._connection.invalidate()
            self._connection.close()
        self._connection = None
        self.leads = False
        LEADS.set(0)

    def _lead(self) -> Connection | None:
        """The connection that holds the lock; everything is done over it, so losing it is losing the lead."""
        if self._connection is None:
            self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            log.info("relay stands by")
        if not self.leads:
            number = func.hashtextextended(LEADER, 0)
            self.leads = bool(self._connection.scalar(select(func.pg_try_advisory_lock(number))))
            if self.leads:
                # Before anything is sent: what cannot be deleted afterwards would be sent again and again.
                self._connection.execute(_may_write)
                log.info("relay leads")
                LEADS.set(1)
        return self._connection if self.leads else None

    def _encode(self, connection: Connection, rows: Iterable[Any]) -> dict[uuid.UUID, Message]:
        """The messages to send now: of each payment only the first row, so that none overtakes another."""
        messages: dict[uuid.UUID, Message] = {}
        payments = set()
        for row in rows:
            if row.aggregateid in payments:
                continue
            try:
                with span(f"deliver {row.type}", row.traceparent, payment_id=row.aggregateid) as traceparent:
                    messages[row.id] = encode(_event(row, traceparent), self._prefix)
            except (InvalidEvent, ValueError) as error:
                _park(connection, row.id, str(error)[:500])
            else:
                payments.add(row.aggregateid)
        return messages


def _park(connection: Connection, event_id: uuid.UUID, reason: str) -> None:
    """Set an event aside that can never go out as it is, so that it holds up no other."""
    log.error("event parked: it cannot be announced as it is", event_id=str(event_id), reason=reason)
    connection.execute(update(Outbox).where(Outbox.id == event_id).values(parked_reason=reason))
    PARKED.inc()


def _event(row: Any, traceparent: str | None) -> Event:
    return Event(
        id=row.id,
        type=Announcement(row.type),
        subject=row.aggregateid,
        sequence=row.sequence,
        time=row.created_at,
        data=row.payload,
        correlation_id=row.correlation_id,
        causation_id=row.causation_id,
        traceparent=traceparent,
    )
