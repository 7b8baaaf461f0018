"""What each of Stripe's errors means for a charge; a wrong row here charges twice or loses a sale."""

from typing import Any

import pytest

from shared.gateways import Failed, Misconfigured, Outcome, Transient, Unknown
from shared.gateways.stripe_errors import classify

CARD_ERROR = {"type": "card_error", "code": "card_declined", "message": "Your card was declined."}


def sorted_as(
    http_status: int | None, error: dict[str, Any] | None = None, *, replayed: bool = False, sent: bool = True
) -> Outcome:
    """Classify an answer that is ordinary but for what is named."""
    return classify(http_status, error or {}, replayed=replayed, sent=sent)


@pytest.mark.parametrize(
    ("error", "error_code", "reason"),
    [
        (CARD_ERROR, "CARD_DECLINED", "card_declined"),
        (CARD_ERROR | {"decline_code": "insufficient_funds"}, "INSUFFICIENT_FUNDS", "insufficient_funds"),
        (CARD_ERROR | {"decline_code": "generic_decline"}, "GENERIC_DECLINE", "generic_decline"),
        ({"type": "card_error", "code": "expired_card"}, "EXPIRED_CARD", "expired_card"),
        (
            {"type": "card_error", "code": "processor_error", "decline_code": "amount_too_large"},
            "AMOUNT_TOO_LARGE",
            "processor_error",
        ),
    ],
)
def test_a_decline_is_final(error: dict[str, Any], error_code: str, reason: str) -> None:
    """402 is the bank's definite no; the code is its own word, in capitals, else Stripe's."""
    outcome = sorted_as(402, error | {"payment_intent": {"id": "pi_1"}})
    assert isinstance(outcome, Failed)
    assert (outcome.error_code, outcome.reason, outcome.gateway_ref) == (error_code, reason, "pi_1")
    assert outcome.message == error.get("message", "The payment was refused")


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("No such token: 'tok_1QrT5vXyZ'", "No such token: 'tok_...vXyZ'"),
        ("No such source: 'src_1QrT5vXyZ', card_1QrT5vXyZ", "No such source: 'src_...vXyZ', card_...vXyZ"),
        ("pm_1QrT5vXyZ is not attached to cus_QrT5vXyZ", "pm_...vXyZ is not attached to cus_QrT5vXyZ"),
        ("Invalid: 4242 4242 4242 4242, sk_test_4eC39HqLyj", "Invalid: [redacted], [redacted]"),
        ("pi_3Abc_secret_9xYz does not fit pi_3Abc", "[redacted] does not fit pi_3Abc"),
    ],
)
@pytest.mark.parametrize("http_status", [400, 402, 404])
def test_what_can_be_charged_is_not_repeated(http_status: int, said: str, kept: str) -> None:
    """Tokens are shortened, secrets and card numbers left out; ids that are of use to nobody else stay."""
    outcome = sorted_as(http_status, {"type": "invalid_request_error", "message": said})
    assert isinstance(outcome, Failed)
    assert outcome.message == kept


@pytest.mark.parametrize(
    ("http_status", "error"),
    [
        (400, {"type": "invalid_request_error", "code": "parameter_invalid_integer", "message": "No"}),
        (404, {"type": "invalid_request_error", "code": "resource_missing", "message": "No"}),
        (400, {"type": "invalid_request_error", "message": "No"}),
    ],
)
def test_a_refused_request_is_final(http_status: int, error: dict[str, Any]) -> None:
    """Stripe did nothing and never will with these parameters; the payment carries Stripe's words."""
    outcome = sorted_as(http_status, error)
    assert isinstance(outcome, Failed)
    assert outcome.error_code == str(error.get("code", error["type"])).upper()
    assert (outcome.message, outcome.gateway_ref) == ("No", None)


@pytest.mark.parametrize(
    ("http_status", "error"),
    [
        (429, {}),
        (429, {"type": "invalid_request_error", "code": "rate_limit"}),
        (429, {"type": "invalid_request_error", "code": "lock_timeout"}),
        (400, {"type": "invalid_request_error", "code": "lock_timeout"}),
        (409, {"type": "idempotency_error", "code": "idempotency_key_in_use"}),
        (409, {"type": "invalid_request_error", "code": "idempotency_key_in_use"}),
    ],
)
def test_what_stripe_did_not_begin_may_be_asked_again(http_status: int, error: dict[str, Any]) -> None:
    """Rate limits, lock timeouts and a key in use say that this call did nothing."""
    assert isinstance(sorted_as(http_status, error), Transient)


@pytest.mark.parametrize("http_status", [None, 402, 500])
def test_a_request_that_never_left_is_transient(http_status: int | None) -> None:
    """Without a connection nothing can have happened, whatever else is said."""
    assert isinstance(sorted_as(http_status, CARD_ERROR, sent=False), Transient)


@pytest.mark.parametrize("http_status", [None, 500, 502, 503, 504, 599])
def test_no_answer_and_server_errors_are_unknown(http_status: int | None) -> None:
    """A timeout or a 5xx is never a failure: the money may have been taken. The same key may be used."""
    outcome = sorted_as(http_status, {"type": "api_error"})
    assert isinstance(outcome, Unknown)
    assert not outcome.key_poisoned


@pytest.mark.parametrize("http_status", [500, 503])
def test_a_replayed_server_error_has_poisoned_its_key(http_status: int) -> None:
    """The key will give this answer for ever: asking again tells nothing."""
    outcome = sorted_as(http_status, {"type": "api_error"}, replayed=True)
    assert isinstance(outcome, Unknown)
    assert outcome.key_poisoned


@pytest.mark.parametrize(
    ("http_status", "error"),
    [
        (401, {"type": "invalid_request_error"}),
        (403, {"type": "invalid_request_error", "code": "account_invalid"}),
        (400, {"type": "idempotency_error", "message": "Keys can only be used with the same parameters"}),
        (409, {"type": "idempotency_error"}),
    ],
)
def test_a_rejection_of_ourselves_says_nothing_about_the_payment(
    http_status: int, error: dict[str, Any]
) -> None:
    """A bad key or a key used for something else pages an operator and fails no payment."""
    assert isinstance(sorted_as(http_status, error), Misconfigured)


@pytest.mark.parametrize("http_status", [301, 409, 418, 424])
def test_what_is_not_understood_is_unknown(http_status: int) -> None:
    """A status that nobody expected is no reason to tell a customer that the payment failed."""
    outcome = sorted_as(http_status, {"type": "something_new"})
    assert isinstance(outcome, Unknown)
    assert not outcome.key_poisoned


def test_a_replayed_decline_is_still_a_decline() -> None:
    """Replays are how a lost answer is heard after all."""
    assert isinstance(sorted_as(402, CARD_ERROR, replayed=True), Failed)


@pytest.mark.parametrize("http_status", [400, 402, 404, 418])
def test_an_answer_that_is_not_stripes_says_nothing(http_status: int) -> None:
    """A proxy's error page on the way back must not free the order: Stripe may have charged."""
    assert isinstance(sorted_as(http_status, {}), Unknown)
