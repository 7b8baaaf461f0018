"""Does a payment cost the same with a million others stored? Measures it, and shows every hot plan."""

import os
import shutil
import statistics
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import psycopg
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, event, select

from deploy.local.client import running_stack
from payment_api.app import create_app
from payment_api.services import make_services
from payment_worker import auditing, recovery
from payment_worker.breaker import Breaker
from payment_worker.budget import Budget
from payment_worker.gate import Gate
from payment_worker.leases import Leases
from payment_worker.processing import Worker
from payment_worker.relay import Relay
from shared.commands.create import CreatePayment, create_payment
from shared.commands.idempotency import IdempotentRequest
from shared.commands.operations import Origin
from shared.database import Sessions, connect, make_sessions, reading
from shared.gateways.stripe import StripeGateway
from shared.kafka import Deliveries, KafkaSettings
from shared.migrations import upgrade
from shared.models import Operation, Payment
from shared.money import Money
from shared.sealing import Sealer
from shared.settings import Settings
from shared.telemetry import configure_logging
from shared.wakeup import connect_redis
from tests.keys import DATA_KEY

SIZES = (1_000, 10_000, 100_000, 1_000_000)
SAMPLE = 300
BIG = ("payment", "operation", "timeline_entry")
TRANSACTIONS = 3  # to create, to claim and to record: a statement with a WITH clause each

console = Console(width=110)

# Settled payments with their operation and history, as the service would have left them.
SEED = """
    WITH made AS (
        INSERT INTO payment (
            id, order_id, customer_id, amount_minor, currency, captured_minor, capture_method,
            payment_method, off_session, status, version, gateway_ref, transaction_id, is_simulated,
            metadata, created_at, processed_at
        )
        SELECT
            uuidv7(), gen_random_uuid()::text, 'customer-' || n %% 1000, 15000, 'EUR', 15000,
            'automatic', 'credit_card', false, 'succeeded', 3, 'pi_' || gen_random_uuid(), 'ch_' || n, true,
            '{}', now(), now()
        FROM generate_series(1, %s) n
        RETURNING id, gateway_ref
    ), charged AS (
        INSERT INTO operation (
            id, payment_id, kind, amount_minor, state, attempt, key_number, dispatch_count, needs_review,
            gateway_ref, created_at, finished_at
        )
        SELECT
            uuidv7(), id, 'charge', 15000, 'succeeded', 1, 1, 0, false, gateway_ref, now(), now()
        FROM made
        RETURNING id, payment_id
    )
    INSERT INTO timeline_entry (
        payment_id, sequence, at, actor, event, operation_id, from_status, to_status, announced_type,
        announced_id
    )
    SELECT payment_id, n, now(), 'seed', 'seeded', id, was, became, told, CASE WHEN n <> 2 THEN uuidv7() END
    FROM charged, (VALUES
        (1, NULL, 'pending', 'payment-requested'),
        (2, 'pending', 'processing', NULL),
        (3, 'processing', 'succeeded', 'payment-succeeded')
    ) entry (n, was, became, told)
"""


class Cycle:
    """A payment's whole way through the database, in this process: create, claim, record, deliver, sweep."""

    def __init__(self, endpoints: Any) -> None:
        """Use these servers; the gateway answers at once."""
        self.engine = connect(
            endpoints.database_url, pool_size=2, application="growth", sealer=Sealer(DATA_KEY)
        )
        self.sessions: Sessions = make_sessions(self.engine)
        self._worker = Worker(
            sessions=self.sessions,
            gateway=StripeGateway("sk_test_growth", endpoints.stripe_api_url),
            # An unlimited budget: Redis is never asked.
            gate=Gate(self.sessions, Budget(connect_redis("redis://"), 0), Breaker()),
            leases=Leases(self.sessions, 15),
            lease_s=15,
            announce_change=lambda _: None,
        )
        kafka = KafkaSettings(endpoints.kafka_bootstrap_servers, {})
        self._relay = Relay(self.engine, Deliveries(kafka, "growth"), "")
        settings = Settings(
            database_url=endpoints.database_url,
            redis_url=endpoints.redis_url,
            auth="optional",
            data_key=DATA_KEY,
        )
        # The routes on this engine, so that their statements are noted with the others.
        services = replace(make_services(settings), sessions=self.sessions)
        self._http = create_app(services).test_client()

    def pay(self) -> float:
        """Create and charge one payment; return the seconds it took."""
        began = time.perf_counter()
        command = CreatePayment(
            order_id=str(uuid.uuid4()),
            customer_id="c",
            money=Money(15000, "EUR"),
            payment_method="credit_card",
        )
        key = IdempotentRequest(principal="growth", key=str(uuid.uuid4()), request_hash="x")
        origin = Origin(actor="growth", correlation_id=None, traceparent=None)
        made = create_payment(
            self.sessions, command, origin, simulated=True, recovery_after_s=60, idempotent=key
        )
        with reading(self.sessions) as session:
            query = session.query(Operation.id).where(Operation.payment_id == made.payment.id)
            operation_id = query.scalar()
        self._worker.process(operation_id, 0)
        return time.perf_counter() - began

    def look(self) -> float:
        """Read a payment, and the payments of its order, over the API's two routes; return the seconds."""
        with reading(self.sessions) as session:
            query = select(Payment.id, Payment.order_id).order_by(Payment.id.desc()).limit(1)
            payment_id, order_id = session.execute(query).one()
        began = time.perf_counter()
        answers = [self._http.get(f"/payments/{payment_id}"), self._http.get(f"/payments?orderId={order_id}")]
        took = time.perf_counter() - began
        if [each.status_code for each in answers] != [200, 200]:
            raise click.ClickException(f"a payment could not be read: {answers}")
        return took

    def housekeeping(self) -> None:
        """Deliver everything, sweep once and check the invariants of what is next."""
        while self._relay.run_once():
            pass
        recovery.take_due(self.sessions)
        auditing.take_turn(self.sessions)

    def close(self) -> None:
        """Let go of the servers."""
        self._relay.close()
        self.engine.dispose()


@contextmanager
def noting(engine: Engine) -> Iterator[dict[str, Any]]:
    """Note each different statement of the block, with one set of its parameters."""
    statements: dict[str, Any] = {}

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.setdefault(statement, parameters)

    event.listen(engine, "before_cursor_execute", note)
    yield statements
    event.remove(engine, "before_cursor_execute", note)


def plans(engine: Engine, statements: dict[str, Any]) -> dict[str, str]:
    """PostgreSQL's plan for each statement."""
    found = {}
    with engine.connect() as connection:
        for statement, parameters in statements.items():
            if statement.split(maxsplit=1)[0] in {"SELECT", "INSERT", "UPDATE", "DELETE", "WITH"}:
                rows = connection.exec_driver_sql("EXPLAIN (COSTS OFF) " + statement, parameters).fetchall()
                found[" ".join(statement.split())] = "\n".join(row[0] for row in rows)
    return found


@click.command()
@click.option("--sizes", default=",".join(map(str, SIZES)), help="stored payments, by commas")
def main(sizes: str) -> None:
    """Measure the cost of a payment at rising numbers of stored ones; fails on a scan of a big table."""
    configure_logging("growth", "warning", "auto")
    state_dir = Path(os.environ.get("STATE_DIR", ".local")) / "growth"
    shutil.rmtree(state_dir, ignore_errors=True)
    with running_stack(state_dir, only_servers=True) as stack:
        upgrade(stack.endpoints.database_url)
        cycle = Cycle(stack.endpoints)
        costs = _measure(cycle, stack.endpoints.database_url, [int(size) for size in sizes.split(",")])
        with noting(cycle.engine) as statements:
            cycle.pay()
            cycle.look()
            cycle.housekeeping()
        explained = plans(cycle.engine, statements)
        cycle.close()
    _show(costs)
    for statement, plan in explained.items():
        console.print(f"\n[bold]{statement[:200]}[/bold]\n{plan}", highlight=False)
    scans = [plan for plan in explained.values() if any(f"Seq Scan on {table}" in plan for table in BIG)]
    writes = sum(statement.startswith("WITH") for statement in explained)
    console.print(f"\nscans of a big table: {len(scans)}; transactions explained: {writes}")
    sys.exit(1 if scans or writes < TRANSACTIONS else 0)


def _measure(cycle: Cycle, database_url: str, sizes: list[int]) -> list[tuple[int, float, float]]:
    costs = []
    stored = 0
    for size in sizes:
        with (
            console.status(f"storing {size:,} payments"),
            psycopg.connect(database_url, autocommit=True) as db,
        ):
            while stored < size:
                more = min(100_000, size - stored)
                db.execute(SEED, (more,))
                stored += more
            db.execute("VACUUM ANALYZE")
        for _ in range(SAMPLE // 3):
            cycle.pay()
            cycle.look()
        pay_ms, look_ms = (
            statistics.median(each() for _ in range(SAMPLE)) * 1000 for each in (cycle.pay, cycle.look)
        )
        costs.append((size, pay_ms, look_ms))
        cycle.housekeeping()
    return costs


def _show(costs: list[tuple[int, float, float]]) -> None:
    table = Table(title="One payment, and two reads of it, one after the other: ms, median")
    for head in ("stored payments", "payment", "against the first", "reads", "against the first"):
        table.add_column(head, justify="right")
    for size, pay, look in costs:
        against = f"{pay / costs[0][1]:.2f}", f"{look / costs[0][2]:.2f}"
        table.add_row(f"{size:,}", f"{pay:.2f}", against[0], f"{look:.2f}", against[1])
    console.print(table)


if __name__ == "__main__":
    main()
