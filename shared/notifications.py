"""Notifications, pure: which events there are to hear, and how a webhook is signed.

Signatures follow the Standard Webhooks specification: https://github.com/standard-webhooks/standard-webhooks.
"""

import base64
import hashlib
import hmac
import secrets
import uuid
from datetime import timedelta
from typing import Any, Final

from shared.payments import Announcement

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - how every such secret begins
SECRET_BYTES: Final = 32  # the specification asks for 24 to 64
PREVIOUS_SIGNS_FOR: Final = timedelta(hours=24)  # after a rotation
RETRIED_FOR: Final = timedelta(days=3)  # from a delivery's first attempt; then it is exhausted
# What subscribers may hear of: everything that is announced about payments.
NOTIFIED: Final = tuple(
    str(each) for each in Announcement if each is not Announcement.NOTIFICATION_ENDPOINT_DISABLED
)

# What a sealed token of an order callback belongs to.
ORDER_TOKEN: Final = "order_callback.token"  # noqa: S105 - a name
# The receiver of order callbacks stands beside the subscribers' endpoints, and is named by a setting.
ORDER_SERVICE: Final = uuid.UUID(int=0)
ORDER_STATUS: Final = {
    str(Announcement.PAYMENT_SUCCEEDED): "PAYMENT RECEIVED",
    str(Announcement.PAYMENT_FAILED): "PAYMENT FAILED",
    str(Announcement.PAYMENT_CANCELLED): "PAYMENT FAILED",
}


def new_secret() -> str:
    """A secret that nobody has, as subscribers get to see it."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def signed_headers(event_id: str, at_s: int, body: bytes, keys: list[str]) -> dict[str, str]:
    """The headers of a webhook: its id, the attempt's time in seconds, and one signature for each secret."""
    content = f"{event_id}.{at_s}.".encode() + body
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": " ".join(f"v1,{_signature(key, content)}" for key in keys),
    }


def _signature(secret: str, content: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    return base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()


def message(event_type: str, at: str, data: dict[str, Any]) -> dict[str, Any]:
    """What a webhook says: the event's type, its time and, as on Kafka, its value."""
    return {"type": event_type, "timestamp": at, "data": data}
