"""How long the embedded stack may take to be gone: deadlines, computed by a clock of the tests' own."""

from dataclasses import replace

import pytest

from deploy.local import processes, supervisor, watchdog
from deploy.local.stops import SAME_WISH_S, Pace, Stop, quickly

GONE_S = 5.0  # after whatever death, nothing is left
LATE_LOOKS_S = watchdog.LATE_LOOKS * watchdog.LATE_LOOK_EVERY_S


class Clock:
    """Seconds that pass only when a test says so."""

    now_s = 100.0

    def __call__(self) -> float:
        """Return the moment."""
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    """Return a clock that stands still."""
    return Clock()


def test_after_a_hang_up_or_a_killed_make_all_is_gone_in_time() -> None:
    """To notice it, to stop and kill everything, and what a watchdog looks on: five seconds together."""
    stop = quickly("the terminal was closed")
    assert supervisor.PARENT_POLL_S + stop.whole_s + LATE_LOOKS_S <= GONE_S
    assert stop.services_s + stop.servers_s < stop.whole_s  # both are asked before they are killed


def test_after_a_killed_supervisor_all_is_gone_in_time() -> None:
    """The watchdog's lock, patience, kills and late looks: five seconds together."""
    clearing_s = watchdog.LOCK_WAIT_S + watchdog.GRACE_S + processes.KILLED_WAIT_S
    assert clearing_s + LATE_LOOKS_S <= GONE_S


def test_no_step_waits_beyond_the_end_of_the_stop(clock: Clock) -> None:
    """A step has its own limit, but never more than is left of the whole."""
    pace = Pace(Stop("done", whole_s=10.0), clock)
    assert pace.left_s(4.0) == 4.0
    clock.now_s += 7.0
    assert pace.left_s(4.0) == 3.0
    assert pace.until(4.0) == 110.0
    clock.now_s += 7.0
    assert pace.left_s(4.0) == 0.0


def test_a_closed_terminal_hurries_a_stop_that_is_under_way(clock: Clock) -> None:
    """Ctrl-C, then the window: from then on the quick stop's limits hold, in this wave and the next."""
    pace, quick = Pace(Stop("SIGINT", by_a_person=True), clock), quickly("SIGHUP")
    clock.now_s += 1.0
    pace.hasten(quick)
    assert (pace.stop.services_s, pace.stop.servers_s) == (quick.services_s, quick.servers_s)
    assert pace.until(60.0) == clock.now_s + quick.whole_s


def test_asking_twice_ends_a_persons_patience_and_one_wish_said_twice_does_not(clock: Clock) -> None:
    """The same signal through make and directly is one wish; a later one means now."""
    asked = Stop("SIGINT", by_a_person=True, at_s=clock())
    pace = Pace(asked, clock)
    clock.now_s += 2 * SAME_WISH_S  # it is heard late, and was said at once
    pace.hasten(replace(asked, at_s=asked.at_s + SAME_WISH_S / 2))
    assert pace.stop == asked
    pace.hasten(replace(asked, at_s=asked.at_s + 2 * SAME_WISH_S))
    assert (pace.stop.services_s, pace.stop.servers_s) == (0.0, 0.0)
    assert pace.left_s(1.0) == 1.0  # what is killed may still take its moment
