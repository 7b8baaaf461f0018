"""What is sent for a delivery: a signed webhook to a subscriber, or a status to the order service."""

import time
import uuid
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from shared.commands.endpoints import signing_secrets
from shared.database import Sessions, alone, reading
from shared.documents import render_json
from shared.events import rfc3339
from shared.models import TimelineEntry
from shared.models_notifications import EndpointState, NotificationEndpoint, OrderCallback
from shared.notifications import ORDER_SERVICE, ORDER_STATUS, ORDER_TOKEN, message, signed_headers
from shared.sealing import CannotOpen, Sealer
from shared.telemetry import get_logger

log = get_logger(__name__)

JSON = {"Content-Type": "application/json", "User-Agent": "payment-service"}
NOT_WITH_THIS_TOKEN = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One HTTP request."""

    method: str
    url: str
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """Writes them from our rows; holds no connection when it returns."""

    sessions: Sessions
    sealer: Sealer
    order_status_url: str
    order_status_token: str

    def write(self, taken: Any) -> Notice | None:
        """The request for a delivery; None when its endpoint is not told any more. Raises CannotOpen."""
        with reading(self.sessions) as session:
            if taken.endpoint_id == ORDER_SERVICE:
                return self._to_order_service(session, taken)
            return self._to_subscriber(session, taken)

    def settle_token(self, taken: Any, status: int | None, *, ended: bool) -> None:
        """Forget the caller's token once the order service has been told, or does not take it."""
        if taken.endpoint_id == ORDER_SERVICE and (ended or status in NOT_WITH_THIS_TOKEN):
            forget_tokens(self.sessions, taken.payment_id)

    def _to_subscriber(self, session: Session, taken: Any) -> Notice | None:
        query = select(NotificationEndpoint, func.now()).where(
            NotificationEndpoint.id == taken.endpoint_id, NotificationEndpoint.state == EndpointState.ENABLED
        )
        row = session.execute(query).one_or_none()
        if row is None:
            return None
        endpoint, now = row
        entry = session.get_one(TimelineEntry, (taken.payment_id, taken.sequence))
        said = message(taken.type, rfc3339(entry.at), entry.announced_payload or {})
        body = render_json(said).encode()
        keys = signing_secrets(endpoint, now, self.sealer)
        headers = signed_headers(str(taken.event_id), int(time.time()), body, keys)
        return Notice(method="POST", url=endpoint.url, body=body, headers=JSON | headers)

    def _to_order_service(self, session: Session, taken: Any) -> Notice:
        still_good = OrderCallback.token_until > func.now()
        query = select(OrderCallback, still_good).where(OrderCallback.payment_id == taken.payment_id)
        callback, is_good = session.execute(query).one()
        token = self._callers_token(callback) if callback.sealed_token and is_good else None
        token = token or self.order_status_token
        said = {"orderId": callback.order_id, "status": ORDER_STATUS[taken.type]}
        # The service may be told twice, and knows by the key that it was.
        headers = {"Idempotency-Key": str(taken.event_id)}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return Notice(
            method="PUT",
            url=f"{self.order_status_url.rstrip('/')}/updateStatus",
            body=render_json(said).encode(),
            headers=JSON | headers,
        )

    def _callers_token(self, callback: OrderCallback) -> str | None:
        try:
            return self.sealer.open(callback.sealed_token or b"", ORDER_TOKEN)
        except CannotOpen as error:
            log.warning("a caller's token cannot be opened; ours is used", reason=str(error))
            return None


def forget_tokens(sessions: Sessions, payment_id: uuid.UUID | None = None) -> int:
    """Forget the token of this payment's caller; without a payment all that have expired. Return how many."""
    whose = OrderCallback.payment_id == payment_id if payment_id else OrderCallback.token_until <= func.now()
    kept = update(OrderCallback).where(whose, OrderCallback.sealed_token.is_not(None))
    with alone(sessions) as connection:
        return connection.execute(kept.values(sealed_token=None, token_until=None)).rowcount
