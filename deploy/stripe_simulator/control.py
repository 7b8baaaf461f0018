"""The simulator's own JSON endpoints under /_control: latency, faults, authentication, ledger, health."""

from aiohttp import web

from deploy.stripe_simulator import refunds, rendering, setup_intents
from deploy.stripe_simulator.control_requests import Unacceptable, guarded, number, page_limit, read
from deploy.stripe_simulator.faults import Fault, FaultKind
from deploy.stripe_simulator.latency import Latency
from deploy.stripe_simulator.lookups import CHARGE, INTENT
from deploy.stripe_simulator.operations import authenticate
from deploy.stripe_simulator.refund_operations import steer
from deploy.stripe_simulator.refunds import FAILURE_REASONS, REFUND
from deploy.stripe_simulator.simulator import Simulator
from deploy.stripe_simulator.store import Page, UnknownCursor

LEDGERS = {CHARGE: rendering.charge, REFUND: refunds.show}
TIMES_MAX = 1_000_000


def routes(simulator: Simulator) -> list[web.RouteDef]:
    """Return the control routes of one simulator."""
    control = Control(simulator)
    return [
        web.get("/_control/health", guarded(control.health)),
        web.get("/_control/latency", guarded(control.show_latency)),
        web.put("/_control/latency", guarded(control.set_latency)),
        web.get("/_control/faults", guarded(control.show_faults)),
        web.post("/_control/faults", guarded(control.add_fault)),
        web.delete("/_control/faults", guarded(control.clear_faults)),
        web.post("/_control/authenticate", guarded(control.authenticate)),
        web.post("/_control/refund", guarded(control.refund)),
        web.get("/_control/ledger", guarded(control.ledger)),
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
        body = await read(request, {"p50_ms", "p99_ms"}, or_null=True)
        p50_ms, p99_ms = body.get("p50_ms"), body.get("p99_ms")
        if p50_ms is None and p99_ms is None:
            self._simulator.set_latency(None)
            return None
        self._simulator.set_latency(Latency(number("p50_ms", p50_ms), number("p99_ms", p99_ms)))
        return body

    async def show_faults(self, _request: web.Request) -> object:
        """Show what is left."""
        return {"faults": self._simulator.faults.left()}

    async def add_fault(self, request: web.Request) -> object:
        """Take `{"kind", "times": 1, "match": {...}}`."""
        body = await read(request, {"kind", "times", "match"})
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
        body = await read(request, {"payment_intent", "setup_intent", "succeed"})
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
        body = await read(request, {"refund", "status", "failure_reason"})
        reason = body.get("failure_reason")
        if reason is not None and reason not in FAILURE_REASONS:
            message = f"failure_reason must be one of {', '.join(FAILURE_REASONS)}"
            raise Unacceptable(message)
        store = self._simulator.store
        with store.transaction():
            return steer(store, str(body.get("refund")), str(body.get("status")), reason)

    async def ledger(self, request: web.Request) -> object:
        """Show every charge made, failed ones too, or with `kind=refund` every refund; oldest first."""
        kind = request.query.get("kind", CHARGE)
        if kind not in LEDGERS:
            message = f"kind must be one of {', '.join(LEDGERS)}"
            raise Unacceptable(message)
        page = Page(limit=page_limit(request), after=request.query.get("starting_after"), oldest_first=True)
        try:
            found, has_more = self._simulator.store.page(kind, page)
        except UnknownCursor as error:
            message = f"no such {kind}: {error}"
            raise Unacceptable(message) from error
        return {"data": [LEDGERS[kind](facts) for facts in found], "has_more": has_more}
