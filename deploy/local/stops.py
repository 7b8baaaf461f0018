"""How fast the stack is to stop: the wish for it, and until when each step of a stop may wait."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

SAME_WISH_S = 0.3  # who ends a whole process group signals us twice, directly and through make


@dataclass(frozen=True)
class Stop:
    """The wish to stop, and how long it may take (seconds): each wave of parts, and all of it with kills."""

    why: str
    services_s: float = 10.0
    servers_s: float = 5.0
    whole_s: float = 19.0
    by_a_person: bool = False  # asking again means hurry
    at_s: float = field(default_factory=time.monotonic, compare=False)  # when it was wished, on that clock


def quickly(why: str) -> Stop:
    """Return a stop for which nobody waits any more: everything is gone within five seconds."""
    return Stop(why, services_s=2.0, servers_s=1.0, whole_s=3.5)


class Pace:
    """The deadlines of one stop, in seconds of `clock`; who asks again may bring them nearer."""

    def __init__(self, stop: Stop, clock: Callable[[], float] = time.monotonic) -> None:
        self.stop = stop
        self._clock = clock
        self._end = clock() + stop.whole_s

    def hasten(self, again: Stop) -> None:
        """Go by a second wish as well: a person's ends all patience, nobody's may be the quicker one."""
        if not again.by_a_person:
            self._end = min(self._end, self._clock() + again.whole_s)
            services_s = min(self.stop.services_s, again.services_s)
            servers_s = min(self.stop.servers_s, again.servers_s)
            self.stop = replace(self.stop, services_s=services_s, servers_s=servers_s)
        elif again.at_s - self.stop.at_s > SAME_WISH_S:
            self.stop = replace(self.stop, services_s=0.0, servers_s=0.0)

    def until(self, limit_s: float) -> float:
        """Until when a step that begins now may wait: for `limit_s`, or to the end of the whole stop."""
        return min(self._clock() + limit_s, self._end)

    def left_s(self, limit_s: float) -> float:
        """How long such a step may take."""
        return max(0.0, self.until(limit_s) - self._clock())
