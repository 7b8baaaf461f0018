"""How long a call takes: log-normal, fitted to a median and a 99th percentile."""

import math
import random
from dataclasses import dataclass

Z99 = 2.3263478740408408  # the standard normal distribution's 99th percentile


@dataclass(frozen=True, slots=True)
class Latency:
    """A log-normal distribution of durations, given by its p50 and p99 in milliseconds."""

    p50_ms: float
    p99_ms: float

    def __post_init__(self) -> None:
        """Raise ValueError unless 0 < p50 <= p99, both finite."""
        if not (0 < self.p50_ms <= self.p99_ms < math.inf):
            message = "latency needs 0 < p50_ms <= p99_ms"
            raise ValueError(message)

    def draw_s(self, seed: str | None) -> float:
        """Return one duration in seconds: the same for the same seed, random for None.

        Calls are seeded with their idempotency key, so that a benchmark can tell afterwards how long
        each one took here.
        """
        sigma = math.log(self.p99_ms / self.p50_ms) / Z99
        chance = random.Random(seed)  # noqa: S311 - not a secret
        return chance.lognormvariate(math.log(self.p50_ms), sigma) / 1000
