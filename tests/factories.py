"""Make valid requests and identifiers, each call a new one; a test names only what it is about."""

import uuid
from decimal import Decimal
from typing import Any

import simplejson


def new_uuid() -> str:
    """Return a fresh uuid as clients write it."""
    return str(uuid.uuid4())


def payment_body(**overrides: Any) -> dict[str, Any]:
    """Return a body for POST /payments that succeeds; an override of None leaves the field out."""
    body = {
        "orderId": new_uuid(),
        "customerId": new_uuid(),
        "amount": Decimal("150.00"),
        "currency": "USD",
        "paymentMethod": "credit_card",
    }
    return {name: value for name, value in (body | overrides).items() if value is not None}


def as_json(body: Any) -> str:
    """Write a body with its decimals exact, as a client should."""
    return simplejson.dumps(body, use_decimal=True)
