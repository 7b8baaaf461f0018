"""How fast, and in how much memory, are Stripe's books compared with ours? Seeds both, runs the command."""

import os
import shutil
import subprocess
import sys
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import click
import psutil
import psycopg
import requests
from rich.console import Console
from rich.table import Table

from deploy.local.client import running_stack, without_settings
from deploy.local.parts import program
from shared.migrations import upgrade
from tests.keys import DATA_KEY

SIZES = (1_000, 10_000, 100_000)
# Of eleven objects five are PaymentIntents, five charges and one a refund.
OBJECTS, PAYMENTS = 11, 5
BATCH = 2_000
AMOUNT_MINOR, REFUND_MINOR = 15_000, 1_000
APART = timedelta(milliseconds=100)
LOOK_EVERY_S = 0.05
CALL_S = 300
MEGABYTE = 1024 * 1024

console = Console(width=110)

# Settled payments as the service would have left them, with the ids that the gateway was given.
SEED = """
    WITH seeded AS (
        SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::text[], %s::text[], %s::text[],
                             %s::timestamptz[])
            AS s (payment_id, charge_id, refund_id, intent, charge, refund, made_at)
    ), paid AS (
        INSERT INTO payment (
            id, order_id, customer_id, amount_minor, currency, captured_minor, refunded_minor, capture_method,
            payment_method, off_session, status, version, gateway_ref, transaction_id, is_simulated, metadata,
            created_at, processed_at
        )
        SELECT payment_id, payment_id::text, 'customer', 15000, 'EUR', 15000,
               CASE WHEN refund IS NULL THEN 0 ELSE 1000 END, 'automatic', 'credit_card', false,
               CASE WHEN refund IS NULL THEN 'succeeded' ELSE 'partially_refunded' END, 1, intent, charge,
               true, '{}', made_at, made_at
        FROM seeded
    )
    INSERT INTO operation (
        id, payment_id, kind, amount_minor, state, attempt, key_number, dispatch_count, needs_review,
        gateway_ref, created_at, finished_at
    )
    SELECT charge_id, payment_id, 'charge', 15000, 'succeeded', 1, 1, 0, false, intent, made_at, made_at
    FROM seeded
    UNION ALL
    SELECT refund_id, payment_id, 'refund', 1000, 'succeeded', 1, 1, 0, false, refund, made_at, made_at
    FROM seeded WHERE refund IS NOT NULL
"""


class Measured(NamedTuple):
    """One run of the command."""

    objects: int
    seconds: float
    peak_bytes: int


def _id_at(moment: datetime) -> uuid.UUID:
    """A UUIDv7 of this time."""
    milliseconds = int(moment.timestamp() * 1000)
    number = uuid.uuid4().int
    return uuid.UUID(int=(milliseconds << 80) | (7 << 76) | (number & (2**76 - 1)))


class Seeded:
    """Both sides' books, in which as many payments stand as were asked for."""

    def __init__(self, database_url: str, gateway_url: str) -> None:
        """Begin with what both have."""
        self._database_url, self._gateway_url = database_url, gateway_url
        self._payments = 0
        self.latest = datetime.now(UTC) - timedelta(hours=1)

    def fill(self, objects: int) -> int:
        """Add payments until the gateway has some `objects`; return how many it has."""
        wanted = objects * PAYMENTS // OBJECTS
        with psycopg.connect(self._database_url, autocommit=True) as db:
            while self._payments < wanted:
                self._add(db, min(BATCH, wanted - self._payments))
            db.execute("VACUUM ANALYZE")
        return self._payments * 2 + -(-self._payments // PAYMENTS)

    def _add(self, db: Any, count: int) -> None:
        numbers = range(self._payments, self._payments + count)
        times = [self.latest - number * APART for number in numbers]
        ids = [[_id_at(each) for each in times] for _ in range(3)]
        refunds = [REFUND_MINOR if number % PAYMENTS == 0 else 0 for number in numbers]
        charges = [
            {
                "amount": AMOUNT_MINOR,
                "currency": "eur",
                "created": int(at.timestamp()),
                "metadata": {"payment_id": str(payment), "operation_id": str(charge)},
                "refund": amount,
                "refund_metadata": {"payment_id": str(payment), "operation_id": str(refund)},
            }
            for at, payment, charge, refund, amount in zip(times, *ids, refunds, strict=True)
        ]
        answer = requests.post(
            f"{self._gateway_url}/_control/seed", json={"charges": charges}, timeout=CALL_S
        )
        answer.raise_for_status()
        made = answer.json()["made"]
        refs = [[each[name] for each in made] for name in ("payment_intent", "charge", "refund")]
        db.execute(SEED, (*ids, *refs, times))
        self._payments += count


def _measure(objects: int, since: datetime, environment: dict[str, str]) -> Measured:
    """Run the command as a process of its own, and watch its memory."""
    command = [program("payment-worker"), "reconcile", "--since", since.isoformat(), "--anew"]
    began = time.perf_counter()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        peak = _Peak(child.pid)
        said = "".join(child.communicate())
        took = time.perf_counter() - began
        peak.stop()
    if child.returncode:
        raise click.ClickException(f"the command ended with {child.returncode}:\n{said}")
    return Measured(objects, took, peak.bytes)


class _Peak:
    """The most memory that a process had."""

    def __init__(self, pid: int) -> None:
        self.bytes = 0
        self._process = psutil.Process(pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> None:
        """Look no longer."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_EVERY_S):
            try:
                self.bytes = max(self.bytes, self._process.memory_info().rss)
            except psutil.Error:
                return


@click.command()
@click.option("--sizes", default=",".join(map(str, SIZES)), help="objects at the gateway, by commas")
def main(sizes: str) -> None:
    """Compare rising numbers of objects; prints objects a second and the peak of memory."""
    state_dir = Path(os.environ.get("STATE_DIR", ".local")) / "reconciliation"
    shutil.rmtree(state_dir, ignore_errors=True)
    done: list[Measured] = []
    with running_stack(state_dir, only_servers=True) as stack:
        servers = stack.endpoints
        upgrade(servers.database_url)
        environment = {
            **without_settings(),
            "DATABASE_URL": servers.database_url,
            "REDIS_URL": servers.redis_url,
            "STRIPE_API_URL": str(servers.stripe_api_url),
            "STRIPE_SECRET_KEY": "sk_test_reconciliation",
            "DATA_KEY": DATA_KEY,
        }
        books = Seeded(servers.database_url, str(servers.stripe_api_url))
        for size in (int(each) for each in sizes.split(",")):
            with console.status(f"storing {size:,} objects on both sides"):
                objects = books.fill(size)
            with console.status(f"comparing {objects:,} objects"):
                done.append(_measure(objects, books.latest - timedelta(days=2), environment))
    _show(done)
    sys.exit(0)


def _show(done: list[Measured]) -> None:
    table = Table(title="payment-worker reconcile: every object found right, both ways")
    for head in ("objects", "seconds", "objects/s", "peak memory (MB)", "against the first"):
        table.add_column(head, justify="right")
    for each in done:
        rate, megabytes = each.objects / each.seconds, each.peak_bytes / MEGABYTE
        ratio = each.peak_bytes / done[0].peak_bytes
        row = f"{each.objects:,}", f"{each.seconds:.1f}", f"{rate:,.0f}", f"{megabytes:.1f}", f"{ratio:.2f}"
        table.add_row(*row)
    console.print(table)


if __name__ == "__main__":
    main()
