"""The simulator's own JSON endpoints under /_control: latency, faults, ledger, health."""

from aiohttp import web

from deploy.stripe_simulator import refunds, rendering
from deploy.stripe_simulator.control_requests import Unacceptable, guarded, number, page_limit, read
from deploy.stripe_simulator.faults import FIELDS, Fault, FaultKind
from deploy.stripe_simulator.latency import Latency
from deploy.stripe_simulator.lookups import CHARGE
from deploy.stripe_simulator.refunds import REFUND
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
        """Take the fields of a Fault; `times` is 1 if not given, null until the faults are cleared."""
        body = await read(request, FIELDS)
        times, match = body.get("times", 1), body.get("match") or {}
        if times is not None and (
            not isinstance(times, int) or isinstance(times, bool) or not 1 <= times <= TIMES_MAX
        ):
            message = f"times must be null or an integer from 1 to {TIMES_MAX}"
            raise Unacceptable(message)
        if not isinstance(match, dict) or not all(isinstance(value, str) for value in match.values()):
            message = "match must be an object of strings"
            raise Unacceptable(message)
        path, reads = body.get("path"), body.get("reads", False)
        if not isinstance(path, str | None) or not isinstance(reads, bool):
            message = "path must be a string and reads a boolean"
            raise Unacceptable(message)
        self._simulator.faults.add(Fault(FaultKind(str(body.get("kind"))), times, match, path, reads))
        return await self.show_faults(request)

    async def clear_faults(self, request: web.Request) -> object:
        """Drop what is left."""
        self._simulator.faults.clear()
        return await self.show_faults(request)

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
