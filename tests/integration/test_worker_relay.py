"""The relay: everything that was announced reaches Kafka, in each payment's order, and nothing is lost."""

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from payment_worker.relay import Relay
from shared.database import connect, is_database_down, new_id
from shared.events import rfc3339
from shared.kafka import Deliveries
from shared.models import Outbox, Payment
from shared.settings import Settings
from tests.conftest import Servers
from tests.factories import new_uuid
from tests.operating import operate
from tests.outages import held_down
from tests.topics import kafka_of, make_topics, read_topics
from tests.waiting import LONGEST_S, wait_until
from tests.worker import Bench, make_bench

SOON_S = 30.0
FIRST_DELIVERY_S = 30.0  # PITFALL of idempotent producers: about 15 s are wanted after a broker's crash
REQUESTED, SUCCEEDED, FAILED = "payment-requested", "payment-succeeded", "payment-failed"
SMALL_BYTES = 2_000  # more than an ordinary event has
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def bench(settings: Settings) -> Iterator[Bench]:
    """A worker on this test's own database, whose topics exist."""
    make_topics(settings)
    with make_bench(settings) as bench:
        yield bench


@pytest.fixture
def new_relay(bench: Bench) -> Iterator[Callable[..., Relay]]:
    """Make relays, each with a connection of its own."""
    made: list[tuple[Relay, Engine]] = []

    def make(deliveries: Deliveries | None = None) -> Relay:
        engine = connect(bench.settings.database_url, pool_size=1, application="test relay")
        deliveries = deliveries or Deliveries(kafka_of(bench.settings), "test-relay")
        made.append((Relay(engine, deliveries, bench.settings.kafka_topic_prefix), engine))
        return made[-1][0]

    yield make
    for relay, engine in made:
        relay.close()
        relay._deliveries.close()
        engine.dispose()


@contextmanager
def running(relay: Relay) -> Iterator[None]:
    """Let the relay run as its process would, for the length of the block; it must end when asked to."""
    stop = threading.Event()
    thread = threading.Thread(target=relay.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(LONGEST_S)
    assert not thread.is_alive()


def drain(relay: Relay) -> int:
    """Carry until nothing is left; return how many batches it took."""
    batches = 0
    while relay.run_once():
        batches += 1
    return batches


def announce(bench: Bench, payment_id: uuid.UUID, sequence: int = 1, **changes: Any) -> uuid.UUID:
    """Put one event into the outbox, as a transaction that commits now would; return its id."""
    payload = {
        "paymentId": str(payment_id),
        "amount": Decimal("1.00"),
        "amountMinor": 100,
        "currency": "USD",
        "requestedAt": "2026-01-01T00:00:00.000Z",
    }
    row = {
        "id": new_id(),
        "aggregatetype": "payment",
        "aggregateid": payment_id,
        "type": REQUESTED,
        "payload": payload | changes.pop("payload", {}),
        "sequence": sequence,
        "created_at": datetime.now(UTC),
        **changes,
    }
    with bench.sessions.begin() as session:
        session.add(Outbox(**row))
    event_id: uuid.UUID = row["id"]
    return event_id


def end_connection_of_leader(bench: Bench) -> None:
    """Let PostgreSQL end the session that holds the relays' lock."""
    query = """
        SELECT pg_terminate_backend(pid) FROM pg_locks
        WHERE locktype = 'advisory' AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    """
    with psycopg.connect(bench.settings.database_url) as connection:
        assert connection.execute(query).fetchall() == [(True,)]


# --- what other services see ---


def headers_of(payment: Payment, operation_id: uuid.UUID, event: Outbox) -> dict[str, str]:
    """The CloudEvents headers that the contract promises for an event of this payment."""
    return {
        "ce_specversion": "1.0",
        "ce_id": str(event.id),
        "ce_type": f"{event.type}.v1",
        "ce_source": "/payment-service",
        "ce_subject": str(payment.id),
        "ce_time": rfc3339(event.created_at),
        "ce_sequence": str(event.sequence),
        "ce_correlationid": "order 4711",
        "ce_causationid": str(operation_id),
        "traceparent": TRACE,
        "content-type": "application/json",
    }


@pytest.mark.parametrize("outcome", [SUCCEEDED, FAILED])
def test_events_are_exactly_as_the_contract_says(
    bench: Bench, new_relay: Callable[..., Relay], outcome: str
) -> None:
    """Topic, key, each header and each field, of the request and of its outcome."""
    reservation_id = new_uuid()
    operation_id = bench.order(
        12_345 if outcome == SUCCEEDED else 12_313,
        reservation_id=reservation_id,
        correlation_id="order 4711",
        traceparent=TRACE,
    )
    bench.attempt(operation_id)
    payment, rows = bench.payment(operation_id), bench.outbox()
    drain(new_relay())
    first, second = (read_topics(bench.settings, name, count=1)[0] for name in (REQUESTED, outcome))
    assert [row.type for row in rows] == [REQUESTED, outcome]
    for message, row in zip((first, second), rows, strict=True):
        assert message.topic == bench.settings.kafka_topic_prefix + row.type
        assert message.key == str(payment.id).encode()
        assert message.named == headers_of(payment, operation_id, row)
    money = {
        "amount": Decimal("123.45" if outcome == SUCCEEDED else "123.13"),
        "amountMinor": payment.amount_minor,
        "currency": "USD",
        "paymentMethod": "credit_card",
    }
    ids = {"paymentId": str(payment.id), "orderId": payment.order_id, "customerId": payment.customer_id}
    assert first.value == ids | money | {
        "cartId": None,
        "captureMethod": "automatic",
        "requestedAt": rfc3339(payment.created_at),
    }
    assert payment.processed_at is not None
    processed_at = rfc3339(payment.processed_at)
    assert second.value == ids | money | {"reservationId": reservation_id} | (
        {
            "authorizedAmountMinor": 12_345,
            "transactionId": payment.transaction_id,
            "processedAt": processed_at,
            "status": "succeeded",
        }
        if outcome == SUCCEEDED
        else {
            "errorCode": "CARD_DECLINED",
            "errorMessage": "Your card was declined",
            "failureReason": "card_declined",
            "attemptedAt": processed_at,
            "status": "failed",
        }
    )


@pytest.mark.parametrize(
    ("currency", "amount_minor", "written"),
    [("USD", 10_000, b'"amount":100.00,'), ("JPY", 1_500, b'"amount":1500,'), ("KWD", 1_230, b"1.230")],
)
def test_amounts_have_the_decimals_of_their_currency(
    bench: Bench, new_relay: Callable[..., Relay], currency: str, amount_minor: int, written: bytes
) -> None:
    """The number on the wire has the currency's decimals, no more, no fewer, and no exponent."""
    bench.order(amount_minor, currency=currency)
    drain(new_relay())
    (message,) = read_topics(bench.settings, REQUESTED, count=1)
    assert written in message.raw
    assert message.value["amountMinor"] == amount_minor


# --- order, and when a row may go ---


def test_events_of_a_payment_keep_their_order(bench: Bench, new_relay: Callable[..., Relay]) -> None:
    """No event overtakes an earlier one of its payment: one of each payment goes at a time."""
    payments = [uuid.uuid4() for _ in range(3)]
    for sequence in range(1, 11):
        for payment_id in payments:
            announce(bench, payment_id, sequence)
    assert drain(new_relay()) == 10
    assert bench.outbox() == []
    messages = read_topics(bench.settings, REQUESTED, count=30)
    for payment_id in payments:
        of_payment = [each for each in messages if each.key == str(payment_id).encode()]
        assert [each.named["ce_sequence"] for each in of_payment] == [str(n) for n in range(1, 11)]
        assert len({each.partition for each in of_payment}) == 1


def test_a_row_stays_until_kafka_has_confirmed_it(
    bench: Bench, new_relay: Callable[..., Relay], servers: Servers
) -> None:
    """While no broker answers nothing is deleted; when it is back the same event goes out."""
    event_id = announce(bench, uuid.uuid4())
    deliveries = Deliveries(kafka_of(bench.settings), "test-relay")
    relay = new_relay(deliveries)
    with held_down(servers.stack, "broker"):
        assert relay.run_once() == 0
        assert [row.id for row in bench.outbox()] == [event_id]
    make_topics(bench.settings)
    wait_until(relay.run_once, SOON_S, "the delivery")
    assert bench.outbox() == []
    (message,) = read_topics(bench.settings, REQUESTED, count=1)
    assert message.named["ce_id"] == str(event_id)


def test_an_event_that_breaks_its_schema_blocks_nobody(
    bench: Bench, new_relay: Callable[..., Relay], caplog: pytest.LogCaptureFixture
) -> None:
    """It is parked with the reason and logged for an operator; all the others go out."""
    wrong_value = announce(bench, uuid.uuid4(), payload={"currency": "dollars"})
    wrong_type = announce(bench, uuid.uuid4(), type="payment-imagined")
    good = [announce(bench, uuid.uuid4()) for _ in range(3)]
    with caplog.at_level(logging.ERROR):
        drain(new_relay())
    assert {row.id: row.parked_reason for row in bench.outbox()} == {
        wrong_value: "payment-requested: currency breaks the rule pattern",
        wrong_type: "'payment-imagined' is not a valid Announcement",
    }
    sent = {each.named["ce_id"] for each in read_topics(bench.settings, REQUESTED, count=3)}
    assert sent == {str(each) for each in good}


def test_an_event_that_is_too_large_blocks_nobody(bench: Bench, new_relay: Callable[..., Relay]) -> None:
    """It is parked with the reason; what stands before and behind it goes out, all by one producer."""
    before = announce(bench, uuid.uuid4())
    large = announce(bench, uuid.uuid4(), correlation_id="x" * SMALL_BYTES)
    behind = announce(bench, uuid.uuid4())
    few_bytes = {"message.max.bytes": str(SMALL_BYTES)}
    relay = new_relay(Deliveries(kafka_of(bench.settings, **few_bytes), "test-relay"))
    drain(relay)
    assert {row.id: row.parked_reason for row in bench.outbox()} == {large: "too large for Kafka"}
    sent = {each.named["ce_id"] for each in read_topics(bench.settings, REQUESTED, count=2)}
    assert sent == {str(before), str(behind)}
    assert relay._deliveries.rebuilds == 0


def test_a_parked_event_is_seen_and_tried_again(bench: Bench, new_relay: Callable[..., Relay]) -> None:
    """Its reason is listed; let go, it goes out once it is mended, and is parked again until then."""
    mended = announce(bench, uuid.uuid4(), payload={"currency": "dollars"})
    wrong = announce(bench, uuid.uuid4(), type="payment-imagined")
    right = announce(bench, uuid.uuid4())
    relay = new_relay()
    drain(relay)
    status, said = operate("events", "parked", "--json")
    listed = {row["id"]: row["reason"] for row in map(json.loads, said.splitlines())}
    assert (status, set(listed)) == (0, {str(mended), str(wrong)})
    assert "currency" in listed[str(mended)]
    with bench.sessions.begin() as session:
        row = session.get_one(Outbox, mended)
        row.payload = row.payload | {"currency": "USD"}
    status, said = operate("events", "unpark", str(mended), str(wrong), str(right))
    assert (status, f"not parked: {right}" in said) == (1, True), said
    drain(relay)
    assert [row.id for row in bench.outbox()] == [wrong]
    sent = {each.named["ce_id"] for each in read_topics(bench.settings, REQUESTED, count=2)}
    assert sent == {str(mended), str(right)}


def test_a_second_relay_stands_by_and_takes_over(bench: Bench, new_relay: Callable[..., Relay]) -> None:
    """Two at once would break the order: one leads, and when its session ends the other does."""
    leader, standby = new_relay(), new_relay()
    announce(bench, uuid.uuid4())
    assert leader.run_once() == 1
    announce(bench, uuid.uuid4())
    assert standby.run_once() == 0
    assert (leader.leads, standby.leads) == (True, False)
    end_connection_of_leader(bench)
    assert wait_until(standby.run_once, SOON_S, "the standby to take over") == 1
    assert standby.leads
    with pytest.raises(DBAPIError) as lost:
        leader.run_once()
    assert is_database_down(lost.value)  # so its process closes, comes back and stands by
    leader.close()
    announce(bench, uuid.uuid4())
    assert leader.run_once() == 0
    assert not leader.leads
    assert standby.run_once() == 1


def test_a_relay_outlives_its_connection(bench: Bench, new_relay: Callable[..., Relay]) -> None:
    """Its session ends: the running relay connects again, leads again and goes on."""
    relay = new_relay()
    with running(relay):
        announce(bench, uuid.uuid4())
        wait_until(lambda: not bench.outbox(), SOON_S, "the first delivery")
        end_connection_of_leader(bench)
        announce(bench, uuid.uuid4())
        wait_until(lambda: not bench.outbox(), SOON_S, "the delivery over a new connection")
    assert not relay.leads
    read_topics(bench.settings, REQUESTED, count=2)


def test_events_flow_again_soon_after_the_broker_has_crashed(
    bench: Bench,
    new_relay: Callable[..., Relay],
    servers: Servers,
    record_property: Callable[[str, object], None],
) -> None:
    """Killed under load and back without its memory: the relay builds a new producer and delivers in time."""
    with running(new_relay()):
        for _ in range(300):
            announce(bench, uuid.uuid4())
        wait_until(lambda: len(bench.outbox()) < 290, SOON_S, "the load to flow")
        pid = servers.stack.kill("broker")
        announced = {announce(bench, uuid.uuid4()) for _ in range(20)}
        servers.stack.wait_restarted("broker", pid)
        make_topics(bench.settings)
        back_at = time.monotonic()
        wait_until(
            lambda: announced - {row.id for row in bench.outbox()}, FIRST_DELIVERY_S, "a first delivery"
        )
        first_delivery_s = round(time.monotonic() - back_at, 1)
        wait_until(lambda: not bench.outbox(), FIRST_DELIVERY_S, "everything to be delivered")
    record_property("first_delivery_s", first_delivery_s)
    print(f"first delivery {first_delivery_s} s after the broker was back")


def say_fatal(*_: Any, **__: Any) -> Any:
    """Raise what librdkafka says after a broker has come back without its memory."""
    raise KafkaException(KafkaError(KafkaError._FATAL, "unknown producer id", fatal=True))


class FatalWhenProducing(Producer):
    """A producer of the library's that says at once, as the real one may, that it has gone fatal."""

    produce = say_fatal


class FatalWhenFlushing(Producer):
    """The same, but only when it is asked what became of the messages."""

    flush = say_fatal


@pytest.mark.parametrize("fatal", [FatalWhenProducing, FatalWhenFlushing])
def test_a_producer_that_goes_fatal_in_the_middle_is_replaced(
    bench: Bench, new_relay: Callable[..., Relay], fatal: type[Producer]
) -> None:
    """The relay lives on, and the event goes out by another producer under the same id."""
    event_id = announce(bench, uuid.uuid4())
    relay = new_relay()
    relay._deliveries._producer = fatal(kafka_of(bench.settings).with_properties())
    assert relay.run_once() == 0
    assert relay.run_once() == 1
    assert relay._deliveries.rebuilds == 1
    assert {each.named["ce_id"] for each in read_topics(bench.settings, REQUESTED, count=1)} == {
        str(event_id)
    }
