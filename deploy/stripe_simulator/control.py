"""The simulator's own JSON endpoints under /_control: latency, faults, authentication, ledger, health."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from deploy.stripe_simulator import refunds, rendering, setup_intents
from deploy.stripe_simulator.errors import StripeError
from deploy.stripe_simulator.faults import Fault, FaultKind
from deploy.stripe_simulator.latency import Latency
from deploy.stripe_simulator.lookups import CHARGE, INTENT
from deploy.stripe_simulator.operations import authenticate
from deploy.stripe_simulator.refund_operations import steer
from deploy.stripe_simulator.refunds import FAILURE_REASONS, REFUND
from deploy.stripe_simulator.simulator import Simulator
from deploy.stripe_simulator.store import Page, UnknownCursor
from deploy.stripe_simulator.wire import to_json

LEDGER_LIMIT_DEFAULT = 100
LEDGER_LIMIT_MAX = 1000
LEDGERS = {CHARGE: rendering.charge, REFUND: refunds.show}
TIMES_MAX = 1_000_000

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Unacceptable(ValueError):
    """A control request that says something that cannot be done."""


def routes(simulator: Simulator) -> list[web.RouteDef]:
    """Return the control routes of one simulator."""
    control = Control(simulator)
    return [
        web.get("/_control/health", _guarded(control.health)),
        web.get("/_control/latency", _guarded(control.show_latency)),
        web.put("/_control/latency", _guarded(control.set_latency)),
        web.get("/_control/faults", _guarded(control.show_faults)),
        web.post("/_control/faults", _guarded(control.add_fault)),
        web.delete("/_control/faults", _guarded(control.clear_faults)),
        web.post("/_control/authenticate", _guarded(control.authenticate)),
        web.post("/_control/refund", _guarded(control.refund)),
        web.get("/_control/ledger", _guarded(control.ledger)),
    ]


class Control:
    """The handlers; each returns what it answers with."""

    def __init__(self, simulator: Simulator) -> None:
        """Steer `simulator`."""
        self._simulator = simulator

    async def health(self, _request: web.Request) -> object:
        """Say that requests are served."""
        return {"status": "ok"}

    async def show_latency(self, _request: web.Request) -> object:
        """Show how long calls take."""
        latency = self._simulator.latency
        return latency and {"p50_ms": latency.p50_ms, "p99_ms": latency.p99_ms}

    async def set_latency(self, request: web.Request) -> object:
        """Take `{"p50_ms", "p99_ms"}`; null, or null in both, makes calls instant."""
        body = await _read(request, {"p50_ms", "p99_ms"}, or_null=True)
        p50_ms, p99_ms = body.get("p50_ms"), body.get("p99_ms")
        if p50_ms is None and p99_ms is None:
            self._simulator.set_latency(None)
            return None
        self._simulator.set_latency(Latency(_number("p50_ms", p50_ms), _number("p99_ms", p99_ms)))
        return body

    async def show_faults(self, _request: web.Request) -> object:
        """Show what is left."""
        return {"faults": self._simulator.faults.left()}

    async def add_fault(self, request: web.Request) -> object:
        """Take `{"kind", "times": 1, "match": {...}}`."""
        body = await _read(request, {"kind", "times", "match"})
        times, match = body.get("times", 1), body.get("match") or {}
        if not isinstance(times, int) or isinstance(times, bool) or not 1 <= times <= TIMES_MAX:
            message = f"times must be an integer from 1 to {TIMES_MAX}"
            raise Unacceptable(message)
        if not isinstance(match, dict) or not all(isinstance(value, str) for value in match.values()):
            message = "match must be an object of strings"
            raise Unacceptable(message)
        self._simulator.faults.add(Fault(FaultKind(str(body.get("kind"))), times, match))
        return await self.show_faults(request)

    async def clear_faults(self, request: web.Request) -> object:
        """Drop what is left."""
        self._simulator.faults.clear()
        return await self.show_faults(request)

    async def authenticate(self, request: web.Request) -> object:
        """Take `{"payment_intent" or "setup_intent", "succeed"}`: the customer passes or fails.

        Answers with the intent.
        """
        body = await _read(request, {"payment_intent", "setup_intent", "succeed"})
        succeed = body.pop("succeed", True)
        ((kind, intent_id),) = body.items() if len(body) == 1 else [("", None)]
        if not isinstance(intent_id, str) or not isinstance(succeed, bool):
            message = "name one payment_intent or setup_intent; succeed must be a boolean"
            raise Unacceptable(message)
        finish = authenticate if kind == INTENT else setup_intents.authenticate
        store = self._simulator.store
        with store.transaction():
            return finish(store, intent_id, succeed=succeed)

    async def refund(self, request: web.Request) -> object:
        """Take `{"refund", "status", "failure_reason"}`: the refund's bank moves it; answers with it."""
        body = await _read(request, {"refund", "status", "failure_reason"})
        reason = body.get("failure_reason")
        if reason is not None and reason not in FAILURE_REASONS:
            message = f"failure_reason must be one of {', '.join(FAILURE_REASONS)}"
            raise Unacceptable(message)
        store = self._simulator.store
        with store.transaction():
            return steer(store, str(body.get("refund")), str(body.get("status")), reason)

    async def ledger(self, request: web.Request) -> object:
        """Show every charge made, failed ones too, or with `kind=refund` every refund; oldest first."""
        limit = request.query.get("limit", str(LEDGER_LIMIT_DEFAULT))
        if not limit.isdecimal() or not 1 <= int(limit) <= LEDGER_LIMIT_MAX:
            message = f"limit must be from 1 to {LEDGER_LIMIT_MAX}"
            raise Unacceptable(message)
        kind = request.query.get("kind", CHARGE)
        if kind not in LEDGERS:
            message = f"kind must be one of {', '.join(LEDGERS)}"
            raise Unacceptable(message)
        page = Page(limit=int(limit), after=request.query.get("starting_after"), oldest_first=True)
        try:
            found, has_more = self._simulator.store.page(kind, page)
        except UnknownCursor as error:
            message = f"no such {kind}: {error}"
            raise Unacceptable(message) from error
        return {"data": [LEDGERS[kind](facts) for facts in found], "has_more": has_more}


def _guarded(handler: Callable[[web.Request], Awaitable[object]]) -> Handler:
    async def guarded(request: web.Request) -> web.StreamResponse:
        try:
            return _respond(200, await handler(request))
        except StripeError as error:
            return _respond(error.status, {"error": dict(error.fields)})
        except ValueError as error:  # Unacceptable, an unknown kind, impossible numbers
            return _respond(400, {"error": {"message": str(error)}})

    return guarded


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        message = f"{name} must be a number"
        raise Unacceptable(message)
    return value


async def _read(request: web.Request, known: set[str], *, or_null: bool = False) -> dict[str, Any]:
    try:
        body = json.loads(await request.text())
    except ValueError as error:
        message = f"the body must be JSON: {error}"
        raise Unacceptable(message) from error
    if body is None and or_null:
        return {}
    if not isinstance(body, dict) or not body.keys() <= known:
        message = f"the body must be an object with no other fields than {', '.join(sorted(known))}"
        raise Unacceptable(message)
    return body


def _respond(status: int, value: object) -> web.Response:
    return web.Response(body=to_json(value), status=status, content_type="application/json")
