"""Money that goes back: all or parts of it, as often as something is left, and never more than was taken."""

import uuid
from collections import Counter
from decimal import Decimal
from functools import partial

import pytest

from tests.api import Api, assert_refused
from tests.factories import new_uuid, payment_body
from tests.integration.conftest import NewApi
from tests.shop import Shop
from tests.tokens import SECRET, bearer

NOTHING, THIRTY, FORTY, SIXTY, HUNDRED = (Decimal(f"{amount}.00") for amount in (0, 30, 40, 60, 100))
SETTLES_S = 3.0  # after this the simulator's slow refunds have moved


def test_everything_goes_back(shop: Shop) -> None:
    """202 with the refund and where it is; then it and its payment say that the money went back."""
    payment_id = shop.pay()
    asked = shop.ask(payment_id, "refunds", {"reason": "unwanted"})
    refund = asked.body["refund"]
    assert (asked.status, asked.headers["Location"]) == (202, f"/refunds/{refund['id']}")
    assert (asked.body["success"], asked.body["errorMessage"]) == (False, "Refund is still processing")
    assert set(refund) == {
        "id", "paymentId", "orderId", "amount", "currency", "reason", "status", "errorCode", "errorMessage",
        "createdAt", "processedAt",
    }  # fmt: skip
    assert (refund["paymentId"], refund["orderId"]) == (payment_id, asked.payment["orderId"])
    assert (refund["amount"], refund["currency"], refund["reason"]) == (HUNDRED, "USD", "unwanted")
    assert (refund["status"], refund["processedAt"]) == ("pending", None)
    assert asked.payment["refundedAmount"] == NOTHING
    shop.work()
    assert shop.sums(payment_id) == ("refunded", HUNDRED, HUNDRED)
    answer = shop.api.get(f"/refunds/{refund['id']}")
    shown = answer.body["refund"]
    assert (answer.status, answer.body["success"], shown["status"]) == (200, True, "succeeded")
    assert shown["processedAt"]
    assert answer.payment == shop.payment(payment_id)
    assert shop.charge(payment_id)["amount_refunded"] == 10_000
    assert shop.announced(payment_id)[2:] == ["refund-requested", "refund-succeeded"]
    assert_refused(shop.ask(payment_id, "refunds"), 409, "PAYMENT_CONFLICT", "refunded")
    shop.assert_history_is_whole(payment_id)


def test_parts_go_back_one_after_the_other(shop: Shop) -> None:
    """They add up; without an amount the rest goes back; all are listed, oldest first."""
    payment_id = shop.pay()
    for amount, left in ((THIRTY, "70.00"), (FORTY, "30.00")):
        wanted = partial(shop.ask, payment_id, "refunds", {"amount": amount}, Prefer="wait=9")
        answer = shop.served(wanted)
        assert (answer.status, answer.body["refund"]["status"]) == (200, "succeeded")
        assert answer.payment["status"] == "partially_refunded"
        more = shop.ask(payment_id, "refunds", f'{{"amount": {Decimal(left) + Decimal("0.01")}}}')
        assert_refused(more, 422, "AMOUNT_EXCEEDED", f"{left} USD")
    assert shop.ask(payment_id, "refunds").status == 202
    shop.work()
    assert shop.sums(payment_id) == ("refunded", HUNDRED, HUNDRED)
    listed = shop.api.get(f"/payments/{payment_id}/refunds").body
    assert (listed["success"], listed["errorMessage"]) == (True, None)
    assert [each["amount"] for each in listed["refunds"]] == [THIRTY, FORTY, THIRTY]
    shop.assert_history_is_whole(payment_id)


def test_fifty_refunds_at_once_never_exceed_the_capture(shop: Shop) -> None:
    """Of fifty racing refunds of 30.00 of 100.00 three are taken on, here and at the gateway."""
    payment_id = shop.pay()
    wanted = partial(shop.ask, payment_id, "refunds", {"amount": THIRTY})
    answers = shop.at_once([wanted] * 50)
    assert Counter(each.status for each in answers) == {202: 3, 422: 47}
    assert {each.body["errorCode"] for each in answers if each.status == 422} == {"AMOUNT_EXCEEDED"}
    shop.work()
    assert shop.sums(payment_id) == ("partially_refunded", HUNDRED, Decimal("90.00"))
    assert shop.charge(payment_id)["amount_refunded"] == 9_000
    assert len(shop.api.get(f"/payments/{payment_id}/refunds").body["refunds"]) == 3
    shop.assert_history_is_whole(payment_id)


def test_what_is_asked_for_is_reserved(shop: Shop) -> None:
    """While a refund is under way only the rest can be refunded."""
    payment_id = shop.pay()
    assert shop.ask(payment_id, "refunds", {"amount": SIXTY}).status == 202
    assert_refused(shop.ask(payment_id, "refunds", {"amount": SIXTY}), 422, "AMOUNT_EXCEEDED", "40.00 USD")
    assert shop.ask(payment_id, "refunds").body["refund"]["amount"] == FORTY
    assert_refused(shop.ask(payment_id, "refunds"), 422, "AMOUNT_EXCEEDED", "0.00 USD")


def test_only_what_was_captured_goes_back(shop: Shop) -> None:
    """The released part of a hold was never taken."""
    payment_id = shop.hold()
    assert_refused(shop.ask(payment_id, "refunds"), 409, "PAYMENT_CONFLICT", "authorized")
    shop.ask(payment_id, "capture", {"amount": FORTY})
    shop.work()
    assert_refused(shop.ask(payment_id, "refunds", {"amount": SIXTY}), 422, "AMOUNT_EXCEEDED", "40.00 USD")
    assert shop.served(lambda: shop.ask(payment_id, "refunds", Prefer="wait=9")).status == 200
    assert shop.sums(payment_id) == ("refunded", FORTY, FORTY)


def test_what_was_not_taken_cannot_go_back(shop: Shop) -> None:
    """409 that names the state."""
    pending = shop.start()
    assert_refused(shop.ask(pending, "refunds"), 409, "PAYMENT_CONFLICT", "pending")
    shop.ask(pending, "cancel")
    assert_refused(shop.ask(pending, "refunds"), 409, "PAYMENT_CONFLICT", "cancelled")
    assert_refused(shop.ask(shop.pay(Decimal("9.13")), "refunds"), 409, "PAYMENT_CONFLICT", "failed")


def test_a_slow_refund_is_pending_until_it_is_through(shop: Shop) -> None:
    """The bank takes its time; the money stays reserved meanwhile."""
    payment_id = shop.pay(paymentMethodId="pm_card_pendingRefund")
    refund = shop.ask(payment_id, "refunds", {"amount": FORTY}).body["refund"]["id"]
    shop.work()
    shown = shop.api.get(f"/refunds/{refund}").body
    assert (shown["success"], shown["refund"]["status"]) == (False, "pending")
    assert shop.sums(payment_id) == ("succeeded", HUNDRED, NOTHING)
    shop.bench.simulator.advance_clock(SETTLES_S)
    shop.look_again()
    assert shop.api.get(f"/refunds/{refund}").body["refund"]["status"] == "succeeded"
    assert shop.sums(payment_id) == ("partially_refunded", HUNDRED, FORTY)


def test_a_refund_that_fails_gives_back_what_it_had_reserved(shop: Shop) -> None:
    """The bank refuses a slow one: 422 for who waits, the reason is announced, it can be made anew."""
    payment_id = shop.pay(paymentMethodId="pm_card_pendingRefund")
    asked = shop.ask(payment_id, "refunds", Idempotency_Key=(key := new_uuid()))
    shop.work()
    (row,) = [each for each in shop.api.stored.rows("operation") if each["kind"] == "refund"]
    shop.bench.simulator.act(
        "refund", refund=row["gateway_ref"], status="failed", failure_reason="lost_or_stolen_card"
    )
    shop.look_again()
    again = shop.ask(payment_id, "refunds", Idempotency_Key=key)
    assert (again.status, again.body["errorCode"]) == (422, "OPERATION_FAILED")
    assert again.body["errorMessage"].startswith("Refund failed: ")
    assert again.body["refund"]["id"] == asked.body["refund"]["id"]
    assert (again.body["refund"]["status"], again.body["refund"]["errorCode"]) == ("failed", "REFUND_FAILED")
    assert shop.sums(payment_id) == ("succeeded", HUNDRED, NOTHING)
    (announced,) = [each.payload for each in shop.bench.outbox() if each.type == "refund-failed"]
    assert announced["reason"] == "lost_or_stolen_card"
    assert shop.ask(payment_id, "refunds").status == 202
    shop.assert_history_is_whole(payment_id)


def test_a_refund_that_fails_after_it_had_succeeded(shop: Shop) -> None:
    """The payment is as if it had not been made: its status and sums go back, and it can be made anew."""
    payment_id = shop.pay(paymentMethodId="pm_card_refundFail")
    refund_id = shop.ask(payment_id, "refunds").body["refund"]["id"]
    shop.work()
    assert shop.sums(payment_id) == ("refunded", HUNDRED, HUNDRED)
    shop.bench.simulator.advance_clock(SETTLES_S)
    operation = shop.bench.operation(uuid.UUID(refund_id))
    outcome = shop.bench.gateway.look_up(operation.kind, str(operation.gateway_ref))
    for _ in range(2):
        shop.bench.worker.record(shop.bench.claim(operation.id, operation.attempt), outcome)
    assert shop.sums(payment_id) == ("succeeded", HUNDRED, NOTHING)
    shown = shop.api.get(f"/refunds/{refund_id}").body
    assert (shown["success"], shown["refund"]["status"]) == (False, "failed")
    assert shop.announced(payment_id)[-2:] == ["refund-succeeded", "refund-failed"]
    assert shop.ask(payment_id, "refunds").status == 202
    shop.assert_history_is_whole(payment_id)


def test_a_key_is_bound_to_its_refund(shop: Shop) -> None:
    """Two refunds of the same amount are two; a repeat with its key is the first one, as it now stands."""
    payment_id, key = shop.pay(), new_uuid()
    wanted = partial(shop.ask, payment_id, "refunds", {"amount": THIRTY})
    first = wanted(Idempotency_Key=key)
    shop.work()
    again, another = wanted(Idempotency_Key=key), wanted(Idempotency_Key=new_uuid())
    assert (first.status, again.status, another.status) == (202, 200, 202)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.body["refund"]["id"] == first.body["refund"]["id"] != another.body["refund"]["id"]
    changed = shop.ask(payment_id, "refunds", {"amount": FORTY}, Idempotency_Key=key)
    assert_refused(changed, 422, "IDEMPOTENCY_KEY_REUSED")
    other = shop.ask(shop.pay(), "refunds", {"amount": THIRTY}, Idempotency_Key=key)
    assert_refused(other, 422, "IDEMPOTENCY_KEY_REUSED")


def test_a_refund_that_is_none(shop: Shop) -> None:
    """404 for unknown ids and for operations of other kinds, 400 for what is no id."""
    shop.pay()
    (charge,) = shop.api.stored.rows("operation")
    for unknown in (new_uuid(), charge["id"]):
        assert_refused(shop.api.get(f"/refunds/{unknown}"), 404, "REFUND_NOT_FOUND")
    for unusable in ("x", "%00", "1"):
        assert_refused(shop.api.get(f"/refunds/{unusable}"), 400, "VALIDATION_FAILED", "id")


# --- what is refused on every route of a payment ---

ROUTES = ("capture", "cancel", "refunds")
AMOUNTS = ["0", "-1", "-0.01", '"40.00"', "true", "[]", "{}", "1.001", "0.001", "1e-400", "NaN", "1e999"]
REASONS = ['""', "5", "true", "[]", '"\\u0000"', '"a\\nb"', '"' + "x" * 501 + '"', '"\\ud800"']
BAD = (
    [(route, f'{{"amount": {each}}}', "amount") for route in ("capture", "refunds") for each in AMOUNTS]
    + [(route, f'{{"reason": {each}}}', "reason") for route in ("cancel", "refunds") for each in REASONS]
    + [("capture", f'{{"orderId": {each}}}', "orderId") for each in ('"order-1"', "5", '""', '"\\u0000"')]
    + [(route, '{"surprise": 1}', "surprise") for route in ROUTES]
    + [("cancel", '{"amount": 5}', "amount"), ("capture", '{"reason": "x"}', "reason")]
    + [(route, each, "body") for route in ROUTES for each in ("[]", "5", "null", '"x"')]
)


@pytest.fixture(scope="module")
def held(shared_api: Api) -> str:
    """Return a payment that is as held as a payment can be that no gateway knows."""
    answer = shared_api.post_async(payment_body(captureMethod="manual"))
    shared_api.stored.change("UPDATE payment SET status = 'authorized' WHERE id = %s", answer.payment["id"])
    return str(answer.payment["id"])


@pytest.mark.parametrize(("route", "body", "field"), BAD, ids=lambda each: each[:30])
def test_bad_input_is_400(shared_api: Api, held: str, route: str, body: str, field: str) -> None:
    """The message names the field, and nothing is stored."""
    before = shared_api.stored.counts()
    answer = shared_api.post(body, path=f"/payments/{held}/{route}")
    assert_refused(answer, 400, "VALIDATION_FAILED", field)
    assert shared_api.stored.counts() == before


@pytest.mark.parametrize("route", ROUTES)
def test_bodies_and_ids(shared_api: Api, held: str, route: str) -> None:
    """No JSON, another type, too large, an unknown payment, no id; each with its own code."""
    path = f"/payments/{held}/{route}"
    assert_refused(shared_api.post("{", path=path), 400, "MALFORMED_JSON")
    assert_refused(shared_api.post(" ", path=path), 400, "MALFORMED_JSON")
    assert_refused(
        shared_api.post("a=b", path=path, Content_Type="text/plain"), 415, "UNSUPPORTED_MEDIA_TYPE"
    )
    assert_refused(shared_api.post(" " * 70_000, path=path), 413, "PAYLOAD_TOO_LARGE")
    assert_refused(
        shared_api.post("{}", path=path, Idempotency_Key="\t"), 400, "VALIDATION_FAILED", "Idempot"
    )
    card = '{"reason": "4242 4242 4242 4242"}'
    assert_refused(shared_api.post(card, path=path), 400, "CARD_DATA_REFUSED", "reason")
    unknown = shared_api.post("{}", path=f"/payments/{new_uuid()}/{route}")
    assert_refused(unknown, 404, "PAYMENT_NOT_FOUND")
    assert_refused(shared_api.post("{}", path=f"/payments/x/{route}"), 400, "VALIDATION_FAILED", "id")


@pytest.mark.parametrize("route", ["capture", "refunds"])
def test_a_fraction_that_stripe_cannot_move_is_400(shop: Shop, route: str) -> None:
    """Thousandths of a dinar are no amount for a part either."""
    make = shop.hold if route == "capture" else shop.pay
    payment_id = make(currency="KWD")
    assert_refused(
        shop.ask(payment_id, route, {"amount": Decimal("1.005")}), 400, "VALIDATION_FAILED", "0.010"
    )
    assert shop.ask(payment_id, route, {"amount": Decimal("1.010")}).status == 202


def test_whose_payment_it_is(shop: Shop, new_api: NewApi) -> None:
    """A stranger's does not exist; its customer may cancel, and leaves captures and refunds to the shop."""
    me, stranger = new_uuid(), new_uuid()
    payment_id = shop.pay(customerId=me)
    refund = shop.ask(payment_id, "refunds", {"amount": THIRTY}).body["refund"]["id"]
    shop.api = new_api(AUTH="required", JWT_SECRET=SECRET)
    for route in ROUTES:
        assert_refused(shop.ask(payment_id, route, **bearer(stranger)), 404, "PAYMENT_NOT_FOUND")
        assert_refused(shop.ask(payment_id, route), 401, "UNAUTHENTICATED")
    for route in ("capture", "refunds"):
        assert_refused(shop.ask(payment_id, route, **bearer(me)), 403, "FORBIDDEN")
    assert_refused(shop.ask(payment_id, "cancel", **bearer(me)), 409, "PAYMENT_CONFLICT")
    assert shop.api.get(f"/payments/{payment_id}/refunds", **bearer(stranger)).status == 404
    assert_refused(shop.api.get(f"/refunds/{refund}", **bearer(stranger)), 404, "REFUND_NOT_FOUND")
    assert shop.api.get(f"/refunds/{refund}", **bearer(me)).status == 200
    assert shop.ask(payment_id, "refunds", **bearer("till", role="service")).status == 202
    cart = {"cartId": new_uuid(), "amount": 2_500, "currency": "USD"}
    hold = partial(shop.api.post_async, path="/payments/authorize")
    assert_refused(hold(cart, **bearer(me)), 403, "FORBIDDEN", "customerId")
    assert hold(cart | {"customerId": me}, **bearer(me)).status == 202
