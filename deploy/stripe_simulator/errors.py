"""Stripe's errors: type, code, message and HTTP status, and the body they are sent in."""

import time
from collections.abc import Mapping
from typing import Any

from deploy.stripe_simulator.wire import Answer, to_json

DASHBOARD = "https://dashboard.stripe.com/test/logs"
DOCS = "https://stripe.com/docs/error-codes"


class StripeError(Exception):
    """An answer that is an error; `fields` is what stands under `error` in the body."""

    def __init__(self, status: int, fields: Mapping[str, Any], *, should_retry: bool | None = None) -> None:
        """`should_retry` becomes the Stripe-Should-Retry header; None sends none."""
        super().__init__(fields.get("message"))
        self.status = status
        self.fields = fields
        self.should_retry = should_retry

    def answer(self, request_id: str) -> Answer:
        """Return the answer as it is sent for request `request_id`."""
        fields = {name: value for name, value in self.fields.items() if value is not None}
        if "code" in fields:
            fields.setdefault("doc_url", doc_url(fields["code"]))
        fields["request_log_url"] = f"{DASHBOARD}/{request_id}?t={int(time.time())}"
        body = to_json({"error": dict(sorted(fields.items()))})
        headers = {} if self.should_retry is None else {"Stripe-Should-Retry": str(self.should_retry).lower()}
        return Answer(self.status, body, headers)


def doc_url(code: str) -> str:
    """Return the documentation page of an error code."""
    return f"{DOCS}/{code.replace('_', '-')}"


def invalid(
    message: str, *, param: str | None = None, code: str | None = None, status: int = 400, **more: object
) -> StripeError:
    """Return an invalid_request_error; `more` adds fields such as payment_intent."""
    fields = {"type": "invalid_request_error", "message": message, "param": param, "code": code, **more}
    return StripeError(status, fields)


def missing(what: str, object_id: str, *, param: str | None = None, status: int | None = None) -> StripeError:
    """Return the refusal of an object that does not exist: 404 if the path names it, 400 if `param` does."""
    message = f"No such {what}: '{object_id}'"
    status = status or (404 if param is None else 400)
    return invalid(message, param=param or "id", code="resource_missing", status=status)


def unexpected_state(message: str, intent: Mapping[str, Any]) -> StripeError:
    """Return the refusal of an action that the intent's status does not allow."""
    kind = intent["object"]
    more: dict[str, Any] = {kind: intent}
    return invalid(message, code=f"{kind}_unexpected_state", **more)


def card_error(decline: Mapping[str, Any], intent: Mapping[str, Any] | None = None) -> StripeError:
    """Return the 402 for a refused card: `decline` is the last error of the intent, if there is one."""
    return StripeError(402, {**decline, **({intent["object"]: intent} if intent else {})})


def unauthorized(message: str, *, code: str | None = None) -> StripeError:
    """Return the 401 for a key that is absent or not accepted."""
    return invalid(message, code=code, status=401)


def rate_limited() -> StripeError:
    """Return the 429 for too many requests."""
    message = (
        "Request rate limit exceeded. Learn more about rate limits: https://stripe.com/docs/rate-limits."
    )
    return invalid(message, code="rate_limit", status=429)


def lock_timeout() -> StripeError:
    """Return the 429 for an object that another request holds."""
    message = (
        "This object cannot be accessed right now because another API request or Stripe process is currently "
        "accessing it. If you see this error intermittently, retry the request."
    )
    fields = {"type": "invalid_request_error", "message": message, "code": "lock_timeout"}
    return StripeError(429, fields, should_retry=True)


def internal_error() -> StripeError:
    """Return the 500 of a server that failed."""
    return StripeError(500, {"type": "api_error", "message": "An unknown error occurred"})


def idempotency_mismatch(message: str) -> StripeError:
    """Return the 400 for a key that was first used for something else."""
    return StripeError(400, {"type": "idempotency_error", "message": message})


def idempotency_in_use(key: str) -> StripeError:
    """Return the 409 for a key whose first request is still running."""
    message = (
        "There is currently another in-progress request using this Idempotent Key (that probably means you "
        f"submitted twice, and the other request is still going through): {key}. Please try again later."
    )
    fields = {"type": "idempotency_error", "message": message, "code": "idempotency_key_in_use"}
    return StripeError(409, fields, should_retry=True)
