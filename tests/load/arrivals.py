"""Send orders over HTTP at a fixed rate: arrivals follow the schedule, never the answers."""

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

from tests.load.outcomes import Outcomes
from tests.load.scenarios import COURSES, Course, Scenario

HEADERS = {"Content-Type": "application/json", "Prefer": "respond-async"}
BODY = '{"orderId":"%s","customerId":"%s","amount":150.00,"currency":"EUR"%s}'
ANSWER_TIMEOUT_S = 30
GO_ON_TIMEOUT_S = 60  # for the event at which a scenario goes on
COLLECT_EVERY_S = 0.005
ACCEPTED = {200, 202}


@dataclass(slots=True)
class Arrival:
    """One order: when it was due and answered (seconds on the monotonic clock), and what the answers were."""

    order_id: str
    scenario: Scenario
    due: float
    answered: float = 0.0  # the first command
    status: int = 0  # 0: no answer came
    done: float = 0.0  # the last command
    then_status: int | None = None  # of the second command; None: there is none, or it was not sent

    @property
    def accepted(self) -> bool:
        """Whether every command of the scenario was."""
        last = self.status if COURSES[self.scenario].go_on_at is None else self.then_status
        return self.status in ACCEPTED and last in ACCEPTED


class Sender:
    """Plays scenarios against one API; what is heard meanwhile tells each when to go on."""

    def __init__(self, http: aiohttp.ClientSession, outcomes: Outcomes, progress: Callable[[], None]) -> None:
        """Call `progress` after each scenario."""
        self._http = http
        self._outcomes = outcomes
        self._progress = progress
        self._customer = uuid.uuid4()
        self._waiting: dict[tuple[str, str], asyncio.Future[str]] = {}  # by order and topic: the payment's id

    async def play(self, arrival: Arrival) -> None:
        """Send the first command, and the second when its time has come."""
        course = COURSES[arrival.scenario]
        told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        if course.go_on_at:
            self._waiting[arrival.order_id, course.go_on_at] = told
        body = BODY % (arrival.order_id, self._customer, course.details)
        arrival.status = await self._post("/payments", body)
        arrival.answered = arrival.done = time.monotonic()
        if course.go_on_at and arrival.status in ACCEPTED:
            await self._go_on(arrival, course, told)
        self._progress()

    async def listen(self) -> None:
        """Take over what was heard and wake who waits for it, until cancelled."""
        while True:
            for seen in self._outcomes.collect():
                told = self._waiting.pop((seen.order_id, seen.topic), None)
                if told and not told.done():
                    told.set_result(seen.payment_id)
            await asyncio.sleep(COLLECT_EVERY_S)

    async def _go_on(self, arrival: Arrival, course: Course, told: "asyncio.Future[str]") -> None:
        try:
            payment_id = await asyncio.wait_for(told, GO_ON_TIMEOUT_S)
        except TimeoutError:
            return
        arrival.then_status = await self._post(f"/payments/{payment_id}/{course.then}", course.body)
        arrival.done = time.monotonic()

    async def _post(self, path: str, body: str) -> int:
        try:
            async with self._http.post(path, data=body) as answer:
                await answer.read()
                return answer.status
        except (aiohttp.ClientError, TimeoutError):
            return 0


def send(
    api_url: str,
    rate_per_s: float,
    seconds: int,
    mix: tuple[Scenario, ...],
    outcomes: Outcomes,
    progress: Callable[[], None],
) -> list[Arrival]:
    """Start `rate_per_s` scenarios of the mix a second for `seconds`; return each with its times."""
    return asyncio.run(_send(api_url, rate_per_s, round(rate_per_s * seconds), mix, outcomes, progress))


async def _send(
    api_url: str,
    rate_per_s: float,
    count: int,
    mix: tuple[Scenario, ...],
    outcomes: Outcomes,
    progress: Callable[[], None],
) -> list[Arrival]:
    timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
    connector = aiohttp.TCPConnector(limit=0)  # a bound would turn the open model into a closed one
    async with aiohttp.ClientSession(api_url, connector=connector, timeout=timeout, headers=HEADERS) as http:
        sender = Sender(http, outcomes, progress)
        # Charges need not be told anything, and the sender shares the cores with what is measured.
        needs_telling = any(COURSES[each].go_on_at for each in mix)
        listening = asyncio.create_task(sender.listen()) if needs_telling else None
        began = time.monotonic()
        arrivals, pending = [], []
        for number in range(count):
            due = began + number / rate_per_s
            if (early_s := due - time.monotonic()) > 0:
                await asyncio.sleep(early_s)
            arrivals.append(Arrival(str(uuid.uuid4()), mix[number % len(mix)], due))
            pending.append(asyncio.create_task(sender.play(arrivals[-1])))
        await asyncio.gather(*pending)
        if listening:
            listening.cancel()
    return arrivals
