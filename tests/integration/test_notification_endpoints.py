"""Who may register endpoints, what is refused, and what operators see and do at the command line."""

from collections.abc import Iterator
from typing import Any

import pytest

from shared.settings import Settings
from tests.api import JSON, Api, assert_refused
from tests.factories import as_json, new_uuid
from tests.integration.conftest import NewApi
from tests.notified import PATH, Notified, make_notified
from tests.operating import operate
from tests.subscriber import Subscriber
from tests.tokens import SECRET, bearer

HOOK = "http://127.0.0.1:9/hooks"
SHOP, OTHER, OPERATOR, CUSTOMER = (
    bearer("a-shop", role="merchant"), bearer("another", role="service"),
    bearer("ops", role="operator"), bearer("somebody"),
)  # fmt: skip


@pytest.fixture
def guarded(new_api: NewApi) -> Api:
    """An API that wants a token, and lets subscribers name private addresses."""
    return new_api(AUTH="required", JWT_SECRET=SECRET, NOTIFICATIONS_ALLOW_PRIVATE="on")


@pytest.fixture
def shop(settings: Settings) -> Iterator[Notified]:
    """A shop whose payments are told of by webhook."""
    with make_notified(settings) as shop:
        yield shop


def registered(api: Api, headers: dict[str, str], url: str = HOOK) -> str:
    """Register an endpoint in somebody's name; return its path."""
    answer = api.send("POST", PATH, as_json({"url": url}), {"Content-Type": JSON, **headers})
    assert answer.status == 201, answer.text
    return f"{PATH}/{answer.body['endpoint']['id']}"


def test_an_endpoint_is_its_owners(guarded: Api) -> None:
    """For another subscriber it does not exist, on any route; an operator sees and manages everybody's."""
    path = registered(guarded, SHOP)
    event = new_uuid()
    for method, below, body in (
        ("GET", "", None), ("PATCH", "", {}), ("DELETE", "", None), ("POST", "/secret", {}),
        ("GET", "/deliveries", None), ("POST", f"/deliveries/{event}/resend", {}),
        ("POST", "/resend", {"since": "2026-01-01T00:00:00Z"}),
    ):  # fmt: skip
        sent = "" if body is None else as_json(body)
        answer = guarded.send(method, path + below, sent, {"Content-Type": JSON, **OTHER})
        assert_refused(answer, 404, "ENDPOINT_NOT_FOUND")
    listed = {
        who: guarded.send("GET", PATH, "", headers).body["endpoints"]
        for who, headers in (("shop", SHOP), ("other", OTHER), ("operator", OPERATOR))
    }
    assert [len(listed[who]) for who in ("shop", "other", "operator")] == [1, 0, 1]
    assert guarded.send("DELETE", path, "", OPERATOR).status == 200


def test_customers_do_not_subscribe(guarded: Api) -> None:
    """Who subscribes hears of everybody's payments; nobody without a token gets in at all."""
    body = as_json({"url": HOOK})
    assert_refused(guarded.send("POST", PATH, body, {"Content-Type": JSON, **CUSTOMER}), 403, "FORBIDDEN")
    assert_refused(guarded.send("GET", PATH, "", CUSTOMER), 403, "FORBIDDEN")
    assert_refused(guarded.send("GET", PATH, "", {}), 401, "UNAUTHENTICATED")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "url"), ({"url": 5}, "url"), ({"url": ""}, "url"), ({"url": "https://127.0.0.1/"}, "url"),
        ({"url": "https://169.254.169.254/latest/"}, "url"), ({"url": "http://93.184.215.14/"}, "url"),
        ({"url": "https://me@93.184.215.14/"}, "url"), ({"url": "https://93.184.215.14/\n"}, "url"),
        ({"url": "https://93.184.215.14/", "eventTypes": []}, "eventTypes"),
        ({"url": "https://93.184.215.14/", "eventTypes": ["payment-imagined"]}, "eventTypes"),
        ({"url": "https://93.184.215.14/", "eventTypes": ["notification-endpoint-disabled"]}, "eventTypes"),
        ({"url": "https://93.184.215.14/", "description": "x" * 201}, "description"),
        ({"url": "https://93.184.215.14/", "secret": "whsec_mine"}, "secret"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_registered_is_named(api: Api, body: dict[str, Any], field: str) -> None:
    """400 names the field, also for private addresses, and nothing is stored."""
    assert_refused(api.post(body, path=PATH), 400, "VALIDATION_FAILED", field)
    assert api.stored.counts() == {}


def test_a_change_is_checked_as_a_registration_is(api: Api) -> None:
    """No way leads to a private address; what is refused changes nothing."""
    path = registered(api, {}, "https://93.184.215.14/hooks")
    before = api.get(path).body
    for body in ({"url": "https://10.0.0.1/"}, {"enabled": "no"}, {"state": "enabled"}, {"eventTypes": [5]}):
        answer = api.send("PATCH", path, as_json(body), {"Content-Type": JSON})
        assert_refused(answer, 400, "VALIDATION_FAILED", next(iter(body)))
    assert api.get(path).body == before
    changed = api.send("PATCH", path, as_json({"description": "new"}), {"Content-Type": JSON})
    assert changed.body["endpoint"] == {**before["endpoint"], "description": "new"}


def test_an_address_is_registered_once(guarded: Api) -> None:
    """A second time it is refused, so that a repeated request makes no second one; others may have it."""
    registered(guarded, SHOP)
    again = guarded.send("POST", PATH, as_json({"url": HOOK}), {"Content-Type": JSON, **SHOP})
    assert_refused(again, 409, "ENDPOINT_CONFLICT", "url")
    registered(guarded, OTHER)


def test_nobody_has_endless_endpoints(guarded: Api) -> None:
    """Twenty of one owner; each would be told of every payment."""
    for number in range(20):
        registered(guarded, SHOP, f"{HOOK}/{number}")
    one_more = guarded.send("POST", PATH, as_json({"url": HOOK}), {"Content-Type": JSON, **SHOP})
    assert_refused(one_more, 409, "ENDPOINT_CONFLICT", "20")


@pytest.mark.parametrize("path", ["/not-a-uuid", "/not-a-uuid/deliveries"])
def test_an_id_that_is_none_is_refused(api: Api, path: str) -> None:
    """It is the caller's mistake, and not a missing endpoint."""
    assert_refused(api.get(PATH + path), 400, "VALIDATION_FAILED", "id")


def test_deliveries_are_listed_by_pages(shop: Notified) -> None:
    """Each delivery is on exactly one page, newest event first; states and payments narrow the list."""
    endpoint = shop.subscribe(HOOK)
    payments = [shop.pay() for _ in range(3)]
    shop.notify()
    pages, cursor = [], ""
    while True:
        page = shop.api.get(f"{PATH}/{endpoint['id']}/deliveries?limit=4{cursor}").body
        pages.append(page["deliveries"])
        if page["nextCursor"] is None:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert [len(each) for each in pages] == [4, 2]
    ids = [each["eventId"] for page in pages for each in page]
    assert ids == sorted(ids, reverse=True)
    assert len(shop.deliveries(endpoint, f"?paymentId={payments[0]}")) == 2
    assert shop.deliveries(endpoint, "?state=delivered") == []
    first = shop.deliveries(endpoint)[0]
    assert first["lastError"] == "the connection was refused"
    assert shop.api.get(f"{PATH}/{endpoint['id']}/deliveries?state=lost").status == 400


def test_operators_list_and_resend(shop: Notified, environment: dict[str, str]) -> None:
    """The command shows endpoints and deliveries, sends one event again, and names what it does not know."""
    assert environment
    taker = Subscriber()
    endpoint = shop.subscribe(taker.url, eventTypes=["payment-succeeded"])
    shop.pay()
    shop.notify()
    (shown,) = shop.deliveries(endpoint)
    status, told = operate("notifications", "endpoints")
    assert (status, endpoint["id"] in told, taker.url in told) == (0, True, True)
    status, told = operate("notifications", "list", endpoint["id"])
    assert (status, shown["eventId"] in told, "delivered" in told) == (0, True, True)
    assert operate("notifications", "resend", endpoint["id"], shown["eventId"])[0] == 0
    shop.notify()
    assert [each.id for each in taker.calls] == 2 * [shown["eventId"]]
    status, told = operate("notifications", "resend", endpoint["id"], "--since", "2026-01-01")
    assert (status, "to be delivered again: 1" in told) == (0, True)
    assert operate("notifications", "resend", endpoint["id"], new_uuid())[0] == 1
    assert operate("notifications", "resend", endpoint["id"])[0] == 2
    assert operate("notifications", "list", "nobody")[0] == 2
    taker.close()
