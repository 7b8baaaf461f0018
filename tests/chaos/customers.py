"""Customers who repeat what was not answered, under the same key or message id, until it is."""

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final

import aiohttp
import simplejson
from confluent_kafka import Producer

from deploy.local.demo.orders import Case
from deploy.local.ordering.outcomes import Outcome
from deploy.local.ordering.payments import Answer
from tests.chaos.courses import PART, Course

ANSWER_S: Final = 30.0
AGAIN_S: Final = 0.3
LOOK_S: Final = 3.0  # without news a customer looks for himself
ASK_AGAIN_S: Final = 6.0  # a message may have been lost with its broker
NO_ANSWER: Final = "none"
IN_USE: Final = "IDEMPOTENCY_KEY_IN_USE"  # the request before, whose answer was lost, is still under way
COME_BACK: Final = frozenset({429, 500, 502, 503, 504})
TAKEN: Final = frozenset({200, 201, 202, 422})
ASYNC: Final = "respond-async"
HTTP_NOT_FOUND: Final = 404

Payment = dict[str, Any]


class Refused(Exception):
    """An answer that no customer should get; the message repeats it."""


class News:
    """What was heard of orders on Kafka; belongs to the customers' event loop."""

    def __init__(self) -> None:
        """Nothing was heard yet."""
        self.first_at: dict[str, float] = {}  # by order: its first outcome, seconds on the monotonic clock
        self._waiting: dict[str, asyncio.Event] = {}

    def note(self, outcome: Outcome) -> None:
        """Wake who waits for news of this order."""
        order_id = outcome.data["orderId"]
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
    answers: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)

    async def play(self, course: Course, case: Case, prefer: str = ASYNC) -> None:
        """Take an order to its end, however long that takes; what goes wrong for good is in `refused`."""
        try:
            await _COURSES[course](self, case, prefer)
        except Refused as refusal:
            self.refused.append(f"order {case.order.order_id}, {course}: {refusal}")
        finally:
            self.news.forget(case.order.order_id)

    async def charge(self, case: Case, prefer: str) -> Payment:
        """Order, and wait until the outcome is known."""
        order = case.order
        body = {"orderId": order.order_id, "customerId": order.customer_id, "amount": order.amount}
        await self._command(case, "/payments", body | order.details, prefer)
        first = {"authorized"} if order.details else {"succeeded", "failed"}
        return await self._until(case, lambda payment: payment["status"] in first)

    async def capture(self, case: Case, prefer: str) -> None:
        """Hold, then take a part."""
        payment = await self.charge(case, prefer)
        await self._command(case, f"/payments/{payment['id']}/capture", {"amount": PART}, prefer)
        await self._until(case, _is_at_its_end(case))

    async def void(self, case: Case, prefer: str) -> None:
        """Hold, then let go."""
        payment = await self.charge(case, prefer)
        await self._command(case, f"/payments/{payment['id']}/cancel", {"reason": "out of stock"}, prefer)
        await self._until(case, _is_at_its_end(case))

    async def refund(self, case: Case, prefer: str) -> None:
        """Charge, then give back a part and another part, both asked for at once."""
        payment = await self.charge(case, prefer)
        path, body = f"/payments/{payment['id']}/refunds", {"amount": PART}
        await asyncio.gather(*(self._command(case, path, body, prefer) for _ in range(2)))
        await self._until(case, _is_at_its_end(case))

    async def ask_to_capture(self, case: Case, _prefer: str) -> None:
        """Hold and take a part, by messages alone."""
        payment = await self._ask_to_hold(case)
        await self._ask(case, "capture-payment", {"paymentId": payment["id"], "amount": PART})

    async def ask_to_void(self, case: Case, _prefer: str) -> None:
        """Hold and let go, by messages alone; the cart names the payment."""
        await self._ask_to_hold(case)
        await self._ask(case, "cancel-payment", {"cartId": case.order.order_id})

    async def ask_to_refund(self, case: Case, prefer: str) -> None:
        """Charge; give back a part by a message."""
        await self.charge(case, prefer)
        await self._ask(case, "refund-payment", {"orderId": case.order.order_id, "amount": PART})

    async def _ask_to_hold(self, case: Case) -> Payment:
        order = case.order
        hold: dict[str, Any] = {"cartId": order.order_id, "orderId": order.order_id}
        hold |= {"customerId": order.customer_id}
        hold |= {"amount": case.money.amount_minor, "currency": order.currency}
        return await self._ask(case, "authorize-payment", hold, lambda held: held["status"] == "authorized")

    async def _ask(
        self,
        case: Case,
        topic: str,
        value: Mapping[str, Any],
        is_done: Callable[[Payment], bool] | None = None,
    ) -> Payment:
        """Send a message, the same again and again, until what it asks for has come about."""
        message_id, text = str(uuid.uuid4()).encode(), simplejson.dumps(value).encode()
        is_done = is_done or _is_at_its_end(case)
        while True:
            self.producer.produce(topic, text, headers=[("ce_id", message_id)])
            self.producer.poll(0)
            try:
                async with asyncio.timeout(ASK_AGAIN_S):
                    payment = await self._until(case, is_done)
            except TimeoutError:
                continue
            case.answers.append(Answer(0, payment["id"], payment["status"]))
            return payment

    async def _until(self, case: Case, is_done: Callable[[Payment], bool]) -> Payment:
        """Look at the order's payment, now and at every news of it, until it is as wanted."""
        order_id = case.order.order_id
        while True:
            found = await self._call("GET", f"/payments?orderId={order_id}")
            if found["payments"] and is_done(payment := found["payments"][0]):
                return dict(payment)
            await self.news.wait(order_id, LOOK_S)

    async def _command(self, case: Case, path: str, body: dict[str, Any], prefer: str) -> None:
        answer = await self._call(
            "POST", path, body, {"Prefer": prefer, "Idempotency-Key": str(uuid.uuid4())}
        )
        payment = answer["payment"]
        case.answers.append(Answer(answer["http_status"], payment["id"], payment["status"]))

    async def _call(
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
                if status not in COME_BACK and IN_USE not in text:
                    return _read(status, text)
            await asyncio.sleep(AGAIN_S)


def _read(status: int, text: str) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = simplejson.loads(text, use_decimal=True)
    except ValueError:
        raise Refused(f"{status} {text[:200]}") from None
    if status not in TAKEN or (answer.get("payment") is None and "payments" not in answer):
        raise Refused(f"{status} {text[:300]}")
    return answer | {"http_status": status}


def _is_at_its_end(case: Case) -> Callable[[Payment], bool]:
    end = (case.expected, case.captured, case.refunded)

    def look(payment: Payment) -> bool:
        return (
            payment["status"],
            *map(Decimal, (payment["capturedAmount"], payment["refundedAmount"])),
        ) == end

    return look


_COURSES: Final[Mapping[Course, Callable[[Customers, Case, str], Awaitable[object]]]] = MappingProxyType(
    {
        Course.CHARGE: Customers.charge,
        Course.DECLINED: Customers.charge,
        Course.CAPTURE: Customers.capture,
        Course.VOID: Customers.void,
        Course.REFUND: Customers.refund,
        Course.ASKED_CAPTURE: Customers.ask_to_capture,
        Course.ASKED_VOID: Customers.ask_to_void,
        Course.ASKED_REFUND: Customers.ask_to_refund,
    }
)
