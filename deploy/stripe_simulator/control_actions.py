"""Control endpoints for what others do: time, customers and their banks, people at Stripe's dashboard."""

from collections.abc import Callable
from typing import Any, TypeVar

from aiohttp import web

from deploy.stripe_simulator import disputes, operations, refund_operations, setup_intents
from deploy.stripe_simulator.control_requests import Unacceptable, guarded, number, read
from deploy.stripe_simulator.errors import StripeError
from deploy.stripe_simulator.lookups import INTENT
from deploy.stripe_simulator.refunds import FAILURE_REASONS
from deploy.stripe_simulator.rendering import Rendered
from deploy.stripe_simulator.simulator import Simulator
from deploy.stripe_simulator.store import Store

# Where the customer comes back to when Stripe.js confirms without saying so.
RETURN_URL = "https://shop.example/return"

Result = TypeVar("Result")


def routes(simulator: Simulator) -> list[web.RouteDef]:
    """Return these control routes of one simulator."""
    control = Actions(simulator)
    return [
        web.get("/_control/clock", guarded(control.show_clock)),
        web.post("/_control/clock", guarded(control.move_clock)),
        web.post("/_control/authenticate", guarded(control.authenticate)),
        web.post("/_control/confirm", guarded(control.confirm)),
        web.post("/_control/refund", guarded(control.refund)),
        web.post("/_control/dispute", guarded(control.dispute)),
        web.post("/_control/dispute/update", guarded(control.update_dispute)),
        web.post("/_control/dispute/close", guarded(control.close_dispute)),
        web.post("/_control/dashboard/refund", guarded(control.dashboard_refund)),
        web.post("/_control/dashboard/capture", guarded(control.dashboard_capture)),
        web.post("/_control/dashboard/cancel", guarded(control.dashboard_cancel)),
    ]


class Actions:
    """The handlers; each returns what it answers with."""

    def __init__(self, simulator: Simulator) -> None:
        """Act on `simulator`."""
        self._simulator = simulator

    async def show_clock(self, _request: web.Request) -> object:
        """Show the simulated time, and how far it is ahead of this machine's."""
        store = self._simulator.store
        return {"now": store.now_s(), "ahead_s": store.ahead_s}

    async def move_clock(self, request: web.Request) -> object:
        """Take `{"advance_s"}` or `{"now"}`: move the simulated time forward and do what has become due."""
        body = await read(request, {"advance_s", "now"})
        if len(body) != 1:
            message = "give either advance_s or now"
            raise Unacceptable(message)
        ((name, value),) = body.items()
        advance_s = number(name, value) - (self._simulator.store.now() if name == "now" else 0)
        if advance_s < 0:
            message = "the clock moves forward only"
            raise Unacceptable(message)
        self._simulator.advance_clock(advance_s)
        return await self.show_clock(request)

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
        finish = operations.authenticate if kind == INTENT else setup_intents.authenticate
        return self._act(lambda store: finish(store, intent_id, succeed=succeed))

    async def confirm(self, request: web.Request) -> object:
        """Take `{"payment_intent", "payment_method", "return_url"}`: Stripe.js confirms with the secret."""
        body = await read(request, {"payment_intent", "payment_method", "return_url"})
        target = _text(body, "payment_intent")
        checked = {"return_url": body.get("return_url") or RETURN_URL}
        if body.get("payment_method") is not None:
            checked["payment_method"] = _text(body, "payment_method")
        return self._act(lambda store: operations.confirm(store, target, checked))

    async def refund(self, request: web.Request) -> object:
        """Take `{"refund", "status", "failure_reason"}`: the refund's bank moves it; answers with it."""
        body = await read(request, {"refund", "status", "failure_reason"})
        refund, status, reason = _text(body, "refund"), _text(body, "status"), body.get("failure_reason")
        if reason is not None and reason not in FAILURE_REASONS:
            message = f"failure_reason must be one of {', '.join(FAILURE_REASONS)}"
            raise Unacceptable(message)
        return self._act(lambda store: refund_operations.steer(store, refund, status, reason))

    async def dispute(self, request: web.Request) -> object:
        """Take `{"payment_intent" or "charge", "reason", "amount"}`; answers with the dispute."""
        body = await read(request, {"payment_intent", "charge", "reason", "amount"})
        named: dict[str, Any] = {
            name: _text(body, name) for name in ("payment_intent", "charge") if name in body
        }
        if not named:
            message = "name a payment_intent or a charge"
            raise Unacceptable(message)
        amount, reason = _amount(body), body.get("reason", "fraudulent")

        def open_it(store: Store) -> Rendered:
            charge = refund_operations.charge_named(store, named)
            return disputes.show(disputes.open_dispute(store, charge, reason, amount))

        return self._act(open_it)

    async def update_dispute(self, request: web.Request) -> object:
        """Take `{"dispute", "status": "needs_response" or "under_review"}`."""
        return await self._move_dispute(request, disputes.OPEN)

    async def close_dispute(self, request: web.Request) -> object:
        """Take `{"dispute", "status": "won" or "lost"}`."""
        return await self._move_dispute(request, disputes.CLOSED)

    async def _move_dispute(self, request: web.Request, statuses: tuple[str, ...]) -> object:
        body = await read(request, {"dispute", "status"})
        dispute, status = _text(body, "dispute"), body.get("status")
        if status not in statuses:
            message = f"status must be one of {', '.join(statuses)}"
            raise Unacceptable(message)
        return self._act(lambda store: disputes.show(disputes.move(store, dispute, status)))

    async def dashboard_refund(self, request: web.Request) -> object:
        """Take `{"payment_intent", "amount"}`: someone refunds at Stripe's dashboard."""
        body = await read(request, {"payment_intent", "amount"})
        asked = {"payment_intent": _text(body, "payment_intent"), "amount": _amount(body)}
        return self._act(lambda store: refund_operations.create(store, "", asked))

    async def dashboard_capture(self, request: web.Request) -> object:
        """Take `{"payment_intent", "amount"}`: someone captures at Stripe's dashboard."""
        body = await read(request, {"payment_intent", "amount"})
        target, asked = _text(body, "payment_intent"), {"amount_to_capture": _amount(body)}
        return self._act(lambda store: operations.capture(store, target, asked))

    async def dashboard_cancel(self, request: web.Request) -> object:
        """Take `{"payment_intent"}`: someone cancels at Stripe's dashboard."""
        target = _text(await read(request, {"payment_intent"}), "payment_intent")
        return self._act(lambda store: operations.cancel(store, target, {}))

    def _act(self, action: Callable[[Store], Result]) -> Result:
        """Run `action` in a transaction that keeps what a refusal has left, such as a failed charge."""
        store = self._simulator.store
        with store.transaction():
            try:
                return action(store)
            except StripeError as error:
                refusal = error
        raise refusal


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        message = f"{name} must be a string"
        raise Unacceptable(message)
    return value


def _amount(body: dict[str, Any]) -> int | None:
    amount = body.get("amount")
    if amount is not None and (isinstance(amount, bool) or not isinstance(amount, int) or amount < 1):
        message = "amount must be an integer from 1, in minor units"
        raise Unacceptable(message)
    return amount
