"""Take Stripe's webhooks: check the signature, store, answer. What they mean is the worker's business."""

import time
from typing import Any

import flask
import flask_smorest
from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert

from payment_api.errors import ErrorCode, RequestRefused
from payment_api.services import services
from shared.database import Sessions, alone
from shared.documents import parse_json
from shared.gateways.stripe_webhooks import SOURCE, BadSignature, Webhook, read, verify
from shared.models import InboxMessage, InboxState, plain

PREFIX = "/webhooks"
MAX_WEBHOOK_BYTES = 512 * 1024

blueprint = flask_smorest.Blueprint(
    "webhooks", __name__, url_prefix=PREFIX, description="What payment gateways tell us"
)
_EVENT = {
    "id": "evt_3QrT5vXyZ0123456789",
    "object": "event",
    "type": "payment_intent.succeeded",
    "data": {"object": {"id": "pi_3QrT5vXyZ0123456789", "object": "payment_intent", "status": "succeeded"}},
}
_JSON = "application/json"


@blueprint.post("/stripe")
@blueprint.doc(
    parameters=[
        {
            "in": "header",
            "name": "Stripe-Signature",
            "description": "Stripe's signature of the raw body: t=...,v1=...",
            "required": True,
            "schema": {"type": "string"},
        }
    ],
    requestBody={
        "required": True,
        "content": {_JSON: {"schema": {"type": "object"}, "example": _EVENT}},
    },
    responses={
        "200": {
            "description": "The webhook is stored, or was before.",
            "content": {
                _JSON: {
                    "schema": {
                        "type": "object",
                        "required": ["received"],
                        "properties": {"received": {"type": "boolean", "const": True}},
                    },
                    "example": {"received": True},
                }
            },
        }
    },
)
def take_stripe_webhook() -> dict[str, Any]:
    """Take a webhook of Stripe's.

    It is stored before it is answered, once however often it comes, and processed by the worker.
    """
    settings = services().settings
    if not settings.stripe_webhook_secret:
        message = "This API has no webhook secret: STRIPE_WEBHOOK_SECRET is not set"
        raise RequestRefused(ErrorCode.WEBHOOKS_NOT_CONFIGURED, message)
    raw = _raw_body(flask.request)
    secrets = (settings.stripe_webhook_secret, settings.stripe_webhook_secret_previous)
    try:
        verify(raw, flask.request.headers.get("Stripe-Signature", ""), secrets, time.time())
    except BadSignature as error:
        raise RequestRefused(ErrorCode.BAD_WEBHOOK_SIGNATURE, str(error)) from None
    webhook = _parsed(raw)
    flask.g.facts = {"webhook_id": webhook.id, "webhook_type": webhook.type}
    store(services().sessions, webhook, flask.g.correlation_id)
    return {"received": True}


def _raw_body(request: flask.Request) -> bytes:
    """The bytes that were signed. Raises RequestRefused for more than MAX_WEBHOOK_BYTES of them."""
    too_large = RequestRefused(ErrorCode.PAYLOAD_TOO_LARGE, "The webhook is larger than 512 KiB")
    if (request.content_length or 0) > MAX_WEBHOOK_BYTES:
        raise too_large
    # The application's own limit is for commands. A chunked body is cut off one byte past the limit.
    request.max_content_length = MAX_WEBHOOK_BYTES + 1
    raw = request.get_data()
    if len(raw) > MAX_WEBHOOK_BYTES:
        raise too_large
    return raw


def _parsed(raw: bytes) -> Webhook:
    try:
        event = parse_json(raw, keep_unusable=True)
    except ValueError:
        raise RequestRefused(ErrorCode.MALFORMED_JSON, "The body is not valid JSON") from None
    try:
        return read(event)
    except ValueError as error:
        raise RequestRefused(ErrorCode.VALIDATION_FAILED, str(error)) from None


def store(sessions: Sessions, webhook: Webhook, correlation_id: str | None) -> None:
    """Store a webhook unless it is stored already; of a type that means nothing to us only for the record."""
    inbox = plain(InboxMessage)
    now = func.now()  # one time for both columns
    row = {
        "source": SOURCE,
        "message_id": webhook.id,
        "type": webhook.type,
        "payload": webhook.document,
        "state": InboxState.RECEIVED if webhook.handled else InboxState.IGNORED,
        "next_attempt_at": now if webhook.handled else None,
        "correlation_id": correlation_id,
        "received_at": now,
    }
    with alone(sessions) as connection:
        connection.execute(insert(inbox).values(row).on_conflict_do_nothing())
