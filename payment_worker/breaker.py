"""Stop asking a gateway that does not answer, and find out when it does again; pure, with a clock of its own.

One breaker serves one process. Processes do not tell each other: each finds out by at most a few calls.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from enum import Enum, IntEnum, auto
from typing import NamedTuple

# Calls that fail one after another, whatever they were, are the gateway's fault and not a payment's.
FAILURES_IN_A_ROW = 10
# Or this share of the latest calls, when some still get through.
FAILED_SHARE = 0.5
LATEST_CALLS = 50
FEWEST_CALLS = 20
LATEST_S = 30.0
FIRST_PAUSE_S = 5.0
LAST_PAUSE_S = 60.0
PROBE_S = 30.0  # a call lasts less: a probe that is still out has been lost, and another may go
SPREAD = 0.25  # of a pause, so that processes do not all probe at once


class State(IntEnum):
    """What becomes of calls; the numbers are those of the metric."""

    CLOSED = 0  # all go through
    HALF_OPEN = 1  # one at a time goes through, to see
    OPEN = 2  # none goes through


class Sign(Enum):
    """What the end of a call says of the gateway."""

    WELL = auto()  # it answers
    ILL = auto()  # it does not, or has too much to do
    NONE = auto()  # nothing


class Ticket(NamedTuple):
    """Leave to make one call, given in one of the breaker's eras; a change of state begins a new one."""

    era: int


class Breaker:
    """Counts how calls go, and says which may be made. Safe to use from many threads."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[[State], None] = lambda _: None,
    ) -> None:
        """Begin closed. `clock` gives seconds; `on_change` hears of each new state, and must not block."""
        self._clock = clock
        self._on_change = on_change
        self._lock = threading.Lock()
        self._state = State.CLOSED
        self._era = 0
        self._pauses = 0  # since the gateway last answered
        self._until_s = 0.0  # open: the pause's end; half-open: until then nobody but the probe
        self._failures_in_a_row = 0
        self._latest: deque[tuple[float, Sign]] = deque(maxlen=LATEST_CALLS)

    @property
    def state(self) -> State:
        """How it stands; an open breaker becomes half-open only when somebody asks to call."""
        return self._state

    def enter(self) -> Ticket | None:
        """Ask to make a call. With a ticket, make it and then `leave`; without one, do not call."""
        with self._lock:
            if self._state is State.CLOSED:
                return Ticket(self._era)
            if self._clock() < self._until_s:
                return None
            if self._state is State.OPEN:
                self._become(State.HALF_OPEN)
            self._until_s = self._clock() + PROBE_S
            return Ticket(self._era)

    def leave(self, ticket: Ticket, sign: Sign) -> None:
        """Say how the call went."""
        with self._lock:
            if ticket.era != self._era:
                return  # begun before the last change: it says nothing of now
            if self._state is State.CLOSED:
                self._note(sign)
            elif sign is Sign.NONE:
                self._until_s = self._clock()
            elif sign is Sign.WELL:
                self._close()
            else:
                self._open()

    def retry_after_s(self) -> float:
        """Seconds after which it is worth asking again; 0 while calls go through."""
        with self._lock:
            if self._state is State.CLOSED:
                return 0.0
            left_s = self._until_s - self._clock()
            # A probe mostly tells within a few seconds, long before it counts as lost.
            return max(0.0, left_s if self._state is State.OPEN else min(left_s, FIRST_PAUSE_S))

    def _note(self, sign: Sign) -> None:
        if sign is Sign.NONE:
            return
        now = self._clock()
        self._latest.append((now, sign))
        if sign is Sign.WELL:
            self._failures_in_a_row = 0
            return
        self._failures_in_a_row += 1
        latest = [each for at, each in self._latest if at > now - LATEST_S]
        many = len(latest) >= FEWEST_CALLS and latest.count(Sign.ILL) >= FAILED_SHARE * len(latest)
        if many or self._failures_in_a_row >= FAILURES_IN_A_ROW:
            self._open()

    def _open(self) -> None:
        pause_s = min(LAST_PAUSE_S, FIRST_PAUSE_S * 2.0**self._pauses)
        self._pauses = min(self._pauses + 1, 10)
        pause_s *= random.uniform(1 - SPREAD, 1 + SPREAD)  # noqa: S311 - spreads load, guards nothing
        self._until_s = self._clock() + pause_s
        self._become(State.OPEN)

    def _close(self) -> None:
        self._pauses = self._failures_in_a_row = 0
        self._latest.clear()
        self._become(State.CLOSED)

    def _become(self, state: State) -> None:
        self._state = state
        self._era += 1
        self._on_change(state)
