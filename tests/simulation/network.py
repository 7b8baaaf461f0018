"""The way to the gateway: the real SDK's requests meet faults, and the simulator's own rules."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any
from urllib.parse import urlsplit

import stripe

from deploy.stripe_simulator.app import OPERATIONS, QUERIES
from deploy.stripe_simulator.conversation import Call, Conversation, Cut, answer_get, answer_post
from deploy.stripe_simulator.faults import Fault, FaultKind
from deploy.stripe_simulator.simulator import Simulator
from deploy.stripe_simulator.wire import Answer
from shared.gateways.stripe_http import NeverSent
from tests.simulation.schedule import Scheduler
from tests.simulation.witness import Witness

NEVER_SENT = "no connection"
TIMEOUT_BEFORE = "timeout before success"  # the request arrives a little later
LIST_LAGS = "a list lags"  # what was made of late is not in it yet
LAG_S = 300
TIMEOUT_AMID = "timeout amid the work"  # the key is in use until it is carried out
LATE_MAX_S = 60.0  # a request is on its way for no longer
_FORM = "application/x-www-form-urlencoded"


def _routes(paths: Mapping[str, Any]) -> list[tuple[re.Pattern[str], Any]]:
    plain_first = sorted(paths, key=lambda path: "{" in path)
    return [(re.compile(path.replace("{id}", "(?P<id>[^/]+)")), paths[path]) for path in plain_first]


def _route(routes: list[tuple[re.Pattern[str], Any]], path: str) -> tuple[str, Any]:
    """The id in the path, and the endpoint. Raises LookupError."""
    for pattern, endpoint in routes:
        if match := pattern.fullmatch(path):
            return match.groupdict().get("id", ""), endpoint
    raise LookupError(path)


_POSTS, _GETS = _routes(OPERATIONS), _routes(QUERIES)


@dataclass
class Weather:
    """Shares of the calls that meet each trouble."""

    chance: Random
    shares: dict[str, float] = field(default_factory=dict)
    met: dict[str, int] = field(default_factory=dict)

    def draw(self) -> str | None:
        """The trouble that the next call meets, if any."""
        draw = self.chance.random()
        for kind, share in self.shares.items():
            if draw < share:
                self.met[kind] = self.met.get(kind, 0) + 1
                return kind
            draw -= share
        return None


class Request:
    """A request that has left; the gateway works on it in a few steps."""

    def __init__(self, conversation: Conversation) -> None:
        """It has not arrived yet."""
        self._conversation = conversation
        self.answer: Answer | Cut | None = None

    def goes_on(self) -> bool:
        """One more step; False when it is answered."""
        try:
            next(self._conversation)
        except StopIteration as end:
            self.answer = end.value
        return self.answer is None


class Network:
    """Carries requests to one simulator; what nobody waits for any more is still carried out."""

    def __init__(
        self, simulator: Simulator, scheduler: Scheduler, weather: Weather, witness: Witness
    ) -> None:
        """Nothing is under way."""
        self.witness = witness
        self.simulator = simulator
        self._scheduler = scheduler
        self._weather = weather
        self.late: list[Request] = []

    def exchange(self, method: str, url: str, headers: Mapping[str, str], body: str | None) -> Answer:
        """Make one call. Raises NeverSent, and APIConnectionError when nobody can tell whether it arrived."""
        what = f"{method} {urlsplit(url).path}"
        self._scheduler.point(f"gateway call {what}")
        self.witness.called(what)
        trouble = self._weather.draw()
        if trouble:
            self._scheduler.note(f"FAULT {trouble}")
        if trouble == NEVER_SENT:
            raise NeverSent(trouble)  # type: ignore[no-untyped-call]
        if trouble in set(FaultKind):
            self.simulator.faults.add(Fault(FaultKind(trouble), reads=True))
        answer = self._converse(self._request(method, url, headers, body), what, trouble)
        self.simulator.faults.clear()
        if isinstance(answer, Cut):
            raise stripe.APIConnectionError(str(answer))  # type: ignore[no-untyped-call]
        self._scheduler.note(f"{what} -> {answer.status}")
        self._scheduler.point(f"gateway answer to {what}")
        return self._lagging(answer) if trouble == LIST_LAGS else answer

    def _lagging(self, answer: Answer) -> Answer:
        """A list without what was made of late; any other answer as it is."""
        document = json.loads(answer.body)
        if document.get("object") != "list" or not document["data"]:
            return answer
        since = self.simulator.store.now_s() - LAG_S
        older = [each for each in document["data"] if each["created"] < since]
        return replace(answer, body=json.dumps({**document, "data": older, "has_more": False}).encode())

    def _request(self, method: str, url: str, headers: Mapping[str, str], body: str | None) -> Request:
        parts = urlsplit(url)
        target, endpoint = _route(_GETS if method == "get" else _POSTS, parts.path)
        call = Call(
            path=parts.path,
            target=target,
            headers=headers,
            query=parts.query,
            body=(body or "").encode(),
            content_type=_FORM,
        )
        if method == "get":
            return Request(answer_get(self.simulator, call, endpoint))
        return Request(answer_post(self.simulator, call, endpoint))

    def _converse(self, request: Request, what: str, trouble: str | None) -> Answer | Cut:
        try:
            if trouble != TIMEOUT_BEFORE:
                while trouble != TIMEOUT_AMID and request.goes_on():
                    # Only the first one meets what was ordered for this call.
                    self.simulator.faults.clear()
                    self._scheduler.point(f"gateway works on {what}")
                if trouble == TIMEOUT_AMID:
                    request.goes_on()
        finally:
            # Whoever has asked may be gone by now: the request is on its way.
            if request.answer is None:
                self.late.append(request)
        if request.answer is None or trouble == TIMEOUT_AMID:
            raise stripe.APIConnectionError(str(trouble))  # type: ignore[no-untyped-call]
        return request.answer

    def arrive(self, number: int) -> None:
        """Carry out a request that nobody waits for."""
        request = self.late.pop(number)
        while request.goes_on():
            pass
        self.simulator.faults.clear()


class Wire(stripe.HTTPClient):
    """The SDK's HTTP client."""

    name = "simulation"

    def __init__(self) -> None:
        """There is no network before one is set."""
        super().__init__()
        self.network: Network | None = None

    def request(  # type: ignore[override]
        self, method: str, url: str, headers: Mapping[str, str] | None, post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """As the SDK's clients."""
        if self.network is None:
            raise NeverSent("no network")  # type: ignore[no-untyped-call]
        answer = self.network.exchange(method, url, headers or {}, post_data)
        return answer.body, answer.status, answer.headers

    def close(self) -> None:
        """Nothing is open."""
