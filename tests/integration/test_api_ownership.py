"""What each caller may see and make: its own payments, or everybody's; for a stranger there are none."""

import pytest

from tests.api import Answer, Api, Settler, assert_refused
from tests.factories import new_uuid, payment_body
from tests.tokens import bearer

STAFF = ["service", "merchant", "operator"]


def test_a_customer_pays_for_itself_alone(closed: Api) -> None:
    """Another customer's payment is refused by the field, and nothing is stored; its own is made."""
    me = new_uuid()
    refused = closed.post_async(payment_body(), **bearer(me))
    assert_refused(refused, 403, "FORBIDDEN", "customerId")
    assert closed.stored.counts() == {}
    made = closed.post_async(payment_body(customerId=me), **bearer(me))
    assert (made.status, made.payment["customerId"]) == (202, me)
    assert [row["actor"] for row in closed.stored.rows("timeline_entry")] == [me]


def test_the_case_of_a_uuid_does_not_count(closed: Api) -> None:
    """An issuer that writes ids in capitals means the same customer."""
    me = new_uuid()
    made = closed.post_async(payment_body(customerId=me.upper()), **bearer(me.upper()))
    assert made.status == 202
    for subject in (me, me.upper()):
        assert closed.get(f"/payments/{made.payment['id']}", **bearer(subject)).status == 200


@pytest.mark.parametrize("role", STAFF)
def test_the_shops_own_callers_act_for_every_customer(closed: Api, role: str) -> None:
    """Services, merchants and operators make payments for all customers and see all of them."""
    staff = bearer("staff", role=role)
    ids = [closed.post_async(payment_body(), **staff).payment["id"] for _ in range(2)]
    me = new_uuid()
    ids.append(closed.post_async(payment_body(customerId=me), **bearer(me)).payment["id"])
    assert [each["id"] for each in closed.get("/payments", **staff).body["payments"]] == ids[::-1]
    assert [closed.get(f"/payments/{each}", **staff).status for each in ids] == [200] * 3
    assert [closed.get(f"/payments/{each}/timeline", **staff).status for each in ids] == [200] * 3


@pytest.mark.parametrize("suffix", ["", "/timeline"])
def test_a_strangers_payment_does_not_exist(closed: Api, suffix: str) -> None:
    """The answer is the one for an id of nobody; the owner gets the payment."""
    me, stranger = new_uuid(), new_uuid()
    payment = closed.post_async(payment_body(customerId=me), **bearer(me)).payment["id"]
    theirs = closed.get(f"/payments/{payment}{suffix}", **bearer(stranger))
    nobodys = closed.get(f"/payments/{new_uuid()}{suffix}", **bearer(stranger))
    assert_refused(theirs, 404, "PAYMENT_NOT_FOUND")
    assert theirs.text == nobodys.text
    assert closed.get(f"/payments/{payment}{suffix}", **bearer(me)).status == 200


def test_a_payment_of_no_customer_is_no_customers(closed: Api) -> None:
    """Holds of a cart may have none: they are the shop's to see."""
    me = new_uuid()
    payment = closed.post_async(payment_body(customerId=me), **bearer(me)).payment["id"]
    closed.stored.change("UPDATE payment SET customer_id = NULL")
    assert closed.get(f"/payments/{payment}", **bearer(me)).status == 404
    assert closed.get("/payments", **bearer(me)).body["payments"] == []
    assert closed.get(f"/payments/{payment}", **bearer("x", role="service")).status == 200


def test_a_list_holds_the_callers_own(closed: Api) -> None:
    """Whatever is filtered by, page by page; another's customerId finds nothing."""
    me, other = new_uuid(), new_uuid()
    body = {customer: payment_body(customerId=customer) for customer in (me, other)}
    for customer in (me, other, me, other, me):
        closed.post_async(body[customer] | {"orderId": new_uuid()}, **bearer(customer))
    closed.post_async(body[other], **bearer(other))

    def found(query: str) -> list[str]:
        answer = closed.get(f"/payments?{query}", **bearer(me)).body
        rest = found(f"limit=2&cursor={answer['nextCursor']}") if answer["nextCursor"] else []
        return [each["customerId"] for each in answer["payments"]] + rest

    assert found("") == found("limit=2") == found(f"customerId={me}") == found("status=pending") == [me] * 3
    assert found(f"customerId={other}") == found(f"orderId={body[other]['orderId']}") == []


def test_an_order_of_another_says_nothing_of_its_payment(closed: Api, settler: Settler) -> None:
    """409 with the same words whatever has become of it: no id, no status, no amount."""
    me, stranger = new_uuid(), new_uuid()
    order = new_uuid()
    mine = payment_body(customerId=me, orderId=order)
    theirs = payment_body(customerId=stranger, orderId=order)
    closed.post_async(mine, **bearer(me))
    answers = [closed.post_async(theirs, **bearer(stranger))]
    settler.settle(order)
    answers.append(closed.post_async(theirs, **bearer(stranger)))
    closed.stored.change("UPDATE payment SET status = 'refunded', refunded_minor = captured_minor")
    answers.append(closed.post_async(theirs, **bearer(stranger)))
    for answer in answers:
        assert_refused(answer, 409, "PAYMENT_CONFLICT")
    assert len({answer.text for answer in answers}) == 1
    assert_refused(closed.post_async(mine, **bearer(me)), 409, "PAYMENT_CONFLICT", "refunded")


def test_an_idempotency_key_is_its_callers_own(closed: Api) -> None:
    """Two callers with the same key are two requests; each one's repeat shows its own payment."""
    one, two, key = new_uuid(), new_uuid(), "the-same-key"
    bodies = {each: payment_body(customerId=each) for each in (one, two)}

    def send(caller: str) -> Answer:
        return closed.post_async(bodies[caller], Idempotency_Key=key, **bearer(caller))

    first, second, again = send(one), send(two), send(one)
    assert [each.status for each in (first, second, again)] == [202] * 3
    assert first.payment["id"] == again.payment["id"] != second.payment["id"]
    assert "Idempotent-Replayed" not in second.headers
    assert again.headers["Idempotent-Replayed"] == "true"


def test_a_key_does_not_show_what_the_caller_may_not_see(closed: Api) -> None:
    """A caller that was the shop's and is a customer now cannot repeat what it did for others."""
    me, body = new_uuid(), payment_body()
    assert closed.post_async(body, Idempotency_Key="k", **bearer(me, role="service")).status == 202
    assert_refused(closed.post_async(body, Idempotency_Key="k", **bearer(me)), 403, "FORBIDDEN", "customerId")
