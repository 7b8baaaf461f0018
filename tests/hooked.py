"""A worker with an API before it that takes webhooks, and what tests want to know of both."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import func, select, update

from payment_worker import webhooks
from payment_worker.requests import request_of
from shared.commands.operations import Origin
from shared.gateways import Outcome
from shared.models import InboxMessage, InboxState, Operation
from shared.payments import OperationKind
from shared.settings import Settings
from tests.api import NOWHERE, Api, api_settings
from tests.clock import Clock
from tests.webhooks import SECRET, event, send
from tests.worker import Bench

ORIGIN = Origin(actor="test", correlation_id=None, traceparent=None)


class Hooked(Bench):
    """A worker's bench; its API could not reach a gateway."""

    def __init__(self, settings: Settings) -> None:
        """Let both work on the same database."""
        self.clock = Clock()  # the breaker's
        super().__init__(settings, clock=self.clock)
        variables = {"STRIPE_API_URL": NOWHERE, "STRIPE_WEBHOOK_SECRET": SECRET}
        self.api = Api(api_settings(settings.database_url, settings.redis_url, **variables))

    def deliver(self, kind: str, thing: dict[str, Any], **changes: Any) -> str:
        """Let a webhook about an object arrive; return its id."""
        told = event(kind, **{**thing, **changes})
        assert send(self.api, told).status == 200
        return str(told["id"])

    def drain(self) -> int:
        """Work off everything that waits, as if its time had come."""
        with self.sessions.begin() as session:
            session.execute(
                update(InboxMessage)
                .where(InboxMessage.state == InboxState.RECEIVED)
                .values(next_attempt_at=func.now())
            )
        return webhooks.drain(self.worker)

    def hear(self, kind: str, thing: dict[str, Any], **changes: Any) -> InboxMessage:
        """Deliver a webhook and work it off; return its row."""
        message_id = self.deliver(kind, thing, **changes)
        self.drain()
        return self.message(message_id)

    def message(self, message_id: str) -> InboxMessage:
        """Read a webhook's row."""
        with self.sessions() as session:
            return session.get_one(InboxMessage, ("stripe", message_id))

    def intent(self, operation_id: uuid.UUID) -> dict[str, Any]:
        """The payment's charge as a webhook tells of it."""
        payment = self.payment(operation_id)
        labels = {"payment_id": str(payment.id), "operation_id": str(operation_id)}
        return {"id": payment.gateway_ref, "object": "payment_intent", "metadata": labels}

    def charge(self, operation_id: uuid.UUID) -> dict[str, Any]:
        """The payment's charge object as the simulator has it now."""
        ref = self.payment(operation_id).gateway_ref
        return next(each for each in self.simulator.charges() if each["payment_intent"] == ref)

    def refunds(self, operation_id: uuid.UUID) -> list[Operation]:
        """The payment's refunds, oldest first."""
        query = select(Operation).where(
            Operation.payment_id == self.payment(operation_id).id, Operation.kind == OperationKind.REFUND
        )
        with self.sessions() as session:
            return list(session.scalars(query.order_by(Operation.id)))

    def open_operations(self, operation_id: uuid.UUID) -> list[uuid.UUID]:
        """The operations of the payment that are not finished, oldest first."""
        query = select(Operation.id).where(
            Operation.payment_id == self.payment(operation_id).id, Operation.finished_at.is_(None)
        )
        with self.sessions() as session:
            return list(session.scalars(query.order_by(Operation.id)))

    def open_operation(self, operation_id: uuid.UUID) -> uuid.UUID:
        """The one operation of the payment that is not finished."""
        (only,) = self.open_operations(operation_id)
        return only

    def announced(self) -> list[str]:
        """The types of the events that wait for the relay."""
        return [row.type for row in self.outbox()]

    def send_behind_our_back(self, operation_id: uuid.UUID, key: str = "") -> Outcome:
        """Let the gateway carry an operation out without anything being recorded here."""
        operation = self.operation(operation_id)
        request = self.gateway.freeze(request_of(self.payment(operation_id), operation))
        return self.gateway.inner.send(operation.kind, request, key or str(operation_id))


@contextmanager
def make_hooked(settings: Settings) -> Iterator[Hooked]:
    """Set both up, and close their connections after the block."""
    bench = Hooked(settings)
    try:
        yield bench
    finally:
        bench.leases.stop()
        bench.api.close()
        bench.engine.dispose()
