"""The ticketing document's own example, field by field: a client written against it works unchanged."""

import re
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from shared.documents import parse_json
from tests.api import Api, Settler, assert_refused
from tests.factories import as_json, new_uuid, payment_body
from tests.simulator import Simulator

# The document's request, to the letter.
EXAMPLE = """{
    "orderId": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
    "customerId": "a8098c1a-f86e-11da-bd1a-00112444be1e",
    "reservationId": "f47ac10b-58cc-4372-a567-0e02b2c3d479",
    "amount": 150.00,
    "currency": "USD",
    "paymentMethod": "credit_card"
}"""
IDS = {name: parse_json(EXAMPLE)[name] for name in ("orderId", "customerId", "reservationId")}
DOCUMENTED = {
    "id", "orderId", "customerId", "reservationId", "amount", "currency", "paymentMethod", "status",
    "errorCode", "errorMessage", "failureReason", "createdAt", "processedAt", "isSimulated",
    "simulatedResponse",
}  # fmt: skip
OURS = {"capturedAmount", "refundedAmount", "transactionId", "nextAction", "dispute"}
METHODS = ["credit_card", "debit_card", "paypal", "apple_pay", "google_pay"]
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
DECLINES = [
    ("100.13", "CARD_DECLINED", "Your card was declined", "card_declined"),
    ("100.66", "INSUFFICIENT_FUNDS", "Insufficient funds on card", "insufficient_funds"),
    ("100.99", "PROCESSOR_TIMEOUT", "Payment processor timeout", "timeout"),
    ("999999.99", "AMOUNT_TOO_LARGE", "Amount exceeds maximum limit", "processor_error"),
    ("1000000.00", "AMOUNT_TOO_LARGE", "Amount exceeds maximum limit", "processor_error"),
]


def moment(written: str) -> datetime:
    """Read a time as the document writes it: RFC 3339 in UTC with Z."""
    assert TIME.fullmatch(written)
    return datetime.fromisoformat(written)


def test_the_example_is_charged(api: Api, settler: Settler, simulator: Simulator) -> None:
    """The document's request gets the document's answer, without any header but the content type."""
    simulator_before = simulator.charges(order_id=IDS["orderId"])
    sent = parse_json(EXAMPLE)
    answer = settler.pay(api, sent)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert (answer.body["success"], answer.body["errorMessage"]) == (True, None)
    assert set(answer.body) == {"success", "errorMessage", "payment"}
    assert set(answer.payment) == DOCUMENTED | OURS
    assert {name: answer.payment[name] for name in sent} == sent
    assert answer.payment["status"] == "succeeded"
    assert all(answer.payment[name] is None for name in ("errorCode", "errorMessage", "failureReason"))
    assert answer.payment["isSimulated"] is True
    assert re.fullmatch(r"Success - TransactionId: txn_\w+", answer.payment["simulatedResponse"])
    assert len(simulator.charges(order_id=IDS["orderId"])) == len(simulator_before) + 1


def test_the_answers_types_are_the_documents(api: Api, settler: Settler) -> None:
    """The id is a uuid, the amount a number with its decimals, the times are UTC and in order."""
    before = datetime.now(UTC)
    answer = settler.pay(api, parse_json(EXAMPLE) | {"orderId": new_uuid()})
    assert str(uuid.UUID(answer.payment["id"])) == answer.payment["id"]
    assert '"amount":150.00,' in answer.text
    assert '"capturedAmount":150.00,' in answer.text
    assert '"refundedAmount":0.00,' in answer.text
    created, processed = moment(answer.payment["createdAt"]), moment(answer.payment["processedAt"])
    slack = timedelta(seconds=1)  # between two clocks, and to the millisecond
    assert before - slack <= created <= processed <= datetime.now(UTC) + slack


def test_what_may_be_left_out_has_the_documents_defaults(api: Api) -> None:
    """Currency USD, payment method credit_card, no reservation."""
    body = payment_body(currency=None, paymentMethod=None)
    payment = api.post_async(body).payment
    assert (payment["currency"], payment["paymentMethod"], payment["reservationId"]) == (
        "USD",
        "credit_card",
        None,
    )
    explicit = api.post_async(payment_body() | {"reservationId": None}).payment
    assert explicit["reservationId"] is None


@pytest.mark.parametrize("method", METHODS)
def test_every_documented_method_is_taken(shared_api: Api, method: str) -> None:
    """The simulator takes all five."""
    assert shared_api.post_async(payment_body(paymentMethod=method)).payment["paymentMethod"] == method


@pytest.mark.parametrize("number", ["150", "150.0", "150.00", "150.000", "1.5e2", "15000e-2"])
def test_an_amount_is_read_as_the_number_it_is(shared_api: Api, number: str) -> None:
    """However JSON writes it, it is one hundred and fifty, and is shown with the currency's decimals."""
    raw = as_json(payment_body(amount=77)).replace('"amount": 77', f'"amount": {number}')
    answer = shared_api.post_async(raw)
    assert answer.payment["amount"] == Decimal(150)
    assert '"amount":150.00,' in answer.text


@pytest.mark.parametrize(
    ("currency", "number", "shown"),
    [
        ("JPY", "500", "500"),
        ("KWD", "1.230", "1.230"),
        ("EUR", "0.1e2", "10.00"),
        ("USD", "9007199254.93", None),
    ],
)
def test_an_amount_is_shown_with_its_currencys_decimals(
    shared_api: Api, currency: str, number: str, shown: str | None
) -> None:
    """No yen has cents, a dinar has thousandths, and no large amount loses a cent to a float."""
    raw = as_json(payment_body(amount=77, currency=currency)).replace('"amount": 77', f'"amount": {number}')
    assert f'"amount":{shown or number},' in shared_api.post_async(raw).text


def test_a_refusal_at_the_gateway_is_told(api: Api, settler: Settler) -> None:
    """422: the payment exists and has failed, and says why in three fields."""
    for amount, code, message, reason in DECLINES:
        answer = settler.pay(api, payment_body(amount=Decimal(amount)))
        assert answer.status == 422
        assert answer.body["success"] is False
        assert answer.body["errorMessage"] == f"Payment failed: {message}"
        assert answer.payment["status"] == "failed"
        assert answer.payment["errorCode"] == code
        assert answer.payment["errorMessage"] == message
        assert answer.payment["failureReason"] == reason
        assert answer.payment["simulatedResponse"] is None
        assert answer.payment["transactionId"] is None
        assert answer.payment["capturedAmount"] == 0
        moment(answer.payment["processedAt"])


def test_a_repeat_of_the_example_charges_nothing(api: Api, settler: Settler, simulator: Simulator) -> None:
    """Any number of requests for one order return the one payment, without waiting or charging."""
    body = parse_json(EXAMPLE) | {"orderId": new_uuid()}
    first = settler.pay(api, body)
    for _ in range(3):
        again = api.post(body)
        assert (again.status, again.body) == (200, first.body)
    assert len(simulator.charges(order_id=body["orderId"])) == 1
    assert api.get(f"/payments/{first.payment['id']}").body == first.body


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"orderId": ...}, "orderId"), ({"customerId": ...}, "customerId"), ({"amount": ...}, "amount"),
        ({"orderId": "7c9e6679"}, "orderId"), ({"customerId": "me"}, "customerId"),
        ({"reservationId": "seat 5"}, "reservationId"), ({"amount": 0}, "amount"),
        ({"amount": Decimal("-150.00")}, "amount"),
    ],
)  # fmt: skip
def test_the_documents_causes_of_a_400(shared_api: Api, change: dict[str, Any], field: str) -> None:
    """A missing field, an id that is no GUID, an amount that is not positive: 400, and no payment."""
    body = {name: value for name, value in (parse_json(EXAMPLE) | change).items() if value is not ...}
    assert_refused(shared_api.post(body), 400, "VALIDATION_FAILED", f"{field}: ")


def test_what_breaks_here_gets_the_documents_500(api: Api) -> None:
    """A fault of our own is told in the document's envelope and words, without a word of what broke."""
    api.stored.change("ALTER TABLE operation RENAME TO lost_and_found")
    answer = api.post(EXAMPLE)
    api.stored.change("ALTER TABLE lost_and_found RENAME TO operation")
    assert_refused(answer, 500, "INTERNAL_ERROR")
    assert answer.body["errorMessage"] == ("Payment processing error: something broke here; try again later")
    assert api.stored.counts() == {}, "nothing of it is left"
    assert api.post_async(EXAMPLE).status == 202, "and the same request succeeds once it is mended"


def announced(api: Api) -> list[tuple[str, str, dict[str, Any]]]:
    """What goes to Kafka: the topic, the JSON as it is written, and what it says, with exact numbers."""
    rows = api.stored._execute("SELECT type, payload::text AS written FROM outbox ORDER BY position")
    return [(row["type"], row["written"], parse_json(row["written"])) for row in rows]


def test_a_success_is_announced_with_the_documents_fields(api: Api, settler: Settler) -> None:
    """What goes to Kafka has every field of the document's payment-succeeded, with the payment's values."""
    payment = settler.pay(api, parse_json(EXAMPLE)).payment
    (requested, _, _), (succeeded, written, event) = announced(api)
    assert (requested, succeeded) == ("payment-requested", "payment-succeeded")
    assert '"amount": 150.00,' in written
    moment(event.pop("processedAt"))
    assert event == {
        "paymentId": payment["id"], **IDS,
        "amount": 150, "currency": "USD", "paymentMethod": "credit_card",
        "transactionId": payment["transactionId"], "status": "succeeded",
        "amountMinor": 15000, "authorizedAmountMinor": 15000,
    }  # fmt: skip


def test_a_failure_is_announced_with_the_documents_fields(api: Api, settler: Settler) -> None:
    """What goes to Kafka has every field of the document's payment-failed."""
    payment = settler.pay(api, parse_json(EXAMPLE) | {"amount": Decimal("150.66")}).payment
    _, (topic, written, event) = announced(api)
    assert topic == "payment-failed"
    assert '"amount": 150.66,' in written
    moment(event.pop("attemptedAt"))
    assert event == {
        "paymentId": payment["id"], **IDS,
        "amount": Decimal("150.66"), "currency": "USD", "paymentMethod": "credit_card",
        "errorCode": "INSUFFICIENT_FUNDS", "errorMessage": "Insufficient funds on card",
        "failureReason": "insufficient_funds", "status": "failed", "amountMinor": 15066,
    }  # fmt: skip
