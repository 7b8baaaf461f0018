"""The running stack, and a hand on each of its sides: what the demo's scenes are played on."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from deploy.local.client import RunningStack
from deploy.local.demo.evidence import Database, Heard
from deploy.local.demo.orders import Case
from deploy.local.demo.screen import Screen
from deploy.local.demo.stripe_control import StripeControl
from deploy.local.ordering import Payments

POLL_S = 0.03
SCENE_TIMEOUT_S = 30.0
SENDERS_MAX = 50


class NotInTime(Exception):
    """Something that must come about has not; the message says what."""


@dataclass(kw_only=True)
class Stage:
    """The running stack, and a hand on each of its sides."""

    stack: RunningStack
    payments: Payments
    stripe: StripeControl
    database: Database
    heard: Heard
    screen: Screen
    webhook_secret: str
    dead_worker: int = 0
    left_behind: list[str] = field(default_factory=list)  # orders whose claims the dead worker held

    def send(self, cases: Iterable[Case], *, wait: bool = False, times: int = 1) -> None:
        """Send orders at once, each `times` times, and keep the answers. Raises RequestException."""
        requests = [case for case in cases for _ in range(times)]
        pool = ThreadPoolExecutor(min(len(requests), SENDERS_MAX))
        try:
            answers = pool.map(lambda case: self.payments.send(case.order, wait=wait), requests)
            for case, answer in zip(requests, answers, strict=True):
                case.answers.append(answer)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C waits for no answer

    def until(self, condition: Callable[[], bool], what: str, timeout_s: float = SCENE_TIMEOUT_S) -> None:
        """Wait until `condition` holds. Raises NotInTime, saying `what` has not come about."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                message = f"not after {timeout_s:.0f} s: {what}"
                raise NotInTime(message)
            time.sleep(POLL_S)

    def is_settled(self) -> bool:
        """Whether every operation has its outcome and every announced outcome was heard."""
        return self.database.open_count() == 0 and self.all_heard()

    def is_quiet(self) -> bool:
        """Whether everything announced so far was heard, and nothing can be announced for a second."""
        return self.database.busy_count(self.left_behind) == 0 and self.all_heard()

    def all_heard(self) -> bool:
        """Whether the ordering domain has read every outcome event ever written."""
        return self.database.announced() <= self.heard.ids()
