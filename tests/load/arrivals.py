"""Send orders over HTTP at a fixed rate: arrivals follow the schedule, never the answers."""

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

HEADERS = {"Content-Type": "application/json", "Prefer": "respond-async"}
BODY = '{"orderId":"%s","customerId":"%s","amount":150.00,"currency":"EUR"}'
ANSWER_TIMEOUT_S = 30


@dataclass(slots=True)
class Arrival:
    """One order: when it was due and answered (seconds on the monotonic clock), and what the answer was."""

    order_id: str
    due: float
    answered: float = 0.0
    status: int = 0  # 0: no answer came


def send(api_url: str, rate_per_s: int, seconds: int, progress: Callable[[], None]) -> list[Arrival]:
    """Send `rate_per_s` orders a second for `seconds`; return each with its times."""
    return asyncio.run(_send(api_url, rate_per_s, rate_per_s * seconds, progress))


async def _send(api_url: str, rate_per_s: int, count: int, progress: Callable[[], None]) -> list[Arrival]:
    timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
    connector = aiohttp.TCPConnector(limit=0)  # a bound would turn the open model into a closed one
    customer = uuid.uuid4()
    async with aiohttp.ClientSession(api_url, connector=connector, timeout=timeout, headers=HEADERS) as http:

        async def order(arrival: Arrival) -> None:
            try:
                async with http.post("/payments", data=BODY % (arrival.order_id, customer)) as answer:
                    await answer.read()
                    arrival.status = answer.status
            except (aiohttp.ClientError, TimeoutError):
                arrival.status = 0
            arrival.answered = time.monotonic()
            progress()

        began = time.monotonic()
        arrivals, pending = [], []
        for number in range(count):
            due = began + number / rate_per_s
            if (early_s := due - time.monotonic()) > 0:
                await asyncio.sleep(early_s)
            arrivals.append(Arrival(str(uuid.uuid4()), due))
            pending.append(asyncio.create_task(order(arrivals[-1])))
        await asyncio.gather(*pending)
    return arrivals
