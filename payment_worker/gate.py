"""The gate before every call to the gateway: the circuit breaker, then a token of the request budget."""

import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from sqlalchemy import ColumnElement, func, or_, select, update

from payment_worker.breaker import Breaker, Sign, State, Ticket
from payment_worker.budget import Budget, Priority, priority_of
from payment_worker.metrics import BREAKER_REFUSALS, BREAKER_STATE
from shared.database import Sessions, alone
from shared.gateways import GatewayUnavailable, Outcome, Transient, Unknown
from shared.models import Operation, Pause
from shared.payments import OperationState
from shared.settings import Settings
from shared.telemetry import get_logger
from shared.wakeup import connect_redis

log = get_logger(__name__)

# What is sent away comes again after this, spread so that all of it does not come at once.
COME_AGAIN_S = 5.0
PAGE_MAX_WAIT_S = 30.0  # what a look has found so far is lost when it is given up

Found = TypeVar("Found")


class OutOfTurn(GatewayUnavailable):
    """The gateway was not asked: it does not answer of late, or the request budget is used up."""


def sign_of(outcome: Outcome) -> Sign:
    """What an outcome says of the gateway itself.

    A decline or a refusal is an answer like any other. A 500 that is replayed from its key is an old one:
    after an outage there are many, and they must not keep the breaker open.
    """
    if isinstance(outcome, Unknown) and outcome.key_poisoned:
        return Sign.NONE
    return Sign.ILL if isinstance(outcome, Unknown | Transient) else Sign.WELL


class Passage:
    """Leave to make one call."""

    def __init__(self, breaker: Breaker, ticket: Ticket) -> None:
        """Hold the breaker's ticket until the call is reported."""
        self._breaker = breaker
        self._ticket = ticket
        self._reported = False

    def report(self, outcome: Outcome, *, poll: bool) -> None:
        """Say what the call led to, as soon as it is known."""
        sign = sign_of(outcome)
        # That it can be read says little: only what does something shows that the gateway can do it.
        self._settle(Sign.NONE if poll and sign is Sign.WELL else sign)

    def fail(self) -> None:
        """Say that the gateway could not be asked."""
        self._settle(Sign.ILL)

    def give_back(self) -> None:
        """No call was made after all; does nothing after a report."""
        if not self._reported:
            self._settle(Sign.NONE)

    def _settle(self, sign: Sign) -> None:
        self._reported = True
        self._breaker.leave(self._ticket, sign)


class Gate:
    """Who may call the gateway now; one per process."""

    def __init__(self, sessions: Sessions, budget: Budget, breaker: Breaker) -> None:
        """Read an operation's kind, and postpone what is sent away, over these sessions."""
        self._sessions = sessions
        self._budget = budget
        self._breaker = breaker

    @contextmanager
    def passage(self, operation_id: uuid.UUID, expected_attempt: int) -> Iterator[Passage | None]:
        """Ask, before the claim, for leave to carry out this attempt; report the outcome to the passage.

        None: leave it alone. It keeps its number of attempts and stays due, a little later. May wait for a
        token, at most budget.MAX_WAIT_S seconds. With an unlimited budget it asks neither Redis nor
        PostgreSQL.
        """
        ticket = self._breaker.enter()
        if ticket is None:
            BREAKER_REFUSALS.inc()
            self._postpone(operation_id, expected_attempt, self._breaker.retry_after_s(), "breaker")
            yield None
            return
        passage = Passage(self._breaker, ticket)
        try:
            if self._takes_token(operation_id, expected_attempt):
                yield passage
            else:
                self._postpone(operation_id, expected_attempt, 0.0, "budget")
                yield None
        finally:
            passage.give_back()

    def look(self, call: Callable[[], Found]) -> Found:
        """Make a call that only looks, at the lowest priority. Raises OutOfTurn when it was not made."""
        ticket = self._breaker.enter()
        if ticket is None:
            BREAKER_REFUSALS.inc()
            raise OutOfTurn("the gateway does not answer of late")
        passage = Passage(self._breaker, ticket)
        try:
            self.next_page()
            return call()
        except OutOfTurn:
            raise
        except GatewayUnavailable:
            passage.fail()
            raise
        finally:
            passage.give_back()

    def next_page(self) -> None:
        """Take a token for one page of a list. Raises OutOfTurn."""
        if not self._budget.take(Priority.POLL, PAGE_MAX_WAIT_S):
            raise OutOfTurn("no token for a look")

    def _takes_token(self, operation_id: uuid.UUID, expected_attempt: int) -> bool:
        if not self._budget.limited:
            return True
        priority = self._priority(operation_id, expected_attempt)
        # Nothing to claim, so nothing to pay for; the claim will say why.
        return priority is None or self._budget.take(priority)

    def _priority(self, operation_id: uuid.UUID, expected_attempt: int) -> Priority | None:
        query = select(Operation.kind, Operation.state).where(
            *_waits(operation_id, expected_attempt), Operation.kind.not_in(select(Pause.kind))
        )
        with alone(self._sessions) as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        return priority_of(row.kind, poll=row.state is OperationState.REQUIRES_ACTION)

    def _postpone(self, operation_id: uuid.UUID, expected_attempt: int, after_s: float, why: str) -> None:
        """Push the next turn out: recovery dispatches the operation then. The attempt is not counted."""
        spread_s = COME_AGAIN_S * random.uniform(0.5, 1.5)  # noqa: S311 - spreads load, guards nothing
        later = func.clock_timestamp() + timedelta(seconds=after_s + spread_s)
        push = update(Operation).where(
            *_waits(operation_id, expected_attempt), Operation.next_attempt_at.is_not(None)
        )
        with alone(self._sessions) as connection:
            connection.execute(push.values(next_attempt_at=later))
        log.debug("not attempted now; recovery sends it again", refused_by=why, after_s=round(after_s, 1))


def make_gate(sessions: Sessions, settings: Settings, clock: Callable[[], float] = time.monotonic) -> Gate:
    """The process's gate after the settings; the breaker goes by `clock`. No connection is opened yet."""
    budget = Budget(connect_redis(settings.redis_url), settings.gateway_max_rps)
    return Gate(sessions, budget, Breaker(clock=clock, on_change=_show))


def _show(state: State) -> None:
    BREAKER_STATE.set(state)
    if state is State.OPEN:
        log.warning("the gateway does not answer: nothing is sent to it for a while")
    elif state is State.CLOSED:
        log.info("the gateway answers again")


def _waits(operation_id: uuid.UUID, expected_attempt: int) -> list[ColumnElement[bool]]:
    """Conditions under which an attempt is still to be made."""
    return [
        Operation.id == operation_id,
        Operation.attempt == expected_attempt,
        Operation.finished_at.is_(None),
        Operation.doubt_since.is_(None),
        or_(Operation.lease_until.is_(None), Operation.lease_until < func.clock_timestamp()),
    ]
