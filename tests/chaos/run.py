"""One run: a stack under load, strike upon strike, and the wait until everything is at rest."""

import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import psycopg
import requests

from deploy.local.client import RunningStack
from deploy.local.demo.evidence import Database
from deploy.local.demo.stripe_control import StripeControl
from deploy.local.parts import program
from tests.chaos.courses import Course, new_case
from tests.chaos.customers import ANSWER_S
from tests.chaos.hearing import Hearing
from tests.chaos.history import History
from tests.chaos.load import Load
from tests.chaos.receiver import Receiver
from tests.chaos.schedule import Kind, Strike
from tests.chaos.screen import Screen
from tests.chaos.strikes import Striker, Wound
from tests.chaos.told import PROCESSED

PATIENCE_S: Final = 15.0  # then the next strike comes, recovered or not
POLL_S: Final = 0.05
WARM_UP_ORDERS: Final = 10
REST_S: Final = 900.0  # for all that is still under way when the load has ended
ENDED: Final = """
    SELECT order_id, extract(epoch FROM processed_at)::float8 FROM payment WHERE order_id = ANY(%s)
"""
BANK_MS: Final = (120, 380)  # p50 and p99 of a call at the gateway, as in the benchmark


class NotAtRest(Exception):
    """Something is still open after a generous wait; the message says how much."""


@dataclass(slots=True)
class Blow:
    """A strike that was carried out. Seconds are counted from it; None: not yet, or never."""

    strike: Strike
    says: str
    probe: str  # the order that was placed right afterwards
    at: float  # on the monotonic clock
    clock: float  # the same moment, seconds since 1970
    back_s: float | None = None  # the part is there again
    probe_s: float | None = None  # the probe's outcome was heard

    @property
    def recovered_s(self) -> float | None:
        """Until both had come about."""
        if self.back_s is None or self.probe_s is None:
            return None
        return max(self.back_s, self.probe_s)


class Run:
    """Drives one stack; what was sent, done and heard is kept for the audit."""

    def __init__(
        self,
        stack: RunningStack,
        receiver: Receiver,
        screen: Screen,
        seed: str,
        rate_per_s: float,
        broker: str,
    ) -> None:
        """Nothing happens before `under_load`."""
        self.stack = stack
        self.receiver = receiver
        self.stripe = StripeControl(str(stack.endpoints.stripe_api_url))
        self.load = Load(stack.endpoints, rate_per_s, f"{seed} load")
        self.hearing = Hearing(stack.endpoints.kafka_bootstrap_servers, self.load.tell)
        self.blows: list[Blow] = []
        self.replayed = False
        self._screen = screen
        self._striker = Striker(stack)
        self._probes = random.Random(f"{seed} probes")
        self._forgets = broker == "embedded"
        self._began = datetime.now(UTC)
        self._open: list[tuple[Blow, Wound]] = []  # blows that are not recovered from

    @contextmanager
    def under_load(self) -> Iterator[None]:
        """Orders come, and outcomes are heard, on Kafka and by webhook, within the block."""
        self.stripe.latency_ms(*BANK_MS)
        self._subscribe()
        self.hearing.start()
        self.load.start()
        try:
            yield
        finally:
            self.load.stop()
            self.hearing.stop()

    def _subscribe(self) -> None:
        """Have the receiver told of every event, before there is any."""
        url, body = f"{self.stack.endpoints.api_url}/notification-endpoints", {"url": self.receiver.hooks_url}
        answer = requests.post(url, json=body, timeout=ANSWER_S)
        answer.raise_for_status()
        self.receiver.secret = answer.json()["secret"]

    def strike_all(self, strikes: list[Strike]) -> None:
        """Do one thing after the other, each when the one before is recovered from or is taking too long."""
        self._until(lambda: len(self.load.news.first_at) >= WARM_UP_ORDERS, REST_S, "the first outcomes")
        for number, strike in enumerate(strikes, 1):
            self._watch(strike.pause_s, None)
            blow = self._strike(strike)
            self._screen.struck(number, blow)
            self._watch(PATIENCE_S, blow)
            self._screen.recovered(blow)

    def come_to_rest(self) -> None:
        """Stop the load and wait until nothing is open; announce again what died with a broker.

        Raises NotAtRest.
        """
        self.load.stop_arrivals()
        self._screen.say("no more orders come; those under way go on to their ends")
        self._until(lambda: self.load.under_way() == 0, REST_S, "orders under way", self.load.under_way)
        self._until(lambda: not self._open, REST_S, "parts that are away", lambda: len(self._open))
        url = self.stack.endpoints.database_url
        with closing(Database(url)) as database, closing(History(url)) as history:
            self._until(lambda: database.open_count() == 0, REST_S, "open operations and events")
            if self._forgets and any(blow.strike.kind is Kind.BROKER for blow in self.blows):
                self._replay()
                self._until(lambda: database.open_count() == 0, REST_S, "events to announce again")
            due = database.announced() | history.ids(PROCESSED)
            self._until(
                lambda: due <= self.hearing.ids(),
                REST_S,
                "events not heard",
                lambda: len(due - self.hearing.ids()),
            )
            self._until(
                lambda: not history.untold(), REST_S, "webhooks and callbacks", lambda: len(history.untold())
            )
        self._judge_forgotten()
        self._screen.show(self)

    def _strike(self, strike: Strike) -> Blow:
        case = new_case(Course.CHARGE, self._probes)
        wound = self._striker.strike(strike, case.order.order_id)
        blow = Blow(strike, wound.says, case.order.order_id, time.monotonic(), time.time())
        self.load.place(Course.CHARGE, case)
        self.blows.append(blow)
        self._open.append((blow, wound))
        return blow

    def _watch(self, seconds: float, blow: Blow | None) -> None:
        """Look on for so long, or until the stack has recovered from a blow."""
        until = time.monotonic() + seconds
        self._until(
            lambda: time.monotonic() >= until or (blow is not None and blow.recovered_s is not None),
            REST_S,
            "the next strike",
        )

    def _until(
        self,
        condition: Callable[[], bool],
        timeout_s: float,
        what: str,
        count: Callable[[], int] | None = None,
    ) -> None:
        """Wait for a condition, looking all the while which blows are recovered from. Raises NotAtRest."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise NotAtRest(f"after {timeout_s:.0f} s: {what}" + (f", {count()} left" if count else ""))
            self._look()
            self._screen.show(self)
            time.sleep(POLL_S)
        self._look()

    def _look(self) -> None:
        self.stack.is_back("supervisor", 0)  # raises when it has ended
        now = time.monotonic()
        for blow, wound in self._open:
            if blow.back_s is None and wound.is_back():
                blow.back_s = now - blow.at
                if blow.strike.kind is Kind.BROKER and self._forgets:
                    self.hearing.start_anew()
            if blow.probe_s is None and (heard := self.load.news.first_at.get(blow.probe)):
                blow.probe_s = heard - blow.at
        self._open = [(blow, wound) for blow, wound in self._open if blow.recovered_s is None]

    def _replay(self) -> None:
        since = self._began.isoformat()
        self._screen.say(f"payment-worker events replay --since {since}: a broker has lost its data")
        told = {"DATABASE_URL": self.stack.endpoints.database_url}
        subprocess.run(
            [program("payment-worker"), "events", "replay", "--since", since],
            env={"PATH": "/usr/bin:/bin", **told},
            capture_output=True,
            check=True,
        )
        self.replayed = True

    def _judge_forgotten(self) -> None:
        """A probe whose event died with a later broker was recovered when its row had its outcome."""
        with psycopg.connect(self.stack.endpoints.database_url) as connection:
            ended: dict[str, float] = dict(
                connection.execute(ENDED, [[blow.probe for blow in self.blows]]).fetchall()
            )
        forgot = [blow.clock for blow in self.blows if self._forgets and blow.strike.kind is Kind.BROKER]
        for blow in self.blows:
            heard = blow.clock + (blow.probe_s or 0)
            if any(ended[blow.probe] < lost < heard for lost in forgot):
                blow.probe_s = ended[blow.probe] - blow.clock
