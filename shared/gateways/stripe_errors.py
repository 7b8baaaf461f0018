"""What a Stripe error means for an operation: declined, refused, transient, unknown or misconfigured."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from shared.gateways import Failed, Misconfigured, Outcome, Transient, Unknown
from shared.gateways.exchanges import without_secrets

TOO_MANY = HTTPStatus.TOO_MANY_REQUESTS
MISCONFIGURED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
REFUSED = {HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND}


def classify(  # noqa: PLR0911 - a table of cases, one line each
    http_status: int | None, error: Mapping[str, Any], *, replayed: bool, sent: bool
) -> Outcome:
    """Sort an error answer after https://docs.stripe.com/error-low-level.

    `error` is the error object of the body; `replayed` says that Stripe answered from a used key;
    `sent` is False only when the request certainly never left us. What is not understood is unknown,
    never failed.
    """
    code = error.get("code")
    if not sent:
        return Transient(reason="no connection to the gateway")
    if http_status is None:
        return Unknown(reason="the answer was lost")
    if http_status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Unknown(reason=f"the gateway answered {http_status}", key_poisoned=replayed)
    if http_status == TOO_MANY or code in {"rate_limit", "lock_timeout", "idempotency_key_in_use"}:
        return Transient(reason=str(code or "rate_limit"))
    if error.get("type") == "idempotency_error" or http_status in MISCONFIGURED:
        return Misconfigured(reason=str(error.get("type") or http_status))
    if not error.get("type"):
        # Not Stripe's form: a proxy on the way has answered, and who knows what Stripe did.
        return Unknown(reason=f"an answer {http_status} that is not the gateway's")
    if (
        http_status == HTTPStatus.PAYMENT_REQUIRED
        or error.get("type") == "card_error"
        or http_status in REFUSED
    ):
        return declined(error)
    return Unknown(reason=f"the gateway answered {http_status}")


def declined(error: Mapping[str, Any]) -> Failed:
    """Read the error object of a refusal, or a PaymentIntent's last error.

    Its words are stored and shown to others, and may repeat what was sent: a token, even a card number.
    """
    code = str(error.get("code") or error.get("type") or "refused")
    decline = error.get("decline_code")
    intent = error.get("payment_intent") or {}
    return Failed(
        error_code=str(decline or code).upper(),
        message=without_secrets(str(error.get("message") or "The payment was refused")),
        # Stripe's generic code says least: the bank's own word is the better reason.
        reason=str(decline or code) if code == "card_declined" else code,
        gateway_ref=intent.get("id"),
    )
