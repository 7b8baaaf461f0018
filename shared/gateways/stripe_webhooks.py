"""Stripe's webhooks: whether one is genuine, and the little of it that is worth keeping."""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

SOURCE = "stripe"  # in the inbox
TOLERANCE_S = 300
HANDLED = frozenset(
    {
        "payment_intent.succeeded",
        "payment_intent.payment_failed",
        "payment_intent.requires_action",
        "payment_intent.processing",
        "payment_intent.amount_capturable_updated",
        "payment_intent.canceled",
        "refund.created",
        "refund.updated",
        "refund.failed",
        "charge.refunded",
        "charge.dispute.created",
        "charge.dispute.updated",
        "charge.dispute.closed",
    }
)
_TIMESTAMP = re.compile(r"t=(\d{1,12})")
_WORD = re.compile(r"[\x21-\x7e]{1,255}")
# What an object keeps: ids, states in Stripe's own words and sums; nothing of a card or a person.
_WORDS = ("id", "object", "status", "payment_intent", "charge", "reason", "currency")
_SUMS = ("amount", "amount_captured", "amount_refunded")
_OURS = ("payment_id", "operation_id")


class BadSignature(Exception):
    """Not signed with a secret of ours, or not at this time; the message says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A webhook, cut down to what its processing may need; `handled` says whether its type means anything."""

    id: str
    type: str
    handled: bool
    document: dict[str, Any]


def verify(raw: bytes, header: str, secrets: Iterable[str], now_s: float) -> None:
    """Raise BadSignature unless one of `secrets` has signed these bytes, within TOLERANCE_S of `now_s`.

    Source: https://docs.stripe.com/webhooks#verify-manually. Times ahead of ours are refused as well: a
    signature that is valid tomorrow could be replayed until then.
    """
    parts = [part.strip() for part in header.split(",")]
    moments = [match[1] for part in parts if (match := _TIMESTAMP.fullmatch(part))]
    signatures = [part.removeprefix("v1=").encode() for part in parts if part.startswith("v1=")]
    if len(moments) != 1 or not signatures:
        raise BadSignature("Stripe-Signature: a time and a v1 signature are expected")
    signed = moments[0].encode() + b"." + raw
    expected = [
        hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest().encode() for secret in secrets if secret
    ]
    # All are compared, so that the time it takes does not tell which secret was meant.
    matches = [hmac.compare_digest(ours, theirs) for ours in expected for theirs in signatures]
    if not any(matches):
        raise BadSignature("Stripe-Signature: no signature fits the body")
    if abs(now_s - int(moments[0])) > TOLERANCE_S:
        raise BadSignature(f"Stripe-Signature: signed more than {TOLERANCE_S} s from now")


def read(event: Any) -> Webhook:
    """Cut an event down. Raises ValueError, naming the field, for what is no event of Stripe's."""
    event = event if isinstance(event, Mapping) else {}
    for name in ("id", "type"):
        if not _word(event.get(name)):
            raise ValueError(f"{name}: must be a text of visible characters")
    data = event.get("data")
    thing = data.get("object") if isinstance(data, Mapping) else None
    handled = event["type"] in HANDLED
    if handled and not (isinstance(thing, Mapping) and _word(thing.get("id"))):
        raise ValueError("data.object: must have an id")
    document = _trimmed(thing if isinstance(thing, Mapping) else {})
    return Webhook(id=event["id"], type=event["type"], handled=handled, document=document)


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) and _WORD.fullmatch(value) else None


def _trimmed(thing: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {name: word for name in _WORDS if (word := _word(thing.get(name)))}
    kept |= {name: thing[name] for name in _SUMS if type(thing.get(name)) is int}
    labels = thing.get("metadata")
    ours = labels if isinstance(labels, Mapping) else {}
    kept["metadata"] = {name: word for name in _OURS if (word := _word(ours.get(name)))}
    return kept
