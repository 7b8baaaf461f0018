"""An open load: orders come at random moments, whether or not those before were answered."""

import asyncio
import random
import threading
import time
from typing import Final

import aiohttp
from confluent_kafka import Producer

from deploy.local.client import Endpoints
from deploy.local.demo.orders import Case
from deploy.local.ordering import Outcome
from tests.chaos.courses import Course, choose, new_case
from tests.chaos.customers import ANSWER_S, ASYNC, Customers, News
from tests.chaos.plays import play

HEADERS: Final = {"Content-Type": "application/json"}
PATIENT: Final = 0.3  # so many customers wait for the outcome with their request
PATIENCE: Final = "wait=10"
END_S: Final = 10.0


class Load:
    """Customers in a thread of their own; `cases` are all orders that were begun."""

    def __init__(self, endpoints: Endpoints, rate_per_s: float, seed: str) -> None:
        """Nothing is sent before `start`."""
        self.cases: list[Case] = []
        self.broken: list[str] = []  # customers who could not go on: a fault of theirs
        self.news = News()
        self.customers: Customers | None = None
        self._endpoints = endpoints
        self._rate_per_s = rate_per_s
        self._lots = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._playing: set[asyncio.Task[None]] = set()
        self._arriving = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._end = asyncio.Event()
        self._started = threading.Event()

    def start(self) -> None:
        """Let orders come."""
        self._arriving.set()
        self._thread.start()
        self._started.wait(END_S)

    def place(self, course: Course, case: Case) -> None:
        """Have one more order placed, now."""
        self._loop.call_soon_threadsafe(self._begin, course, case, ASYNC)

    def tell(self, outcome: Outcome) -> None:
        """Pass on what was heard on Kafka; may be called by any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.news.note, outcome)

    def stop_arrivals(self) -> None:
        """Let no new orders come; those that were begun go on."""
        self._arriving.clear()

    def under_way(self) -> int:
        """How many orders have not come to their end as their customers see it."""
        return len(self._playing)

    def stop(self) -> None:
        """Send everybody home."""
        self._arriving.clear()
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(END_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        connector = aiohttp.TCPConnector(limit=0)  # a bound would turn the open model into a closed one
        producer = Producer(
            {
                "bootstrap.servers": self._endpoints.kafka_bootstrap_servers,
                "message.timeout.ms": 10_000,
                "reconnect.backoff.max.ms": 1000,
                "log_level": 0,
            }
        )
        async with aiohttp.ClientSession(
            self._endpoints.api_url, connector=connector, timeout=timeout, headers=HEADERS
        ) as http:
            self.customers = Customers(http, producer, self.news, random.Random(self._lots.random()))
            self._started.set()
            arrivals = asyncio.create_task(self._arrive())
            await self._end.wait()
            arrivals.cancel()
            for each in list(self._playing):
                each.cancel()
            await asyncio.gather(arrivals, *self._playing, return_exceptions=True)

    async def _arrive(self) -> None:
        due = time.monotonic()
        while self._arriving.is_set():
            due += self._lots.expovariate(self._rate_per_s)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            course = choose(self._lots)
            prefer = PATIENCE if self._lots.random() < PATIENT else ASYNC
            if self._arriving.is_set():
                self._begin(course, new_case(course, self._lots), prefer)

    def _begin(self, course: Course, case: Case, prefer: str) -> None:
        assert self.customers is not None
        self.cases.append(case)
        task = self._loop.create_task(play(self.customers, course, case, prefer))
        self._playing.add(task)
        task.add_done_callback(self._leave)

    def _leave(self, task: asyncio.Task[None]) -> None:
        self._playing.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.broken.append(repr(error))
