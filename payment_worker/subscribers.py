"""How subscribers' endpoints do: one that fails for days is disabled, and an event says so."""

import uuid
from datetime import timedelta
from http import HTTPStatus
from typing import Any

from sqlalchemy import func, insert, update
from sqlalchemy.orm import Session

from payment_worker.metrics import ENDPOINTS_DISABLED
from shared.commands.deliveries import make_due
from shared.database import new_id
from shared.events import rfc3339
from shared.models import Outbox, plain
from shared.models_notifications import EndpointState, NotificationEndpoint
from shared.payments import Announcement
from shared.telemetry import get_logger

log = get_logger(__name__)

FAILS_FOR = timedelta(days=3)
# A subscriber that is seldom told anything is not disabled for what happened to be its only call in days.
FAILS_TIMES = 10
# So many failures in a row are an outage, and not what the subscriber thinks of single events.
OUTAGE_FAILURES = 5
GONE = HTTPStatus.GONE
ENDPOINT = plain(NotificationEndpoint)


def note_success(session: Session, endpoint_id: uuid.UUID) -> None:
    """Forget the failures before; after an outage everything that waits is due."""
    this = update(ENDPOINT).where(ENDPOINT.c.id == endpoint_id)
    well = this.values(failures=0, failing_since=None).returning(ENDPOINT.c.id)
    connection = session.connection()
    if connection.execute(well.where(ENDPOINT.c.failures >= OUTAGE_FAILURES)).one_or_none():
        make_due(session, endpoint_id)
    else:
        connection.execute(well.where(ENDPOINT.c.failures > 0))


def note_failure(session: Session, endpoint_id: uuid.UUID, status: int | None) -> None:
    """Count a failure; disable an endpoint that has failed for days, or is gone."""
    this = update(ENDPOINT).where(ENDPOINT.c.id == endpoint_id)
    counted = (
        this.where(ENDPOINT.c.state == EndpointState.ENABLED)
        .values(
            failures=ENDPOINT.c.failures + 1,
            failing_since=func.coalesce(ENDPOINT.c.failing_since, func.now()),
        )
        .returning(ENDPOINT.c.failures, func.now() - ENDPOINT.c.failing_since)
    )
    row = session.connection().execute(counted).one_or_none()
    if row is None:
        return
    failures, lasted = row
    if status == GONE:
        _disable(session, endpoint_id, "it answered 410 Gone")
    elif failures >= FAILS_TIMES and lasted >= FAILS_FOR:
        _disable(session, endpoint_id, f"it has failed for {lasted.days} days")


def _disable(session: Session, endpoint_id: uuid.UUID, reason: str) -> None:
    disabled = (
        update(ENDPOINT)
        .where(ENDPOINT.c.id == endpoint_id, ENDPOINT.c.state == EndpointState.ENABLED)
        .values(
            state=EndpointState.DISABLED,
            disabled_at=func.now(),
            disabled_reason=reason,
            disabled_count=ENDPOINT.c.disabled_count + 1,
        )
        .returning(ENDPOINT)
    )
    row = session.connection().execute(disabled).one_or_none()
    if row is None:  # its owner, or another attempt, was quicker
        return
    session.connection().execute(insert(plain(Outbox)).values(_event(row, reason)))
    ENDPOINTS_DISABLED.inc()
    log.error("a subscriber's endpoint is disabled", endpoint_id=str(endpoint_id), reason=reason)


def _event(row: Any, reason: str) -> dict[str, Any]:
    return {
        "id": new_id(),
        "aggregatetype": "notification_endpoint",
        "aggregateid": row.id,
        "type": str(Announcement.NOTIFICATION_ENDPOINT_DISABLED),
        "payload": {
            "endpointId": str(row.id),
            "owner": row.owner,
            "reason": reason,
            "disabledAt": rfc3339(row.disabled_at),
        },
        "sequence": row.disabled_count,
        "created_at": row.disabled_at,
    }
