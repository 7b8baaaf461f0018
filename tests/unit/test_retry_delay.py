"""How long a charge waits for its next attempt."""

import itertools

import pytest

from payment_worker.outcomes import FIRST_RETRY_S, LAST_RETRY_S, retry_delay_s
from payment_worker.processing import KEY_LIFETIME, MAX_ATTEMPTS

SPREAD = 0.25
TRIES = 200


@pytest.mark.parametrize("attempt", [1, 2, 5, 9])
def test_the_delay_doubles_with_each_attempt(attempt: int) -> None:
    """A second, two, four, each within a quarter; never the same for all, so that retries spread."""
    delays_s = [retry_delay_s(attempt) for _ in range(TRIES)]
    expected_s = FIRST_RETRY_S * 2 ** (attempt - 1)
    assert expected_s * (1 - SPREAD) <= min(delays_s)
    assert max(delays_s) <= expected_s * (1 + SPREAD)
    assert len(set(delays_s)) > TRIES / 2


@pytest.mark.parametrize("attempt", [11, 200, 100_000])
def test_the_delay_is_bounded(attempt: int) -> None:
    """However often it was tried, the next try comes within twenty minutes."""
    assert LAST_RETRY_S * (1 - SPREAD) <= retry_delay_s(attempt) <= LAST_RETRY_S * (1 + SPREAD)


def test_attempts_last_longer_than_the_key() -> None:
    """Under the quickest retries an outage of the key's whole lifetime does not use up the attempts."""
    quickest_s = itertools.accumulate(
        (1 - SPREAD) * min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** (attempt - 1))
        for attempt in range(1, MAX_ATTEMPTS)
    )
    assert max(quickest_s) > KEY_LIFETIME.total_seconds()
