"""What operators change over HTTP leaves a trail: who, what, on what, when, from where, and how it ended."""

import pytest

from tests.api import Api
from tests.factories import new_uuid, payment_body
from tests.integration.conftest import NewApi
from tests.tokens import SECRET, bearer

OPERATOR = bearer("ada", role="operator")


@pytest.fixture
def api(new_api: NewApi) -> Api:
    """Return an API that wants tokens."""
    return new_api(AUTH="required", JWT_SECRET=SECRET)


def test_an_operators_changes_are_noted(api: Api) -> None:
    """Those that worked and those that did not, each with the ids that it named and nothing else it held."""
    body = payment_body(metadata={"note": "between us"})
    made = api.post_async(body, X_Correlation_Id="corr-1", **OPERATOR)
    payment = made.payment["id"]
    path = f"/payments/{payment}/refunds"
    refused = api.post(
        {"amount": 5, "reason": "between us"}, path=path, X_Correlation_Id="corr-2", **OPERATOR
    )
    unread = api.post("{", path=f"/payments/{payment}/cancel", **OPERATOR)
    removed = api.send("DELETE", "/payment/payment-method", "", OPERATOR)
    first, second, third, fourth = sorted(api.stored.rows("audit_entry"), key=lambda row: row["id"])
    for row in (first, second, third, fourth):
        assert (row["actor"], row["channel"], row["came_from"]) == ("ada", "http", "127.0.0.1")
        assert "between us" not in str(row)
    assert (first["action"], first["outcome"], first["correlation_id"]) == ("POST /payments", "202", "corr-1")
    assert first["subject"]["payment_id"] == payment
    assert (first["subject"]["orderId"], first["subject"]["amount"]) == (body["orderId"], str(body["amount"]))
    assert (second["action"], second["subject"]) == (
        "POST /payments/<payment_id>/refunds", {"payment_id": payment, "amount": "5"}
    )  # fmt: skip
    outcomes = [str(each.status) for each in (made, refused, unread, removed)]
    assert (
        [row["outcome"] for row in (first, second, third, fourth)] == outcomes == ["202", "409", "400", "415"]
    )


def test_what_changes_nothing_or_is_no_operators_is_not(api: Api, new_api: NewApi) -> None:
    """Reading leaves no trail, nor do others, whom the payment's timeline names, nor who is not let in."""
    me = new_uuid()
    for headers in (bearer(me), bearer("shop", role="service")):
        assert api.post_async(payment_body(customerId=me), **headers).status == 202
    assert api.get("/payments", **OPERATOR).status == 200
    assert api.get("/payments?limit=0", **OPERATOR).status == 400
    assert api.post_async(**bearer("ada", role="operator", scope="payments:read")).status == 403
    assert api.post_async(**bearer("ada", role="operator", exp=1)).status == 401
    assert new_api().post_async().status == 202
    assert api.stored.rows("audit_entry") == []


def test_what_cannot_be_noted_is_not_done(api: Api) -> None:
    """The trail has no gaps: without it an operator changes nothing."""
    api.stored.change("ALTER TABLE audit_entry RENAME TO away")
    assert api.post_async(**OPERATOR).status == 500
    assert [row["count"] for row in api.stored._execute("SELECT count(*) FROM payment")] == [0]
