"""The simulator's parts, put together: state, keys, faults and latency."""

import asyncio
from pathlib import Path

from deploy.stripe_simulator import refunds
from deploy.stripe_simulator.errors import StripeError, internal_error
from deploy.stripe_simulator.faults import Fault, FaultKind, Faults
from deploy.stripe_simulator.idempotency import Claim, IdempotencyKeys
from deploy.stripe_simulator.latency import Latency
from deploy.stripe_simulator.lookups import INTENT
from deploy.stripe_simulator.operation import Operation
from deploy.stripe_simulator.operations import EXPIRES, expire
from deploy.stripe_simulator.params import Params
from deploy.stripe_simulator.store import Store
from deploy.stripe_simulator.timers import Action, run_due, run_for_ever
from deploy.stripe_simulator.webhooks import Webhooks
from deploy.stripe_simulator.wire import Answer, Form, to_json

ACTIONS: dict[str, Action] = {EXPIRES: expire, refunds.SETTLES: refunds.settle}
OTHER_CALLS_SHARE = 0.1  # a call that asks no card network takes a tenth of the time


class Simulator:
    """Everything behind the HTTP routes."""

    LATENCY_SETTING = "latency"

    def __init__(self, state: Path | None) -> None:
        """Open the state file; None keeps everything in memory alone. Raises StateUnusable."""
        self.store = Store(state)
        self.keys = IdempotencyKeys(self.store)
        self.faults = Faults(self.store)
        self.webhooks = Webhooks(self.store)
        kept = self.store.setting(self.LATENCY_SETTING)
        self.latency = Latency(**kept) if kept else None

    def close(self) -> None:
        """Close the state file."""
        self.store.close()

    async def run_in_background(self) -> None:
        """Do what happens by itself, until cancelled."""
        await asyncio.gather(run_for_ever(self.store, ACTIONS), self.webhooks.run_for_ever())

    def set_latency(self, latency: Latency | None) -> None:
        """Make calls take this long from now on, also after a restart; None makes them instant."""
        self.latency = latency
        kept = latency and {"p50_ms": latency.p50_ms, "p99_ms": latency.p99_ms}
        self.store.keep_setting(self.LATENCY_SETTING, kept)

    def draw_delay_s(self, key: str | None = None, *, confirms: bool) -> float:
        """Return how long the call with this idempotency key takes, in seconds."""
        if self.latency is None:
            return 0.0
        return self.latency.draw_s(key) * (1.0 if confirms else OTHER_CALLS_SHARE)

    def take_fault(self, form: Form, target: str, path: str, *, read: bool = False) -> Fault | None:
        """Use up the fault that this request meets, judged by its path, its metadata and its object's."""
        if not self.faults:
            return None
        sent, named = form.get("metadata"), target or form.get("payment_intent")
        metadata: Params = {}
        for kind in (INTENT, refunds.REFUND):
            facts = self.store.find(kind, named) if isinstance(named, str) else None
            metadata |= (facts or {}).get("metadata", {})
        metadata |= sent if isinstance(sent, dict) else {}
        return self.faults.take(metadata, path, read=read)

    def advance_clock(self, advance_s: float) -> None:
        """Move the simulated time forward and do what has become due by then."""
        self.store.move_clock(self.store.ahead_s + advance_s)
        run_due(self.store, ACTIONS)

    def execute(
        self,
        operation: Operation,
        target: str,
        checked: Params,
        claim: Claim,
        request_id: str,
        fault: Fault | None,
    ) -> Answer:
        """Run the operation and keep its answer under its key, in one transaction."""
        kind = fault.kind if fault else None
        self.store.cause = (request_id, claim.key)
        with self.store.transaction():
            if kind is FaultKind.ERROR_BEFORE:
                answer = internal_error().answer(request_id)
            else:
                answer = self._run(operation, target, checked, request_id)
                if kind is FaultKind.ERROR_AFTER:
                    answer = internal_error().answer(request_id)
            self.keys.keep(claim, answer, request_id)
        self.store.cause = (None, None)
        return answer

    def _run(self, operation: Operation, target: str, checked: Params, request_id: str) -> Answer:
        try:
            return Answer(200, to_json(operation.execute(self.store, target, checked)))
        except StripeError as error:
            return error.answer(request_id)
