"""Figures that are looked up when Prometheus asks: due work, queues, the outbox, what needs a person."""

from collections.abc import Callable, Iterator
from typing import Any

import redis
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import Float, case, cast, extract, func, or_, select
from sqlalchemy.exc import SQLAlchemyError

from payment_worker.auditing import ALL
from payment_worker.invariants import INVARIANTS
from payment_worker.queues import QUEUES
from payment_worker.reconciling.breaks import IS_ACCEPTED, IS_OPEN
from shared.database import Sessions, reason_of
from shared.models import InboxMessage, InboxState, Operation, Outbox, Pause
from shared.models_invariants import InvariantPass, InvariantViolation
from shared.models_notifications import (
    DeliveryState,
    EndpointState,
    NotificationDelivery,
    NotificationEndpoint,
)
from shared.models_reconciliation import BREAK_KINDS, ReconciliationBreak, ReconciliationRun, Restore
from shared.notifications import ORDER_SERVICE
from shared.payments import OperationKind
from shared.telemetry import get_logger

log = get_logger(__name__)

Rows = list[tuple[Any, ...]]


class Figures(Collector):
    """Collects over one connection at each scrape. Every query is on an index of open work only."""

    def __init__(self, sessions: Sessions, client: redis.Redis) -> None:
        """Nothing is asked until the first scrape."""
        self._sessions = sessions
        self._client = client

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield what can be found out; a source that is away leaves its figures out."""
        for source in (self._database, self._queues):
            try:
                yield from source()
            except (SQLAlchemyError, redis.RedisError) as error:
                log.warning("figures are missing", reason=reason_of(error))

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing before the first scrape: registering must not need a database."""
        return []

    def _database(self) -> Iterator[GaugeMetricFamily]:
        with self._sessions() as session:

            def rows(query: Any) -> Rows:
                return [tuple(row) for row in session.execute(query)]

            yield from _operations(rows)
            yield from _outbox(rows)
            yield from _inbox(rows)
            yield from _notifications(rows)
            yield _paused(rows)
            yield from _reconciliation(rows)
            yield from _invariants(rows)

    def _queues(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily("payment_queue_length", "Tasks that wait in Redis", labels=["queue"])
        for queue in QUEUES:
            family.add_metric([queue], int(self._client.llen(queue)))
        yield family


def _operations(rows: Callable[[Any], Rows]) -> Iterator[GaugeMetricFamily]:
    open_now = GaugeMetricFamily(
        "payment_operations_open", "Operations without an outcome", labels=["kind", "state"]
    )
    is_open = Operation.finished_at.is_(None)
    count = select(Operation.kind, Operation.state, func.count()).where(is_open)
    for kind, state, number in rows(count.group_by(Operation.kind, Operation.state)):
        open_now.add_metric([kind, state], number)
    yield open_now

    oldest = GaugeMetricFamily(
        "payment_oldest_due_seconds",
        "Age of the oldest due operation: the signal to scale by",
        labels=["kind"],
    )
    age = _seconds_since(func.min(Operation.next_attempt_at))
    unclaimed = or_(Operation.lease_until.is_(None), Operation.lease_until < func.now())
    due = select(Operation.kind, age).where(Operation.next_attempt_at <= func.now(), unclaimed)
    for kind, seconds in rows(due.group_by(Operation.kind)):
        oldest.add_metric([kind], seconds)
    yield oldest

    [(number,)] = rows(select(func.count()).select_from(Operation).where(Operation.doubt_since.is_not(None)))
    yield GaugeMetricFamily("payment_in_doubt", "Operations that are looked for at the gateway", value=number)
    [(number,)] = rows(select(func.count()).select_from(Operation).where(Operation.needs_review))
    yield GaugeMetricFamily("payment_needs_review", "Operations that wait for a person", value=number)


def _outbox(rows: Callable[[Any], Rows]) -> Iterator[GaugeMetricFamily]:
    [(depth, age)] = rows(select(func.count(), _seconds_since(func.min(Outbox.created_at))))
    yield GaugeMetricFamily("payment_outbox_depth", "Events that Kafka has not confirmed", value=depth)
    yield GaugeMetricFamily("payment_outbox_oldest_seconds", "Age of the oldest of them", value=age or 0)


def _inbox(rows: Callable[[Any], Rows]) -> Iterator[GaugeMetricFamily]:
    family = GaugeMetricFamily(
        "payment_inbox", "Webhooks to be processed, unmatched or given up", labels=["state"]
    )
    due = select(func.count(), _seconds_since(func.min(InboxMessage.next_attempt_at))).where(
        InboxMessage.next_attempt_at <= func.now()
    )
    [(number, age)] = rows(due)
    family.add_metric(["due"], number)
    waiting = [InboxState.UNMATCHED, InboxState.FAILED]
    count = select(InboxMessage.state, func.count()).where(InboxMessage.state.in_(waiting))
    counted: dict[Any, int] = dict(rows(count.group_by(InboxMessage.state)))
    for state in waiting:
        family.add_metric([state], counted.get(state, 0))
    yield family
    yield GaugeMetricFamily("payment_inbox_oldest_seconds", "Age of the oldest due webhook", value=age or 0)


def _notifications(rows: Callable[[Any], Rows]) -> Iterator[GaugeMetricFamily]:
    """What is on its way to subscribers; what waits for a disabled endpoint waits for a person."""
    delivery, endpoint = NotificationDelivery, NotificationEndpoint
    count = select(func.count(), _seconds_since(func.min(delivery.created_at)))
    is_told = delivery.endpoint_id.in_([ORDER_SERVICE]) | delivery.endpoint_id.in_(
        select(endpoint.id).where(endpoint.state == EndpointState.ENABLED)
    )
    [(number, age)] = rows(count.where(delivery.state == DeliveryState.PENDING, is_told))
    yield GaugeMetricFamily("payment_notifications_waiting", "Deliveries to come", value=number)
    yield GaugeMetricFamily(
        "payment_notifications_oldest_seconds", "Age of the oldest of them", value=age or 0
    )
    family = GaugeMetricFamily(
        "payment_notification_endpoints", "Subscribers' endpoints; failing ones are enabled", labels=["state"]
    )
    failing = func.count().filter(endpoint.failures > 0, endpoint.state == EndpointState.ENABLED)
    query = select(endpoint.state, func.count(), failing).where(endpoint.state != EndpointState.REMOVED)
    counted = {state: (each, failing) for state, each, failing in rows(query.group_by(endpoint.state))}
    for state in (EndpointState.ENABLED, EndpointState.DISABLED):
        family.add_metric([state], counted.get(state, (0, 0))[0])
    family.add_metric(["failing"], counted.get(EndpointState.ENABLED, (0, 0))[1])
    yield family


def _paused(rows: Callable[[Any], Rows]) -> GaugeMetricFamily:
    family = GaugeMetricFamily("payment_paused", "1 for a kind that an operator has halted", labels=["kind"])
    paused = {kind for (kind,) in rows(select(Pause.kind))}
    for kind in OperationKind:
        family.add_metric([kind], int(kind in paused))
    return family


def _reconciliation(rows: Callable[[Any], Rows]) -> Iterator[GaugeMetricFamily]:
    for family, which in (
        (
            GaugeMetricFamily(
                "payment_reconciliation_open_breaks",
                "Differences between the gateway's books and ours",
                labels=["kind"],
            ),
            IS_OPEN,
        ),
        (
            GaugeMetricFamily(
                "payment_reconciliation_accepted_breaks",
                "Differences that an operator knows of, which are not among the open ones",
                labels=["kind"],
            ),
            IS_ACCEPTED,
        ),
    ):
        count = select(ReconciliationBreak.kind, func.count()).where(which)
        counted: dict[Any, int] = dict(rows(count.group_by(ReconciliationBreak.kind)))
        for kind in BREAK_KINDS:
            family.add_metric([kind], counted.get(kind, 0))
        yield family
    last = cast(extract("epoch", func.max(ReconciliationRun.finished_at)), Float)
    [(finished,)] = rows(select(last))
    yield GaugeMetricFamily(
        "payment_reconciliation_last_success_timestamp_seconds",
        "When the gateway's books were last compared with ours to the end; 0: never",
        value=finished or 0,
    )
    [(marks,)] = rows(select(func.count()).select_from(Restore).where(Restore.cleared_at.is_(None)))
    yield GaugeMetricFamily(
        "payment_restored", "1 after a restore, until what it had lost is rebuilt", value=marks
    )


def _invariants(rows: Callable[[Any], Rows]) -> Iterator[GaugeMetricFamily]:
    broken = GaugeMetricFamily(
        "payment_invariant_violations", "Payments that break an invariant: must be 0", labels=["invariant"]
    )
    count = select(InvariantViolation.invariant, func.count()).group_by(InvariantViolation.invariant)
    counted: dict[Any, int] = dict(rows(count))
    for name in sorted({*INVARIANTS, *counted}):
        broken.add_metric([name], counted.get(name, 0))
    yield broken
    age = GaugeMetricFamily(
        "payment_invariants_checked_seconds",
        "Time since a pass over what has changed had its turn, and since one over all payments was finished",
        labels=["pass"],
    )
    passed = InvariantPass
    since = case((passed.name == ALL, passed.finished_at), else_=passed.turn_at)
    for name, seconds in rows(select(passed.name, _seconds_since(since)).where(since.is_not(None))):
        age.add_metric([name], seconds)
    yield age


def _seconds_since(moment: Any) -> Any:
    return cast(extract("epoch", func.clock_timestamp() - moment), Float)
