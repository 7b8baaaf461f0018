"""Reading payments back: one, many page by page, and the history of each."""

import uuid
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from tests.api import Answer, Api, Settler, assert_refused
from tests.factories import new_uuid, payment_body

MOST_PAGES = 20


def listing(api: Api, **query: Any) -> Any:
    """GET /payments with these parameters; return the body of a success."""
    answer = api.get(f"/payments?{urlencode(query)}")
    assert answer.status == 200, answer.text
    assert (answer.body["success"], answer.body["errorMessage"]) == (True, None)
    return answer.body


def ids(body: Any) -> list[str]:
    """Return the ids on a page."""
    return [payment["id"] for payment in body["payments"]]


def pages(api: Api, **query: Any) -> Iterator[list[str]]:
    """Yield the ids of each page, following the cursor to the end."""
    cursor: dict[str, str] = {}
    for _ in range(MOST_PAGES):
        body = listing(api, **query, **cursor)
        yield ids(body)
        if body["nextCursor"] is None:
            return
        cursor = {"cursor": body["nextCursor"]}
    pytest.fail("the last page does not say that it is the last")


def made(api: Api, number: int, **overrides: Any) -> list[str]:
    """Make payments; return their ids, oldest first."""
    return [api.post_async(payment_body(**overrides)).payment["id"] for _ in range(number)]


def test_a_payment_is_shown_as_it_was_answered(api: Api, settler: Settler) -> None:
    """GET shows what POST has answered, while it is open and when it is settled."""
    body = payment_body()
    open_answer = api.post_async(body)
    path = f"/payments/{open_answer.payment['id']}"
    shown = api.get(path)
    assert (shown.status, shown.body) == (200, open_answer.body)
    assert shown.body["success"] is False
    settler.settle(body["orderId"])
    settled = api.get(path)
    assert (settled.status, settled.body["success"], settled.payment["status"]) == (200, True, "succeeded")
    assert api.post(body).body == settled.body


def test_a_failed_payment_is_shown_with_200(api: Api, settler: Settler) -> None:
    """The question was answered, so the status is 200; what became of the payment is in the envelope."""
    payment = settler.pay(api, payment_body(amount=Decimal("150.13"))).payment
    shown = api.get(f"/payments/{payment['id']}")
    assert (shown.status, shown.body["success"], shown.payment) == (200, False, payment)
    assert shown.body["errorMessage"] == "Payment failed: Your card was declined"


@pytest.mark.parametrize("suffix", ["", "/timeline"])
def test_an_unknown_payment_is_not_found(shared_api: Api, suffix: str) -> None:
    """A well-formed id of nobody is 404 in the envelope."""
    answer = shared_api.get(f"/payments/{uuid.uuid4()}{suffix}")
    assert_refused(answer, 404, "PAYMENT_NOT_FOUND", "Payment not found")


NO_UUIDS = ["x", "1", "null", "550e8400", "\x00", "a" * 1000, "%", "' OR 1=1 --"]
MISWRITTEN = ["{%s}", "urn:uuid:%s", "uuid:%s", " %s", "%s "]


@pytest.mark.parametrize("suffix", ["", "/timeline"])
@pytest.mark.parametrize("bad", NO_UUIDS)
def test_an_id_that_is_no_uuid_is_refused(shared_api: Api, bad: str, suffix: str) -> None:
    """Nothing but a UUID is looked for."""
    assert_refused(shared_api.get(f"/payments/{quote(bad)}{suffix}"), 400, "VALIDATION_FAILED", "id: ")


def test_an_id_is_read_in_a_path_as_it_is_in_a_body(shared_api: Api) -> None:
    """A UUID in small or capital letters; not what Python reads beside that, wherever an id is named."""
    made_id = shared_api.post_async().payment["id"]
    assert shared_api.get(f"/payments/{made_id.upper()}").payment["id"] == made_id
    written = [each % made_id for each in MISWRITTEN]
    written += [
        made_id.replace("-", ""),
        made_id[:8] + "-" + made_id[8:].replace("-", ""),
        made_id[:-1] + "\u0663",
    ]
    for bad in map(quote, written):
        for path in (f"/payments/{bad}", f"/refunds/{bad}", f"/notification-endpoints/{bad}"):
            assert_refused(shared_api.get(path), 400, "VALIDATION_FAILED", "id: ")


def test_an_empty_list_is_a_list(api: Api) -> None:
    """No payments is an answer, not an error."""
    assert listing(api) == {"success": True, "errorMessage": None, "payments": [], "nextCursor": None}


def test_a_list_shows_the_newest_first(api: Api) -> None:
    """Newest first, each like GET shows it."""
    created = made(api, 5)
    body = listing(api)
    assert ids(body) == created[::-1]
    assert body["payments"][0] == api.get(f"/payments/{created[-1]}").payment
    assert body["nextCursor"] is None


def test_pages_cover_everything_once(api: Api) -> None:
    """Following the cursor meets every payment once, and the last page says that it is the last."""
    created = made(api, 7)
    for limit, sizes in ((1, [1] * 7), (3, [3, 3, 1]), (6, [6, 1]), (7, [7]), (99, [7])):
        found = list(pages(api, limit=limit))
        assert [len(page) for page in found] == sizes
        assert [each for page in found for each in page] == created[::-1]


def test_pages_are_stable_while_payments_arrive(api: Api) -> None:
    """Payments that are made between two pages are on neither a second time, and displace nothing."""
    created = made(api, 6)
    found: list[str] = []
    for page in pages(api, limit=2):
        found += page
        made(api, 3)
    assert found == created[::-1]


def test_twenty_payments_are_a_page_by_default(api: Api) -> None:
    """The default limit is twenty."""
    made(api, 21)
    body = listing(api)
    assert len(body["payments"]) == 20
    assert body["nextCursor"] == body["payments"][-1]["id"]


def test_filters_find_what_they_name(api: Api, settler: Settler) -> None:
    """By order, by customer, by status, and by all of them together."""
    customer, order = new_uuid(), new_uuid()
    settler.pay(api, payment_body(customerId=customer, orderId=order))
    made(api, 2, customerId=customer)
    others = made(api, 2)
    assert [each["orderId"] for each in listing(api, orderId=order)["payments"]] == [order]
    assert {each["customerId"] for each in listing(api, customerId=customer)["payments"]} == {customer}
    assert ids(listing(api, orderId=order.upper())) == ids(listing(api, orderId=order))
    assert ids(listing(api, customerId=customer.upper())) == ids(listing(api, customerId=customer))
    assert len(ids(listing(api, customerId=customer))) == 3
    assert len(ids(listing(api, customerId=customer, status="pending"))) == 2
    assert len(ids(listing(api, status="succeeded"))) == 1
    assert set(others) <= set(ids(listing(api, status="pending")))
    assert ids(listing(api, orderId=order, customerId=new_uuid())) == []
    assert ids(listing(api, status="failed")) == []
    assert [len(page) for page in pages(api, customerId=customer, limit=2)] == [2, 1]


def test_all_payments_of_an_order_are_listed(api: Api) -> None:
    """Failed tries belong to an order's history."""
    body = payment_body()
    first = api.post_async(body).payment["id"]
    api.stored.change("UPDATE payment SET status = 'failed', processed_at = now()")
    second = api.post_async(body).payment["id"]
    assert ids(listing(api, orderId=body["orderId"])) == [second, first]


def test_created_after_leaves_out_the_older(api: Api) -> None:
    """Strictly after the moment, in whatever time zone it is written."""
    made(api, 1)
    newer = made(api, 2)
    moment = api.stored.rows("payment")[0]["created_at"]
    assert isinstance(moment, datetime)
    assert ids(listing(api, createdAfter=moment.isoformat())) == newer[::-1]
    assert ids(listing(api, createdAfter="2001-01-01T00:00:00Z"))[1:] == ids(listing(api))[1:]
    assert ids(listing(api, createdAfter="9999-12-31T23:59:59-14:00")) == []
    assert len(ids(listing(api, createdAfter="0001-01-01T00:00:00+14:00"))) == 3


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit: "), ("limit=101", "limit: "), ("limit=-1", "limit: "), ("limit=ten", "limit: "),
        ("limit=1.5", "limit: "), ("limit=", "limit: "), ("limit=99999999999999999999", "limit: "),
        ("cursor=", "cursor: "), ("cursor=abc", "cursor: "), ("status=paid", "status: "),
        ("status=", "status: "), ("status=SUCCEEDED", "status: "),
        ("createdAfter=yesterday", "createdAfter: "),
        ("createdAfter=2026-01-01", "createdAfter: "), ("createdAfter=2026-01-01T00:00:00", "createdAfter: "),
        ("createdAfter=2026-13-01T00:00:00Z", "createdAfter: "), ("orderId=", "orderId: "),
        ("orderId=" + "x" * 256, "orderId: "), ("orderId=%00", "orderId: "),
        ("customerId=%0a", "customerId: "), ("customerId=" + "x" * 10_000, "customerId: "),
        ("surprise=1", "surprise: "), ("order_id=1", "order_id: "), ("Limit=5", "Limit: "), ("%00=1", "?: "),
    ],
)  # fmt: skip
def test_a_bad_query_is_refused(shared_api: Api, query: str, field: str) -> None:
    """Values out of bounds and parameters that nobody knows are named."""
    assert_refused(shared_api.get(f"/payments?{query}"), 400, "VALIDATION_FAILED", field)


def test_the_limits_own_bounds_are_taken(shared_api: Api) -> None:
    """One and a hundred are both fine, and an odd id finds nothing rather than failing."""
    shared_api.post_async()
    assert len(listing(shared_api, limit=1)["payments"]) == 1
    assert listing(shared_api, limit=100)["payments"]
    assert listing(shared_api, orderId="not one of ours")["payments"] == []


def history(answer: Answer) -> list[tuple[Any, ...]]:
    """Return what a timeline says has happened: sequence, event, edge, and what was announced."""
    assert (answer.status, answer.body["success"]) == (200, True)
    names = ("sequence", "event", "from", "to", "announced")
    return [tuple(entry[name] for name in names) for entry in answer.body["timeline"]]


def test_a_timeline_tells_everything_in_order(api: Api, settler: Settler) -> None:
    """Without gaps from the request to the outcome, with who, when, the gateway's id and the events' ids."""
    body = payment_body()
    payment = settler.pay(api, body, X_Correlation_Id="the-order").payment
    answer = api.get(f"/payments/{payment['id']}/timeline")
    assert history(answer) == [
        (1, "payment requested", None, "pending", "payment-requested"),
        (2, "charge sent", "pending", "processing", None),
        (3, "charge succeeded", "processing", "succeeded", "payment-succeeded"),
    ]
    entries = answer.body["timeline"]
    assert [entry["actor"] for entry in entries] == ["local", "worker", "worker"]
    assert {entry["correlationId"] for entry in entries} == {"the-order"}
    assert len({entry["operationId"] for entry in entries}) == 1
    assert entries[2]["gatewayId"].startswith("pi_")
    assert [entry["at"] for entry in entries] == sorted(entry["at"] for entry in entries)
    announced = [entry["eventId"] for entry in entries if entry["announced"]]
    assert announced == [str(row["id"]) for row in api.stored.rows("outbox")]


def test_a_failures_timeline_ends_with_its_event(api: Api, settler: Settler) -> None:
    """A declined charge is history as well."""
    payment = settler.pay(api, payment_body(amount=Decimal("150.66"))).payment
    last = history(api.get(f"/payments/{payment['id']}/timeline"))[-1]
    assert last == (3, "charge failed", "processing", "failed", "payment-failed")
