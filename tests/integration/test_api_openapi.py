"""The OpenAPI document is valid, true to what is answered, and readable in a browser without the internet."""

import re
from decimal import Decimal
from functools import partial
from typing import Any

import jsonschema_rs
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from payment_api.errors import ErrorCode
from payment_api.scopes import NEEDED
from tests.api import Answer, Api, Settler
from tests.delivery import KEY, Delivery, new_email
from tests.factories import new_uuid, payment_body
from tests.integration.conftest import NewApi
from tests.shop import Shop
from tests.simulator import Simulator
from tests.tokens import SECRET, bearer
from tests.webhooks import PATH, event, send
from tests.webhooks import SECRET as WEBHOOK_SECRET

# Stripe has no token of ours: it signs.
WEBHOOK = ("/webhooks/stripe", "post")
ROUTES = {
    ("/payments", "post"), ("/payments", "get"), ("/payments/{payment_id}", "get"),
    ("/payments/{payment_id}/timeline", "get"), ("/payments/authorize", "post"),
    ("/payments/{payment_id}/capture", "post"), ("/payments/{payment_id}/cancel", "post"),
    ("/payments/{payment_id}/refunds", "post"), ("/payments/{payment_id}/refunds", "get"),
    ("/refunds/{refund_id}", "get"),
    ("/payment/customer", "post"), ("/payment/customer/{email}", "get"),
    ("/payment/payment-method", "post"), ("/payment/payment-method", "delete"),
    ("/payment/payment-intent", "post"), ("/payment/refund", "post"),
    ("/payment/payment-method-details", "post"), ("/payment/payment-methods/{customer_id}", "get"),
    ("/webhooks/stripe", "post"), ("/orders/{order_id}/payment-status", "get"),
    ("/webhooks/stripe", "post"),
    ("/notification-endpoints", "post"), ("/notification-endpoints", "get"),
    ("/notification-endpoints/{endpoint_id}", "get"), ("/notification-endpoints/{endpoint_id}", "patch"),
    ("/notification-endpoints/{endpoint_id}", "delete"),
    ("/notification-endpoints/{endpoint_id}/secret", "post"),
    ("/notification-endpoints/{endpoint_id}/resend", "post"),
    ("/notification-endpoints/{endpoint_id}/deliveries", "get"),
    ("/notification-endpoints/{endpoint_id}/deliveries/{event_id}/resend", "post"),
    ("/api/user/register", "post"), ("/api/user/login", "post"), ("/api/user/logout", "post"),
    ("/api/payment", "post"), ("/api/payment/create", "post"), ("/api/payment/{payment_id}/process", "post"),
    ("/api/payment/{payment_id}/status", "get"), ("/api/payment/{payment_id}/refund", "post"),
}  # fmt: skip
# Whoever asks here has no token yet.
STRANGERS = {("/api/user/register", "post"), ("/api/user/login", "post")}
NO_DATABASE = "postgresql://nobody:nothing@127.0.0.1:9/none"


@pytest.fixture(scope="module")
def document(shared_api: Api) -> Any:
    """Return the document as it is served."""
    answer = shared_api.get("/openapi.json")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    return answer.body


def assert_documented(document: Any, answer: Answer, path: str, method: str = "get") -> None:
    """Hold an answer against the document: status and headers are there, the body fits the schema."""
    documented = document["paths"][path][method]["responses"][str(answer.status)]
    schema = documented["content"]["application/json"]["schema"]
    whole = schema | {"components": document["components"]}
    jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(answer.body)
    ours = {"Location", "Preference-Applied", "Idempotent-Replayed", "X-Correlation-Id", "Retry-After"}
    ours |= {"WWW-Authenticate", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"}
    assert ours & set(answer.headers) <= set(documented["headers"])
    assert ("Location" in answer.headers) is ("Location" in documented["headers"])


def test_the_document_is_valid(document: Any) -> None:
    """OpenAPI 3.1, by the specification's own schema."""
    assert document["openapi"] == "3.1.0"
    validate(document, cls=OpenAPIV31SpecValidator)


def test_the_document_stays_the_same(shared_api: Api, document: Any) -> None:
    """However often it is asked for, nothing is added to it."""
    for _ in range(3):
        assert shared_api.get("/openapi.json").body == document


def test_every_route_is_documented(shared_api: Api, document: Any) -> None:
    """The application has no payment route that the document does not have, and the other way round."""
    rules = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in shared_api.app.url_map.iter_rules()
        if rule.rule.startswith(("/payment", "/refund", "/orders", "/webhooks", "/notification", "/api/"))
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    items = document["paths"].items()
    assert rules == ROUTES
    assert {(path, method) for path, item in items for method in item if method != "parameters"} == rules


@pytest.mark.parametrize(("path", "method"), sorted(ROUTES))
def test_every_operation_says_what_it_is_for(document: Any, path: str, method: str) -> None:
    """Each has a summary, and each of its errors the envelope with an error code of the enum."""
    operation = document["paths"][path][method]
    assert operation["summary"].endswith(".")
    for status, response in operation["responses"].items():
        assert response["description"]
        assert "X-Correlation-Id" in response["headers"]
        if int(status) >= 400:
            (_, name) = response["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)
            codes = document["components"]["schemas"][name]["properties"]["errorCode"]["enum"]
            assert codes == [each.name for each in ErrorCode]


@pytest.mark.parametrize(("path", "method"), sorted(ROUTES - {WEBHOOK} - STRANGERS))
def test_every_operation_asks_for_a_token(document: Any, path: str, method: str) -> None:
    """The document says which, and what is answered without one, without its scope, and to too many."""
    operation = document["paths"][path][method]
    assert operation["security"] == [{"bearer": [NEEDED[method.upper(), path]]}]
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for status in ("401", "403"):
        assert "WWW-Authenticate" in operation["responses"][status]["headers"]
    for response in operation["responses"].values():
        assert {"RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"} <= set(response["headers"])


def test_the_documented_amount_is_positive(document: Any) -> None:
    """Zero is excluded in the document as in the code."""
    amount = document["components"]["schemas"]["NewPayment"]["properties"]["amount"]
    assert amount["exclusiveMinimum"] == 0
    assert "minimum" not in amount


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({}, True), ({"reservationId": None}, True), ({"metadata": {"a": "b"}}, True),
        ({"offSession": True}, True), ({"captureMethod": "manual"}, True),
        ({"returnUrl": "https://shop.example/"}, True), ({"paymentMethodId": "pm_card_visa"}, True),
        ({"amount": 0}, False), ({"amount": "150"}, False), ({"currency": "usd"}, False),
        ({"orderId": "x"}, False),
        ({"surprise": 1}, False), ({"paymentMethod": "cash"}, False), ({"captureMethod": "later"}, False),
        ({"paymentMethodId": "tok_visa"}, False), ({"offSession": "yes"}, False),
        ({"metadata": {"a": 1}}, False),
        ({"customerId": None}, False), ({"metadata": {f"k{n}": "x" for n in range(51)}}, False),
    ],
    ids=str,
)  # fmt: skip
def test_the_documented_request_is_the_one_that_is_taken(
    shared_api: Api,
    document: Any,
    change: dict[str, Any],
    fits: bool,  # noqa: FBT001 - a column of the table
) -> None:
    """What the schema of the request allows is taken, and what it forbids is refused."""
    body = payment_body() | change
    whole = {"$ref": "#/components/schemas/NewPayment", "components": document["components"]}
    validator = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
    assert validator.is_valid(body) is fits
    assert shared_api.post_async(body).status == (202 if fits else 400)


def test_successes_are_as_documented(api: Api, settler: Settler, document: Any) -> None:
    """200, 202 and 422 of a charge, its page, its list and its history fit their schemas."""
    paid = settler.pay(api, payment_body(), Prefer="wait=9", Idempotency_Key=new_uuid())
    declined = settler.pay(api, payment_body(amount=Decimal("9.13")))
    waits = settler.pay(api, payment_body(paymentMethodId="pm_card_authenticationRequired"))
    started, key = payment_body(), new_uuid()
    accepted = [api.post_async(started, Idempotency_Key=key) for _ in range(2)]
    assert [each.status for each in (paid, declined, waits, *accepted)] == [200, 422, 202, 202, 202]
    for answer in (paid, declined, waits, *accepted):
        assert_documented(document, answer, "/payments", "post")
        path = f"/payments/{answer.payment['id']}"
        assert_documented(document, api.get(path), "/payments/{payment_id}")
        assert_documented(document, api.get(f"{path}/timeline"), "/payments/{payment_id}/timeline")
    assert_documented(document, api.get("/payments?limit=1"), "/payments")
    assert_documented(document, api.get("/payments"), "/payments")


def test_refusals_are_as_documented(api: Api, new_api: NewApi, document: Any) -> None:
    """Each status that a client can bring about fits its schema."""
    body, key = payment_body(), new_uuid()
    api.post_async(body, Idempotency_Key=key)
    answers = [
        api.post("{"),
        api.post(payment_body(amount=0)),
        api.post(payment_body(cvc="123")),
        api.post_async(body | {"amount": 1}),
        api.post_async(body | {"amount": 1}, Idempotency_Key=key),
        api.post(" " * 70_000),
        api.post(Content_Type="text/plain"),
        new_api(database_url=NO_DATABASE).post(),
    ]
    assert [each.status for each in answers] == [400, 400, 400, 409, 422, 413, 415, 503]
    for answer in answers:
        assert_documented(document, answer, "/payments", "post")
    path = "/payments/{payment_id}"
    for bad in ("x", new_uuid()):
        assert_documented(document, api.get(f"/payments/{bad}"), path)
        assert_documented(document, api.get(f"/payments/{bad}/timeline"), f"{path}/timeline")
    assert_documented(document, api.get("/payments?limit=0"), "/payments")
    assert_documented(document, api.get("/payments", Authorization="Bearer x"), "/payments")
    stranger = bearer(new_uuid())
    closed = new_api(AUTH="required", JWT_SECRET=SECRET)
    assert_documented(document, closed.post(**stranger), "/payments", "post")
    assert_documented(document, closed.get(f"/payments/{new_uuid()}", **stranger), path)
    narrow = bearer(new_uuid(), scope="payments:write")
    answers = [closed.get(f"/payments/{new_uuid()}", **narrow), closed.get(f"/payments/{new_uuid()}/refunds")]
    limited = new_api(AUTH="required", JWT_SECRET=SECRET, RATE_LIMIT_PRINCIPAL="1/hour")
    answers += [limited.get(f"/payments/{new_uuid()}", **bearer("busy")) for _ in range(2)]
    assert [each.status for each in answers] == [403, 401, 404, 429]
    for answer in answers:
        assert_documented(document, answer, path)


def test_holds_and_refunds_are_as_documented(shop: Shop, document: Any) -> None:
    """Answers of each status of the routes on a payment, and of a cart's hold, fit their schemas."""
    asked: list[tuple[str, Answer]] = []
    for what, make in (("capture", shop.hold), ("cancel", shop.hold), ("refunds", shop.pay)):
        path, key = make(), new_uuid()
        for body in ({"amount": 500}, {}, {}):
            asked.append((what, shop.ask(path, what, body, Idempotency_Key=key)))
            shop.work()
        asked += [(what, shop.ask(each, what)) for each in (path, new_uuid(), "x")]
    failing = shop.pay(paymentMethodId="pm_card_refundFail")
    shop.bench.simulator.fault("unavailable", times=1, path="/v1/refunds")
    asked.append(("refunds", shop.served(lambda: shop.ask(failing, "refunds", Prefer="wait=1"))))
    cart = {"cartId": new_uuid(), "amount": 2500, "currency": "USD"}
    path = "/payments/authorize"
    for change in ({}, {"cartId": new_uuid(), "paymentMethodId": "pm_card_chargeDeclined"}, {"amount": 0}):
        answer = shop.served(partial(shop.api.post, cart | change, path=path, Prefer="wait=9"))
        assert_documented(document, answer, path, "post")
    assert_documented(document, shop.api.post_async(cart | {"cartId": new_uuid()}, path=path), path, "post")
    assert {each.status for _, each in asked} == {200, 202, 400, 404, 409, 422}
    for what, answer in asked:
        assert_documented(document, answer, f"/payments/{{payment_id}}/{what}", "post")
    refunds = shop.api.get(f"/payments/{failing}/refunds")
    assert_documented(document, refunds, "/payments/{payment_id}/refunds")
    for each in (refunds.body["refunds"][0]["id"], new_uuid()):
        assert_documented(document, shop.api.get(f"/refunds/{each}"), "/refunds/{refund_id}")


def test_webhooks_are_as_documented(new_api: NewApi, document: Any) -> None:
    """Taken, forged, too large, and without a secret: each answer fits its schema."""
    api = new_api(STRIPE_WEBHOOK_SECRET=WEBHOOK_SECRET)
    answers = [send(api, event()), send(api, event(), "whsec_forged"), send(api, b" " * 600_000)]
    answers.append(send(new_api(), event()))
    assert [each.status for each in answers] == [200, 400, 413, 503]
    for answer in answers:
        assert_documented(document, answer, PATH, "post")


def test_delivery_payments_are_as_documented(
    new_api: NewApi, settler: Settler, simulator: Simulator, document: Any
) -> None:
    """Answers of each status of the delivery contract's payment routes fit their schemas."""
    api = new_api(STRIPE_API_URL=simulator.url, STRIPE_SECRET_KEY=KEY)
    path, refunds = "/payment/payment-intent", "/payment/refund"
    body: dict[str, Any] = {"amount": 2500, "customerId": Delivery(api).customer(), "orderId": "a"}
    answers = []
    for card in ("visa", "chargeDeclined", "authenticationRequired"):
        order = body | {"orderId": card, "paymentMethodId": f"pm_card_{card}"}
        answers.append(settler.pay(api, order, path=path, Prefer="wait=9"))
    body |= {"paymentMethodId": "pm_card_visa"}
    answers += [api.post(body, path=path, Prefer="respond-async") for _ in range(2)]
    answers += [api.post(body | {"amount": amount}, path=path) for amount in (100, 1.5)]
    assert [each.status for each in answers] == [200, 402, 200, 202, 202, 409, 400]
    ask = {"paymentIntentId": answers[0].body["data"]["payment_intent_id"], "amount": 1}
    back = [api.post(ask, path=refunds, Prefer="respond-async", Idempotency_Key="k") for _ in range(2)]
    settler.settle("visa")
    back.append(api.post(ask, path=refunds, Idempotency_Key="k"))
    back += [api.post(ask | more, path=refunds) for more in ({"amount": 2500}, {"paymentIntentId": "pi_1"})]
    assert [each.status for each in back] == [202, 202, 200, 400, 404]
    for route, given in ((path, answers), (refunds, back)):
        for answer in given:
            assert_documented(document, answer, route, "post")
    pending = [each for each in (*answers, *back) if each.status == 202]
    assert {api.get(each.headers["Location"]).status for each in pending} == {200}


def test_customers_and_cards_are_as_documented(new_api: NewApi, simulator: Simulator, document: Any) -> None:
    """Every answer of the delivery routes, and refusals of each status, fit their schemas."""
    shop = Delivery(new_api(STRIPE_API_URL=simulator.url, STRIPE_SECRET_KEY=KEY))
    email, path = new_email(), "/payment/payment-method"
    customer = shop.customer(email=email)
    card = shop.card(customer)
    without_stripe = Delivery(new_api())
    answered = {
        ("/payment/customer", "post"): [shop.create(), shop.create(email=1), without_stripe.create()],
        ("/payment/customer/{email}", "get"): [
            shop.client.get(f"/payment/customer/{each}") for each in (email, "nobody@example.com")
        ],
        (path, "post"): [
            shop.save(customer, "pm_card_amex", Idempotency_Key="k"),
            shop.save(customer, "pm_card_visa", Idempotency_Key="k"),
            shop.save(customer, "pm_card_chargeDeclined"),
            shop.save("cus_none", "pm_card_visa"),
            shop.client.post("{}", path=path, Content_Type="text/plain"),
        ],
        (f"{path}-details", "post"): [shop.save_details(customer, card), shop.save_details("", card)],
        (f"{path}s/{{customer_id}}", "get"): [shop.client.get(f"{path}s/{customer}")],
        (path, "delete"): [shop.delete(customer, card), shop.delete("", card), shop.delete(customer, "pm_1")],
    }
    statuses = [each.status for answers in answered.values() for each in answers]
    assert set(statuses) == {200, 201, 400, 402, 404, 415, 422, 503}
    for (route, method), answers in answered.items():
        for answer in answers:
            assert_documented(document, answer, route, method)


@pytest.mark.parametrize(("path", "method"), sorted(ROUTES))
def test_examples_fit_their_schemas(document: Any, path: str, method: str) -> None:
    """What the document shows as an example is what its schema allows."""
    operation = document["paths"][path][method]
    contents = [each["content"] for each in operation["responses"].values()]
    contents += [operation["requestBody"]["content"]] if "requestBody" in operation else []
    shown = [each["application/json"] for each in contents if "example" in each["application/json"]]
    assert shown
    for each in shown:
        whole = each["schema"] | {"components": document["components"]}
        jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(each["example"])


@pytest.mark.parametrize(("path", "method"), sorted(ROUTES))
def test_every_answer_has_an_example(document: Any, path: str, method: str) -> None:
    """A refusal's names the first code of its status and is worded as its contract words refusals."""
    for status, response in document["paths"][path][method]["responses"].items():
        example = response["content"]["application/json"]["example"]
        if int(status) >= 400:
            assert ErrorCode[example["errorCode"]].status == int(status)
            assert ("message" if path.startswith(("/payment/", "/api/")) else "errorMessage") in example


def test_the_docs_page_needs_no_internet(shared_api: Api) -> None:
    """Everything that the page loads comes from here, and is what it says it is."""
    page = shared_api.get("/docs")
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "//" not in re.sub(r"<!--.*?-->", "", page.text, flags=re.DOTALL)
    loaded = re.findall(r'(?:src|href|url)(?:=|: )"([^"]+)"', page.text)
    assert "/openapi.json" in loaded
    assert len(loaded) >= 4
    types = {"css": "text/css", "js": "javascript", "json": "application/json"}
    for path in loaded:
        asset = shared_api.get(path)
        assert asset.status == 200
        assert types[path.rpartition(".")[2]] in asset.headers["Content-Type"]
        if path.endswith("css"):
            assert not re.search(r"@import|url\(\s*[\"']?(?:https?:)?//", asset.text)
