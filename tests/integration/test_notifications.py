"""Webhooks to subscribers: signed, in each payment's order, tried again, and slowed by nobody else."""

import threading
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

from payment_worker import deliveries, retention, subscribers
from shared.settings import Settings
from tests.notified import PATH, Notified, make_notified
from tests.subscriber import Call, Subscriber
from tests.waiting import wait_until

LONG_S = 60
LIFE = [
    "payment-requested", "payment-authorized", "capture-requested", "payment-succeeded", "refund-requested",
    "refund-succeeded",
]  # fmt: skip
Subscribe = Callable[..., Subscriber]


@pytest.fixture
def shop(settings: Settings) -> Iterator[Notified]:
    """A shop whose payments are told of by webhook."""
    with make_notified(settings) as shop:
        yield shop


@pytest.fixture
def listen() -> Iterator[Subscribe]:
    """Make subscribers, which are closed after the test."""
    made: list[Subscriber] = []

    def make(behave: Callable[[Call], int] = lambda _: 200, **headers: str) -> Subscriber:
        made.append(Subscriber(behave, headers))
        return made[-1]

    yield make
    for each in made:
        each.close()


def live(shop: Notified) -> str:
    """A payment that is held, captured in part and refunded; return its id."""
    payment_id = shop.hold()
    shop.ask(payment_id, "capture", {"amount": Decimal("60.00")})
    shop.work()
    shop.ask(payment_id, "refunds", {})
    shop.work()
    assert shop.announced(payment_id) == LIFE
    return payment_id


def test_every_event_is_delivered_signed_and_in_order(shop: Notified, listen: Subscribe) -> None:
    """Each event comes once, as it is on Kafka, under its id, in the payment's order, signed as specified."""
    taker = listen()
    endpoint = shop.subscribe(taker.url)
    payment_id = live(shop)
    shop.notify()
    assert taker.types() == LIFE
    events = {str(row.id): row for row in shop.bench.outbox()}
    assert [each.id for each in taker.calls] == list(events)
    for call in taker.calls:
        event = events[call.id]
        assert (call.method, call.path) == ("POST", "/hooks")
        assert call.headers["Content-Type"] == "application/json"
        assert set(call.body) == {"type", "timestamp", "data"}
        assert (call.body["type"], call.body["data"]) == (event.type, event.payload)
        assert call.is_signed_by(endpoint["secret"])
    shown = shop.deliveries(endpoint)
    assert [each["type"] for each in shown] == LIFE
    assert {(each["state"], each["attempts"], each["lastStatus"]) for each in shown} == {
        ("delivered", 1, 200)
    }
    assert {each["paymentId"] for each in shown} == {payment_id}


def test_an_endpoint_hears_only_what_it_wants(shop: Notified, listen: Subscribe) -> None:
    """With event types no other is delivered; nor is what happened before there was an endpoint."""
    early = live(shop)
    taker = listen()
    endpoint = shop.subscribe(taker.url, eventTypes=["payment-succeeded", "refund-succeeded"])
    late = live(shop)
    shop.notify()
    assert taker.types() == ["payment-succeeded", "refund-succeeded"]
    assert {each["paymentId"] for each in shop.deliveries(endpoint)} == {late} != {early}


def test_nothing_is_kept_where_nobody_listens(shop: Notified) -> None:
    """Without an endpoint no payment leaves anything to deliver."""
    live(shop)
    assert shop.api.stored.rows("notification_event") == []


def test_order_holds_for_a_payment_under_retries(shop: Notified, listen: Subscribe) -> None:
    """While one event of a payment is refused, its later ones wait, and other payments' go on."""
    refused = threading.Event()
    stubborn: list[str] = []

    def refuse_holds_of_one(call: Call) -> int:
        is_it = call.body["type"] == "payment-authorized" and call.body["data"]["paymentId"] in stubborn
        return 503 if is_it and not refused.is_set() else 200

    taker = listen(refuse_holds_of_one)
    endpoint = shop.subscribe(taker.url)
    held = shop.hold()
    stubborn.append(held)
    other = live(shop)
    shop.notify()
    for _ in range(2):
        shop.notify_later()
    shop.ask(held, "capture", {})
    shop.work()
    shop.notify_later()
    assert taker.types(other) == LIFE
    assert taker.types(held) == ["payment-requested"] + 4 * ["payment-authorized"]
    ids = {each.id for each in taker.calls if each.body["type"] == "payment-authorized"}
    assert len(ids) == 2, "each attempt has the event's id"
    waiting = shop.deliveries(endpoint, "?state=pending")
    assert [each["type"] for each in waiting] == LIFE[1:4]
    assert (waiting[0]["attempts"], waiting[0]["lastStatus"]) == (4, 503)
    assert {each["attempts"] for each in waiting[1:]} == {0}
    refused.set()
    shop.notify_later()
    assert taker.types(held)[5:] == LIFE[1:4]
    assert {each["state"] for each in shop.deliveries(endpoint)} == {"delivered"}


def test_a_slow_and_a_dead_subscriber_hold_up_nobody_else(shop: Notified, listen: Subscribe) -> None:
    """While one does not answer and another does not listen, a healthy one hears everything."""
    answer = threading.Event()

    def dawdle(_: Call) -> int:
        answer.wait(LONG_S)
        return 200

    slow, dead, healthy = listen(dawdle), listen(), listen()
    dead.close()
    for each in (slow, dead, healthy):
        shop.subscribe(each.url)
    payments = [shop.pay() for _ in range(12)]

    def heard() -> bool:
        shop.courier.turn()
        return len(healthy.calls) == 2 * len(payments)

    wait_until(heard, LONG_S, "the healthy subscriber to hear everything")
    assert len(slow.calls) < len(payments), "the slow one has not got beyond its first few"
    pool: Any = shop.bench.engine.pool
    wait_until(lambda: pool.checkedout() == 0, LONG_S, "all connections to be free again")
    answer.set()
    for payment_id in payments:
        assert healthy.types(payment_id) == ["payment-requested", "payment-succeeded"]


def test_no_connection_is_held_while_a_subscriber_is_called(shop: Notified, listen: Subscribe) -> None:
    """During a call the courier has neither a transaction open nor a connection of the pool."""
    in_use: list[int] = []

    def look(_: Call) -> int:
        in_use.append(shop.bench.engine.pool.checkedout())  # type: ignore[attr-defined]
        return 200

    taker = listen(look)
    endpoint = shop.subscribe(taker.url, eventTypes=["payment-succeeded"])
    shop.pay()
    deliveries.fan_out(shop.bench.sessions)
    assert shop.courier._deliver(deliveries.claim(shop.bench.sessions, uuid.UUID(endpoint["id"])))
    assert in_use == [0]


def test_a_crash_before_the_record_delivers_again(shop: Notified, listen: Subscribe) -> None:
    """Who dies with a delivery in hand has it delivered again, with the same id, and recorded once."""
    taker = listen()
    endpoint = shop.subscribe(taker.url, eventTypes=["payment-succeeded"])
    shop.pay()
    deliveries.fan_out(shop.bench.sessions)
    lost = deliveries.claim(shop.bench.sessions, uuid.UUID(endpoint["id"]))
    notice = shop.courier._writer.write(lost)
    assert notice is not None
    assert shop.courier._send(lost, notice) == 200  # and then the process is killed
    shop.notify()
    assert len(taker.calls) == 1, "it is still in somebody's hands"
    shop.notify_later()
    assert [each.id for each in taker.calls] == 2 * [str(lost.event_id)]
    (shown,) = shop.deliveries(endpoint)
    assert (shown["state"], shown["attempts"]) == ("delivered", 2)


def test_a_late_record_changes_nothing(shop: Notified, listen: Subscribe) -> None:
    """A failure of an attempt that others have overtaken does not take back what they delivered."""
    taker = listen()
    endpoint = shop.subscribe(taker.url, eventTypes=["payment-succeeded"])
    shop.pay()
    deliveries.fan_out(shop.bench.sessions)
    slow = deliveries.claim(shop.bench.sessions, uuid.UUID(endpoint["id"]))
    shop.notify_later()
    late = deliveries.Result(delivered=False, error="timed out", again_in_s=5.0)
    assert deliveries.record(shop.bench.sessions, slow, late) is False
    (shown,) = shop.deliveries(endpoint)
    assert (shown["state"], shown["lastError"]) == ("delivered", None)
    assert shop.endpoint(endpoint)["failingSince"] is None


def test_a_delivery_is_given_up_after_three_days(shop: Notified, listen: Subscribe) -> None:
    """Then it is exhausted, and the payment's next event is delivered."""
    taker = listen(lambda call: 500 if call.body["type"] == "payment-requested" else 200)
    endpoint = shop.subscribe(taker.url)
    shop.pay()
    shop.notify()
    assert [each["state"] for each in shop.deliveries(endpoint)] == ["pending", "pending"]
    shop.api.stored.change(
        "UPDATE notification_delivery SET first_attempt_at = now() - interval '73 hours' WHERE attempts > 0"
    )
    shop.notify_later()
    given_up, told = shop.deliveries(endpoint)
    assert (given_up["state"], given_up["lastError"]) == ("exhausted", "answered 500")
    assert told["state"] == "delivered"
    assert shop.endpoint(endpoint)["state"] == "enabled"


def test_an_endpoint_that_fails_for_days_is_disabled_with_an_event(shop: Notified, listen: Subscribe) -> None:
    """It is told of nothing more, an event says so once; enabled again, what waited is delivered."""
    is_well = threading.Event()
    taker = listen(lambda _: 200 if is_well.is_set() else 500)
    endpoint = shop.subscribe(taker.url, eventTypes=["payment-succeeded"])
    payment_id = shop.pay()
    shop.notify()
    assert shop.endpoint(endpoint)["failingSince"] is not None
    shop.api.stored.change(
        "UPDATE notification_endpoint SET failing_since = now() - interval '73 hours', failures = 9"
    )
    shop.notify_later()
    shown = shop.endpoint(endpoint)
    assert (shown["state"], shown["disabledReason"]) == ("disabled", "it has failed for 3 days")
    (event,) = [each for each in shop.bench.outbox() if each.type == "notification-endpoint-disabled"]
    assert event.payload["endpointId"] == endpoint["id"] == str(event.aggregateid)
    calls = len(taker.calls)
    shop.pay()
    shop.notify_later()
    assert len(taker.calls) == calls
    is_well.set()
    assert shop.patch(endpoint, enabled=True).body["endpoint"]["state"] == "enabled"
    shop.notify()
    assert taker.types()[calls:] == ["payment-succeeded"]
    assert taker.calls[-1].body["data"]["paymentId"] == payment_id


def test_an_endpoint_that_is_gone_is_disabled_at_once(shop: Notified, listen: Subscribe) -> None:
    """410 says that nobody wants to hear any more."""
    taker = listen(lambda _: 410)
    endpoint = shop.subscribe(taker.url)
    shop.pay()
    shop.notify()
    assert shop.endpoint(endpoint)["disabledReason"] == "it answered 410 Gone"


def test_a_success_forgets_the_failures(shop: Notified, listen: Subscribe) -> None:
    """What counts is how long an endpoint has failed without a success in between."""
    answers = [500, 200, 200]
    taker = listen(lambda _: answers.pop(0))
    endpoint = shop.subscribe(taker.url)
    shop.pay()
    shop.notify()
    assert shop.endpoint(endpoint)["failingSince"] is not None
    shop.notify_later()
    assert shop.endpoint(endpoint)["failingSince"] is None
    assert answers == []


def test_what_waits_goes_at_once_when_an_endpoint_answers_again(shop: Notified, listen: Subscribe) -> None:
    """After an outage nobody waits for pauses that were made for it."""
    is_well = threading.Event()
    taker = listen(lambda _: 200 if is_well.is_set() else 503)
    endpoint = shop.subscribe(taker.url, eventTypes=["payment-succeeded"])
    for _ in range(subscribers.OUTAGE_FAILURES):
        shop.pay()
    shop.notify()
    is_well.set()
    shop.pay()
    shop.notify()
    shown = shop.deliveries(endpoint)
    assert [each["state"] for each in shown] == ["delivered"] * (subscribers.OUTAGE_FAILURES + 1)


def test_redirects_are_not_followed(shop: Notified, listen: Subscribe) -> None:
    """An answer that points elsewhere is a failure: the address it names was never checked."""
    elsewhere = listen()
    taker = listen(lambda _: 307, Location=elsewhere.url)
    endpoint = shop.subscribe(taker.url, eventTypes=["payment-succeeded"])
    shop.pay()
    shop.notify()
    assert (len(taker.calls), elsewhere.calls) == (1, [])
    assert shop.deliveries(endpoint)[0]["lastError"] == "answered 307"


def test_both_secrets_sign_for_a_day_after_a_rotation(shop: Notified, listen: Subscribe) -> None:
    """Whoever checks with either secret is satisfied; after a day only the new one signs."""
    taker = listen()
    endpoint = shop.subscribe(taker.url, eventTypes=["payment-succeeded"])
    renewed = shop.api.post("", path=f"{PATH}/{endpoint['id']}/secret")
    assert renewed.status == 200, renewed.text
    old, new = endpoint["secret"], renewed.body["secret"]
    shop.pay()
    shop.notify()
    assert taker.calls[0].is_signed_by(old)
    assert taker.calls[0].is_signed_by(new)
    shop.api.stored.change("UPDATE notification_endpoint SET previous_until = now()")
    shop.pay()
    shop.notify()
    assert not taker.calls[1].is_signed_by(old)
    assert taker.calls[1].is_signed_by(new)


def test_secrets_are_sealed_and_shown_once(shop: Notified, listen: Subscribe) -> None:
    """No later answer and no row of the database holds a secret."""
    endpoint = shop.subscribe(listen().url)
    assert endpoint["secret"].startswith("whsec_")
    assert "secret" not in shop.endpoint(endpoint)
    (row,) = shop.api.stored.rows("notification_endpoint")
    assert endpoint["secret"].encode() not in b"".join(repr(value).encode() for value in row.values())


def test_one_event_is_sent_again(shop: Notified, listen: Subscribe) -> None:
    """A resend delivers the event under its id, also what was delivered before."""
    taker = listen()
    endpoint = shop.subscribe(taker.url)
    shop.pay()
    shop.notify()
    event_id = shop.deliveries(endpoint)[1]["eventId"]
    answer = shop.api.post("", path=f"{PATH}/{endpoint['id']}/deliveries/{event_id}/resend")
    assert (answer.status, answer.body["delivery"]["state"]) == (202, "pending")
    shop.notify()
    assert [each.id for each in taker.calls].count(event_id) == 2
    assert taker.types() == ["payment-requested", "payment-succeeded", "payment-succeeded"]


def test_what_was_missed_is_sent(shop: Notified, listen: Subscribe) -> None:
    """A resend since a time delivers what happened while the endpoint was off, in each payment's order."""
    taker = listen()
    endpoint = shop.subscribe(taker.url)
    shop.patch(endpoint, enabled=False)
    payment_id = live(shop)
    shop.patch(endpoint, enabled=True)
    shop.notify()
    assert taker.calls == []
    since = {"since": "2020-01-01T00:00:00Z"}
    answer = shop.api.post(since, path=f"{PATH}/{endpoint['id']}/resend")
    assert (answer.status, answer.body["count"]) == (202, len(LIFE))
    shop.notify()
    assert taker.types(payment_id) == LIFE


def test_old_deliveries_are_purged_once_they_have_ended(shop: Notified, listen: Subscribe) -> None:
    """What was delivered goes after its days; what waits stays, however old."""
    taker = listen(lambda call: 200 if call.body["type"] == "payment-requested" else 500)
    endpoint = shop.subscribe(taker.url)
    shop.pay()
    shop.notify()
    shop.api.stored.change(
        "UPDATE notification_delivery SET created_at = created_at - interval '31 days',"
        " ended_at = ended_at - interval '31 days'"
    )
    assert retention.purge(shop.bench.sessions, shop.bench.settings) == 1
    assert [each["state"] for each in shop.deliveries(endpoint)] == ["pending"]


def test_what_waits_for_a_removed_endpoint_is_dropped(shop: Notified, listen: Subscribe) -> None:
    """A removed endpoint is told nothing more, is shown to nobody, and its address is free again."""
    taker = listen(lambda _: 500)
    endpoint = shop.subscribe(taker.url, eventTypes=["payment-succeeded"])
    shop.pay()
    shop.notify()
    path = f"{PATH}/{endpoint['id']}"
    assert shop.api.send("DELETE", path, b"", {}).status == 200
    shop.notify_later()
    assert len(taker.calls) == 1
    assert shop.api.get(path).status == 404
    assert [row["state"] for row in shop.api.stored.rows("notification_delivery")] == ["dropped"]
    shop.subscribe(taker.url)
