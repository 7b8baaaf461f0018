"""One order, one payment; one Idempotency-Key, one request: whatever is repeated and however it races."""

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest

from shared.commands.idempotency import hash_request
from shared.database import connect, make_sessions, try_lock
from tests.api import Api, ServedApi, Settler, assert_refused
from tests.factories import new_uuid, payment_body
from tests.simulator import Simulator

RACERS = 50
ONE_PAYMENT = {"payment": 1, "operation": 1, "timeline_entry": 1, "outbox": 1}
OTHER_FACTS: list[dict[str, Any]] = [
    {"amount": Decimal("150.01")}, {"amount": Decimal("149.99")}, {"currency": "EUR"},
    {"customerId": new_uuid()},
]  # fmt: skip
OTHER_CIRCUMSTANCES: list[dict[str, Any]] = [
    {"amount": Decimal("150.000")}, {"amount": 150}, {"paymentMethod": "debit_card"},
    {"metadata": {"a": "b"}}, {"paymentMethodId": "pm_card_visa"}, {"reservationId": new_uuid()},
]  # fmt: skip
# What the database must hold for a payment in this status.
SETTLED = "status = %s, processed_at = now(), captured_minor = %s, refunded_minor = %s"


def put(api: Api, order_id: str, status: str, captured: int = 0, refunded: int = 0) -> None:
    """Put the order's payment into a settled status, as the worker would in the course of time."""
    api.stored.change("UPDATE operation SET next_attempt_at = NULL, state = 'failed', finished_at = now()")
    statement = f"UPDATE payment SET {SETTLED} WHERE order_id = %s"  # noqa: S608 - a constant
    api.stored.change(statement, status, captured, refunded, order_id)


def test_a_repeat_while_open_returns_the_payment(api: Api) -> None:
    """202 with the same payment, as often as asked; nothing more is stored."""
    body = payment_body()
    first = api.post_async(body)
    for _ in range(3):
        again = api.post_async(body)
        assert (again.status, again.body) == (202, first.body)
        assert again.headers["Location"] == first.headers["Location"]
        assert "Idempotent-Replayed" not in again.headers
    assert api.stored.counts() == ONE_PAYMENT


def test_circumstances_make_no_other_payment_of_it(api: Api) -> None:
    """With the same amount, currency and customer it is the same payment, as first asked for."""
    body = payment_body()
    first = api.post_async(body)
    for circumstances in OTHER_CIRCUMSTANCES:
        assert api.post_async(body | circumstances).body == first.body
    assert api.stored.counts() == ONE_PAYMENT


@pytest.mark.parametrize("status", ["pending", "succeeded", "partially_refunded"])
def test_other_facts_for_a_live_order_are_refused(api: Api, status: str) -> None:
    """Another amount, currency or customer for the order is a mistake, and charges nobody."""
    body = payment_body()
    api.post_async(body)
    if status != "pending":
        put(api, body["orderId"], status, captured=15000)
    before = api.stored.rows("payment")
    for facts in OTHER_FACTS:
        answer = api.post_async(body | facts)
        assert_refused(answer, 409, "PAYMENT_CONFLICT", "another amount, currency or customer")
    assert (api.stored.counts(), api.stored.rows("payment")) == (ONE_PAYMENT, before)


@pytest.mark.parametrize(
    ("asked", "again", "is_now"),
    [("automatic", "manual", "a charge"), ("manual", "automatic", "a hold"), ("manual", None, "a hold")],
)
@pytest.mark.parametrize("status", ["pending", "succeeded"])
def test_a_hold_is_no_charge(api: Api, asked: str, again: str | None, is_now: str, status: str) -> None:
    """Whoever asks for the one is not answered with the other, or would take money for taken that is not."""
    body = payment_body(captureMethod=asked)
    api.post_async(body)
    if status != "pending":
        put(api, body["orderId"], status, captured=15000)
    before = api.stored.rows("payment")
    answer = api.post_async(payment_body(**body | {"captureMethod": again}))
    assert_refused(answer, 409, "PAYMENT_CONFLICT", f"The order already has a payment, which is {is_now}")
    assert (api.stored.counts(), api.stored.rows("payment")) == (ONE_PAYMENT, before)


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_after_a_dead_payment_a_new_one_may_be_made(api: Api, status: str) -> None:
    """A failed or cancelled payment no longer stands in the way, and other facts are welcome."""
    body = payment_body()
    first = api.post_async(body)
    put(api, body["orderId"], status)
    second = api.post_async(body | {"amount": Decimal("99.00")})
    assert second.status == 202
    assert second.payment["id"] != first.payment["id"]
    assert second.payment["amount"] == 99
    assert api.stored.counts() == dict.fromkeys(ONE_PAYMENT, 2)
    assert api.get(f"/payments/{first.payment['id']}").payment["status"] == status


def test_a_declined_order_can_be_paid_with_another_card(
    api: Api, settler: Settler, simulator: Simulator
) -> None:
    """The real course of it: declined, tried again with another method, paid once."""
    body = payment_body(paymentMethodId="pm_card_chargeDeclined")
    assert settler.pay(api, body).status == 422
    paid = settler.pay(api, body | {"paymentMethodId": "pm_card_visa"})
    assert (paid.status, paid.payment["status"]) == (200, "succeeded")
    charges = simulator.charges(order_id=body["orderId"])
    assert sorted(charge["status"] for charge in charges) == ["failed", "succeeded"]


def test_a_refunded_order_is_not_paid_again(api: Api) -> None:
    """409 that says so, also for the very same facts."""
    body = payment_body()
    api.post_async(body)
    put(api, body["orderId"], "refunded", captured=15000, refunded=15000)
    assert_refused(api.post_async(body), 409, "PAYMENT_CONFLICT", "refunded")
    assert api.stored.counts() == ONE_PAYMENT


def test_a_partly_refunded_order_is_paid(api: Api) -> None:
    """The same facts for it return it as a success: it was paid."""
    body = payment_body()
    api.post_async(body)
    put(api, body["orderId"], "partially_refunded", captured=15000, refunded=5000)
    answer = api.post(body)
    assert (answer.status, answer.body["success"], answer.payment["refundedAmount"]) == (200, True, 50)


def test_fifty_racing_requests_make_one_payment(served_api: ServedApi) -> None:
    """Over real connections to real processes: one payment, one operation, one event; fifty same answers."""
    body, before = payment_body(), served_api.stored.counts()
    with ThreadPoolExecutor(RACERS) as racers:
        answers = list(racers.map(lambda _: served_api.post_async(body), range(RACERS)))
    assert {answer.status for answer in answers} == {202}
    assert len({answer.payment["id"] for answer in answers}) == 1
    after = served_api.stored.counts()
    assert {name: n for name in after if (n := after[name] - before.get(name, 0))} == ONE_PAYMENT


def test_of_racing_requests_with_other_facts_one_wins(served_api: ServedApi) -> None:
    """Ten amounts for one order at once: one is recorded, nine are refused."""
    body = payment_body()
    with ThreadPoolExecutor(10) as racers:
        bodies = [body | {"amount": 10 + number} for number in range(10)]
        answers = list(racers.map(served_api.post_async, bodies))
    assert sorted(answer.status for answer in answers) == [202] + [409] * 9


def test_a_key_replays_its_payment_as_it_now_stands(api: Api, settler: Settler) -> None:
    """The same key and body return the same payment, marked as a replay, with its present status."""
    body, key = payment_body(), new_uuid()
    first = api.post_async(body, Idempotency_Key=key)
    assert "Idempotent-Replayed" not in first.headers
    open_again = api.post_async(body, Idempotency_Key=key)
    assert (open_again.status, open_again.headers["Idempotent-Replayed"]) == (202, "true")
    assert open_again.body == first.body
    settler.settle(body["orderId"])
    settled = api.post(body, Idempotency_Key=key)
    assert (settled.status, settled.headers["Idempotent-Replayed"]) == (200, "true")
    assert (settled.payment["id"], settled.payment["status"]) == (first.payment["id"], "succeeded")


def test_a_key_outlives_its_failed_payment(api: Api) -> None:
    """By the order alone a failed one may be paid anew; under its key the failure is what is shown."""
    body, key = payment_body(), new_uuid()
    first = api.post_async(body, Idempotency_Key=key)
    put(api, body["orderId"], "failed")
    again = api.post(body, Idempotency_Key=key)
    assert (again.status, again.payment["id"]) == (422, first.payment["id"])
    assert again.headers["Idempotent-Replayed"] == "true"
    assert api.stored.counts() == ONE_PAYMENT | {"idempotency_key": 1}


def test_white_space_and_order_of_fields_do_not_count(api: Api) -> None:
    """The same request written differently is the same request."""
    body, key = payment_body(amount=5), new_uuid()
    first = api.post_async(body, Idempotency_Key=key)
    rewritten = ",\n ".join(f'"{name}" :  {5 if name == "amount" else chr(34) + value + chr(34)}'
                            for name, value in reversed(body.items()))  # fmt: skip
    again = api.post_async("{ " + rewritten + " }", Idempotency_Key=key)
    assert (again.status, again.body) == (202, first.body)
    assert again.headers["Idempotent-Replayed"] == "true"


def test_a_key_is_refused_for_another_body(api: Api) -> None:
    """Whatever differs, it is another request, and nothing comes of it."""
    body, key = payment_body(), new_uuid()
    api.post_async(body, Idempotency_Key=key)
    for change in [*OTHER_FACTS, {"orderId": new_uuid()}, {"metadata": {"a": "b"}}]:
        answer = api.post_async(body | change, Idempotency_Key=key)
        assert_refused(answer, 422, "IDEMPOTENCY_KEY_REUSED", "Idempotency-Key")
    assert api.stored.counts() == ONE_PAYMENT | {"idempotency_key": 1}


def test_a_key_is_refused_on_another_path(api: Api) -> None:
    """A key that was used with this body for another command does not stand for this one."""
    body, key = payment_body(), new_uuid()
    api.post_async(body, Idempotency_Key=key)
    for method, path in (("POST", "/payments/authorize"), ("PUT", "/payments")):
        api.stored.change("UPDATE idempotency_key SET request_hash = %s", hash_request(method, path, body))
        assert_refused(api.post_async(body, Idempotency_Key=key), 422, "IDEMPOTENCY_KEY_REUSED")


def test_a_key_in_flight_is_refused(api: Api, database_url: str) -> None:
    """While a request with the key is being carried out: 409, come back; another key goes through."""
    body, key = payment_body(), new_uuid()
    engine = connect(database_url, pool_size=1, application="the other request")
    with make_sessions(engine).begin() as session:
        assert try_lock(session, "idempotency", "local", key)
        answer = api.post_async(body, Idempotency_Key=key)
        assert_refused(answer, 409, "IDEMPOTENCY_KEY_IN_USE", "Idempotency-Key")
        assert int(answer.headers["Retry-After"]) >= 1
        assert api.stored.counts() == {}
        assert api.post_async(payment_body(), Idempotency_Key=new_uuid()).status == 202
    engine.dispose()
    assert api.post_async(body, Idempotency_Key=key).status == 202


def test_racing_requests_with_one_key_make_one_payment(served_api: ServedApi) -> None:
    """Each is answered with the payment or told that it is being made; afterwards all see the one."""
    body, key, before = payment_body(), new_uuid(), served_api.stored.counts()
    with ThreadPoolExecutor(20) as racers:
        answers = list(racers.map(lambda _: served_api.post_async(body, Idempotency_Key=key), range(20)))
    assert {answer.status for answer in answers} <= {202, 409}
    made = {answer.payment["id"] for answer in answers if answer.status == 202}
    assert made == {served_api.post_async(body, Idempotency_Key=key).payment["id"]}
    assert served_api.stored.counts()["payment"] == before.get("payment", 0) + 1


def test_a_refused_request_binds_nothing(api: Api) -> None:
    """The client may correct its mistake under the same key."""
    taken, key = payment_body(), new_uuid()
    api.post_async(taken)
    for refused in ("{", payment_body(amount=0), payment_body(currency="XXX"), taken | {"amount": 1}):
        assert api.post_async(refused, Idempotency_Key=key).status in {400, 409}
        assert "idempotency_key" not in api.stored.counts()
    assert api.post_async(payment_body(), Idempotency_Key=key).status == 202


def test_a_second_key_for_the_same_order_is_bound_to_its_payment(api: Api) -> None:
    """Two clients' keys, one order: both keys lead to the one payment."""
    body = payment_body()
    first = api.post_async(body, Idempotency_Key="one")
    second = api.post_async(body, Idempotency_Key="two")
    assert second.body == first.body
    assert {str(row["payment_id"]) for row in api.stored.rows("idempotency_key")} == {first.payment["id"]}
    assert api.stored.counts() == ONE_PAYMENT | {"idempotency_key": 2}


def test_a_key_belongs_to_its_caller(api: Api) -> None:
    """Another caller's use of the same key is none of this caller's business."""
    body, key = payment_body(), new_uuid()
    api.post_async(body, Idempotency_Key=key)
    api.stored.change("UPDATE idempotency_key SET principal = 'somebody else'")
    answer = api.post_async(payment_body(), Idempotency_Key=key)
    assert (answer.status, "Idempotent-Replayed" in answer.headers) == (202, False)
    assert {row["principal"] for row in api.stored.rows("idempotency_key")} == {"local", "somebody else"}


@pytest.mark.parametrize("key", ["", "x" * 256, "two words", "caf\u00e9", "tab\there", "\x7f"], ids=ascii)
def test_an_unusable_key_is_refused(shared_api: Api, key: str) -> None:
    """A key is 1 to 255 visible ASCII characters; what is not is refused and not cut to size."""
    before = shared_api.stored.counts()
    answer = shared_api.post_async(Idempotency_Key=key)
    assert_refused(answer, 400, "VALIDATION_FAILED", "Idempotency-Key: ")
    assert shared_api.stored.counts() == before


def test_any_visible_key_is_taken(api: Api) -> None:
    """The shortest, the longest, and every character that is allowed."""
    keys = ["x", "x" * 255, "".join(map(chr, range(0x21, 0x7F)))]
    for key in keys:
        body = payment_body()
        first = api.post_async(body, Idempotency_Key=key)
        assert api.post_async(body, Idempotency_Key=key).body == first.body
    assert [row["key"] for row in api.stored.rows("idempotency_key")] == keys
