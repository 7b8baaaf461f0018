"""Make and sign webhooks as Stripe does, and send them to a Payment API."""

import hashlib
import hmac
import time
import uuid
from typing import Any, Final

import simplejson

from tests.api import Answer, Client

SECRET: Final = "whsec_of_this_test"
PATH: Final = "/webhooks/stripe"


def event(kind: str = "payment_intent.succeeded", **thing: Any) -> dict[str, Any]:
    """Return an event about an object that has these fields."""
    return {
        "id": f"evt_{uuid.uuid4().hex}",
        "object": "event",
        "type": kind,
        "created": int(time.time()),
        "data": {"object": {"id": f"pi_{uuid.uuid4().hex}", **thing}},
    }


def encoded(document: Any) -> bytes:
    """Write an event as Stripe does, over several lines."""
    return simplejson.dumps(document, indent=2).encode()


def signature(raw: bytes, *secrets: str, age_s: int = 0) -> str:
    """Return the header for a body that was signed `age_s` seconds ago, by each of these secrets."""
    moment = int(time.time()) - age_s
    signed = f"{moment}.".encode() + raw
    codes = [hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest() for secret in secrets or (SECRET,)]
    return ",".join([f"t={moment}", *(f"v1={code}" for code in codes), "v0=of_another_scheme"])


def send(api: Client, document: Any, *secrets: str, age_s: int = 0) -> Answer:
    """Send an event, or bytes as they are, signed."""
    raw = document if isinstance(document, bytes) else encoded(document)
    return api.post(raw, path=PATH, Stripe_Signature=signature(raw, *secrets, age_s=age_s))
