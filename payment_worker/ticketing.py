"""The ticketing contract's notices: reservations come about, and end."""

from collections.abc import Mapping
from types import MappingProxyType

from payment_worker.handling import Handler, Handling, canonical, moment, time_of
from shared.commands.received import take_in
from shared.commands.reservations import (
    EXPIRED,
    cancel_unpaid,
    expire_reservation,
    note_received,
    record_reservation,
)
from shared.payments import Notice

CONFIRMED = "confirmed"


def handle_reservation(handling: Handling) -> None:
    """Write down what is told of a reservation; once it is over, give up what is not yet paid for it."""
    data = handling.asked.data
    told_of_end = handling.asked.command is Notice.RESERVATION_EXPIRED
    if data["status"] == EXPIRED or (told_of_end and data["status"] != CONFIRMED):
        _end(handling)
        return
    with handling.sessions.begin() as session:
        take_in(session, handling.received)
        record_reservation(
            session,
            canonical(data["reservationId"]),
            canonical(data["customerId"]),
            data["status"],
            expires_at=None if told_of_end else time_of("expiresAt", data["expiresAt"]),
            reason=data["reason"],
        )


def _end(handling: Handling) -> None:
    data = handling.asked.data
    reservation_id = canonical(data["reservationId"])
    named = "expiredAt" if "expiredAt" in data else "expiresAt"
    is_over = expire_reservation(
        handling.sessions,
        handling.received,
        reservation_id,
        canonical(data["customerId"]),
        moment(named, data[named]),
        data["reason"],
    )
    if is_over and handling.settings.reservations == "on":
        after_s = handling.settings.recovery_after_s
        cancel_unpaid(handling.sessions, reservation_id, handling.origin, recovery_after_s=after_s)
    note_received(handling.sessions, handling.received)


HANDLERS: Mapping[Notice, Handler] = MappingProxyType(
    {
        Notice.RESERVATION_CREATED: handle_reservation,
        Notice.RESERVATION_EXPIRED: handle_reservation,
    }
)
