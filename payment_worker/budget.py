"""One budget of requests to the gateway for all processes of the account: a token bucket in Redis.

While Redis is away each process keeps to a share, so that all of them together stay below the rate.
"""

import threading
import time
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

import redis

from payment_worker.metrics import BUDGET_LEFT, BUDGET_REFUSALS, BUDGET_WAITS
from shared.payments import OperationKind
from shared.telemetry import get_logger

log = get_logger(__name__)

BUCKET = "payments:gateway-budget"
MAX_WAIT_S = 2.0  # then the thread is of more use to another operation
EXPECTED_PROCESSES = 4  # that share the rate while Redis is away
REDIS_AGAIN_S = 5.0
FORGET_AFTER_S = 60  # an idle bucket has long been full by then


class Priority(StrEnum):
    """Who goes first when tokens are short."""

    CAPTURE = "capture"  # what settles money that is held or taken: capture, cancel, refund
    CHARGE = "charge"
    POLL = "poll"  # asks only how something stands


# The part of the bucket that is kept for those who go before.
RESERVED = {Priority.CAPTURE: 0.0, Priority.CHARGE: 0.2, Priority.POLL: 0.5}
_CHARGES = frozenset({OperationKind.CHARGE, OperationKind.AUTHORIZE})


def priority_of(kind: OperationKind, *, poll: bool) -> Priority:
    """The priority of an operation's next call; `poll` when the call only looks up how it stands."""
    if poll:
        return Priority.POLL
    return Priority.CHARGE if kind in _CHARGES else Priority.CAPTURE


def capacity_of(rate_per_s: float) -> float:
    """How many tokens a bucket holds: a second's worth, and at least one."""
    return max(1.0, rate_per_s)


def least(priority: Priority, rate_per_s: float) -> float:
    """How many tokens must be there for a call of this priority to take one."""
    return max(1.0, RESERVED[priority] * capacity_of(rate_per_s))


class Answer(NamedTuple):
    """What a bucket said: a token was taken or not, what is left, and how fast it fills (tokens a second)."""

    granted: bool
    left: float
    rate_per_s: float


class LocalBucket:
    """The same bucket within one process, by a clock in seconds. It starts empty."""

    def __init__(self, rate_per_s: float, clock: Callable[[], float]) -> None:
        """Fill at this rate from now on."""
        self._rate_per_s = rate_per_s
        self._clock = clock
        self._tokens, self._at = 0.0, clock()
        self._lock = threading.Lock()

    def take(self, priority: Priority) -> Answer:
        """Take a token if there are enough for this priority."""
        with self._lock:
            now = self._clock()
            filled = self._tokens + (now - self._at) * self._rate_per_s
            tokens = min(capacity_of(self._rate_per_s), filled)
            granted = tokens >= least(priority, self._rate_per_s)
            self._tokens, self._at = tokens - 1 if granted else tokens, now
            return Answer(granted, self._tokens, self._rate_per_s)


# Time is Redis's own, which all processes share; should it step back, the bucket fills a moment later.
SCRIPT = """
local rate, capacity, least = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local kept = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = capacity
if kept[1] then
    local passed = math.max(0, now - tonumber(kept[2]))
    tokens = math.min(capacity, tonumber(kept[1]) + passed * rate)
end
local granted = 0
if tokens >= least then
    granted = 1
    tokens = tokens - 1
end
local left = string.format('%.17g', tokens)
redis.call('HSET', KEYS[1], 'tokens', left, 'at', string.format('%.17g', now))
redis.call('EXPIRE', KEYS[1], ARGV[4])
return {granted, left}
"""


class SharedBucket:
    """The bucket in Redis: one atomic script, so that any number of processes may take at once."""

    def __init__(self, client: redis.Redis, rate_per_s: float) -> None:
        """Nothing is sent until the first token is asked for; a bucket that is not there yet is full."""
        self._rate_per_s = rate_per_s
        self._script = client.register_script(SCRIPT)
        # A bucket must not be forgotten, and so be full again, before it could have filled up.
        self._forget_after_s = max(FORGET_AFTER_S, round(2 * capacity_of(rate_per_s) / rate_per_s))

    def take(self, priority: Priority) -> Answer:
        """Take a token if there are enough for this priority. Raises redis.RedisError."""
        rate_per_s = self._rate_per_s
        facts = [rate_per_s, capacity_of(rate_per_s), least(priority, rate_per_s), self._forget_after_s]
        granted, left = self._script(keys=[BUCKET], args=facts)
        return Answer(bool(granted), float(left), rate_per_s)


class Budget:
    """Hands out the right to make one request at a time, those with priority first."""

    def __init__(
        self,
        client: redis.Redis,
        rate_per_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`rate_per_s` is for the whole account; 0 is no limit, and then Redis is never asked."""
        self._share_per_s = rate_per_s / EXPECTED_PROCESSES
        self._clock = clock
        self._sleep = sleep
        self._shared = SharedBucket(client, rate_per_s) if rate_per_s > 0 else None
        if self.limited:
            BUDGET_LEFT.set(capacity_of(rate_per_s))
        self._local: LocalBucket | None = None  # while Redis is away
        self._redis_again_at = 0.0
        self._changing = threading.Lock()
        # One thread of each priority asks at a time: a crowd would ask Redis over and over for one token.
        self._turns = {each: threading.Lock() for each in Priority}

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return self._shared is not None

    def take(self, priority: Priority, max_wait_s: float = MAX_WAIT_S) -> bool:
        """Wait for a token, at most `max_wait_s` seconds; False when there was none.

        The caller holds neither a claim nor a connection meanwhile.
        """
        if self._shared is None:
            return True
        until = self._clock() + max_wait_s
        turn = self._turns[priority]
        waited = not turn.acquire(blocking=False)
        granted = False
        if not waited or turn.acquire(timeout=max_wait_s):
            try:
                granted, slept = self._take_before(until, self._shared, priority)
            finally:
                turn.release()
            waited = waited or slept
        if waited:
            BUDGET_WAITS.labels(priority).inc()
        if not granted:
            BUDGET_REFUSALS.labels(priority).inc()
        return granted

    def _take_before(self, until: float, shared: SharedBucket, priority: Priority) -> tuple[bool, bool]:
        """Whether a token was had, and whether it had to be waited for."""
        slept = False
        while True:
            answer = self._ask(shared, priority)
            BUDGET_LEFT.set(answer.left)
            if answer.granted:
                return True, slept
            # A microsecond more, lest rounding let the bucket lack next to nothing again.
            pause_s = (least(priority, answer.rate_per_s) - answer.left) / answer.rate_per_s + 1e-6
            if self._clock() + pause_s > until:
                return False, slept
            self._sleep(pause_s)
            slept = True

    def _ask(self, shared: SharedBucket, priority: Priority) -> Answer:
        local = self._local
        if local and self._clock() < self._redis_again_at:
            return local.take(priority)
        try:
            answer = shared.take(priority)
        except redis.RedisError as error:
            return self._without_redis(error).take(priority)
        if local:
            self._with_redis()
        return answer

    def _with_redis(self) -> None:
        with self._changing:
            if self._local:
                log.info("the budget of gateway requests is shared again")
            self._local = None

    def _without_redis(self, error: redis.RedisError) -> LocalBucket:
        with self._changing:
            self._redis_again_at = self._clock() + REDIS_AGAIN_S
            if self._local is None:
                self._local = LocalBucket(self._share_per_s, self._clock)
                log.warning(
                    "Redis is away; this process keeps to its share of the budget of gateway requests",
                    error=type(error).__name__,
                    requests_per_s=self._share_per_s,
                )
            return self._local
