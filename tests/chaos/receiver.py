"""A subscriber and an order service in one: takes webhooks and callbacks, sometimes not, and notes each."""

import random
import threading
from collections import defaultdict
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from tests.chaos.told import Came, digest
from tests.subscriber import Call, Subscriber

# Each event and each callback at most once: its second attempt comes after five seconds.
REFUSED: Final = 0.02
HUNG_UP: Final = 0.01
ORDERS: Final = "/orders"


@dataclass(slots=True)
class Counts:
    """How many requests came, and how many of them were not taken, or cut off without an answer."""

    requests: int = 0
    refused: int = 0
    hung_up: int = 0


class Receiver:
    """A web server on a free port; `events` and `orders` are what it was told, by event and by order."""

    def __init__(self, seed: str) -> None:
        """Listen; whose secret webhooks must be signed with is told by `secret`, before the first one."""
        self.secret = ""
        self.events: dict[str, Came] = {}
        self.orders: dict[str, set[tuple[str, str]]] = defaultdict(set)  # statuses with their keys
        self.counts = Counts()
        self.forged: list[str] = []
        self._lots = random.Random(seed)
        self._guard = threading.Lock()
        self._not_taken: set[str] = set()
        self._server = Subscriber(self._answer, keeps=False)

    @property
    def hooks_url(self) -> str:
        """Where webhooks go."""
        return self._server.url

    @property
    def orders_url(self) -> str:
        """What ORDER_STATUS_URL must be."""
        return f"http://127.0.0.1:{self._server.port}{ORDERS}"

    def close(self) -> None:
        """Stop listening."""
        self._server.close()

    def _answer(self, call: Call) -> int:
        with self._guard:
            self.counts.requests += 1
            if call.path.startswith(ORDERS):
                return self._note_callback(call)
            return self._note_webhook(call)

    def _note_webhook(self, call: Call) -> int:
        if not call.is_signed_by(self.secret):
            self.forged.append(f"webhook {call.id} is not signed as it must be")
        said = call.body
        new = Came(said["data"]["paymentId"], digest(said["type"], said["data"]), self.counts.requests)
        came = self.events.setdefault(call.id, new)
        came.times += 1
        if came.says != new.says:
            self.forged.append(f"webhook {call.id} came with two contents")
        status = self._mood(call.id)
        if status == HTTPStatus.OK:
            came.taken = came.taken or self.counts.requests
        return status

    def _note_callback(self, call: Call) -> int:
        key = call.headers["Idempotency-Key"]
        status = self._mood(key)
        if status == HTTPStatus.OK:
            self.orders[call.body["orderId"]].add((call.body["status"], key))
        return status

    def _mood(self, name: str) -> int:
        """Success, mostly. Raises ConnectionError, upon which there is no answer."""
        lot = self._lots.random()
        if name in self._not_taken or lot >= REFUSED + HUNG_UP:
            return HTTPStatus.OK
        self._not_taken.add(name)
        if lot < HUNG_UP:
            self.counts.hung_up += 1
            raise ConnectionError
        self.counts.refused += 1
        return HTTPStatus.INTERNAL_SERVER_ERROR
