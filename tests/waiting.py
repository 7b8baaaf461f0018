"""Wait for a condition with a deadline; nothing in the tests sleeps blindly."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

POLL_S: Final = 0.02
# Limits are written for a quiet machine; on a crowded one everything takes several times as long.
PATIENCE: Final = 4
# For what takes a limit of its own, as Thread.join, Event.wait and subprocess do: only what hangs meets it.
LONGEST_S: Final = 120.0

Answer = TypeVar("Answer")


def wait_until(condition: Callable[[], Answer | None], timeout_s: float, what: str) -> Answer:
    """Return the condition's first true answer; fail, with what was waited for, a while after the limit."""
    timeout_s *= PATIENCE
    deadline = time.monotonic() + timeout_s
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain for {what}; last: {answer!r}"
        time.sleep(POLL_S)
    return answer
