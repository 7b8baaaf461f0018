"""The ticketing contract's checks at the wire: an order and a reservation are asked about before a charge."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from shared.events import rfc3339
from shared.payments import Notice
from shared.settings import Settings
from tests.api import SOON_S, Answer, Api, assert_refused
from tests.door import Door
from tests.factories import new_uuid, payment_body
from tests.order_service import OrderServiceStub
from tests.shop import Shop
from tests.waiting import LONGEST_S, wait_until

NewApi = Callable[..., Api]
CREATED, EXPIRED = Notice.RESERVATION_CREATED, Notice.RESERVATION_EXPIRED
# The document's own example of a request.
REQUEST = {
    "orderId": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
    "customerId": "a8098c1a-f86e-11da-bd1a-00112444be1e",
    "reservationId": "f47ac10b-58cc-4372-a567-0e02b2c3d479",
    "amount": Decimal("150.00"),
    "currency": "USD",
    "paymentMethod": "credit_card",
}
CUSTOMER, RESERVATION = REQUEST["customerId"], REQUEST["reservationId"]
HOUR = timedelta(hours=1)
NOT_OWNED = "Unauthorized: Customer does not own this order"


@pytest.fixture
def orders() -> Iterator[OrderServiceStub]:
    """Return an order service."""
    stub = OrderServiceStub()
    yield stub
    stub.close()


@pytest.fixture
def checking(new_api: NewApi, shop: Shop, orders: OrderServiceStub) -> Shop:
    """Return a shop whose orders are looked up."""
    shop.api = new_api(ORDER_SERVICE_URL=orders.url + "/", ORDER_SERVICE_TIMEOUT_S=10)
    return shop


@pytest.fixture
def reserving(new_api: NewApi, shop: Shop) -> Shop:
    """Return a shop whose reservations are looked at."""
    shop.api = new_api(RESERVATIONS="on")
    return shop


@pytest.fixture
def door(reserving: Shop, settings: Settings) -> Iterator[Door]:
    """Return a consumer of notices beside that shop."""
    yield from Door.opened(reserving, settings, RESERVATIONS="on")


def created(**changes: Any) -> dict[str, Any]:
    """A reservation-created of the request's reservation."""
    seats = {"seatId": new_uuid(), "section": "A", "price": Decimal("150.00")}
    told = {"reservationId": RESERVATION, "customerId": CUSTOMER, "status": "active"}
    return {**told, "expiresAt": rfc3339(datetime.now(UTC) + HOUR), **seats, **changes}


def expired(**changes: Any) -> dict[str, Any]:
    """A reservation-expired of the request's reservation."""
    told = {"reservationId": RESERVATION, "customerId": CUSTOMER, "status": "expired"}
    return {**told, "expiredAt": rfc3339(datetime.now(UTC)), "reason": "not paid in time", **changes}


def assert_nothing_stored(api: Api) -> None:
    """No payment, and no key bound."""
    assert {"payment", "operation", "idempotency_key"}.isdisjoint(api.stored.counts())


def test_the_documents_request_is_paid_once_its_order_is_known(
    checking: Shop, orders: OrderServiceStub
) -> None:
    """200 with every field of the document's example; the order was asked about once, in our own name."""
    orders.add(REQUEST)
    answer = checking.served(
        lambda: checking.api.post(REQUEST, X_Correlation_Id="checkout-7", Prefer="wait=30")
    )
    assert answer.status == 200, answer.text
    assert (answer.body["success"], answer.body["errorMessage"]) == (True, None)
    shown = {name: answer.payment[name] for name in (*REQUEST, "status", "errorCode", "isSimulated")}
    assert shown == {**REQUEST, "status": "succeeded", "errorCode": None, "isSimulated": True}
    assert answer.payment["simulatedResponse"].startswith("Success - TransactionId: txn_")
    ((path, headers),) = orders.asked
    assert path == f"/orders/{REQUEST['orderId']}"
    assert headers["X-Correlation-Id"] == "checkout-7"
    assert "Authorization" not in headers


def test_a_service_token_of_our_own_is_shown_and_never_the_callers(
    new_api: NewApi, orders: OrderServiceStub
) -> None:
    """The caller's token is for us alone."""
    api = new_api(ORDER_SERVICE_URL=orders.url, ORDER_SERVICE_TOKEN="ours", ORDER_SERVICE_TIMEOUT_S=10)
    body = payment_body()
    orders.add(body)
    assert api.post_async(body).status == 202
    assert orders.asked[0][1]["Authorization"] == "Bearer ours"


@pytest.mark.parametrize(
    ("order", "status", "code", "message"),
    [
        (None, 404, "ORDER_NOT_FOUND", "Order not found"),
        (
            {"customerId": new_uuid()},
            401,
            "ORDER_NOT_OWNED",
            "Unauthorized: Customer does not own this order",
        ),
        ({"amount": Decimal("150.01")}, 400, "ORDER_VALIDATION_FAILED", "Order validation failed: "),
        ({"amount": Decimal("150.001")}, 400, "ORDER_VALIDATION_FAILED", "Order validation failed: "),
        ({"currency": "EUR"}, 400, "ORDER_VALIDATION_FAILED", "Order validation failed: "),
    ],
)
def test_an_order_that_is_not_as_asked_is_refused(
    checking: Shop,
    orders: OrderServiceStub,
    order: dict[str, Any] | None,
    status: int,
    code: str,
    message: str,
) -> None:
    """With the document's status and words; nothing is recorded, and no key is used up."""
    body = payment_body()
    if order is not None:
        orders.add(body, **order)
    answer = checking.api.post(body, Idempotency_Key="once")
    assert_refused(answer, status, code, message)
    assert_nothing_stored(checking.api)
    orders.add(body)
    assert checking.api.post_async(body, Idempotency_Key="once").status == 202


@pytest.mark.parametrize("names", [("userId", "totalAmount"), ("customerId", "total")])
def test_other_names_for_the_same_facts(
    checking: Shop, orders: OrderServiceStub, names: tuple[str, str]
) -> None:
    """An order service may say userId and totalAmount, and leave out the currency."""
    body = payment_body()
    facts = {names[0]: body["customerId"].upper(), names[1]: 150}
    orders.add(body, **({"customerId": None, "amount": None, "currency": None} | facts))
    assert checking.api.post_async(body).status == 202


@pytest.mark.parametrize(
    "trouble",
    [
        (500, "{}"), (503, "{}"), (302, ""), (401, "{}"),
        (200, "{"), (200, b"\xff"), (200, "[]"), (200, "{}"),
        (200, '{"customerId": 5, "amount": 150}'), (200, '{"customerId": "x", "amount": "150"}'), None,
    ],
    ids=repr,
)  # fmt: skip
def test_an_order_service_that_cannot_say_is_503(
    checking: Shop, orders: OrderServiceStub, trouble: tuple[int, str | bytes] | None
) -> None:
    """Nothing is recorded, Retry-After says that it may be asked again, and then it is paid once."""
    body = payment_body()
    orders.add(body)
    orders.troubles = [trouble, trouble]
    answer = checking.api.post(body, Idempotency_Key="once")
    assert_refused(answer, 503, "ORDER_SERVICE_UNAVAILABLE", "nothing was recorded")
    assert answer.headers["Retry-After"]
    assert_nothing_stored(checking.api)
    orders.troubles.clear()
    assert checking.api.post_async(body, Idempotency_Key="once").status == 202


def test_one_failure_is_made_good_by_asking_again(checking: Shop, orders: OrderServiceStub) -> None:
    """A single 5xx or a connection cut off does not reach the customer."""
    for trouble in ((502, "{}"), None):
        body = payment_body()
        orders.add(body)
        orders.troubles = [trouble]
        assert checking.api.post_async(body).status == 202
    assert len(orders.asked) == 4


def test_an_order_service_that_is_down_or_silent_is_503(new_api: NewApi, orders: OrderServiceStub) -> None:
    """Nobody listens, or somebody who never answers: the request ends by itself."""
    api = new_api(ORDER_SERVICE_URL="http://127.0.0.1:9")
    assert_refused(api.post(payment_body()), 503, "ORDER_SERVICE_UNAVAILABLE")
    silent = new_api(ORDER_SERVICE_URL=orders.url, ORDER_SERVICE_TIMEOUT_S=0.2)
    with ThreadPoolExecutor(1) as caller:
        done = caller.submit(silent.post, payment_body())
        orders.meanwhile = lambda: wait_until(done.done, SOON_S, "the request to give up")
        assert_refused(done.result(LONGEST_S), 503, "ORDER_SERVICE_UNAVAILABLE")
    assert_nothing_stored(silent)


def test_no_connection_is_held_while_it_is_asked(checking: Shop, orders: OrderServiceStub) -> None:
    """An order service that is slow starves nobody of the database."""
    held: list[int] = []
    orders.meanwhile = lambda: held.append(checking.api.pool.checkedout())
    body = payment_body()
    orders.add(body)
    assert checking.api.post_async(body, Idempotency_Key="once").status == 202
    assert held == [0]


def test_what_is_known_is_shown_without_asking(checking: Shop, orders: OrderServiceStub) -> None:
    """A repeat, by order or by key, needs no order service; other facts are still 409."""
    body = payment_body()
    orders.add(body)
    first = checking.api.post_async(body, Idempotency_Key="once")
    asked = len(orders.asked)
    orders.close()
    for again in (checking.api.post_async(body), checking.api.post_async(body, Idempotency_Key="once")):
        assert (again.status, again.payment["id"]) == (202, first.payment["id"])
    assert checking.api.post(body | {"amount": Decimal("1.00")}).status == 409
    assert len(orders.asked) == asked


def test_fifty_at_once_are_one_payment(checking: Shop, orders: OrderServiceStub) -> None:
    """The check is no gap between the look and the record."""
    body = payment_body()
    orders.add(body)
    answers = checking.at_once([lambda: checking.api.post_async(body)] * 50)
    assert Counter(each.status for each in answers) == {202: 50}
    assert len({each.payment["id"] for each in answers}) == 1


def test_by_default_any_order_and_any_reservation_is_accepted(shop: Shop) -> None:
    """A reservationId is recorded and shown, and nothing is asked about it."""
    payment_id = shop.pay(reservationId=RESERVATION)
    shown = shop.payment(payment_id)
    assert (shown["status"], shown["reservationId"]) == ("succeeded", RESERVATION)


def refusal_of(answer: Answer) -> str:
    """The message of a refused reservation."""
    assert_refused(answer, 400, "RESERVATION_VALIDATION_FAILED", "Reservation validation failed: ")
    return str(answer.body["errorMessage"]).removeprefix("Reservation validation failed: ")


def test_the_four_refusals_of_a_reservation(door: Door) -> None:
    """In the contract's words, and nothing is recorded; an active one is paid for."""
    api = door.shop.api
    assert refusal_of(api.post(REQUEST)) == "Reservation not found"
    door.ask(CREATED, created(customerId=new_uuid(), reservationId=(foreign := new_uuid())))
    body = REQUEST | {"reservationId": foreign}
    assert refusal_of(api.post(body)) == "Reservation does not belong to the specified customer"
    door.ask(CREATED, created(reservationId=(sold := new_uuid()), status="confirmed"))
    body = REQUEST | {"reservationId": sold}
    assert refusal_of(api.post(body)) == "Reservation is in 'confirmed' state, expected 'active'"
    past = rfc3339(datetime.now(UTC) - HOUR)
    door.ask(CREATED, created(reservationId=(late := new_uuid()), expiresAt=past))
    assert refusal_of(api.post(REQUEST | {"reservationId": late})) == "Reservation has expired"
    assert_nothing_stored(api)
    door.ask(CREATED, created(reservationId=str(RESERVATION).upper()))
    assert api.post_async(REQUEST).status == 202
    assert api.post_async(payment_body()).status == 202  # one without a reservation is not looked at


def test_an_expiry_gives_up_what_is_not_yet_paid(door: Door, new_api: NewApi) -> None:
    """Whatever it waits for, and not what was paid in time; its order may not be paid with it any more."""
    waits: dict[str, dict[str, Any]] = {
        "authorized": {"captureMethod": "manual"},
        "requires_action": {"paymentMethodId": "pm_card_authenticationRequired"},
        "succeeded": {},
        "pending": {},
    }
    bodies = {
        status: payment_body(reservationId=new_uuid(), customerId=CUSTOMER, **more)
        for status, more in waits.items()
    }
    paid: dict[str, str] = {}
    for status, body in bodies.items():
        door.send(CREATED, created(reservationId=body["reservationId"]))
        door.consume(1)
        if status == "pending":
            door.shop.work()
        # Reservations are in no process's memory: another API process knows them, too.
        paid[status] = new_api(RESERVATIONS="on").post_async(body).payment["id"]
    assert {status: door.shop.payment(each)["status"] for status, each in paid.items()} == {
        status: status for status in paid
    }
    door.send(EXPIRED, *[expired(reservationId=body["reservationId"]) for body in bodies.values()])
    door.handle(len(bodies))
    assert {status: door.shop.payment(each)["status"] for status, each in paid.items()} == {
        status: "succeeded" if status == "succeeded" else "cancelled" for status in paid
    }
    for each in paid.values():
        door.shop.assert_history_is_whole(each)
    refused = door.shop.api.post(bodies["authorized"])
    assert refusal_of(refused) == "Reservation is in 'expired' state, expected 'active'"


def test_what_is_in_flight_is_undone_when_its_outcome_is_known(door: Door) -> None:
    """The seats were lost while the gateway was being asked: the money goes back."""
    door.ask(CREATED, created())
    payment_id = door.shop.api.post_async(REQUEST).payment["id"]
    door.send(EXPIRED, expired(), ce_id="e-1")
    door.shop.bench.gateway.before.append(lambda: door.consume(1))
    door.shop.work()
    assert door.shop.sums(payment_id) == ("refunded", Decimal("150.00"), Decimal("150.00"))
    door.shop.assert_history_is_whole(payment_id)


def test_an_expiry_undoes_a_capture_that_is_under_way(door: Door) -> None:
    """What it takes goes back when that is known."""
    door.ask(CREATED, created())
    payment_id = door.shop.hold(reservationId=RESERVATION, customerId=CUSTOMER)
    assert door.shop.ask(payment_id, "capture").status == 202
    door.ask(EXPIRED, expired())
    assert door.shop.sums(payment_id) == ("refunded", Decimal("100.00"), Decimal("100.00"))
    door.shop.assert_history_is_whole(payment_id)


def test_messages_in_any_order_end_right(door: Door) -> None:
    """Expired before created, repeated, of customers whom nobody knows: what is over stays over."""
    door.send(EXPIRED, expired(), ce_id="e-1")
    door.handle(1)
    for number in range(2):
        door.send(CREATED, created(), ce_id="c-1")
        door.send(CREATED, created(), ce_id=f"c-again-{number}")
        door.send(EXPIRED, expired(), ce_id="e-1")
    door.handle(6)
    assert refusal_of(door.shop.api.post(REQUEST)) == "Reservation is in 'expired' state, expected 'active'"
    (row,) = door.shop.api.stored.rows("reservation")
    assert row["expires_at"] is not None
    assert row["expired_at"] is not None
    assert len(door.inbox()) == 4
    sold = {"reservationId": new_uuid(), "status": "confirmed"}
    door.ask(CREATED, created(**sold))
    door.ask(EXPIRED, expired(reservationId=sold["reservationId"]))
    statuses = {row["id"]: row["status"] for row in door.shop.api.stored.rows("reservation")}
    assert statuses == {RESERVATION: "expired", sold["reservationId"]: "confirmed"}


def test_an_expiry_between_the_look_and_the_record_finds_the_payment(door: Door) -> None:
    """Twenty payments race with the expiry: each is refused, or cancelled afterwards; none is charged."""
    door.ask(CREATED, created())
    door.send(EXPIRED, expired(), ce_id="e-1")
    bodies = [REQUEST | {"orderId": new_uuid()} for _ in range(20)]
    with ThreadPoolExecutor(21) as callers:
        answers = [callers.submit(door.shop.api.post_async, body) for body in bodies]
        callers.submit(door.consume, 1).result(LONGEST_S)
        statuses = {each.result(LONGEST_S).status for each in answers}
    assert statuses <= {202, 400}
    door.shop.work()
    payments = door.shop.api.get(f"/payments?customerId={CUSTOMER}").body["payments"]
    assert {each["status"] for each in payments} <= {"cancelled"}


def test_by_default_an_expiry_is_only_recorded(shop: Shop, settings: Settings) -> None:
    """With RESERVATIONS off nobody is refused and nothing is cancelled."""
    for door in Door.opened(shop, settings):
        payment_id = shop.hold(reservationId=RESERVATION)
        door.ask(EXPIRED, expired())
        assert shop.payment(payment_id)["status"] == "authorized"
        assert [row["status"] for row in shop.api.stored.rows("reservation")] == ["expired"]


UNREADABLE: list[tuple[Notice, Any]] = [
    (CREATED, b"{"), (CREATED, b"[]"), (CREATED, {}), (CREATED, created(status="paid")),
    (CREATED, created(expiresAt="tomorrow")), (CREATED, created(reservationId="")),
    (CREATED, created(customerId=5)), (EXPIRED, expired(expiredAt=None)), (EXPIRED, expired(reason="\x00")),
]  # fmt: skip


def test_what_cannot_be_read_goes_to_the_dead_letters(door: Door) -> None:
    """With its origin; what is from the future, or no time of ours, is refused; the offset moves on."""
    for notice, value in UNREADABLE:
        door.send(notice, value)
    door.send(CREATED, created(), ce_type="reservation-created.v2")
    door.handle(len(UNREADABLE) + 1)
    letters = door.letters(len(UNREADABLE) + 1)
    classes = {each.named["dlq_error_class"] for each in letters}
    assert classes == {"UnreadableMessage", "SchemaBroken", "UnknownVersion"}
    assert door.shop.api.stored.counts() == {}
    door.send(EXPIRED, expired(expiredAt=rfc3339(datetime.now(UTC) + 24 * HOUR)), ce_id="future")
    door.send(CREATED, created(expiresAt="2026-06-30T23:59:60Z"), ce_id="leap-second")
    door.send(CREATED, created(expiresAt="9999-12-31T23:59:59-12:00"), ce_id="year-10000")
    door.send(CREATED, created(), ce_type="com.tickets.reservation-created.v1")
    door.handle(4)
    answers = [(each.value["commandId"], each.value["errorCode"]) for each in door.rejections(3)]
    refused = {"future", "leap-second", "year-10000"}
    assert sorted(answers) == sorted((each, "VALIDATION_FAILED") for each in refused)
    (row,) = door.shop.api.stored.rows("reservation")
    assert row["status"] == "active"
