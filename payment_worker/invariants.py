"""What must hold for every payment, as far as SQL can state it; a query each finds those that break it."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from sqlalchemy import Connection, text

from shared.payments import DEAD, PAID, PRIMARY, TRANSITIONS, Announcement, Status


def _texts(values: Iterable[str]) -> str:
    return ", ".join(f"'{value}'" for value in sorted(values))


_DEAD, _PAID, _PRIMARY = _texts(DEAD), _texts(PAID), _texts(PRIMARY)
# A payment begins as pending, which announces that it was requested; or announces nothing, where it is to be
# asked for later, or was rebuilt.
_EDGES: Final[list[tuple[Status | None, Status, Announcement | None]]] = [
    (None, Status.PENDING, Announcement.PAYMENT_REQUESTED),
    (None, Status.PENDING, None),
    *((was, now, announced) for (was, now), announced in TRANSITIONS.items()),
]
_TABLE: Final = ", ".join(f"('{was or ''}', '{now}', '{told or ''}')" for was, now, told in _EDGES)
_OPERATIONS: Final = "operation o WHERE o.payment_id = p.id"
_REFUNDS: Final = f"{_OPERATIONS} AND o.kind = 'refund' AND o.target_ref IS NULL"
_CHARGES: Final = f"{_OPERATIONS} AND o.kind IN ({_PRIMARY})"
# An account's payment that nobody has asked to be charged yet.
_UNASKED: Final = f"""p.status = 'pending' AND p.order_id IS NULL AND p.cart_id IS NULL
            AND p.subscription_id IS NULL AND NOT EXISTS (SELECT FROM {_OPERATIONS})"""
_ENTRIES: Final = "timeline_entry t WHERE t.payment_id = p.id"

# Each is a condition on a row `p` of payment that only a broken one fulfils. One statement each: it sees one
# moment of the database, so that a payment that is just changing is never taken for a broken one.
INVARIANTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        # Sums.
        "captured_within_amount": "p.captured_minor NOT BETWEEN 0 AND p.amount_minor",
        "refunded_within_captured": "p.refunded_minor NOT BETWEEN 0 AND p.captured_minor",
        "reserved_is_open_refunds": f"""p.refund_reserved_minor <> (
            SELECT coalesce(sum(o.amount_minor), 0) FROM {_REFUNDS} AND o.finished_at IS NULL)""",
        # A refund that was carried out twice counts twice, and only its own row's sum is known.
        "refunded_is_counted": f"""NOT EXISTS (SELECT FROM {_REFUNDS} AND o.outcome ? 'seconds')
            AND p.refunded_minor <> (
                SELECT coalesce(sum(o.amount_minor), 0) FROM {_REFUNDS} AND o.state = 'succeeded')""",
        "captured_was_asked_for": f"""p.captured_minor > 0 AND NOT EXISTS (
            SELECT FROM {_OPERATIONS} AND o.kind IN ({_PRIMARY}, 'capture') AND o.state = 'succeeded')
            AND NOT EXISTS (SELECT FROM {_OPERATIONS} AND o.needs_review)""",
        # Status.
        "status_fits_sums": f"""CASE
            WHEN p.status = 'succeeded' THEN p.captured_minor <= 0 OR p.refunded_minor <> 0
            WHEN p.status = 'partially_refunded'
                THEN p.refunded_minor <= 0 OR p.refunded_minor >= p.captured_minor
            WHEN p.status = 'refunded'
                THEN p.captured_minor <= 0 OR p.refunded_minor <> p.captured_minor
            WHEN p.status IN ({_DEAD})
                THEN p.captured_minor > 0 AND NOT EXISTS (SELECT FROM {_REFUNDS})
            ELSE p.captured_minor <> 0 OR p.refunded_minor <> 0 END""",
        "processed_has_time": f"p.status IN ({_PAID}, {_DEAD}) AND p.processed_at IS NULL",
        "paid_has_reference": f"""p.status IN ({_PAID})
            AND (p.gateway_ref IS NULL OR p.transaction_id IS NULL)""",
        # One of each.
        "one_live_payment_an_order": f"""p.order_id IS NOT NULL AND p.status NOT IN ({_DEAD}) AND EXISTS (
            SELECT FROM payment q WHERE q.order_id = p.order_id AND q.id <> p.id
            AND q.status NOT IN ({_DEAD}))""",
        "one_live_payment_a_cart": f"""p.cart_id IS NOT NULL AND p.status NOT IN ({_DEAD}) AND EXISTS (
            SELECT FROM payment q WHERE q.cart_id = p.cart_id AND q.id <> p.id
            AND q.status NOT IN ({_DEAD}))""",
        "one_live_charge": f"(SELECT count(*) FROM {_CHARGES} AND o.state <> 'failed') > 1",
        "begins_with_a_charge": f"NOT EXISTS (SELECT FROM {_CHARGES}) AND NOT ({_UNASKED})",
        # Operations.
        "settled_has_no_open_charge": f"""p.status IN ({_PAID}, {_DEAD})
            AND EXISTS (SELECT FROM {_CHARGES} AND o.finished_at IS NULL)""",
        "open_has_a_charge_left": f"""p.status NOT IN ({_PAID}, {_DEAD})
            AND NOT EXISTS (SELECT FROM {_CHARGES} AND o.state <> 'failed') AND NOT ({_UNASKED})""",
        "open_operation_goes_on": f"""EXISTS (SELECT FROM {_OPERATIONS} AND o.finished_at IS NULL
            AND o.next_attempt_at IS NULL AND o.lease_until IS NULL AND o.doubt_since IS NULL
            AND NOT o.needs_review)""",
        "finished_operation_rests": f"""EXISTS (SELECT FROM {_OPERATIONS}
            AND ((o.state IN ('succeeded', 'failed')) <> (o.finished_at IS NOT NULL)
                OR o.finished_at IS NOT NULL
                    AND (o.next_attempt_at IS NOT NULL OR o.doubt_since IS NOT NULL)))""",
        # History.
        "timeline_has_no_gap": f"""(SELECT count(*) <> p.version OR min(t.sequence) <> 1
            OR max(t.sequence) <> p.version FROM {_ENTRIES})""",
        "timeline_ends_at_status": f"""p.status IS DISTINCT FROM (
            SELECT t.to_status FROM {_ENTRIES} AND t.to_status IS NOT NULL
            ORDER BY t.sequence DESC LIMIT 1)""",
        "timeline_moves_by_the_table": f"""EXISTS (
            SELECT FROM (
                SELECT t.from_status, t.to_status, t.announced_type,
                    lag(t.to_status) OVER (ORDER BY t.sequence) AS before
                FROM {_ENTRIES} AND t.to_status IS NOT NULL
            ) moved
            WHERE moved.before IS DISTINCT FROM moved.from_status
                OR (coalesce(moved.from_status, ''), moved.to_status, coalesce(moved.announced_type, ''))
                    NOT IN (VALUES {_TABLE}))""",
        # What was delivered leaves no row; what waits must be what the history says.
        "outbox_is_in_the_history": f"""EXISTS (
            SELECT FROM outbox b WHERE b.aggregateid = p.id AND b.type IN ({_texts(Announcement)})
            AND NOT EXISTS (
                SELECT FROM {_ENTRIES} AND t.announced_id = b.id AND t.announced_type = b.type))""",
    }
)
_QUERIES: Final = {
    name: text(f"SELECT p.id FROM payment p WHERE p.id = ANY(:ids) AND ({condition})")
    for name, condition in INVARIANTS.items()
}

Broken = tuple[str, uuid.UUID]  # the invariant, and the payment that breaks it


def broken(connection: Connection, payment_ids: Sequence[uuid.UUID]) -> list[Broken]:
    """Which of these payments break which invariants. Each query goes by keys: some hundred at a time."""
    return [
        (name, payment_id)
        for name, query in _QUERIES.items()
        for payment_id in connection.scalars(query, {"ids": [*payment_ids]})
    ]
