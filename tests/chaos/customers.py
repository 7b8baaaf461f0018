"""Customers who repeat what was not answered, under the same key or message id, until it is."""

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final

import aiohttp
import simplejson
from confluent_kafka import Producer

from deploy.local.demo.orders import Case
from deploy.local.ordering import Answer, Outcome
from tests.chaos.courses import PART, Course

ANSWER_S: Final = 30.0
AGAIN_S: Final = 0.3
LOOK_S: Final = 3.0  # without news a customer looks for himself
ASK_AGAIN_S: Final = 6.0  # a message may have been lost with its broker; then after twice as long, and so on
KNOWN: Final = frozenset({"authorized", "succeeded", "failed"})
NO_ANSWER: Final = "none"
NOT_YET: Final = (
    "IDEMPOTENCY_KEY_IN_USE",  # the request before, whose answer was lost, is still under way
    "Reservation not found",  # its message was not read
)
COME_BACK: Final = frozenset({429, 500, 502, 503, 504})
TAKEN: Final = frozenset({200, 201, 202, 402, 422})
TWICE: Final = 1 / 3  # so many messages are sent twice at once, and so many again when all is done
ASYNC: Final = "respond-async"
HTTP_NOT_FOUND: Final = 404

Payment = dict[str, Any]
Message = tuple[bytes, list[tuple[str, str | bytes | None]]]  # a value and its headers


class Refused(Exception):
    """An answer that no customer should get; the message repeats it."""


class News:
    """What was heard of orders and subscriptions on Kafka; belongs to the customers' event loop."""

    def __init__(self) -> None:
        """Nothing was heard yet."""
        self.first_at: dict[str, float] = {}  # by order: its first outcome, seconds on the monotonic clock
        self._waiting: dict[str, asyncio.Event] = {}

    def note(self, outcome: Outcome) -> None:
        """Wake who waits for news of this order."""
        order_id = outcome.data["orderId"] or outcome.data.get("subscriptionId")
        if order_id is None:
            return
        self.first_at.setdefault(order_id, time.monotonic())
        if event := self._waiting.get(order_id):
            event.set()

    async def wait(self, order_id: str, timeout_s: float) -> None:
        """Wait for news of an order, so long at most."""
        event = self._waiting.setdefault(order_id, asyncio.Event())
        try:
            await asyncio.wait_for(event.wait(), timeout_s)
        except TimeoutError:
            return
        finally:
            event.clear()

    def forget(self, order_id: str) -> None:
        """Nobody waits for news of this order any more."""
        self._waiting.pop(order_id, None)


@dataclass(slots=True)
class Customers:
    """Everybody who orders at one API; `answers` counts what they were answered, by status."""

    http: aiohttp.ClientSession
    producer: Producer
    news: News
    lots: random.Random
    answers: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)

    async def order(self, case: Case, prefer: str, **details: str) -> None:
        """Order."""
        order = case.order
        body = {"orderId": order.order_id, "customerId": order.customer_id, "amount": order.amount}
        await self.command(case, "/payments", body | order.details | details, prefer)

    async def charge(self, case: Case, prefer: str) -> Payment:
        """Order, and wait until the outcome is known."""
        await self.order(case, prefer)
        return await self.until(case, lambda payment: payment["status"] in KNOWN)

    async def capture(self, case: Case, prefer: str) -> None:
        """Hold, then take a part."""
        payment = await self.charge(case, prefer)
        await self.command(case, f"/payments/{payment['id']}/capture", {"amount": PART}, prefer)
        await self.until(case, is_at_its_end(case))

    async def void(self, case: Case, prefer: str) -> None:
        """Hold, then let go."""
        payment = await self.charge(case, prefer)
        await self.command(case, f"/payments/{payment['id']}/cancel", {"reason": "out of stock"}, prefer)
        await self.until(case, is_at_its_end(case))

    async def refund(self, case: Case, prefer: str) -> None:
        """Charge, then give back a part and another part, both asked for at once."""
        payment = await self.charge(case, prefer)
        path, body = f"/payments/{payment['id']}/refunds", {"amount": PART}
        await asyncio.gather(*(self.command(case, path, body, prefer) for _ in range(2)))
        await self.until(case, is_at_its_end(case))

    async def ask_to_capture(self, case: Case, _prefer: str) -> None:
        """Hold and take a part, by messages alone."""
        payment = await self._ask_to_hold(case)
        await self.ask(case, "capture-payment", message({"paymentId": payment["id"], "amount": PART}))

    async def ask_to_void(self, case: Case, _prefer: str) -> None:
        """Hold and let go, by messages alone; the cart names the payment."""
        await self._ask_to_hold(case)
        await self.ask(case, "cancel-payment", message({"cartId": case.order.order_id}))

    async def ask_to_refund(self, case: Case, prefer: str) -> None:
        """Charge; give back a part by a message."""
        await self.charge(case, prefer)
        await self.ask(case, "refund-payment", message({"orderId": case.order.order_id, "amount": PART}))

    async def _ask_to_hold(self, case: Case) -> Payment:
        order = case.order
        hold: dict[str, Any] = {"cartId": order.order_id, "orderId": order.order_id}
        hold |= {"customerId": order.customer_id}
        hold |= {"amount": case.money.amount_minor, "currency": order.currency}
        return await self.ask(case, "authorize-payment", message(hold), is_done=is_held)

    async def ask(
        self,
        case: Case,
        topic: str,
        *messages: Message,
        is_done: Callable[[Payment], bool] | None = None,
    ) -> Payment:
        """Send messages, the same again and again, until what they ask for has come about; some even then."""
        async with self.telling(topic, *messages):
            payment = await self.until(case, is_done or is_at_its_end(case))
        self._send_some(topic, messages)
        case.answers.append(Answer(0, payment["id"], payment["status"]))
        return payment

    @asynccontextmanager
    async def telling(self, topic: str, *messages: Message) -> AsyncIterator[None]:
        """Send messages, some twice at once, and the same again and again until the end of the block."""
        task = asyncio.create_task(self._tell(topic, messages))
        try:
            yield
        finally:
            task.cancel()

    async def _tell(self, topic: str, messages: tuple[Message, ...]) -> None:
        self._send_some(topic, messages)
        pause_s = ASK_AGAIN_S
        while True:
            for each in messages:
                self._send(topic, each)
            await asyncio.sleep(pause_s)
            pause_s *= 2  # else those who wait for a backlog would keep it from ever ending

    def _send_some(self, topic: str, messages: tuple[Message, ...]) -> None:
        for each in messages:
            if self.lots.random() < TWICE:
                self._send(topic, each)

    def _send(self, topic: str, message: Message) -> None:
        text, headers = message
        self.producer.produce(topic, text, headers=headers)
        self.producer.poll(0)

    async def until(self, case: Case, is_done: Callable[[Payment], bool]) -> Payment:
        """Look at the order's payment, now and at every news of it, until it is as wanted."""
        while True:
            found = await self.call("GET", f"/payments?{named(case)}")
            if found["payments"] and is_done(payment := found["payments"][0]):
                return dict(payment)
            await self.news.wait(case.order.order_id, LOOK_S)

    async def command(self, case: Case, path: str, body: dict[str, Any], prefer: str) -> None:
        """Send a command until it is answered; the answer names the order's payment."""
        answer = await self.post(path, body, prefer)
        if (payment := answer.get("payment")) is None:
            raise Refused(simplejson.dumps(answer))
        case.answers.append(Answer(answer["http_status"], payment["id"], payment["status"]))

    async def post(self, path: str, body: dict[str, Any], prefer: str = ASYNC) -> dict[str, Any]:
        """Send a request under a key of its own until it is answered. Raises Refused."""
        return await self.call("POST", path, body, {"Prefer": prefer, "Idempotency-Key": str(uuid.uuid4())})

    async def call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> dict[str, Any]:
        """Send a request again and again until it is answered. Raises Refused."""
        data = None if body is None else simplejson.dumps(body)
        while True:
            try:
                async with self.http.request(method, path, data=data, headers=headers) as response:
                    status, text = response.status, await response.text()
            except (aiohttp.ClientError, TimeoutError):
                self.answers[NO_ANSWER] += 1
            else:
                self.answers[f"{method} {status}"] += 1
                if status not in COME_BACK and not any(each in text for each in NOT_YET):
                    return _read(status, text)
            await asyncio.sleep(AGAIN_S)


def _read(status: int, text: str) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = simplejson.loads(text, use_decimal=True)
    except ValueError:
        raise Refused(f"{status} {text[:200]}") from None
    if status not in TAKEN:
        raise Refused(f"{status} {text[:300]}")
    return answer | {"http_status": status}


def message(value: Mapping[str, Any]) -> Message:
    """A message under an id of its own, by which a repeat is known."""
    return simplejson.dumps(value).encode(), [("ce_id", str(uuid.uuid4()).encode())]


def named(case: Case) -> str:
    """How to look for an order's payment; a subscription's has no order, and is its customer's only one."""
    if case.label == Course.SUBSCRIBED:
        return f"customerId={case.order.customer_id}"
    return f"orderId={case.order.order_id}"


def is_held(payment: Payment) -> bool:
    """Whether the money is held."""
    return bool(payment["status"] == "authorized")


def is_at_its_end(case: Case) -> Callable[[Payment], bool]:
    """Whether a payment is as the order must end."""
    end = (case.expected, case.captured, case.refunded)

    def look(payment: Payment) -> bool:
        return (
            payment["status"],
            *map(Decimal, (payment["capturedAmount"], payment["refundedAmount"])),
        ) == end

    return look
