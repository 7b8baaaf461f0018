"""Stripe's webhooks: only genuine ones are taken, once each, stored before they are answered."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.api import Api, ServedApi, assert_refused
from tests.integration.conftest import NewApi
from tests.webhooks import PATH, SECRET, encoded, event, send, signature

PREVIOUS = "whsec_of_the_time_before"
LIMIT = 512 * 1024
REFUSED, MALFORMED, INVALID = "BAD_WEBHOOK_SIGNATURE", "MALFORMED_JSON", "VALIDATION_FAILED"


@pytest.fixture
def api(new_api: NewApi) -> Api:
    """An application that knows two secrets; nothing listens where it would find a gateway."""
    return new_api(STRIPE_WEBHOOK_SECRET=SECRET, STRIPE_WEBHOOK_SECRET_PREVIOUS=PREVIOUS)


def padded(size: int) -> bytes:
    """Return an event of exactly this many bytes."""
    raw = encoded(event())
    return raw + b" " * (size - len(raw))


def test_a_genuine_webhook_is_stored_and_answered(api: Api) -> None:
    """It waits for the worker at once, with its type and its object's id."""
    told = event(status="succeeded", metadata={"payment_id": "p", "operation_id": "o", "note": "private"})
    answer = send(api, told)
    assert (answer.status, answer.body) == (200, {"received": True})
    (row,) = api.stored.rows("inbox")
    assert (row["source"], row["message_id"], row["type"]) == ("stripe", told["id"], told["type"])
    assert (row["state"], row["attempts"]) == ("received", 0)
    assert row["next_attempt_at"] == row["received_at"]
    assert row["correlation_id"] == answer.headers["X-Correlation-Id"]
    assert row["payload"] == {
        "id": told["data"]["object"]["id"],
        "status": "succeeded",
        "metadata": {"payment_id": "p", "operation_id": "o"},
    }


def test_nothing_of_cards_or_persons_is_kept(api: Api) -> None:
    """Of the object only ids, states and sums are stored, though it tells of a card; nor is it refused."""
    card = {"number": "4242424242424242", "cvc": "123", "last4": "4242"}
    told = event(
        "charge.refunded", amount=5, receipt_email="a@b.example", card=card, description="4242 4242 4242 4242"
    )
    assert send(api, told).status == 200
    (row,) = api.stored.rows("inbox")
    assert set(row["payload"]) == {"id", "amount", "metadata"}


@pytest.mark.parametrize("secrets", [(SECRET,), (PREVIOUS,), ("whsec_strange", SECRET), (PREVIOUS, SECRET)])
def test_either_secret_will_do(api: Api, secrets: tuple[str, ...]) -> None:
    """While a secret is replaced, a signature with the new or the old one counts, also beside others."""
    assert send(api, event(), *secrets).status == 200
    assert len(api.stored.rows("inbox")) == 1


@pytest.mark.parametrize("age_s", [290, -290])
def test_clocks_may_differ_a_little(api: Api, age_s: int) -> None:
    """Almost five minutes either way are taken."""
    assert send(api, event(), age_s=age_s).status == 200


@pytest.mark.parametrize("age_s", [310, -310, 10**6, -(10**6)])
def test_stale_and_future_signatures_are_refused(api: Api, age_s: int) -> None:
    """More than five minutes either way are refused: a recording may not be played back, now or tomorrow."""
    assert_refused(send(api, event(), age_s=age_s), 400, REFUSED, "Stripe-Signature")
    assert api.stored.counts() == {}


def test_a_forged_signature_is_refused(api: Api) -> None:
    """Whoever does not know the secret stores nothing."""
    assert_refused(send(api, event(), "whsec_guessed"), 400, REFUSED)
    assert api.stored.counts() == {}


def test_a_changed_body_is_refused(api: Api) -> None:
    """The signature is of the raw bytes: a body that means the same in other bytes is refused, too."""
    raw = encoded(event())
    for changed in (raw + b" ", raw.replace(b"succeeded", b"processing"), raw.replace(b"\n", b"\r\n")):
        answer = api.post(changed, path=PATH, Stripe_Signature=signature(raw))
        assert_refused(answer, 400, REFUSED)
    assert api.stored.counts() == {}


@pytest.mark.parametrize(
    "header",
    ["", "nonsense", "t=1", "v1=00", "t=,v1=00", "t=x,v1=00", "t=1,t=2,v1=00", "t=99999999999999,v1=00",
     "t=-1,v1=00", "t=1,v1=\u00e9", "t=1,v1=", ",,,", "t=1=2,v1=00", "t=1,v0=00"],
    ids=str,
)  # fmt: skip
def test_an_unreadable_signature_is_refused(api: Api, header: str) -> None:
    """Whatever stands in the header, the answer is a 400 and nothing is stored."""
    raw = encoded(event())
    assert_refused(api.post(raw, path=PATH, Stripe_Signature=header), 400, REFUSED, "Stripe-Signature")
    assert_refused(api.post(raw, path=PATH), 400, REFUSED, "Stripe-Signature")
    assert api.stored.counts() == {}


def test_the_moment_is_signed_too(api: Api) -> None:
    """An old signature does not become new by another time in the header."""
    raw = encoded(event())
    old, new = signature(raw, age_s=1000), signature(raw)
    moved = new.split(",", 1)[0] + "," + old.split(",", 1)[1]
    assert_refused(api.post(raw, path=PATH, Stripe_Signature=moved), 400, REFUSED)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", MALFORMED), (b"\xff", MALFORMED), (b"", MALFORMED), (b"[]", INVALID),
        (b"null", INVALID), (b"{}", INVALID),
        (encoded({"id": "evt_1", "type": 5}), INVALID),
        (encoded({"id": "evt\u0000", "type": "refund.created"}), INVALID),
        (encoded({"id": "e" * 256, "type": "refund.created"}), INVALID),
        (encoded({"id": "evt_1", "type": "refund.created"}), INVALID),
        (encoded({"id": "evt_1", "type": "refund.created", "data": []}), INVALID),
        (encoded({"id": "evt_1", "type": "refund.created", "data": {"object": {"id": 1}}}), INVALID),
    ],
    ids=str,
)  # fmt: skip
def test_a_signed_body_that_is_no_event_is_refused(api: Api, body: bytes, code: str) -> None:
    """Also who knows the secret stores only events."""
    assert_refused(send(api, body), 400, code)
    assert api.stored.counts() == {}


def test_fields_of_unusable_kinds_are_left_out(api: Api) -> None:
    """What is not as Stripe writes it is not stored, and does no harm."""
    told = event("refund.updated", status={"a": 1}, amount=1.5, charge="x\u0000y", reason="", metadata=[1])
    assert send(api, told).status == 200
    (row,) = api.stored.rows("inbox")
    assert set(row["payload"]) == {"id", "metadata"}


def test_a_body_up_to_the_limit_is_taken(api: Api) -> None:
    """Webhooks may be 512 KiB, eight times as much as commands."""
    assert send(api, padded(LIMIT)).status == 200


@pytest.mark.parametrize("size", [LIMIT + 1, 513 * 1024])
def test_a_larger_body_is_refused(api: Api, served_webhooks: ServedApi, size: int) -> None:
    """One byte more is a 413 and stores nothing, also when no length was announced."""
    assert_refused(send(api, padded(size)), 413, "PAYLOAD_TOO_LARGE", "512 KiB")
    assert api.stored.counts() == {}
    raw = padded(size)
    chunks = (raw[start : start + 10_000] for start in range(0, size, 10_000))
    headers = {"Stripe-Signature": signature(raw)}
    answer = served_webhooks.send("POST", PATH, chunks, headers)
    assert_refused(answer, 413, "PAYLOAD_TOO_LARGE", "512 KiB")


@pytest.fixture
def served_webhooks(database_url: str, redis_url: str) -> Any:
    """`payment-api serve` with a secret."""
    api = ServedApi(database_url, redis_url, STRIPE_WEBHOOK_SECRET=SECRET, WEB_WORKERS=1, LOG_FORMAT="json")
    yield api
    api.close()


def test_other_routes_keep_their_limit(api: Api) -> None:
    """The webhooks' limit is theirs alone."""
    assert_refused(api.post(" " * 70_000), 413, "PAYLOAD_TOO_LARGE", "64 KiB")


def test_an_unknown_type_is_stored_and_ignored(api: Api) -> None:
    """Stripe is answered that it came; nobody will process it."""
    assert send(api, event("invoice.paid")).status == 200
    assert send(api, {"id": "evt_thin", "object": "v2.core.event", "type": "v1.billing.meter"}).status == 200
    rows = api.stored.rows("inbox")
    assert {(row["state"], row["next_attempt_at"]) for row in rows} == {("ignored", None)}
    assert len(rows) == 2


def test_duplicates_racing_are_stored_once(api: Api) -> None:
    """Twenty deliveries of one event at once are all answered 200, and are one row."""
    told = event()
    with ThreadPoolExecutor(20) as callers:
        answers = list(callers.map(lambda _: send(api, told), range(20)))
    assert {answer.status for answer in answers} == {200}
    assert len(api.stored.rows("inbox")) == 1


def test_what_was_processed_stays_processed(api: Api) -> None:
    """A late delivery of an event that is done changes nothing."""
    told = event()
    send(api, told)
    api.stored.change("UPDATE inbox SET state = 'processed', next_attempt_at = NULL")
    assert send(api, told).status == 200
    assert [row["state"] for row in api.stored.rows("inbox")] == ["processed"]


def test_without_a_secret_webhooks_are_refused(new_api: NewApi) -> None:
    """Nothing unchecked is taken; the answer names the setting."""
    api = new_api()
    assert_refused(send(api, event()), 503, "WEBHOOKS_NOT_CONFIGURED", "STRIPE_WEBHOOK_SECRET")
    assert api.stored.counts() == {}


def test_a_secret_is_not_needed_to_be_there_before(new_api: NewApi) -> None:
    """Without a previous secret an empty one opens nothing."""
    api = new_api(STRIPE_WEBHOOK_SECRET=SECRET)
    assert_refused(send(api, event(), ""), 400, REFUSED)
    assert_refused(send(api, event(), PREVIOUS), 400, REFUSED)
    assert send(api, event()).status == 200


def test_only_post_is_taken(api: Api) -> None:
    """The route has no other method."""
    assert_refused(api.get(PATH), 405, "METHOD_NOT_ALLOWED")


def test_a_database_that_is_away_makes_stripe_come_again(new_api: NewApi) -> None:
    """Nothing is answered as taken that is not stored."""
    api = new_api(database_url="postgresql://nobody@127.0.0.1:9/none", STRIPE_WEBHOOK_SECRET=SECRET)
    assert_refused(send(api, event()), 503, "SERVICE_UNAVAILABLE")
