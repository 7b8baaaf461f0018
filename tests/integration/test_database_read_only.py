"""A database that only reads, as a failover leaves one behind: to whoever writes it is away."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from decimal import Decimal

import psycopg
import pytest
from psycopg.errors import ReadOnlySqlTransaction
from sqlalchemy import Engine, ExceptionContext, event
from sqlalchemy.exc import DBAPIError

from payment_worker import leases, processing
from payment_worker.relay import Relay
from shared import migrations
from shared.database import connect, is_database_down
from shared.gateways import Succeeded
from shared.kafka import Deliveries
from shared.payments import Command, Status
from shared.settings import Settings
from tests.api import Api, assert_refused
from tests.conftest import Servers
from tests.door import Door
from tests.factories import payment_body
from tests.outages import only_reading
from tests.topics import PROMPT, kafka_of, make_topics, read_topics
from tests.waiting import LONGEST_S, wait_until
from tests.worker import Bench

SOON_S = 30.0


@pytest.fixture
def relay(settings: Settings) -> Iterator[Relay]:
    """A relay with a connection of its own."""
    make_topics(settings)
    engine = connect(settings.database_url, pool_size=1, application="test relay")
    made = Relay(engine, Deliveries(kafka_of(settings, **PROMPT), "test-relay"), settings.kafka_topic_prefix)
    yield made
    made.close()
    made._deliveries.close()
    engine.dispose()


def refusal(engine: Engine) -> threading.Event:
    """Return what is set once the database has refused to write over one of these connections."""
    refused = threading.Event()

    @event.listens_for(engine, "handle_error")
    def _note(context: ExceptionContext) -> None:
        if isinstance(context.original_exception, ReadOnlySqlTransaction):
            refused.set()

    return refused


def test_the_api_says_come_back(api: Api, servers: Servers) -> None:
    """What would write is told 503 and not 500, what reads is served; afterwards the same is taken."""
    shown, body = api.post_async(), payment_body()
    with only_reading(servers, api.stored.database_url):
        for _ in range(3):
            refused = api.post_async(body)
            assert_refused(refused, 503, "SERVICE_UNAVAILABLE")
            assert "read-only" not in refused.text
        assert api.get("/readyz").body["database"] == "away (InternalError)"
        assert api.get(shown.headers["Location"]).payment == shown.payment
    wait_until(lambda: api.get("/readyz").status == 200, SOON_S, "readiness")
    assert api.post_async(body).status == 202
    assert api.stored.counts()["payment"] == 2


def test_a_command_waits_until_it_can_be_written(door: Door, servers: Servers) -> None:
    """It is no dead letter: it is carried out over a new connection, and so is the next one."""
    payment_id = door.shop.pay()
    refused = refusal(door.shop.bench.engine)
    door.send(Command.REFUND_PAYMENT, {"paymentId": payment_id, "amount": Decimal("15.00")})
    with ThreadPoolExecutor(1) as consumer:
        with only_reading(servers, door.settings.database_url):
            consuming = consumer.submit(door.consume, 1)
            assert refused.wait(LONGEST_S)
            assert door.committed(Command.REFUND_PAYMENT) == 0
        consuming.result(LONGEST_S)
    door.ask(Command.REFUND_PAYMENT, {"paymentId": payment_id, "amount": Decimal("10.00")})
    shown = wait_until(
        lambda: door.shop.api.get(f"/payments/{payment_id}").body["payment"], SOON_S, "the API"
    )
    assert shown["refundedAmount"] == Decimal("25.00")
    assert [row["state"] for row in door.inbox()] == ["processed"] * 2


def test_an_outcome_waits_until_it_can_be_written(
    bench: Bench, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway's answer is in hand only once: it is recorded when the database writes again."""
    monkeypatch.setattr(processing, "RECORD_FOR_S", LONGEST_S)
    operation_id, refused = bench.order(), refusal(bench.engine)
    with ThreadPoolExecutor(1) as worker, ExitStack() as reads:
        bench.gateway.after.append(
            lambda: reads.enter_context(only_reading(servers, bench.settings.database_url))
        )
        attempt = worker.submit(bench.worker.process, operation_id, 0)
        assert refused.wait(LONGEST_S)
        reads.close()
        assert isinstance(attempt.result(LONGEST_S), Succeeded)
    assert bench.payment(operation_id).status is Status.SUCCEEDED
    assert len(bench.successes(operation_id)) == 1
    bench.assert_history_is_whole(operation_id)


def test_the_relay_announces_nothing_that_it_cannot_delete(
    bench: Bench, relay: Relay, servers: Servers
) -> None:
    """It would announce the same again and again: it waits, and then announces it once."""
    bench.order()
    with only_reading(servers, bench.settings.database_url):
        for _ in range(3):
            with pytest.raises(DBAPIError) as refused:
                relay.run_once()
            assert is_database_down(refused.value)  # so its process closes, and comes back
            relay.close()
    assert relay.run_once() == 1
    assert len(read_topics(bench.settings, "payment-requested", count=1)) == 1
    assert relay.run_once() == 0


def test_a_migration_waits_until_it_can_be_written(database_url: str, servers: Servers) -> None:
    """It is told from a fault of the migration's own, which no waiting helps."""
    migrations.downgrade(database_url, "-1")
    with only_reading(servers, database_url), pytest.raises(DBAPIError) as refused:
        migrations.upgrade(database_url)
    assert is_database_down(refused.value)
    migrations.upgrade(database_url)


def test_the_heartbeat_outlives_every_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a renewal fails of, the next one comes: an operation that runs keeps its lease."""
    monkeypatch.setattr(leases, "RENEWALS_PER_LEASE", 600)
    operation_id, failed = bench.order(), threading.Event()
    event.listen(bench.engine, "handle_error", lambda _: failed.set())
    rename = "ALTER TABLE {} RENAME TO {}"

    def stay_for_a_renewal() -> None:
        with psycopg.connect(bench.settings.database_url) as connection:
            connection.execute(rename.format("operation", "hidden"))
        bench.leases.start()
        assert failed.wait(LONGEST_S)
        with psycopg.connect(bench.settings.database_url) as connection:
            connection.execute(rename.format("hidden", "operation"))
        until = bench.operation(operation_id).lease_until
        wait_until(lambda: bench.operation(operation_id).lease_until != until, SOON_S, "the next renewal")

    bench.gateway.after.append(stay_for_a_renewal)
    assert isinstance(bench.worker.process(operation_id, 0), Succeeded)
