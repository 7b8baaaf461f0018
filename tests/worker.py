"""Carry out charges in the test's own process, against the real servers, and read what became of them."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, select, update

from payment_worker import recovery
from payment_worker.gate import make_gate
from payment_worker.leases import Leases
from payment_worker.locking import lock
from payment_worker.processing import Claim, Worker
from shared.commands.create import CreatePayment, create_payment
from shared.commands.operations import Origin
from shared.database import connect, make_sessions
from shared.gateways import Dispute, Gateway, Outcome, Request, SeenRefund, Sought
from shared.gateways.stripe import StripeGateway
from shared.models import Operation, Outbox, Payment, TimelineEntry
from shared.money import Money
from shared.payments import OperationKind
from shared.sealing import Sealer
from shared.settings import Settings
from tests.factories import new_uuid
from tests.simulator import Simulator

NOT_DUE_S: Final = 600.0  # recovery stays away unless a test makes an operation due
APPLICATION: Final = "test worker"

Hook = Callable[[], object]


class Watched:
    """The real adapter. It notes the keys sent, and a test may step in before or after its next calls."""

    simulated = True

    def __init__(self, inner: Gateway) -> None:
        """Ask `inner`, which a test may replace."""
        self.inner = inner
        self.keys: list[str] = []
        self.looked_up: list[str] = []
        self.finds = 0
        self.before: list[Hook] = []  # one for each of the next calls
        self.after: list[Hook] = []
        self.before_find: list[Hook] = []  # one for each of the next passes

    def freeze(self, request: Request) -> dict[str, Any]:
        """Freeze as the real adapter does."""
        return self.inner.freeze(request)

    def send(self, kind: OperationKind, parameters: Mapping[str, Any], key: str) -> Outcome:
        """Note the key, then send."""
        self.keys.append(key)
        return self._between(lambda: self.inner.send(kind, parameters, key))

    def look_up(self, kind: OperationKind, gateway_ref: str) -> Outcome:
        """Note the reference, then look it up."""
        self.looked_up.append(gateway_ref)
        return self._between(lambda: self.inner.look_up(kind, gateway_ref))

    def find(self, sought: Sequence[Sought], since: datetime) -> Mapping[str, list[Outcome]]:
        """Count the pass, then make it."""
        self.finds += 1
        if self.before_find:
            self.before_find.pop(0)()
        return self.inner.find(sought, since)

    def refunds_of(self, gateway_ref: str) -> list[SeenRefund]:
        """List refunds as the real adapter does."""
        return self.inner.refunds_of(gateway_ref)

    def dispute(self, gateway_ref: str) -> Dispute:
        """Look a dispute up as the real adapter does."""
        return self.inner.dispute(gateway_ref)

    def _between(self, call: Callable[[], Outcome]) -> Outcome:
        after = self.after.pop(0) if self.after else None
        if self.before:
            self.before.pop(0)()
        outcome = call()
        if after:
            after()
        return outcome


class Bench:
    """One worker on this test's own database, and everything that it has written there."""

    def __init__(
        self, settings: Settings, *, lease_s: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Use the servers that the settings name; the heartbeat is not started. The breaker has the clock."""
        self.settings = settings
        self.engine = connect(
            settings.database_url, pool_size=12, application=APPLICATION, sealer=Sealer.of(settings)
        )
        self.sessions = make_sessions(self.engine)
        self.simulator = Simulator(settings.stripe_api_url)
        self.gateway = Watched(self.stripe())
        self.changed: list[uuid.UUID] = []
        self.leases = Leases(self.sessions, lease_s)
        self.worker = Worker(
            sessions=self.sessions,
            gateway=self.gateway,
            gate=make_gate(self.sessions, settings, clock),
            leases=self.leases,
            lease_s=lease_s,
            announce_change=self.changed.append,
        )

    def stripe(self, key: str = "", url: str = "") -> StripeGateway:
        """Return a real adapter; by default with this test's key and simulator."""
        return StripeGateway(key or self.settings.stripe_secret_key, url or self.settings.stripe_api_url)

    def order(
        self, amount_minor: int = 2500, *, recovery_after_s: float = NOT_DUE_S, **facts: Any
    ) -> uuid.UUID:
        """Record a new payment and return the id of its charge operation."""
        money = Money(amount_minor, facts.pop("currency", "USD"))
        origin = Origin(
            actor="test",
            correlation_id=facts.pop("correlation_id", None),
            traceparent=facts.pop("traceparent", None),
        )
        command = CreatePayment(
            **{
                "order_id": new_uuid(),
                "customer_id": new_uuid(),
                "money": money,
                "payment_method": "credit_card",
                **facts,
            }
        )
        created = create_payment(
            self.sessions, command, origin, simulated=True, recovery_after_s=recovery_after_s
        )
        with self.sessions() as session:
            query = select(Operation.id).where(Operation.payment_id == created.payment.id)
            return session.scalars(query).one()

    def attempt(self, operation_id: uuid.UUID, *, fault: str | None = None) -> Outcome | None:
        """Carry out the next attempt, which meets the fault at the simulator if one is given."""
        if fault:
            self.simulator.fault(fault, operation_id=str(operation_id))
        return self.worker.process(operation_id, self.operation(operation_id).attempt)

    def operation(self, operation_id: uuid.UUID) -> Operation:
        """Read the operation as it stands."""
        with self.sessions() as session:
            return session.get_one(Operation, operation_id)

    def payment(self, operation_id: uuid.UUID) -> Payment:
        """Read the operation's payment as it stands."""
        with self.sessions() as session:
            return session.get_one(Payment, session.get_one(Operation, operation_id).payment_id)

    def change(self, operation_id: uuid.UUID, **columns: Any) -> None:
        """Set columns of the operation, as time or another process would; a timedelta counts from now."""
        values = {
            name: func.clock_timestamp() + value if isinstance(value, timedelta) else value
            for name, value in columns.items()
        }
        with self.sessions.begin() as session:
            session.execute(update(Operation).where(Operation.id == operation_id).values(values))

    def make_due(self, operation_id: uuid.UUID) -> None:
        """Let recovery find the operation due, as it will after a while."""
        self.change(operation_id, next_attempt_at=timedelta())

    @contextmanager
    def pausing(self, operation_id: uuid.UUID, least_s: float, most_s: float | None = None) -> Iterator[None]:
        """The block makes recovery wait: for `least_s`, or from that to `most_s`, however long it takes."""
        began = self.now()
        yield
        ended, until = self.now(), self.operation(operation_id).next_attempt_at
        assert until is not None
        most_s = least_s if most_s is None else most_s
        assert began + timedelta(seconds=least_s) <= until <= ended + timedelta(seconds=most_s)

    def now(self) -> datetime:
        """Read the clock that leases and pauses go by."""
        with self.sessions() as session:
            at: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
        return at

    def recover(self) -> list[uuid.UUID]:
        """Let recovery dispatch what is due, carry it out, and return which operations it was."""
        due: list[recovery.Due] = []
        recovery.sweep(self.sessions, lambda: 0, due.extend)
        for each in due:
            self.worker.process(each.operation_id, each.attempt)
        return [each.operation_id for each in due]

    def verify(self, verify_absence_s: float = 600.0) -> int:
        """Let recovery look for everything doubtful."""
        return recovery.verify_doubtful(
            self.sessions, self.gateway, self.worker.gate, verify_absence_s, self.changed.append
        )

    def claim(self, operation_id: uuid.UUID, attempt: int) -> Claim:
        """Return what the holder of an earlier attempt still has in its hands."""
        with self.sessions.begin() as session:
            payment, operation, at = lock(session, operation_id)
        return Claim(payment, operation, attempt, at, time.monotonic())

    def timeline(self, operation_id: uuid.UUID) -> list[TimelineEntry]:
        """Read the payment's history, oldest first."""
        payment_id = self.operation(operation_id).payment_id
        query = select(TimelineEntry).where(TimelineEntry.payment_id == payment_id)
        with self.sessions() as session:
            return list(session.scalars(query.order_by(TimelineEntry.sequence)))

    def events(self, operation_id: uuid.UUID) -> list[str]:
        """Return what the history says has happened."""
        return [entry.event for entry in self.timeline(operation_id)]

    def outbox(self) -> list[Outbox]:
        """Read what waits for the relay, in its order."""
        with self.sessions() as session:
            return list(session.scalars(select(Outbox).order_by(Outbox.position)))

    def successes(self, operation_id: uuid.UUID) -> list[dict[str, Any]]:
        """Return the charges at the simulator that took money for this operation."""
        charges = self.simulator.charges(operation_id=str(operation_id))
        return [each for each in charges if each["status"] == "succeeded"]

    def assert_history_is_whole(self, operation_id: uuid.UUID) -> None:
        """No gap in the history, every status follows from the one before, every event waits exactly once."""
        entries = self.timeline(operation_id)
        payment = self.payment(operation_id)
        assert [entry.sequence for entry in entries] == list(range(1, payment.version + 1))
        moves = [(entry.from_status, entry.to_status) for entry in entries if entry.to_status]
        assert [was for was, _ in moves] == [None, *(now for _, now in moves[:-1])]
        assert moves[-1][1] == payment.status
        announced = [(each.announced_id, each.announced_type) for each in entries if each.announced_id]
        waiting = [(row.id, row.type) for row in self.outbox() if row.aggregateid == payment.id]
        assert waiting == announced
        assert len(set(announced)) == len(announced)


@contextmanager
def make_bench(settings: Settings, **options: Any) -> Iterator[Bench]:
    """Set up a bench and close its connections after the block."""
    bench = Bench(settings, **options)
    try:
        yield bench
    finally:
        bench.leases.stop()
        bench.engine.dispose()
