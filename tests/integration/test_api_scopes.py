"""What each role and scope may ask for, at every route there is."""

from collections.abc import Iterator
from typing import Any

import flask
import pytest

from payment_api.access import is_open
from payment_api.principal import Principal, Role
from payment_api.scopes import ANYTHING, GRANTED, NEEDED, may, named_scopes, needed_scope
from tests.api import NOWHERE, Answer, Api, api_settings
from tests.factories import new_uuid, payment_body
from tests.integration.conftest import NewApi
from tests.tokens import SECRET, bearer

# Who needs no token: probes, documents, and gateways, which sign.
PUBLIC = {
    "/healthz", "/readyz", "/openapi.json", "/docs", "/docs/assets/<path:name>", "/webhooks/stripe",
    "/api/user/register", "/api/user/login",
}  # fmt: skip


@pytest.fixture(scope="module")
def api(session_database_url: str, session_redis_url: str) -> Iterator[Api]:
    """Return an API that wants tokens, for tests that store nothing."""
    given = {"AUTH": "required", "JWT_SECRET": SECRET, "STRIPE_API_URL": NOWHERE}
    api = Api(api_settings(session_database_url, session_redis_url, **given))
    yield api
    api.close()


def routes(app: flask.Flask) -> list[tuple[str, str]]:
    """Return method and rule of every route, HEAD and OPTIONS left out."""
    rules = app.url_map.iter_rules()
    return sorted(
        (verb, each.rule) for each in rules for verb in (each.methods or set()) - {"HEAD", "OPTIONS"}
    )


def ask(api: Api, method: str, rule: str, **headers: str) -> Answer:
    """Ask at a route for what is not there, with nothing in the body."""
    path = rule.replace("<path:email>", "nobody@shop.example").replace("<customer_id>", "cus_none")
    for name in ("payment_id", "refund_id", "order_id"):
        path = path.replace(f"<{name}>", new_uuid())
    return api.send(method, path, "", headers)


def test_every_route_names_its_scope_or_is_public(api: Api) -> None:
    """A route that is added must be in one of the two lists, and one that goes leaves them."""
    closed = {(method, rule) for method, rule in routes(api.app) if rule not in PUBLIC}
    assert {(method, rule) for method, rule in closed if needed_scope(method, rule) == ANYTHING} == set()
    assert len(closed) == len(NEEDED)
    assert {rule for _, rule in routes(api.app)} >= PUBLIC
    assert {rule for _, rule in routes(api.app) if is_open(rule)} == PUBLIC


def test_at_every_route_a_token_is_needed_and_its_scope(api: Api) -> None:
    """401 without one; without its scope 403 in one shape, before anything is read; else on it goes."""
    for method, rule in routes(api.app):
        if rule in PUBLIC:
            continue
        scope = needed_scope(method, rule)
        assert ask(api, method, rule).status == 401
        for narrow in ("other:read", f"{scope}s", scope.upper(), scope.partition(":")[0], "customers", ":*"):
            refused = ask(api, method, rule, **bearer("x", role="operator", scope=narrow))
            assert (refused.status, refused.body["errorCode"]) == (403, "FORBIDDEN"), (method, rule, narrow)
            message = refused.body.get("errorMessage") or refused.body["message"]
            assert message == f"The scope {scope} is needed"
            assert (
                refused.headers["WWW-Authenticate"] == f'Bearer error="insufficient_scope", scope="{scope}"'
            )
        for enough in (scope, f"a:b {scope}", f"{scope.partition(':')[0]}:*", "*"):
            # Each by its own id: one of the routes revokes the token it is asked with.
            token = bearer("x", role="operator", scope=enough, jti=new_uuid())
            assert ask(api, method, rule, **token).status not in {401, 403}


ENDPOINT = "/notification-endpoints/<endpoint_id>"
SUBSCRIBING = {
    ("POST", "/notification-endpoints"), ("GET", "/notification-endpoints"),
    *((method, ENDPOINT) for method in ("GET", "PATCH", "DELETE")),
    ("POST", f"{ENDPOINT}/secret"), ("POST", f"{ENDPOINT}/resend"), ("GET", f"{ENDPOINT}/deliveries"),
    ("POST", f"{ENDPOINT}/deliveries/<event_id>/resend"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("role", "may_not"),
    [
        ("customer", {("GET", "/metrics"), *SUBSCRIBING}), ("service", {("GET", "/metrics")}),
        ("merchant", {("GET", "/metrics")}), ("operator", set()),
    ],
)  # fmt: skip
def test_what_each_role_may(api: Api, role: str, may_not: set[tuple[str, str]]) -> None:
    """Every role may ask everywhere for what is its to see, but for the service's own figures.

    No customer subscribes, for subscribers hear of everybody's payments.
    """
    refused = {
        (method, rule)
        for method, rule in routes(api.app)
        if rule not in PUBLIC and ask(api, method, rule, **bearer(new_uuid(), role=role)).status in {401, 403}
    }
    assert refused == may_not


def test_a_scope_never_widens_a_role() -> None:
    """A customer whose token names everything is a customer."""
    for claim in ("*", "metrics:read", "metrics:* payments:read"):
        assert not may(Principal("x", Role.CUSTOMER, named_scopes(claim)), "metrics:read")
    assert {role for role in Role if may(Principal("x", role), ANYTHING)} == {Role.OPERATOR}
    assert set(GRANTED) == set(Role)


@pytest.mark.parametrize("claim", ["", " ", "openid", "openid profile email offline_access"])
def test_words_about_persons_narrow_nothing(api: Api, claim: str) -> None:
    """What an OpenID issuer puts into every token says nothing of what it may be used for."""
    assert api.get("/payments", **bearer("x", scope=claim)).status == 200


def test_a_narrow_token_does_what_it_is_for(new_api: NewApi) -> None:
    """One that only reads cannot charge, and nothing is stored; one that only charges cannot read."""
    api = new_api(AUTH="required", JWT_SECRET=SECRET)
    reads = bearer("shop", role="service", scope="payments:read")
    charges = bearer("shop", role="service", scope="payments:write")
    body: dict[str, Any] = payment_body()
    assert api.post_async(body, **reads).status == 403
    assert api.stored.counts() == {}
    assert api.post_async(body, **charges).status == 202
    assert [api.get("/payments", **each).status for each in (reads, charges)] == [200, 403]


def test_a_route_that_nobody_thought_of_is_an_operators(new_api: NewApi) -> None:
    """Without a scope in the table it is closed to all others, whatever their token says."""
    api = new_api(AUTH="required", JWT_SECRET=SECRET)
    api.app.add_url_rule("/payments/forgotten", view_func=lambda: "here", methods=["GET"])
    statuses = {
        role: api.get("/payments/forgotten", **bearer("x", role=role, scope="*")).status for role in Role
    }
    assert statuses == {role: 200 if role is Role.OPERATOR else 403 for role in Role}


def test_figures_are_an_operators(api: Api, new_api: NewApi) -> None:
    """A scraper has a token for nothing else; on a loopback API without tokens anybody may look."""
    assert api.get("/metrics").status == 401
    scraper = bearer("prometheus", role="operator", scope="metrics:read")
    assert "payment_api_requests_total" in api.get("/metrics", **scraper).text
    assert api.get("/payments", **scraper).status == 403
    assert new_api().get("/metrics").status == 200
