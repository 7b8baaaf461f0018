"""Carry out one operation: claim it, ask the gateway with no transaction open, record the outcome."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from payment_worker import outcomes
from payment_worker.evidence import EvidenceWriter
from payment_worker.gate import Gate, Passage
from payment_worker.leases import Leases
from payment_worker.locking import LOOK, lock, record_locked, taken_out
from payment_worker.marking import escalate
from payment_worker.metrics import (
    ATTEMPTS,
    GATEWAY_SECONDS,
    OPERATIONS_FINISHED,
    OUTCOMES,
    TAKEOVERS,
    UNKNOWN_OPERATIONS,
)
from payment_worker.requests import request_of
from shared import lifecycle
from shared.database import Sessions, alone, is_database_down, reason_of
from shared.events import rfc3339
from shared.evidence import reference_of
from shared.gateways import TERMINAL, Failed, Gateway, Outcome, Transient
from shared.gateways.exchanges import Exchange, keeping
from shared.models import Operation, Payment
from shared.payments import PRIMARY, OperationKind, OperationState, Status
from shared.rows import Writes
from shared.telemetry import get_logger, log_context
from shared.tracing import span

log = get_logger(__name__)

# Stripe keeps an idempotency key for 24 hours; an hour is kept for clocks and slow requests.
KEY_LIFETIME = timedelta(hours=23)
# A crash loop, or an outcome that never comes, ends here and becomes an operator's.
MAX_ATTEMPTS = 200
ACTOR = "worker"
CALLED_OFF = Failed(error_code="CANCELED", message="The payment was cancelled", reason="canceled")
RECORD_FOR_S = 10.0
RECORD_AGAIN_S = 0.5


class Claim(NamedTuple):
    """The right to carry out one attempt of an operation, with both rows as the claim has left them.

    The rows belong to no session. `at` is the database's time of the claim; `known_ref` is set when the
    gateway has the charge already and only its state is asked.
    """

    payment: Payment
    operation: Operation
    attempt: int
    at: datetime
    began_s: float  # the monotonic clock at `at`
    known_ref: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """What carrying out operations needs; one per process."""

    sessions: Sessions
    gateway: Gateway
    gate: Gate
    leases: Leases
    lease_s: float
    announce_change: Callable[[uuid.UUID], None]
    abandon_after: timedelta = outcomes.ABANDONED_AFTER
    evidence: EvidenceWriter | None = None  # None: none is kept

    def process(self, operation_id: uuid.UUID, expected_attempt: int) -> Outcome | None:
        """Carry out one attempt. None when it is not ours to make: finished, claimed, paused or made already.

        None, too, when it is not to be made now: the gateway does not answer, or the request budget is spent.
        `expected_attempt` is the number of attempts that the sender knew of, so that a message that
        comes twice or late does nothing.
        """
        # Before the claim: what waits for its turn holds neither a lease nor a connection.
        with self.gate.passage(operation_id, expected_attempt) as passage:
            return self._attempt(operation_id, expected_attempt, passage) if passage else None

    def _attempt(self, operation_id: uuid.UUID, expected_attempt: int, passage: Passage) -> Outcome | None:
        with alone(self.sessions) as connection:
            claim = self._claim(connection, operation_id, expected_attempt)
        if claim is None:
            return None
        ids = {"payment_id": claim.payment.id, "operation_id": operation_id, "attempt": claim.attempt}
        with log_context(**ids), span("attempt", claim.operation.traceparent, **ids):
            with self.leases.held(operation_id, claim.attempt):
                with keeping() as exchanges:
                    outcome = self._ask(claim)
                passage.report(outcome, poll=claim.known_ref is not None)
                self._insist_on_recording(claim, outcome)
            self._keep_evidence(claim, exchanges, outcome)
            log.info("operation attempted", outcome=type(outcome).__name__)
        return outcome

    def _keep_evidence(self, claim: Claim, exchanges: list[Exchange], outcome: Outcome) -> None:
        """Have the exchanges written, once the outcome is recorded; a look at what is known leaves none."""
        if self.evidence is None or claim.known_ref:
            return
        operation = claim.operation
        document = {
            "paymentId": str(claim.payment.id),
            "operationId": str(operation.id),
            "kind": str(operation.kind),
            "attempt": claim.attempt,
            "claimedAt": rfc3339(claim.at),
            "outcome": type(outcome).__name__,
        }
        self.evidence.keep(_evidence_of(claim.payment, operation, claim.at), document, exchanges)

    def _ask(self, claim: Claim) -> Outcome:
        operation = claim.operation
        with GATEWAY_SECONDS.labels(operation.kind).time(), span("gateway call", None):
            if claim.known_ref:
                outcome = self.gateway.look_up(operation.kind, claim.known_ref)
            else:
                outcome = self.gateway.send(operation.kind, operation.request or {}, operation.gateway_key)
        OUTCOMES.labels(operation.kind, type(outcome).__name__.lower()).inc()
        return outcome

    def _insist_on_recording(self, claim: Claim, outcome: Outcome) -> None:
        """Record, and wait out a short outage of the database: the answer is in hand only once."""
        until = time.monotonic() + RECORD_FOR_S
        anew = False
        while True:
            try:
                self.record(claim, outcome, anew=anew)
            except Exception as error:
                if not is_database_down(error) or time.monotonic() > until:
                    raise
                reason = reason_of(error)
                log.warning("the database is away; the outcome is recorded when it is back", reason=reason)
                time.sleep(RECORD_AGAIN_S)
                # The first try has left its marks on the claimed rows, and may even have been committed.
                anew = True
            else:
                return

    def record(self, claim: Claim, outcome: Outcome, *, anew: bool = False) -> None:
        """Write down what the gateway said. A stale holder may only supply a terminal outcome.

        With `anew` the rows are read again; a claim's own rows serve for one try only.
        """
        # What else is open has to be read first: a cancel also ends the charge that it was about, and whoever
        # is to be cancelled may have been asked to already.
        alone_will_do = (
            isinstance(outcome, TERMINAL)
            and claim.operation.kind is not OperationKind.CANCEL
            and claim.payment.cancel_requested_at is None
        )
        if anew or not (alone_will_do and self._record_at_once(claim, outcome)):
            self._record_anew(claim, outcome)
        if isinstance(outcome, TERMINAL):
            OPERATIONS_FINISHED.labels(claim.operation.kind, type(outcome).__name__.lower()).inc()
        self.announce_change(claim.payment.id)

    def _record_at_once(self, claim: Claim, outcome: Outcome) -> bool:
        """Record on the rows as they were claimed, without reading them again; False when they have changed.

        Good enough for a terminal outcome only: whatever attempt it comes from, it counts while the
        operation is open, and finishing an operation always changes the payment's version.
        """
        writes = Writes()
        at = claim.at + timedelta(seconds=time.monotonic() - claim.began_s)
        outcomes.record(writes, claim.payment, claim.operation, outcome, at, abandon_after=self.abandon_after)
        writes.change(claim.payment, claim.operation)
        with alone(self.sessions) as connection:
            return writes.send(connection)

    def _record_anew(self, claim: Claim, outcome: Outcome) -> None:
        with self.sessions.begin() as session:
            payment, operation, at = lock(session, claim.operation.id)
            if operation.attempt != claim.attempt and not isinstance(outcome, TERMINAL):
                log.info("an outcome of an overtaken attempt is dropped")
                return
            if isinstance(outcome, Transient) and _is_first(claim, operation):
                operation.first_sent_at = None
            record_locked(session, payment, operation, outcome, at, abandon_after=self.abandon_after)

    def _claim(self, connection: Connection, operation_id: uuid.UUID, expected_attempt: int) -> Claim | None:
        """Read without a lock, and write over what was read: of two that race one finds the rows changed."""
        row = Session(connection).execute(LOOK, {"operation_id": operation_id}).one_or_none()
        if row is None:
            UNKNOWN_OPERATIONS.inc()
            log.warning("an operation that we do not know was dropped", operation_id=str(operation_id))
            return None
        began_s = time.monotonic()
        payment, operation, at, paused = taken_out(row)
        if not _claimable(operation, expected_attempt, at):
            return None
        if paused:
            log.info("not claimed: an operator has paused its kind", kind=str(operation.kind))
            return None
        cause = lifecycle.Cause(event=f"{operation.kind} sent", actor=ACTOR, at=at, operation=operation)
        known_ref = operation.gateway_ref if operation.state is OperationState.REQUIRES_ACTION else None
        writes = Writes()
        overtakes = operation.lease_until is not None
        hopeless = self._is_hopeless(writes, payment, cause, known_ref)
        if not hopeless:
            self._begin_attempt(payment, operation, at)
            kept = {"evidence": _evidence_of(payment, operation, at)} if self.evidence else {}
            if payment.status is Status.PENDING:
                lifecycle.advance(writes, payment, Status.PROCESSING, replace(cause, detail=kept))
            elif not known_ref:
                again = f"{cause.event} again" if operation.attempt > 1 else cause.event
                detail = {"attempt": operation.attempt, **kept}
                lifecycle.note(writes, payment, replace(cause, event=again, detail=detail))
        writes.change(payment, operation)
        if not writes.send(connection) or hopeless:
            return None
        ATTEMPTS.labels(operation.kind).inc()
        if overtakes:
            TAKEOVERS.labels(operation.kind).inc()
        return Claim(payment, operation, operation.attempt, at, began_s, known_ref)

    def _is_hopeless(
        self, writes: Writes, payment: Payment, cause: lifecycle.Cause, known_ref: str | None
    ) -> bool:
        """End what was cancelled and never sent; hand over what another attempt cannot help.

        To an operator, or to the verification.
        """
        operation, at = cause.operation, cause.at
        is_new = operation.first_sent_at is None and not known_ref
        if is_new and operation.kind in PRIMARY and payment.cancel_requested_at:
            outcomes.record(writes, payment, operation, CALLED_OFF, at)
            return True
        # A multiple: an operator who has it tried again lets as many attempts follow.
        if not known_ref and operation.attempt and operation.attempt % MAX_ATTEMPTS == 0:
            escalate(writes, payment, cause, f"no outcome after {MAX_ATTEMPTS} attempts")
            return True
        if not known_ref and operation.first_sent_at and at - operation.first_sent_at > KEY_LIFETIME:
            outcomes.doubt(writes, payment, cause, "the gateway no longer knows the idempotency key")
            return True
        return False

    def _begin_attempt(self, payment: Payment, operation: Operation, at: datetime) -> None:
        operation.attempt += 1
        operation.dispatch_count = 0
        operation.lease_until = operation.next_attempt_at = at + timedelta(seconds=self.lease_s)
        if operation.state is OperationState.REQUESTED:
            operation.state = OperationState.IN_FLIGHT
        if operation.request is None:
            operation.request = self.gateway.freeze(request_of(payment, operation))
            if operation.kind in PRIMARY:
                payment.is_simulated = self.gateway.simulated
        operation.first_sent_at = operation.first_sent_at or at


def _evidence_of(payment: Payment, operation: Operation, at: datetime) -> str:
    return reference_of(at, payment.id, operation.id, operation.attempt)


def _is_first(claim: Claim, operation: Operation) -> bool:
    """Whether nothing of a charge or hold was sent before this attempt, under its key or an earlier one.

    Then there is certainly nothing at the gateway if this attempt has left nothing there either.
    """
    return operation.kind in PRIMARY and not claim.known_ref and operation.first_sent_at == claim.at


def _claimable(operation: Operation, expected_attempt: int, at: datetime) -> bool:
    return (
        operation.finished_at is None
        and operation.attempt == expected_attempt
        and operation.doubt_since is None
        and (operation.lease_until is None or operation.lease_until < at)
    )
