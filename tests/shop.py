"""A shop that speaks HTTP to the Payment API while the worker's own code carries out what it asks for."""

import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import select

from shared.models import Operation
from shared.payments import OperationState
from shared.wakeup import Announcer
from tests.api import JSON, SOON_S, Answer, Api
from tests.factories import as_json, new_uuid, payment_body
from tests.waiting import LONGEST_S, wait_until
from tests.worker import Bench

ROUNDS: Final = 10  # more than any payment needs to come to rest
HUNDRED: Final = Decimal("100.00")


class Shop:
    """One API and one worker on the same database, and the simulator behind the worker."""

    def __init__(self, api: Api, bench: Bench) -> None:
        """Let the worker wake the API's waiting requests."""
        self.api = api
        self.bench = bench
        bench.worker = replace(bench.worker, announce_change=Announcer(api.services.redis))

    def start(self, amount: Decimal = HUNDRED, **facts: Any) -> str:
        """Ask for a payment that nobody carries out yet; return its id."""
        answer = self.api.post_async(payment_body(amount=amount, **facts))
        assert answer.status == 202, answer.text
        return str(answer.payment["id"])

    def pay(self, amount: Decimal = HUNDRED, **facts: Any) -> str:
        """Make a payment and carry it out; return its id."""
        payment_id = self.start(amount, **facts)
        self.work()
        return payment_id

    def hold(self, amount: Decimal = HUNDRED, **facts: Any) -> str:
        """Hold money; return the payment's id."""
        payment_id = self.pay(amount, captureMethod="manual", **facts)
        assert self.payment(payment_id)["status"] == "authorized"
        return payment_id

    def hold_cart(self, amount_minor: int = 10_000, **facts: Any) -> str:
        """Hold the total of a cart that has no order yet; return the payment's id."""
        body = {"cartId": new_uuid(), "amount": amount_minor, "currency": "USD", **facts}
        answer = self.api.post(body, path="/payments/authorize", Prefer="respond-async")
        assert answer.status == 202, answer.text
        self.work()
        return str(answer.payment["id"])

    def ask(self, payment_id: str, what: str, body: Any = None, **headers: str) -> Answer:
        """POST to a route of a payment: capture, cancel or refunds; without a body send none at all."""
        path = f"/payments/{payment_id}/{what}"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is None:
            return self.api.send("POST", path, b"", named)
        sent = body if isinstance(body, str | bytes) else as_json(body)
        return self.api.send("POST", path, sent, {"Content-Type": JSON, **named})

    def at_once(self, calls: Sequence[Callable[[], Answer]]) -> list[Answer]:
        """Make all calls at the same time."""
        with ThreadPoolExecutor(len(calls)) as callers:
            return [each.result(LONGEST_S) for each in [callers.submit(call) for call in calls]]

    def served(self, call: Callable[[], Answer]) -> Answer:
        """Make a call that waits, and carry out what it asks for meanwhile."""
        with ThreadPoolExecutor(1) as caller:
            answer = caller.submit(call)
            wait_until(lambda: answer.done() or self.requested(), SOON_S, "something to be asked for")
            self.work()
            return answer.result(LONGEST_S)

    def requested(self) -> list[uuid.UUID]:
        """The operations that nobody has claimed yet."""
        query = select(Operation.id).where(Operation.state == OperationState.REQUESTED)
        with self.bench.sessions() as session:
            return list(session.scalars(query.order_by(Operation.id)))

    def work(self) -> None:
        """Carry out everything that is asked for, and what follows from it."""
        for _ in range(ROUNDS):
            if not (waiting := self.requested()):
                return
            for operation_id in waiting:
                self.bench.worker.process(operation_id, 0)
        assert not self.requested()

    def look_again(self) -> None:
        """Let recovery ask the gateway how everything open stands."""
        query = select(Operation.id).where(Operation.finished_at.is_(None))
        with self.bench.sessions() as session:
            still_open = session.scalars(query).all()
        for operation_id in still_open:
            self.bench.make_due(operation_id)
        self.bench.recover()

    def payment(self, payment_id: str) -> Any:
        """The payment as GET shows it."""
        answer = self.api.get(f"/payments/{payment_id}")
        assert answer.status == 200, answer.text
        return answer.payment

    def sums(self, payment_id: str) -> tuple[str, Decimal, Decimal]:
        """Status, captured and refunded amount of a payment."""
        shown = self.payment(payment_id)
        return shown["status"], shown["capturedAmount"], shown["refundedAmount"]

    def charge(self, payment_id: str) -> Any:
        """The one charge that the gateway has of a payment."""
        (charge,) = self.bench.simulator.charges(payment_id=payment_id)
        return charge

    def announced(self, payment_id: str) -> list[str]:
        """The events that wait for the relay, in their order."""
        return [row.type for row in self.bench.outbox() if str(row.aggregateid) == payment_id]

    def intent(self, payment_id: str) -> str:
        """The gateway's id of a payment."""
        (ref,) = (
            row["gateway_ref"] for row in self.api.stored.rows("payment") if str(row["id"]) == payment_id
        )
        return str(ref)

    def assert_history_is_whole(self, payment_id: str) -> None:
        """No gap in the payment's history, and every announced event waits exactly once."""
        with self.bench.sessions() as session:
            query = select(Operation.id).where(Operation.payment_id == uuid.UUID(payment_id)).limit(1)
            operation_id = session.scalars(query).one()
        self.bench.assert_history_is_whole(operation_id)
