"""The ticketing contract on Kafka: what its reservations tell us; pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from shared.message_fields import ID, WORDS_OR_NULL, message
from shared.payments import Notice

STATUSES: Final = ("active", "expired", "confirmed")
_MOMENT: Final = {"type": "string", "format": "date-time"}
# Seats and whatever else is told beside these is none of our business, and not looked at.
_RESERVATION: Final[dict[str, Any]] = {
    "reservationId": ID,
    "customerId": ID,
    "status": {"enum": list(STATUSES)},
    "reason": WORDS_OR_NULL,
}

TICKETING_SCHEMAS: Final[Mapping[Notice, dict[str, Any]]] = MappingProxyType(
    {
        Notice.RESERVATION_CREATED: message(
            "Seats are kept for a customer until a moment",
            {**_RESERVATION, "expiresAt": _MOMENT},
            required=("reservationId", "customerId", "status", "expiresAt"),
        ),
        Notice.RESERVATION_EXPIRED: message(
            "Seats are no longer kept: what is not yet paid for them is given up",
            {**_RESERVATION, "expiredAt": _MOMENT},
            required=("reservationId", "customerId", "status", "expiredAt"),
        ),
    }
)
