"""The services beside ours, as far as HTTP reaches: an order service, and subscribers to webhooks."""

import base64
import hashlib
import hmac
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import simplejson
from urllib3.exceptions import HTTPError

from shared.outbound import CallFailed
from tests.simulation.clock import DAY_S, Clock
from tests.simulation.network import Weather
from tests.simulation.schedule import Scheduler
from tests.simulation.shop import Order
from tests.simulation.witness import Witness

REFUSED, LOST, FAILING, GONE = "nobody is there", "done, and nobody hears", "500", "410"
OK_STATUS, NOT_FOUND, BROKEN, GONE_STATUS = 200, 404, 500, 410
OUR_TOKEN: Final = "token-of-the-payment-service"
MAY_BE_DISABLED: Final = 9, 3 * DAY_S  # failures in a row, and seconds: the next one may be one too many


class Manners(Weather):
    """How often others behave badly, as shares of the calls."""

    def draw(self) -> str | None:
        """What the next call meets, if anything; whoever behaves takes nothing of the seed."""
        return super().draw() if self.shares else None


@dataclass(frozen=True)
class Way:
    """The way to a neighbour: others may go on meanwhile, or whoever calls dies."""

    scheduler: Scheduler
    witness: Witness

    def call(self, whom: str, answer: Callable[[], Any]) -> Any:
        """Make one call."""
        self.scheduler.point(f"neighbour call of the {whom}")
        self.witness.called(whom)
        try:
            answered = answer()
        finally:
            self.scheduler.point(f"neighbour answer of the {whom}")
        return answered


@dataclass(frozen=True)
class Answer:
    """An HTTP answer: urllib3's, as far as ours reads it."""

    status: int
    body: bytes = b""

    def read(self, _most: int) -> bytes:
        """The body."""
        return self.body

    def release_conn(self) -> None:
        """There is no connection."""


@dataclass
class OrderDesk:
    """The order service: whose an order is and what it costs, and what it was told of payments.

    It stands in for urllib3's pool where ours looks orders up.
    """

    way: Way
    manners: Manners
    orders: list[Order]
    heard: list[tuple[str, str, str, str | None]] = field(default_factory=list)  # key, order, status, token

    def request(self, _method: str, url: str, **_: object) -> Answer:
        """Answer about an order."""
        answer: Answer = self.way.call("order service", lambda: self._look_up(url.rpartition("/")[2]))
        return answer

    def _look_up(self, order_id: str) -> Answer:
        trouble = self.manners.draw()
        self.way.scheduler.note(f"the order service is asked: {trouble or 'and answers'}")
        if trouble in {REFUSED, LOST}:
            raise HTTPError(trouble)
        if trouble:
            return Answer(BROKEN)
        for each in self.orders:
            if each.order_id == order_id:
                known = {"customerId": each.customer_id, "amount": Decimal(each.amount_minor) / 100}
                return Answer(OK_STATUS, simplejson.dumps(known).encode())
        return Answer(NOT_FOUND)

    def take(self, _url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Hear of a payment. Raises CallFailed."""
        trouble = self.manners.draw()
        self.way.scheduler.note(f"the order service is told: {trouble or 'and takes it'}")
        if trouble == REFUSED:
            raise CallFailed(trouble)
        if trouble in {FAILING, GONE}:
            return BROKEN
        said = simplejson.loads(body)
        self.heard.append(
            (headers["Idempotency-Key"], said["orderId"], said["status"], headers.get("Authorization"))
        )
        if trouble == LOST:
            raise CallFailed(trouble)
        return OK_STATUS


@dataclass(frozen=True)
class Told:
    """A webhook that a subscriber has taken."""

    event_id: uuid.UUID
    said: dict[str, Any]
    heard: bool  # we know that it has


@dataclass
class Subscriber:
    """One endpoint, with all that its owner knows of it."""

    url: str
    wanted: list[str] | None
    is_dead: bool = False  # takes nothing, ever
    endpoint_id: uuid.UUID | None = None
    secrets: list[str] = field(default_factory=list)
    knows_its_secret: bool = True
    told: list[Told] = field(default_factory=list)
    again: list[int] = field(default_factory=list)  # how many it had been told when it asked for some again
    # Every event with a greater id is to come: nothing has stood in its way.
    complete_since: uuid.UUID | None = None
    failures: list[float] = field(default_factory=list)  # when, in a row
    has_been_gone: bool = False
    problems: list[str] = field(default_factory=list)

    def may_miss(self) -> None:
        """From now on it may be disabled, and not be told of everything."""
        self.complete_since = None

    def is_signed(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether a signature is one of its secrets', after the Standard Webhooks specification."""
        content = b".".join((headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body))
        keys = [base64.b64decode(each.removeprefix("whsec_")) for each in self.secrets]
        good = {
            "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode() for key in keys
        }
        return bool(good & set(headers["webhook-signature"].split(" ")))


@dataclass
class Town:
    """All subscribers of one seed."""

    clock: Clock
    way: Way
    manners: Manners
    subscribers: list[Subscriber] = field(default_factory=list)

    def take(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Take a webhook. Raises CallFailed."""
        subscriber = next(each for each in self.subscribers if each.url == url)
        trouble = REFUSED if subscriber.is_dead else self.manners.draw()
        event_id = uuid.UUID(headers["webhook-id"])
        self.way.scheduler.note(f"{subscriber.url} is told: {trouble or 'and takes it'}")
        if trouble:
            self._note_failure(subscriber, trouble)
        else:
            subscriber.failures.clear()
        if trouble == REFUSED:
            raise CallFailed(trouble)
        if subscriber.knows_its_secret and not subscriber.is_signed(headers, body):
            subscriber.problems.append(f"{event_id} is not signed with a secret of {url}")
        if int(headers["webhook-timestamp"]) > self.clock.time():
            subscriber.problems.append(f"{event_id} says that it is {headers['webhook-timestamp']}")
        if trouble in {FAILING, GONE}:
            return BROKEN if trouble == FAILING else GONE_STATUS
        subscriber.told.append(Told(event_id, simplejson.loads(body, use_decimal=True), heard=not trouble))
        if trouble == LOST:
            raise CallFailed(trouble)
        return OK_STATUS

    def _note_failure(self, subscriber: Subscriber, trouble: str) -> None:
        now = self.clock.time()
        subscriber.failures.append(now)
        subscriber.has_been_gone |= trouble == GONE
        times, seconds = MAY_BE_DISABLED
        if trouble == GONE or (
            len(subscriber.failures) >= times and now - subscriber.failures[0] >= seconds - DAY_S
        ):
            subscriber.may_miss()


class SimulatedCaller:
    """`shared.outbound.Caller`, as far as the courier and those who register endpoints use it."""

    def __init__(self, way: Way, whom: str, take: Callable[[str, bytes, Mapping[str, str]], int]) -> None:
        """Every call ends with this one."""
        self._way, self._whom, self._take = way, whom, take

    def check(self, url: str) -> None:
        """Every address may be called."""

    def send(self, _method: str, url: str, body: bytes, headers: dict[str, str]) -> int:
        """Make one call. Raises CallFailed."""
        status: int = self._way.call(self._whom, lambda: self._take(url, body, headers))
        return status
