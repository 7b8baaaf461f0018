"""How many requests a principal and a network address may make; counted in Redis, for all processes.

While Redis is away each process counts for itself and keeps to its share.
"""

import hashlib
import ipaddress
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import redis

from payment_api.metrics import LIMITED
from shared.settings_checks import RATE
from shared.telemetry import get_logger

log = get_logger(__name__)

KEYS = "payments:rate"
REDIS_AGAIN_S = 5.0  # then one request tries Redis again
MAX_COUNTED = 100_000  # keys that a process remembers while Redis is away
IPV6_SITE_BITS = 64  # one customer of a provider has at least that many addresses to choose from
_SECONDS = {"second": 1, "minute": 60, "hour": 3600}

# The window begins with its first request. A counter that has lost its end would never start again.
SCRIPT = """
local counted = {}
for i, key in ipairs(KEYS) do
    local used = redis.call('INCR', key)
    local left = redis.call('PTTL', key)
    if left < 0 then
        left = tonumber(ARGV[i])
        redis.call('PEXPIRE', key, left)
    end
    counted[2 * i - 1] = used
    counted[2 * i] = left
end
return counted
"""


class Limit(NamedTuple):
    """A number of requests in a window of time."""

    of: str  # "customer", "principal" or "address"
    amount: int
    window_s: int


class Standing(NamedTuple):
    """How far a limit is used up, this request included."""

    limit: Limit
    left: int  # negative: this request is one too many
    resets_in_s: float

    @property
    def exceeded(self) -> bool:
        """Whether this request is one too many."""
        return self.left < 0


def read_limit(of: str, text: str) -> Limit | None:
    """A limit as settings write it, `6000/minute`; None for `off`."""
    match = RATE.fullmatch(text)
    return Limit(of, int(match[1]), _SECONDS[match[2]]) if match else None


def site_of(address: str | None) -> str:
    """What is counted as one address: an IPv4 address, or an IPv6 site's network."""
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is None:
            return str(ipaddress.ip_network((found, IPV6_SITE_BITS), strict=False))
        found = found.ipv4_mapped
    return str(found)


class LocalCounters:
    """The same counters within one process, by a clock in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Nothing is counted yet."""
        self._clock = clock
        self._counted: dict[str, tuple[int, float]] = {}
        self._lock = threading.Lock()

    def count(self, key: str, window_s: float) -> tuple[int, float]:
        """Count one; return how many there are in this window, and the seconds until it ends."""
        with self._lock:
            now = self._clock()
            used, ends_at = self._counted.get(key, (0, 0.0))
            if ends_at <= now:
                used, ends_at = 0, now + window_s
                self._make_room(now)
            self._counted[key] = (used + 1, ends_at)
            return used + 1, ends_at - now

    def _make_room(self, now: float) -> None:
        if len(self._counted) < MAX_COUNTED:
            return
        self._counted = {key: each for key, each in self._counted.items() if each[1] > now}
        if len(self._counted) >= MAX_COUNTED:
            self._counted.clear()  # rather let some through than remember everybody


class RateLimits:
    """Counts requests; one round trip to Redis for all limits, none without any."""

    def __init__(
        self,
        client: redis.Redis,
        limits: Sequence[Limit | None],
        *,
        processes: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`processes` share the limits while Redis is away."""
        self._limits = {each.of: each for each in limits if each}
        self._processes = processes
        self._clock = clock
        self._script = client.register_script(SCRIPT)
        self._local = LocalCounters(clock)
        self._redis_again_at: float | None = None
        self._changing = threading.Lock()

    def count(self, principal: str | None, address: str | None, *, customer: bool = False) -> Standing | None:
        """Count a request; how the limit stands that it comes closest to. None where there is no limit.

        `customer` says that the principal is one, for whom there is a limit more.
        """
        names = {
            "customer": principal if customer else None,
            "principal": principal,
            "address": site_of(address),
        }
        asked = [(limit, name) for of, limit in self._limits.items() if (name := names[of])]
        if not asked:
            return None
        closest = min(self._count(asked), key=lambda each: (each.left, -each.resets_in_s))
        if closest.exceeded:
            LIMITED.labels(closest.limit.of).inc()
        return closest

    def _count(self, asked: list[tuple[Limit, str]]) -> list[Standing]:
        keys = [f"{KEYS}:{limit.of}:{hashlib.sha256(name.encode()).hexdigest()}" for limit, name in asked]
        limits = [limit for limit, _ in asked]
        if self._may_ask_redis():
            try:
                found = self._script(keys=keys, args=[limit.window_s * 1000 for limit in limits])
            except redis.RedisError as error:
                self._without_redis(error)
            else:
                self._with_redis()
                return [
                    Standing(limit, limit.amount - used, left_ms / 1000)
                    for limit, used, left_ms in zip(limits, found[::2], found[1::2], strict=True)
                ]
        return [self._count_here(limit, key) for limit, key in zip(limits, keys, strict=True)]

    def _count_here(self, limit: Limit, key: str) -> Standing:
        used, resets_in_s = self._local.count(key, limit.window_s)
        return Standing(limit, max(1, limit.amount // self._processes) - used, resets_in_s)

    def _may_ask_redis(self) -> bool:
        """Whether Redis is there, or it is this request's turn to find out while others go on without."""
        with self._changing:
            if self._redis_again_at is None:
                return True
            if self._clock() < self._redis_again_at:
                return False
            self._redis_again_at = self._clock() + REDIS_AGAIN_S
            return True

    def _with_redis(self) -> None:
        if self._redis_again_at is not None:
            self._redis_again_at = None
            log.info("requests are counted together again")

    def _without_redis(self, error: redis.RedisError) -> None:
        if self._redis_again_at is None:
            log.warning(
                "Redis is away; this process counts requests for itself",
                error=type(error).__name__,
                share=f"1/{self._processes}",
            )
        self._redis_again_at = self._clock() + REDIS_AGAIN_S


def headers(standing: Standing) -> dict[str, str]:
    """What an answer says of its limit: RateLimit-Limit, -Remaining, -Reset (in seconds) and -Policy."""
    limit = standing.limit
    return {
        "RateLimit-Limit": str(limit.amount),
        "RateLimit-Remaining": str(max(0, standing.left)),
        "RateLimit-Reset": str(wait_s(standing)),
        "RateLimit-Policy": f"{limit.amount};w={limit.window_s}",
    }


def wait_s(standing: Standing) -> int:
    """Whole seconds until the limit's window ends; at least one."""
    return max(1, math.ceil(standing.resets_in_s))
